// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! What an endpoint's answer means, and what it means that there is none.
//!
//! An endpoint that cannot serve says so in many ways, and each release in others: a member that learns, shuts down or has
//! no leader, a balancer without a backend. So it is the other way round: what is known to be a refusal of the question is
//! one, and all else is no answer, for which another endpoint is asked.

use std::ops::RangeInclusive;

use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http::StatusCode;

use crate::failure::Failure;
use crate::options::TLS;
use crate::wire::{self, Refusal};

/// Those of gRPC.
const CODES: RangeInclusive<i64> = 1..=16;
const INVALID_ARGUMENT: i64 = 3;
const NOT_FOUND: i64 = 5;
const ALREADY_EXISTS: i64 = 6;
const PERMISSION_DENIED: i64 = 7;
const RESOURCE_EXHAUSTED: i64 = 8;
const OUT_OF_RANGE: i64 = 11;
const UNAUTHENTICATED: i64 = 16;

/// In words, whatever its code: the login is missing, wrong or over. A token outlives no change of users or roles.
const LOGIN: [&str; 4] =
    ["user name is empty", "authentication failed", "auth store is old", "revision in header is old"];

/// Whether a request without an answer may have reached the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    Maybe,
    No,
}

/// Why there is no answer to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// Nobody answered, or nobody who could.
    Unreachable(Failure, Sent),
    /// The lease that the request named is over.
    NoLease,
    /// The server said no.
    Refused(Failure),
}

impl NoAnswer {
    pub(crate) fn into_failure(self) -> Failure {
        match self {
            Self::Unreachable(failure, _) | Self::Refused(failure) => failure,
            Self::NoLease => Failure::new(libc::EKEYEXPIRED, "the lease is over; lock again"),
        }
    }

    /// Whether the server said so.
    pub(crate) fn says(&self, words: &str) -> bool {
        matches!(self, Self::Unreachable(failure, _) | Self::Refused(failure) if failure.text.contains(words))
    }

    /// Whether the request may have been carried out, or may be yet.
    pub(crate) fn is_in_doubt(&self) -> bool {
        matches!(self, Self::Unreachable(_, Sent::Maybe))
    }

    /// The same of a question that was asked before the one that counts.
    pub(crate) fn of_another_question(self) -> Self {
        match self {
            Self::Unreachable(failure, _) => Self::Unreachable(failure, Sent::No),
            other => other,
        }
    }
}

/// Who is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'c> {
    pub(crate) endpoint: &'c str,
    /// The id of the cluster that the locks are in, once it is known.
    pub(crate) identity: Option<&'c str>,
}

impl Asked<'_> {
    pub(crate) fn failure(&self, errno: i32, what: &str) -> Failure {
        Failure::new(errno, format!("etcd at {}: {what}", self.endpoint))
    }

    /// Why nothing came.
    pub(crate) fn silent(&self, error: &ureq::Error) -> NoAnswer {
        let errno = match error {
            ureq::Error::Io(error) => error.raw_os_error().unwrap_or(libc::EHOSTUNREACH),
            ureq::Error::Timeout(_) => libc::ETIMEDOUT,
            ureq::Error::HostNotFound => libc::EHOSTUNREACH,
            _ => libc::EPROTO,
        };
        let way_out = match error {
            ureq::Error::Timeout(_) => "it may be stopped, or its cluster has no quorum; see `etcdctl endpoint status`",
            ureq::Error::Io(error) if error.raw_os_error().is_some() => "start etcd there, or name other endpoints",
            ureq::Error::Io(_) if self.endpoint.starts_with(TLS) => {
                "check the ca, the certificate and the key in the configuration file, and the name in the server's"
            }
            ureq::Error::Io(_) => "it may have ended, or want TLS: then name a ca in a configuration file",
            ureq::Error::HostNotFound => "start etcd there, or name other endpoints",
            _ => "check that the endpoint is the client port of an etcd, and its certificates",
        };
        // There was no connection. Others may come of one that there was.
        let sent = match error {
            ureq::Error::HostNotFound => Sent::No,
            ureq::Error::Io(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => Sent::No,
            _ => Sent::Maybe,
        };
        NoAnswer::Unreachable(self.failure(errno, &format!("no answer: {error}; {way_out}")), sent)
    }

    /// What came.
    pub(crate) fn understood<T: DeserializeOwned>(&self, status: StatusCode, text: &str) -> Result<T, NoAnswer> {
        let Ok(value) = serde_json::from_str::<Value>(text) else { return Err(self.no_etcd(status, text)) };
        let (own, answering) = (self.identity, wire::cluster_of(&value));
        if let (Some(own), Some(other)) = (own, answering)
            && own != other
        {
            return Err(self.of_another_cluster(own, other));
        }
        if let Some(refusal) = Refusal::of(status.is_success(), &value) {
            return Err(self.refused(refusal, status, text));
        }
        // Every answer to a question says of which cluster it is. Nothing at all would be an answer, too: that no key is
        // there, or no lease.
        if own.is_some() && answering.is_none() {
            return Err(self.no_etcd(status, text));
        }
        serde_json::from_value(value).map_err(|_| self.no_etcd(status, text))
    }

    /// Once the endpoint was an etcd, what is none will pass, as a balancer that has no backend.
    fn no_etcd(&self, status: StatusCode, text: &str) -> NoAnswer {
        const SHOWN: usize = 60;
        let start: String = text.chars().take(SHOWN).collect();
        let what =
            format!("its answer is not etcd's (it begins {start:?}); name the client port of an etcd 3.4 or later");
        let failure = self.failure(libc::EPROTO, &what);
        let is_busy = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status);
        if self.identity.is_some() || is_busy || status.is_server_error() {
            NoAnswer::Unreachable(failure, Sent::Maybe)
        } else {
            NoAnswer::Refused(failure)
        }
    }

    fn of_another_cluster(&self, own: &str, other: &str) -> NoAnswer {
        let what = format!(
            "it is of the cluster {other}, but the locks are in {own}; name endpoints of one cluster, or open the locks \
             anew if this one has taken the other's place"
        );
        NoAnswer::Unreachable(self.failure(libc::EPROTO, &what), Sent::No)
    }

    fn refused(&self, Refusal { message, code }: Refusal, status: StatusCode, text: &str) -> NoAnswer {
        let lower = message.to_lowercase();
        let refused = |errno, way_out| NoAnswer::Refused(self.failure(errno, &format!("{message}; {way_out}")));
        match code {
            NOT_FOUND if lower.contains("lease") => NoAnswer::NoLease,
            UNAUTHENTICATED | PERMISSION_DENIED => refused(libc::EACCES, "check the user, the password and the role"),
            _ if LOGIN.iter().any(|words| lower.contains(words)) => {
                refused(libc::EACCES, "check the user and the password")
            }
            RESOURCE_EXHAUSTED if lower.contains("database space exceeded") => {
                refused(libc::ENOSPC, "compact and defragment it, and disarm the alarm")
            }
            INVALID_ARGUMENT | NOT_FOUND | ALREADY_EXISTS | OUT_OF_RANGE => refused(libc::EIO, "see the server's log"),
            _ if self.identity.is_none() && !CODES.contains(&code) => self.no_etcd(status, text),
            _ => {
                let what = format!(
                    "{message}; it or its cluster may not be able to serve, as without a leader: see `etcdctl endpoint \
                     status`"
                );
                NoAnswer::Unreachable(self.failure(libc::EHOSTUNREACH, &what), Sent::Maybe)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Asked<'_> = Asked { endpoint: "http://a:2379", identity: Some("1") };
    const GOOD: StatusCode = StatusCode::OK;

    fn said(asked: Asked<'_>, status: StatusCode, text: &str) -> Result<Value, NoAnswer> {
        asked.understood(status, text)
    }

    fn errno_of(refused: Result<Value, NoAnswer>) -> i32 {
        match refused {
            Err(NoAnswer::Refused(failure)) => failure.errno,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_was_sent_on_a_connection_is_in_doubt() {
        let in_doubt = |error: std::io::Error| AT.silent(&ureq::Error::Io(error)).is_in_doubt();
        assert!(!in_doubt(std::io::Error::from_raw_os_error(libc::ECONNREFUSED)));
        for errno in [libc::ECONNRESET, libc::EPIPE, libc::EHOSTUNREACH] {
            assert!(in_doubt(std::io::Error::from_raw_os_error(errno)));
        }
        assert!(in_doubt(std::io::ErrorKind::UnexpectedEof.into()));
    }

    #[test]
    fn who_cannot_serve_is_no_refusal() {
        for (code, message) in [
            (14, "etcdserver: no leader"),
            (14, "etcdserver: leader changed"),
            (4, "context deadline exceeded"),
            // A member that only learns, to 3.5 and from 3.6 on.
            (14, "etcdserver: rpc not supported for learner"),
            (9, "etcdserver: rpc not supported for learner"),
            (2, "raft proposal dropped"),
            (2, "etcdserver: too many requests"),
            (2, "lease: not a primary lessor"),
            (1, "grpc: the client connection is closing"),
            (15, "etcdserver: corrupt cluster"),
            (0, "what nobody has heard of"),
        ] {
            let text = serde_json::json!({"code": code, "message": message}).to_string();
            let answer = said(AT, StatusCode::BAD_REQUEST, &text);
            assert!(answer.as_ref().is_err_and(NoAnswer::is_in_doubt), "{message}: {answer:?}");
        }
    }

    #[test]
    fn what_will_be_refused_everywhere_is_a_refusal() {
        for (code, message, errno) in [
            (3, "etcdserver: user name is empty", libc::EACCES),
            (3, "etcdserver: authentication failed, invalid user ID or password", libc::EACCES),
            (3, "etcdserver: revision of auth store is old", libc::EACCES),
            (2, "auth: revision in header is old", libc::EACCES),
            (7, "etcdserver: permission denied", libc::EACCES),
            (16, "etcdserver: invalid auth token", libc::EACCES),
            (8, "etcdserver: mvcc: database space exceeded", libc::ENOSPC),
            (11, "etcdserver: mvcc: required revision has been compacted", libc::EIO),
            (3, "etcdserver: too many operations in txn request", libc::EIO),
        ] {
            let text = serde_json::json!({"code": code, "message": message}).to_string();
            assert_eq!(errno_of(said(AT, StatusCode::BAD_REQUEST, &text)), errno, "{message}");
        }
        let no_lease = r#"{"code":5,"message":"etcdserver: requested lease not found"}"#;
        assert_eq!(said(AT, StatusCode::NOT_FOUND, no_lease), Err(NoAnswer::NoLease));
    }

    #[test]
    fn what_is_not_etcds_passes_where_there_was_an_etcd() {
        let unknown = Asked { identity: None, ..AT };
        for text in ["<html>welcome</html>", "", "3"] {
            assert!(said(AT, GOOD, text).is_err_and(|no| no.is_in_doubt()), "{text}");
        }
        assert_eq!(errno_of(said(unknown, GOOD, "<html>welcome</html>")), libc::EPROTO);
        assert_eq!(errno_of(said(unknown, StatusCode::NOT_FOUND, "404 page not found")), libc::EPROTO);
        assert_eq!(errno_of(said(unknown, StatusCode::NOT_FOUND, r#"{"message":"no route"}"#)), libc::EPROTO);
        assert!(said(unknown, StatusCode::BAD_GATEWAY, "<html>").is_err_and(|no| no.is_in_doubt()));
    }

    #[test]
    fn an_answer_is_one_of_the_cluster() {
        let of = |cluster: &str| serde_json::json!({"header": {"cluster_id": cluster}}).to_string();
        assert!(said(AT, GOOD, &of("1")).is_ok());
        assert!(said(AT, GOOD, &format!(r#"{{"result":{}}}"#, of("1"))).is_ok());
        for other in [of("2"), format!(r#"{{"result":{}}}"#, of("2"))] {
            assert!(matches!(said(AT, GOOD, &other), Err(NoAnswer::Unreachable(_, Sent::No))));
        }
        // That would be: no such key, no such lease, the locks are removed.
        for nothing in ["{}", r#"{"status":"maintenance"}"#, r#"{"result":{}}"#] {
            assert!(said(AT, GOOD, nothing).is_err_and(|no| no.is_in_doubt()), "{nothing}");
        }
    }
}
