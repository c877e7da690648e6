// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Where the cluster is, and how it is used: the address, and what stands in a configuration file.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::failure::{Failure, Outcome};

/// The least lease that outlives an election of a cluster with its default times.
pub const LEAST_TTL: Duration = Duration::from_secs(2);
/// The lease unless the options say otherwise.
pub const DEFAULT_TTL: Duration = Duration::from_secs(10);
const DEFAULT_PATIENCE: Duration = Duration::from_secs(10);
const MOST_TTL: Duration = Duration::from_secs(3600);
const SCHEME: &str = "etcd://";
/// How endpoints are spoken to.
const PLAIN: &str = "http://";
pub(crate) const TLS: &str = "https://";
const LONGEST_PREFIX: usize = 200;
/// How often a lease is renewed while it lasts.
const RENEWALS: u32 = 3;
/// The longest that one endpoint is waited for.
const LONGEST_REQUEST: Duration = Duration::from_secs(1);

/// How a cluster is used.
#[derive(Clone)]
pub struct Options {
    pub(crate) endpoints: Vec<String>,
    pub(crate) prefix: String,
    pub(crate) ttl: Duration,
    pub(crate) patience: Duration,
    pub(crate) host: Option<String>,
    pub(crate) ca: Option<Vec<u8>>,
    pub(crate) certificate: Option<(Vec<u8>, Vec<u8>)>,
    pub(crate) user: Option<(String, String)>,
}

impl fmt::Debug for Options {
    /// Without what is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoints, prefix, ttl, host, .. } = self;
        let fields = (endpoints, prefix, ttl, host);
        f.debug_tuple("Options").field(&fields).finish()
    }
}

impl Options {
    /// Of an address: `etcd://host:port,host:port/prefix`.
    ///
    /// # Errors
    /// `EINVAL` if it is none.
    pub fn of_address(address: &str) -> Outcome<Self> {
        let wrong = |why: &str| {
            Failure::bad(format!(
                "{address:?} is not the address of locks in etcd: {why}; write etcd://host:port,host:port/prefix"
            ))
        };
        let rest = address.strip_prefix(SCHEME).ok_or_else(|| wrong("it does not begin with etcd://"))?;
        let (hosts, prefix) = rest.split_once('/').ok_or_else(|| wrong("it has no prefix"))?;
        let prefix = prefix.trim_end_matches('/');
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if prefix.is_empty() || prefix.len() > LONGEST_PREFIX || !prefix.chars().all(is_plain) {
            return Err(wrong("the prefix must be 1 to 200 letters, digits and -_./"));
        }
        let mut endpoints = Vec::new();
        for host in hosts.split(',') {
            if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control() || "@/?#".contains(c)) {
                return Err(wrong("an endpoint is a host and a port, with no user and no password"));
            }
            let port = host.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            if port.is_none() {
                return Err(wrong("an endpoint has no port"));
            }
            endpoints.push(format!("{PLAIN}{host}"));
        }
        Ok(Self {
            endpoints,
            prefix: prefix.to_owned(),
            ttl: DEFAULT_TTL,
            patience: DEFAULT_PATIENCE,
            host: None,
            ca: None,
            certificate: None,
            user: None,
        })
    }

    /// Sets how long a host that is not heard of keeps its locks: 2 s to 1 hour, 10 s unless it is set.
    ///
    /// # Errors
    /// `EINVAL` for another time.
    pub fn ttl(mut self, ttl: Duration) -> Outcome<Self> {
        if ttl < LEAST_TTL || ttl > MOST_TTL {
            let text = format!("a TTL of {ttl:?} is not possible; choose one from {LEAST_TTL:?} to {MOST_TTL:?}");
            return Err(Failure::bad(text));
        }
        // etcd counts in seconds.
        self.ttl = Duration::from_secs(ttl.as_secs());
        Ok(self)
    }

    /// Sets how long a call without a deadline of its own waits for the cluster to answer: 10 s unless it is set.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Names the host, if not by its boot id: processes with the same name share the first locks.
    ///
    /// # Errors
    /// `EINVAL` for an empty name, or one with other characters than letters, digits and -_.
    pub fn host(mut self, name: &str) -> Outcome<Self> {
        const LONGEST: usize = 64;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > LONGEST || !name.chars().all(is_plain) {
            return Err(Failure::bad("the name of the host must be 1 to 64 letters, digits and -_."));
        }
        self.host = Some(name.to_owned());
        Ok(self)
    }

    /// Reads what a configuration file says: lines such as `ttl = 10`, `ca = /path`, `certificate = /path`, `key = /path`,
    /// `user = name`, `password_file = /path`, `host = name`, `patience = 10`.
    ///
    /// # Errors
    /// `EINVAL` for a line that is none of these; errors of reading the files.
    pub fn configured_by(mut self, file: &Path) -> Outcome<Self> {
        let text = String::from_utf8_lossy(&read(file)?).into_owned();
        let (mut user, mut password, mut certificate, mut key) = (None, None, None, None);
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why: &str| Failure::bad(format!("{}, line {}: {why}", file.display(), number + 1));
            let (name, value) = line.split_once('=').ok_or_else(|| wrong("it is not `name = value`"))?;
            let value = value.trim();
            let seconds = || {
                value
                    .parse()
                    .map(|seconds: u32| Duration::from_secs(seconds.into()))
                    .map_err(|_| wrong("it needs a number of seconds"))
            };
            match name.trim() {
                "ttl" => self = self.ttl(seconds()?)?,
                "patience" => self.patience = seconds()?,
                "host" => self = self.host(value)?,
                "ca" => self.ca = Some(read(Path::new(value))?),
                "certificate" => certificate = Some(read(Path::new(value))?),
                "key" => key = Some(read(Path::new(value))?),
                "user" => user = Some(value.to_owned()),
                "password_file" => {
                    let read = read(Path::new(value))?;
                    password = Some(String::from_utf8_lossy(&read).trim_end_matches('\n').to_owned());
                }
                _ => {
                    return Err(wrong(
                        "no such setting; there are ttl, patience, host, ca, certificate, key, user and password_file",
                    ));
                }
            }
        }
        let unpaired = |what: &str| Failure::bad(format!("{}: {what}", file.display()));
        if user.is_some() != password.is_some() {
            return Err(unpaired("a user needs a password_file, and a password_file needs a user"));
        }
        if certificate.is_some() != key.is_some() {
            return Err(unpaired("a certificate needs a key, and a key needs a certificate"));
        }
        self.user = user.zip(password);
        self.certificate = certificate.zip(key);
        Ok(self.with_tls_as_needed())
    }

    /// TLS where a CA or a certificate is given.
    fn with_tls_as_needed(mut self) -> Self {
        if self.ca.is_some() || self.certificate.is_some() {
            for endpoint in &mut self.endpoints {
                *endpoint = endpoint.replacen(PLAIN, TLS, 1);
            }
        }
        self
    }

    /// How errors call the storage.
    pub(crate) fn name(&self) -> String {
        let hosts: Vec<_> = self.endpoints.iter().filter_map(|endpoint| endpoint.split("://").nth(1)).collect();
        format!("{SCHEME}{}/{}", hosts.join(","), self.prefix)
    }

    pub(crate) fn renewal(&self) -> Duration {
        self.ttl / RENEWALS
    }

    /// How long one endpoint is waited for before the next is asked. Two of them fit between two renewals.
    pub(crate) fn request_timeout(&self) -> Duration {
        (self.ttl / (2 * RENEWALS)).min(LONGEST_REQUEST)
    }
}

fn read(path: &Path) -> Outcome<Vec<u8>> {
    std::fs::read(path).map_err(|error| Failure::of_system(&format!("reading {}", path.display()), &error))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_endpoints_and_a_prefix() {
        let options = Options::of_address("etcd://a:1,b:2/app/locks/").unwrap();
        assert_eq!(options.endpoints, ["http://a:1", "http://b:2"]);
        assert_eq!((options.prefix.as_str(), options.name().as_str()), ("app/locks", "etcd://a:1,b:2/app/locks"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "",
            "etcd://",
            "http://a:1/p",
            "etcd://a:1",
            "etcd://a:1/",
            "etcd://a/p",
            "etcd://u:p@a:1/p",
            "etcd://a:1/p q",
        ] {
            assert_eq!(Options::of_address(bad).unwrap_err().errno, libc::EINVAL, "{bad:?}");
        }
        let options = || Options::of_address("etcd://a:1/p").unwrap();
        assert!(options().ttl(Duration::from_secs(1)).is_err());
        assert!(options().host("a/b").is_err());
    }
}
