// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Requests to an etcd cluster: one connection for questions, one for the stream of a watch. After a failure the next
//! endpoint is asked.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use ureq::config::Config;
use ureq::http::Response;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, DefaultConnector, LazyBuffers, NextTimeout, RustlsConnector, Transport,
};
use ureq::{Agent, Body};

use crate::answers::{Asked, NoAnswer, Sent};
use crate::failure::{Failure, Outcome};
use crate::options::Options;
use crate::resolving::AddressesFirst;
use crate::wire::{Streamed, TokenResponse};

/// A question that is asked at all is given that long.
const SHORTEST: Duration = Duration::from_millis(1);

/// A cluster, by its endpoints.
pub(crate) struct Cluster {
    endpoints: Vec<String>,
    current: usize,
    config: Config,
    door: Arc<Door>,
    agent: Agent,
    watcher: Agent,
    watched: Arc<Mutex<Option<TcpStream>>>,
    user: Option<(String, String)>,
    /// Of the login. Empty: the cluster wants none.
    token: Option<String>,
    /// The id of the cluster that the locks are in, once it is known.
    identity: Option<String>,
}

impl Cluster {
    pub(crate) fn new(options: &Options) -> Outcome<Self> {
        let config = Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            .tls_config(tls_config(options)?)
            .build();
        let (door, watched) = (Arc::new(Door::default()), Arc::new(Mutex::new(None)));
        let plain = ().chain(StreamConnector(Arc::clone(&watched))).chain(RustlsConnector::default());
        Ok(Self {
            endpoints: options.endpoints.clone(),
            current: std::process::id() as usize % options.endpoints.len().max(1),
            agent: agent(&config, &door),
            watcher: Agent::with_parts(config.clone(), plain, AddressesFirst::default()),
            config,
            door,
            watched,
            user: options.user.clone(),
            token: None,
            identity: None,
        })
    }

    /// From here on, only this cluster is asked: a lock that is free in another one may be held here.
    pub(crate) fn stay_in(&mut self, identity: &str) {
        let identity = Some(identity.to_owned()).filter(|identity| !identity.is_empty());
        if self.identity != identity {
            self.identity = identity;
            self.door.open();
        }
    }

    /// Whether a question can be asked without another one before it.
    pub(crate) fn is_ready(&self) -> bool {
        self.door.is_closed() && (self.user.is_none() || self.token.is_some())
    }

    fn asked(&self) -> Asked<'_> {
        Asked { endpoint: self.endpoint(), identity: self.identity.as_deref() }
    }

    /// The endpoint that is asked next.
    pub(crate) fn endpoint(&self) -> &str {
        self.endpoints.get(self.current).map_or("", String::as_str)
    }

    /// Has the next question go to the next endpoint, on a connection of its own: behind one name there may be many.
    fn next_endpoint(&mut self) {
        self.current = (self.current + 1) % self.endpoints.len().max(1);
        self.agent = agent(&self.config, &self.door);
        self.door.open();
    }

    pub(crate) fn num_endpoints(&self) -> usize {
        self.endpoints.len()
    }

    /// Asks one endpoint once. One that gave no answer, or refused one, is not asked next: neither says of which cluster
    /// it is.
    pub(crate) fn ask<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &Value,
        timeout: Duration,
    ) -> Result<T, NoAnswer> {
        let (until, had_token) = (Instant::now() + timeout, self.token.is_some());
        let mut answer = self.ask_who_is_known(path, body, until);
        if answer.is_err() && self.door.take_refusal() {
            // The connection was gone. Whoever is at the end of the next one is asked first.
            self.door.open();
            answer = self.ask_who_is_known(path, body, until);
        }
        // A token that was not used for some minutes is over. What it was refused for was not carried out.
        if had_token && matches!(&answer, Err(NoAnswer::Refused(failure)) if failure.errno == libc::EACCES) {
            self.forget_token();
            answer = self.ask_who_is_known(path, body, until);
        }
        // That does not say so, either, and the locks of the lease would be taken from their holders.
        if matches!(answer, Err(NoAnswer::NoLease)) && self.identity.is_some() {
            self.door.open();
            if let Err(unknown) = self.know(until) {
                answer = Err(NoAnswer::Unreachable(unknown.into_failure(), Sent::No));
            }
        }
        if matches!(answer, Err(NoAnswer::Unreachable(..) | NoAnswer::Refused(_))) {
            self.next_endpoint();
        }
        answer
    }

    fn ask_who_is_known<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &Value,
        until: Instant,
    ) -> Result<T, NoAnswer> {
        self.authenticate(until).map_err(NoAnswer::of_another_question)?;
        self.know(until).map_err(NoAnswer::of_another_question)?;
        self.ask_as_known(path, body, until)
    }

    /// Asks who is at the end of a connection, before the first question that counts: another cluster would carry it out.
    /// No lease has the number 0, and the answer that there is none names the cluster.
    fn know(&mut self, until: Instant) -> Result<(), NoAnswer> {
        if self.identity.is_some() && !self.door.is_closed() {
            let _no_lease: Value = self.ask_as_known("/v3/lease/timetolive", &json!({}), until)?;
            self.door.close();
        }
        Ok(())
    }

    /// Has the next question log in anew.
    pub(crate) fn forget_token(&mut self) {
        self.token = None;
    }

    /// Logs in, where there is a user who has not.
    fn authenticate(&mut self, until: Instant) -> Result<(), NoAnswer> {
        if self.token.is_some() {
            return Ok(());
        }
        let Some((name, password)) = self.user.clone() else { return Ok(()) };
        let body = json!({"name": name, "password": password});
        self.token = match self.ask_as_known::<TokenResponse>("/v3/auth/authenticate", &body, until) {
            Ok(answer) => Some(answer.token),
            Err(no) if no.says("authentication is not enabled") => Some(String::new()),
            Err(no) => return Err(no),
        };
        Ok(())
    }

    fn token(&self) -> Option<&String> {
        self.token.as_ref().filter(|token| !token.is_empty())
    }

    fn ask_as_known<T: DeserializeOwned>(&self, path: &str, body: &Value, until: Instant) -> Result<T, NoAnswer> {
        let timeout = until.saturating_duration_since(Instant::now()).max(SHORTEST);
        let request =
            self.agent.post(format!("{}{path}", self.endpoint())).config().timeout_global(Some(timeout)).build();
        let request = match self.token() {
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
        let read = |mut response: Response<Body>| Ok((response.status(), response.body_mut().read_to_string()?));
        let (status, text) = response.and_then(read).map_err(|error| self.asked().silent(&error))?;
        self.asked().understood(status, &text)
    }

    /// Opens a stream of a watch. `body`: the requests, one after another.
    pub(crate) fn watch(&mut self, body: &str, timeout: Duration) -> Result<Stream, NoAnswer> {
        let stream = self.open_stream(body, timeout);
        if let Err(no) = &stream {
            if matches!(no, NoAnswer::Refused(failure) if failure.errno == libc::EACCES) {
                self.forget_token();
            }
            self.next_endpoint();
        }
        stream
    }

    fn open_stream(&mut self, body: &str, timeout: Duration) -> Result<Stream, NoAnswer> {
        let until = Instant::now() + timeout;
        self.authenticate(until)?;
        self.know(until)?;
        let request = self.watcher.post(format!("{}/v3/watch", self.endpoint()));
        let config = request.config().timeout_connect(Some(timeout)).timeout_recv_response(Some(timeout));
        // Else Go's server throws away what it has not read of the requests yet when it begins to answer.
        let request = config.timeout_send_body(Some(timeout)).build().header("Connection", "close");
        let request = match self.token() {
            Some(token) => request.header("Authorization", token),
            None => request,
        };
        let sent = request.send(body);
        let socket = self.watched.lock().unwrap_or_else(PoisonError::into_inner).take();
        let response = sent.map_err(|error| self.asked().silent(&error))?;
        let no_stream = || NoAnswer::Unreachable(self.asked().failure(libc::EIO, "no stream; try again"), Sent::Maybe);
        // First: what is refused may have an end that never comes.
        let Some(socket) = socket.filter(|socket| socket.set_nonblocking(true).is_ok()) else {
            return Err(no_stream());
        };
        if !response.status().is_success() {
            return self.heard::<Value>(Ok(response)).and_then(|_| Err(no_stream()));
        }
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

/// Through which connections are made. Closed: there is one to somebody who is known. If that is gone, another one may lead
/// to somebody else, so it is not made for the question that counts.
#[derive(Debug, Default)]
struct Door {
    inner: DefaultConnector,
    is_closed: AtomicBool,
    has_refused: AtomicBool,
}

impl Door {
    fn open(&self) {
        self.is_closed.store(false, Ordering::Relaxed);
        self.has_refused.store(false, Ordering::Relaxed);
    }

    fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Whether a connection was not made since the door was closed. Then nothing was sent.
    fn take_refusal(&self) -> bool {
        self.has_refused.swap(false, Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct ThroughDoor(Arc<Door>);

impl Connector<()> for ThroughDoor {
    type Out = Box<dyn Transport>;

    fn connect(&self, details: &ConnectionDetails<'_>, none: Option<()>) -> Result<Option<Self::Out>, ureq::Error> {
        if self.0.is_closed() {
            self.0.has_refused.store(true, Ordering::Relaxed);
            return Err(ureq::Error::Io(ErrorKind::NotConnected.into()));
        }
        self.0.inner.connect(details, none)
    }
}

fn agent(config: &Config, door: &Arc<Door>) -> Agent {
    Agent::with_parts(config.clone(), ThroughDoor(Arc::clone(door)), AddressesFirst::default())
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
