// SPDX-License-Identifier: MIT OR Apache-2.0
//! A cluster of etcd on loopback, of a test's own: killed with it, each member by its id.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use super::process::state_of;
use super::wait::eventually_or;

/// Names the endpoints of the cluster that a parent process has started.
pub const ENDPOINTS: &str = "LOCK_MANAGER_TEST_ETCD";
/// Names the etcd to run, if it is not the one in `PATH`.
const PROGRAM: &str = "LOCK_MANAGER_TEST_ETCD_PROGRAM";
/// Short, so that an election is not what a test waits for.
const TIMES: [&str; 4] = ["--heartbeat-interval", "50", "--election-timeout", "500"];

/// How much of a member's log is shown.
const LAST_LINES: usize = 12;

/// The etcd to run.
pub fn program() -> OsString {
    std::env::var_os(PROGRAM).unwrap_or_else(|| "etcd".into())
}

/// Whether there is an etcd; if not, says that the test is skipped.
pub fn is_there_or_skip() -> bool {
    let there =
        Command::new(program()).arg("--version").stdin(Stdio::null()).output().is_ok_and(|out| out.status.success());
    if !there {
        // Whoever names one wants it tried.
        assert_eq!(std::env::var_os(PROGRAM), None, "{PROGRAM} names an etcd that does not run");
        super::skip("needs etcd, which is in Debian's etcd-server");
    }
    there
}

/// Where a member listens.
#[derive(Clone, Copy)]
struct Place {
    client: SocketAddr,
    peer: SocketAddr,
}

/// A cluster. Its members end with it, and with this process.
pub struct Cluster {
    members: Vec<Option<Server>>,
    places: Vec<Place>,
    directory: PathBuf,
}

impl Cluster {
    /// Starts so many members, and waits until they have a leader.
    pub fn start(size: usize) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let directory = scratch().join(format!("lm-test-etcd-{}-{count}", std::process::id()));
        // Of an earlier process with the same id, which was killed.
        let _was_not_there = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let places = own_addresses(2 * size).chunks(2).map(|pair| Place { client: pair[0], peer: pair[1] }).collect();
        let mut cluster = Self { members: (0..size).map(|_| None).collect(), places, directory };
        (0..size).for_each(|index| cluster.start_member(index));
        cluster.until_ready();
        cluster
    }

    /// Starts a member, or starts it again with what it had stored.
    pub fn start_member(&mut self, index: usize) {
        let url = |address: SocketAddr| format!("http://{address}");
        let Place { client, peer } = self.places[index];
        let peers = self.places.iter().enumerate().map(|(index, place)| format!("m{index}={}", url(place.peer)));
        let peers: Vec<_> = peers.collect();
        let log = File::create(self.directory.join(format!("m{index}.log"))).unwrap();
        let mut command = Command::new(program());
        command
            .args(["--name", &format!("m{index}"), "--initial-cluster", &peers.join(",")])
            .arg("--data-dir")
            .arg(self.directory.join(format!("m{index}")))
            .args(["--listen-client-urls", &url(client), "--advertise-client-urls", &url(client)])
            .args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)])
            .args(TIMES)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.members[index] = Some(Server::start(command));
    }

    /// Waits until each member that runs answers a question that needs a leader.
    pub fn until_ready(&self) {
        for index in (0..self.size()).filter(|&index| self.members[index].is_some()) {
            let is_ready = || self.asked_for_a_key(index).is_some_and(|answer| answer.contains("revision"));
            eventually_or(|| format!("etcd is ready; {}", self.tell()), is_ready);
        }
    }

    /// How each member stands, and what it said last, for people.
    pub fn tell(&self) -> String {
        let of = |index: usize| match &self.members[index] {
            None => format!("m{index} is killed"),
            Some(member) => {
                let log = fs::read_to_string(self.directory.join(format!("m{index}.log"))).unwrap_or_default();
                let last: Vec<_> = log.lines().rev().take(LAST_LINES).collect();
                let last: String = last.iter().rev().map(|line| format!("\n  {line}")).collect();
                // 'Z': it has ended. 'T': it is stopped.
                let (state, answer) = (state_of(member.pid()), self.asked_for_a_key(index));
                format!("m{index}: its process is {state:?}, it answers {answer:?}, and said last:{last}")
            }
        };
        (0..self.size()).map(of).collect::<Vec<_>>().join("\n")
    }

    /// The endpoints, as an address has them.
    pub fn endpoints(&self) -> String {
        let endpoints: Vec<_> = self.places.iter().map(|place| place.client.to_string()).collect();
        endpoints.join(",")
    }

    /// Where a member listens for clients.
    pub fn endpoint(&self, index: usize) -> SocketAddr {
        self.places[index].client
    }

    pub fn size(&self) -> usize {
        self.places.len()
    }

    /// The member that leads, if there is one.
    pub fn leader(&self) -> Option<usize> {
        (0..self.size()).find(|&index| {
            self.status(index).is_some_and(|text| {
                let leader = number_in(&text, "leader");
                leader.is_some() && leader == number_in(&text, "member_id")
            })
        })
    }

    /// Has the leader hand over to the next member. Whether it did.
    pub fn hands_over(&self) -> bool {
        let number = |index: usize| self.status(index).and_then(|text| number_in(&text, "member_id"));
        let Some(leader) = self.leader() else { return false };
        let Some(next) = number((leader + 1) % self.size()) else { return false };
        let body = format!(r#"{{"targetID":"{next}"}}"#);
        let answer = post(self.endpoint(leader), "/v3/maintenance/transfer-leadership", &body);
        answer.is_some_and(|answer| answer.trim() == "{}")
    }

    /// A question that needs a leader.
    fn asked_for_a_key(&self, index: usize) -> Option<String> {
        post(self.endpoint(index), "/v3/kv/range", r#"{"key":"AA=="}"#)
    }

    fn status(&self, index: usize) -> Option<String> {
        post(self.endpoint(index), "/v3/maintenance/status", "{}")
    }

    pub fn signal(&self, index: usize, signal: i32) {
        if let Some(member) = &self.members[index] {
            // SAFETY: kill(2) touches no memory; the process is this one's child, not yet waited for.
            unsafe { libc::kill(member.pid(), signal) };
        }
    }

    /// Kills a member, which keeps what it had stored.
    pub fn kill(&mut self, index: usize) {
        self.members[index] = None;
    }

    /// Asks a member to end, which keeps what it had stored, and waits until it has.
    pub fn end(&mut self, index: usize) {
        self.signal(index, libc::SIGTERM);
        if let Some(mut member) = self.members[index].take() {
            member.0.wait().unwrap();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.size()).for_each(|index| self.kill(index));
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Where members store. Each write waits for the disk, and what else the machine writes: in memory where there is room.
fn scratch() -> PathBuf {
    const NEEDED: u64 = 1 << 30;
    let memory = PathBuf::from("/dev/shm");
    if super::disk::bytes_free(&memory) > NEEDED { memory } else { std::env::temp_dir() }
}

/// A number by its name, as the gateway writes it.
fn number_in(text: &str, name: &str) -> Option<u64> {
    let rest = text.split_once(&format!("\"{name}\":\""))?.1;
    rest.split('"').next()?.parse().ok()
}

/// A server of a test's own: it ends with it, and with this process.
pub struct Server(Child);

impl Server {
    pub fn start(command: Command) -> Self {
        Self(spawn(command))
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _has_ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Spawns in a thread that never ends: the child is to end with this process, and the kernel counts by thread.
fn spawn(mut command: Command) -> Child {
    let (tell, hear) = mpsc::channel();
    std::thread::spawn(move || {
        // SAFETY: prctl(2) with these arguments touches no memory, and is async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        tell.send(command.spawn().unwrap()).unwrap();
        loop {
            std::thread::park();
        }
    });
    hear.recv().unwrap()
}

/// Free addresses to listen at, of a part of loopback that is this process's alone. Between now and then nobody else gets
/// them, nor while a member is down: who listens at some port of 127.0.0.1, or connects from one, does not meet them.
pub fn own_addresses(count: usize) -> Vec<SocketAddr> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    const EACH: u32 = 4;
    // A process id has 22 bits, and there are 24.
    let host = std::process::id() * EACH + COUNTER.fetch_add(1, Ordering::Relaxed) % EACH;
    let [_, high, middle, low] = host.to_be_bytes();
    let own = Ipv4Addr::new(127, high, middle, low);
    // All at once, so that they differ.
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind((own, 0)).unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap()).collect()
}

/// Asks a member, and reads until the answer is whole; `None`: it does not answer.
pub fn post(endpoint: SocketAddr, path: &str, body: &str) -> Option<String> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let mut answer = Vec::new();
    asked(endpoint, path, body, PATIENCE)?.read_to_end(&mut answer).ok()?;
    body_of(&answer)
}

/// Asks a member, and reads until nothing more comes for a while: what a stream has so far.
pub fn post_for_stream(endpoint: SocketAddr, path: &str, body: &str) -> Option<String> {
    const SILENCE: Duration = Duration::from_secs(1);
    let mut answer = Vec::new();
    let _silent_by_then = asked(endpoint, path, body, SILENCE)?.read_to_end(&mut answer);
    body_of(&answer)
}

fn asked(endpoint: SocketAddr, path: &str, body: &str, patience: Duration) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(endpoint).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    let request = format!("POST {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).ok()?;
    Some(stream)
}

fn body_of(answer: &[u8]) -> Option<String> {
    String::from_utf8_lossy(answer).split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

static SHARED: OnceLock<Option<Cluster>> = OnceLock::new();

/// What is static is not dropped.
extern "C" fn end_shared() {
    if let Some(Some(cluster)) = SHARED.get() {
        (0..cluster.size()).for_each(|index| cluster.signal(index, libc::SIGKILL));
        let _ = fs::remove_dir_all(&cluster.directory);
    }
}

/// The endpoints of a cluster that serves all tests of this binary: started by the first of them, and handed to the processes
/// that they start. `None`: there is no etcd.
pub fn shared_endpoints() -> Option<String> {
    if let Ok(endpoints) = std::env::var(ENDPOINTS) {
        return Some(endpoints);
    }
    let cluster = SHARED.get_or_init(|| {
        let cluster = is_there_or_skip().then(|| Cluster::start(3));
        // SAFETY: atexit(3) keeps the function for the process's end.
        unsafe { libc::atexit(end_shared) };
        cluster
    });
    cluster.as_ref().map(Cluster::endpoints)
}
