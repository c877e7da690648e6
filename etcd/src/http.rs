// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Requests to an etcd cluster: one connection for questions, one for the stream of a watch. After a failure the next
//! endpoint is asked.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use ureq::config::Config;
use ureq::http::Response;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, DefaultConnector, LazyBuffers, NextTimeout, RustlsConnector, Transport,
};
use ureq::{Agent, Body};

use crate::failure::{Failure, Outcome};
use crate::options::{Options, TLS};
use crate::resolving::AddressesFirst;
use crate::wire::{self, Refusal, Streamed, TokenResponse};

const UNAVAILABLE: i64 = 14;
const DEADLINE_EXCEEDED: i64 = 4;
const NOT_FOUND: i64 = 5;
const UNAUTHENTICATED: i64 = 16;
const PERMISSION_DENIED: i64 = 7;

/// Why there is no answer to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// Nobody answered, or nobody who could. The request may have been carried out, or may be yet.
    Unreachable(Failure),
    /// The lease that the request named is over.
    NoLease,
    /// The server said no.
    Refused(Failure),
}

impl NoAnswer {
    pub(crate) fn into_failure(self) -> Failure {
        match self {
            Self::Unreachable(failure) | Self::Refused(failure) => failure,
            Self::NoLease => Failure::new(libc::EKEYEXPIRED, "the lease is over; lock again"),
        }
    }
}

/// A cluster, by its endpoints.
pub(crate) struct Cluster {
    endpoints: Vec<String>,
    current: usize,
    agent: Agent,
    watcher: Agent,
    watched: Arc<Mutex<Option<TcpStream>>>,
    user: Option<(String, String)>,
    token: Option<String>,
    /// The id of the cluster that the locks are in, once it is known.
    identity: Option<String>,
}

impl Cluster {
    pub(crate) fn new(options: &Options) -> Outcome<Self> {
        let config = || -> Outcome<Config> {
            let builder = Agent::config_builder()
                .proxy(None)
                .http_status_as_error(false)
                .max_redirects(0)
                .max_idle_connections(1)
                .max_idle_connections_per_host(1)
                .tls_config(tls_config(options)?);
            Ok(builder.build())
        };
        let watched = Arc::new(Mutex::new(None));
        let plain = || ().chain(StreamConnector(Arc::clone(&watched))).chain(RustlsConnector::default());
        Ok(Self {
            endpoints: options.endpoints.clone(),
            current: std::process::id() as usize % options.endpoints.len().max(1),
            agent: Agent::with_parts(config()?, DefaultConnector::default(), AddressesFirst::default()),
            watcher: Agent::with_parts(config()?, plain(), AddressesFirst::default()),
            watched: Arc::clone(&watched),
            user: options.user.clone(),
            token: None,
            identity: None,
        })
    }

    /// From here on, what another cluster says is no answer: a lock that is free there may be held here.
    pub(crate) fn stay_in(&mut self, identity: &str) {
        self.identity = Some(identity.to_owned()).filter(|identity| !identity.is_empty());
    }

    /// The endpoint that is asked next.
    pub(crate) fn endpoint(&self) -> &str {
        self.endpoints.get(self.current).map_or("", String::as_str)
    }

    pub(crate) fn next_endpoint(&mut self) {
        self.current = (self.current + 1) % self.endpoints.len().max(1);
    }

    pub(crate) fn num_endpoints(&self) -> usize {
        self.endpoints.len()
    }

    fn failure(&self, errno: i32, what: &str) -> Failure {
        Failure::new(errno, format!("etcd at {}: {what}", self.endpoint()))
    }

    fn unreachable(&self, error: &ureq::Error) -> Failure {
        let errno = match error {
            ureq::Error::Io(error) => error.raw_os_error().unwrap_or(libc::EHOSTUNREACH),
            ureq::Error::Timeout(_) => libc::ETIMEDOUT,
            ureq::Error::HostNotFound => libc::EHOSTUNREACH,
            _ => libc::EPROTO,
        };
        let way_out = match error {
            ureq::Error::Timeout(_) => "it may be stopped, or its cluster has no quorum; see `etcdctl endpoint status`",
            ureq::Error::Io(error) if error.raw_os_error().is_some() => "start etcd there, or name other endpoints",
            ureq::Error::Io(_) if self.endpoint().starts_with(TLS) => {
                "check the ca, the certificate and the key in the configuration file, and the name in the server's"
            }
            ureq::Error::Io(_) => "it may have ended, or want TLS: then name a ca in a configuration file",
            ureq::Error::HostNotFound => "start etcd there, or name other endpoints",
            _ => "check that the endpoint is the client port of an etcd, and its certificates",
        };
        self.failure(errno, &format!("no answer: {error}; {way_out}"))
    }

    /// Asks one endpoint once. An endpoint that gives no answer is not asked next.
    pub(crate) fn ask<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &Value,
        timeout: Duration,
    ) -> Result<T, NoAnswer> {
        let had_token = self.token.is_some();
        let mut answer = self.ask_with_token(path, body, timeout);
        // A token that was not used for some minutes is over. What it was refused for was not carried out.
        if had_token && matches!(&answer, Err(NoAnswer::Refused(failure)) if failure.errno == libc::EACCES) {
            self.forget_token();
            answer = self.ask_with_token(path, body, timeout);
        }
        if matches!(answer, Err(NoAnswer::NoLease)) {
            answer = self.no_lease_of_this_cluster(timeout);
        }
        if matches!(answer, Err(NoAnswer::Unreachable(_))) {
            self.next_endpoint();
        }
        answer
    }

    /// That answer does not say of which cluster it is. Another cluster's would take all locks of the lease from their
    /// holders, so this asks for what does say so: no lease has the number 0.
    fn no_lease_of_this_cluster<T>(&mut self, timeout: Duration) -> Result<T, NoAnswer> {
        match self.ask_with_token::<Value>("/v3/lease/timetolive", &json!({}), timeout) {
            Err(NoAnswer::Unreachable(failure)) => Err(NoAnswer::Unreachable(failure)),
            _ => Err(NoAnswer::NoLease),
        }
    }

    fn ask_with_token<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &Value,
        timeout: Duration,
    ) -> Result<T, NoAnswer> {
        self.authenticate(timeout)?;
        self.ask_as_known(path, body, timeout)
    }

    /// Has the next question log in anew.
    pub(crate) fn forget_token(&mut self) {
        self.token = None;
    }

    /// Logs in, where there is a user who has not.
    fn authenticate(&mut self, timeout: Duration) -> Result<(), NoAnswer> {
        if self.token.is_some() {
            return Ok(());
        }
        let Some((name, password)) = self.user.clone() else { return Ok(()) };
        let body = json!({"name": name, "password": password});
        let answer: TokenResponse = self.ask_as_known("/v3/auth/authenticate", &body, timeout)?;
        self.token = Some(answer.token);
        Ok(())
    }

    fn ask_as_known<T: DeserializeOwned>(&self, path: &str, body: &Value, timeout: Duration) -> Result<T, NoAnswer> {
        let request =
            self.agent.post(format!("{}{path}", self.endpoint())).config().timeout_global(Some(timeout)).build();
        let request = match &self.token {
            Some(token) => request.header("Authorization", token),
            None => request,
        };
        self.heard(request.send(body.to_string()))
    }

    /// Reads a path that is no part of the gateway.
    pub(crate) fn read<T: DeserializeOwned>(&mut self, path: &str, timeout: Duration) -> Result<T, NoAnswer> {
        let request =
            self.agent.get(format!("{}{path}", self.endpoint())).config().timeout_global(Some(timeout)).build();
        let read = self.heard(request.call());
        if read.is_err() {
            self.next_endpoint();
        }
        read
    }

    fn heard<T: DeserializeOwned>(&self, response: Result<Response<Body>, ureq::Error>) -> Result<T, NoAnswer> {
        let read =
            |mut response: Response<Body>| Ok((response.status().is_success(), response.body_mut().read_to_string()?));
        let unreachable = |error| NoAnswer::Unreachable(self.unreachable(&error));
        let (is_success, text) = response.and_then(read).map_err(unreachable)?;
        self.understood(is_success, &text)
    }

    fn understood<T: DeserializeOwned>(&self, is_success: bool, text: &str) -> Result<T, NoAnswer> {
        const SHOWN: usize = 60;
        let garbage = || {
            let start: String = text.chars().take(SHOWN).collect();
            let what =
                format!("its answer is not etcd's (it begins {start:?}); name the client port of an etcd 3.4 or later");
            NoAnswer::Refused(self.failure(libc::EPROTO, &what))
        };
        let value: Value = serde_json::from_str(text).map_err(|_| garbage())?;
        if let (Some(own), Some(other)) = (&self.identity, wire::cluster_of(&value))
            && own != other
        {
            let what = format!(
                "it is of the cluster {other}, but the locks are in {own}; name endpoints of one cluster, or open the \
                 locks anew if this one has taken the other's place"
            );
            return Err(NoAnswer::Unreachable(self.failure(libc::EPROTO, &what)));
        }
        let Some(Refusal { message, code }) = Refusal::of(is_success, &value) else {
            return serde_json::from_value(value).map_err(|_| garbage());
        };
        let lower = message.to_lowercase();
        let refused = |errno, way_out| Err(NoAnswer::Refused(self.failure(errno, &format!("{message}; {way_out}"))));
        match code {
            NOT_FOUND if lower.contains("lease") => Err(NoAnswer::NoLease),
            UNAVAILABLE | DEADLINE_EXCEEDED => {
                let what = format!("{message}; its cluster may have no leader: see `etcdctl endpoint status`");
                Err(NoAnswer::Unreachable(self.failure(libc::EHOSTUNREACH, &what)))
            }
            _ if lower.contains("no leader") || lower.contains("timed out") => {
                let what = format!("{message}; its cluster may have no quorum: see `etcdctl endpoint status`");
                Err(NoAnswer::Unreachable(self.failure(libc::EHOSTUNREACH, &what)))
            }
            UNAUTHENTICATED | PERMISSION_DENIED => refused(libc::EACCES, "check the user, the password and the role"),
            _ if lower.contains("user name is empty") || lower.contains("authentication failed") => {
                refused(libc::EACCES, "check the user and the password")
            }
            _ if lower.contains("database space exceeded") => {
                refused(libc::ENOSPC, "compact and defragment it, and disarm the alarm")
            }
            _ => refused(libc::EIO, "see the server's log"),
        }
    }

    /// Opens a stream of a watch. `body`: the requests, one after another.
    pub(crate) fn watch(&mut self, body: &str, timeout: Duration) -> Result<Stream, NoAnswer> {
        self.authenticate(timeout)?;
        let request = self.watcher.post(format!("{}/v3/watch", self.endpoint()));
        let config = request.config().timeout_connect(Some(timeout)).timeout_recv_response(Some(timeout));
        let request = config.timeout_send_body(Some(timeout)).build();
        let request = match &self.token {
            Some(token) => request.header("Authorization", token),
            None => request,
        };
        let sent = request.send(body);
        let socket = self.watched.lock().unwrap_or_else(PoisonError::into_inner).take();
        let unreachable = |failure| NoAnswer::Unreachable(failure);
        let response = match sent {
            Ok(response) => response,
            Err(error) => {
                let failure = self.unreachable(&error);
                self.next_endpoint();
                return Err(unreachable(failure));
            }
        };
        let Some(socket) = socket.filter(|socket| socket.set_nonblocking(true).is_ok()) else {
            return Err(unreachable(self.failure(libc::EIO, "the stream has no socket; try again")));
        };
        Ok(Stream { socket, reader: Box::new(response.into_body().into_reader()), read: Vec::new() })
    }
}

fn tls_config(options: &Options) -> Outcome<TlsConfig> {
    let unusable =
        |what: &str, error: &ureq::Error| Failure::bad(format!("the {what} is not PEM that can be used: {error}"));
    let mut builder = TlsConfig::builder();
    if let Some(pem) = &options.ca {
        let roots: Vec<_> = certificates(pem).map_err(|error| unusable("CA file", &error))?;
        builder = builder.root_certs(RootCerts::new_with_certs(&roots));
    }
    if let Some((chain, key)) = &options.certificate {
        let chain = certificates(chain).map_err(|error| unusable("certificate file", &error))?;
        let key = PrivateKey::from_pem(key).map_err(|error| unusable("key file", &error))?;
        builder = builder.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
    }
    Ok(builder.build())
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate<'static>>, ureq::Error> {
    let mut found = Vec::new();
    for item in ureq::tls::parse_pem(pem) {
        if let ureq::tls::PemItem::Certificate(certificate) = item? {
            found.push(certificate);
        }
    }
    Ok(found)
}

/// The stream of a watch, read as far as there is something to read.
pub(crate) struct Stream {
    socket: TcpStream,
    reader: Box<dyn Read + Send>,
    read: Vec<u8>,
}

impl Stream {
    pub(crate) fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// The messages that have come. `None`: the stream has ended.
    pub(crate) fn messages<T: DeserializeOwned>(&mut self) -> Option<Vec<T>> {
        const CHUNK: usize = 16384;
        let (mut buffer, mut messages) = (vec![0; CHUNK], Vec::new());
        loop {
            match self.reader.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.read.extend_from_slice(buffer.get(..count)?),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => break,
                Err(_) => return None,
            }
        }
        while let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.read.drain(..=end).collect();
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let message: Streamed<T> = serde_json::from_slice(&line).ok()?;
            messages.push(message.result?);
        }
        Some(messages)
    }
}

/// Makes connections whose socket is known, so that it can be waited for.
#[derive(Debug)]
struct StreamConnector(Arc<Mutex<Option<TcpStream>>>);

#[derive(Debug)]
struct Socket(TcpStream);

struct StreamTransport {
    socket: Socket,
    buffers: LazyBuffers,
}

impl std::fmt::Debug for StreamTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.socket.fmt(f)
    }
}

impl<In: Transport> Connector<In> for StreamConnector {
    type Out = StreamTransport;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<In>) -> Result<Option<StreamTransport>, ureq::Error> {
        let mut failure = ureq::Error::HostNotFound;
        for address in details.addrs.iter() {
            let connected = match details.timeout.not_zero() {
                Some(timeout) => TcpStream::connect_timeout(address, *timeout),
                None => TcpStream::connect(address),
            };
            match connected {
                Ok(socket) => {
                    socket.set_nodelay(true)?;
                    *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket.try_clone()?);
                    let (input, output) = (details.config.input_buffer_size(), details.config.output_buffer_size());
                    let buffers = LazyBuffers::new(input, output);
                    return Ok(Some(StreamTransport { socket: Socket(socket), buffers }));
                }
                Err(error) => failure = ureq::Error::Io(error),
            }
        }
        Err(failure)
    }
}

impl Transport for StreamTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let socket = &mut self.socket.0;
        socket.set_write_timeout(timeout.not_zero().map(|timeout| *timeout))?;
        if let Some(output) = self.buffers.output().get(..amount) {
            std::io::Write::write_all(socket, output)?;
        }
        Ok(())
    }

    /// On a socket that does not block, "would block" is an answer: the reader can be asked again.
    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let socket = &mut self.socket.0;
        socket.set_read_timeout(timeout.not_zero().map(|timeout| *timeout))?;
        let count = socket.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    fn is_open(&mut self) -> bool {
        false
    }
}
