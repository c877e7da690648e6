// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults of members, of clients, and of the network between them. Four clients, each a host of its own by name, take turns
//! at one lock and change two registers: one checks the fencing token, the other does not.
//!
//! `make test-etcd` runs a thousand rounds of each fault, and otherwise some. A round is one fault and its end.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing helper is a failing test")]

#[path = "faults/client.rs"]
mod client;
#[path = "faults/proxy.rs"]
mod proxy;
#[path = "../../tests/support/mod.rs"]
mod support;
#[path = "faults/world.rs"]
mod world;

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use lock_manager::{Acquired, Manager};

use client::{LOCK, TTL};
use proxy::{Fault, Proxy};
use support::etcd::{Cluster, is_there_or_skip};
use support::{Child, alone, eventually, fork, note};
use world::{CLIENTS, HOLDING, Shared};

const ORDER: Ordering = Ordering::SeqCst;
const FEW_ROUNDS: usize = 2;
const LIMIT_SECONDS: u32 = 86_400;
/// Longer than the lease, and than an election's grace for it.
const LONG_PAUSE: Duration = Duration::from_millis(3500);
const MEMBERS: usize = 3;
/// Three seconds are what it takes at most where the machine has nothing else to do.
const LONGEST_ELECTION: Duration = Duration::from_secs(10);

fn rounds() -> usize {
    std::env::var("LOCK_MANAGER_ETCD_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(FEW_ROUNDS)
}

/// A cluster with its clients.
struct Scene {
    shared: Shared,
    cluster: Cluster,
    proxies: Vec<Proxy>,
    clients: Vec<Option<Child>>,
    address: String,
    prefix: String,
    deaths: u64,
}

impl Scene {
    fn new() -> Self {
        alone::allow(LIMIT_SECONDS);
        let (shared, cluster) = (Shared::new(), Cluster::start(MEMBERS));
        let proxies: Vec<_> = (0..MEMBERS).map(|index| Proxy::start(cluster.client_port(index))).collect();
        let endpoints: Vec<_> = proxies.iter().map(|proxy| format!("127.0.0.1:{}", proxy.port())).collect();
        let prefix = alone::prefix();
        let address = format!("etcd://{}/{prefix}", endpoints.join(","));
        let mut scene = Self {
            shared,
            cluster,
            proxies,
            clients: (0..CLIENTS).map(|_| None).collect(),
            address,
            prefix,
            deaths: 0,
        };
        (0..CLIENTS).for_each(|index| scene.start_client(index));
        scene.until_all_take_turns();
        scene
    }

    fn start_client(&mut self, index: usize) {
        self.clients[index] = Some(client::start(&self.shared, index, &self.address));
    }

    fn turns(&self) -> u64 {
        self.shared.world.clients.iter().map(|client| client.turns.load(ORDER)).sum()
    }

    fn until_all_take_turns(&self) {
        let before: Vec<_> = self.shared.world.clients.iter().map(|client| client.turns.load(ORDER)).collect();
        eventually("each client gets a turn", || {
            self.shared.world.clients.iter().zip(&before).all(|(client, before)| client.turns.load(ORDER) > *before)
        });
    }

    /// How long it takes until some client has had two more turns: one of them was begun since.
    fn until_turns_go_on(&self) -> Duration {
        let (start, before) = (Instant::now(), self.turns());
        eventually("turns go on", || self.turns() > before + 1);
        start.elapsed()
    }

    /// Stops a client in its turn. Which.
    fn stop_a_holder(&self) -> usize {
        loop {
            let holder = (0..CLIENTS).find(|&index| self.shared.world.clients[index].phase.load(ORDER) == HOLDING);
            let Some(index) = holder else { continue };
            let client = self.clients[index].as_ref().unwrap();
            client.signal(libc::SIGSTOP);
            until_stopped(client.pid());
            if self.shared.world.clients[index].phase.load(ORDER) == HOLDING {
                return index;
            }
            client.signal(libc::SIGCONT);
        }
    }

    /// Kills a client in its turn, and starts it again.
    fn kill_a_holder(&mut self) {
        let index = self.stop_a_holder();
        self.clients[index].take().unwrap().kill();
        let client = &self.shared.world.clients[index];
        self.shared.note(client.hold.start.load(ORDER), client.hold.end.load(ORDER));
        client.phase.store(world::IDLE, ORDER);
        self.deaths += 1;
        self.start_client(index);
    }

    /// Ends all, and checks what every test promises.
    fn end(mut self, what: &str) -> Shared {
        self.until_all_take_turns();
        let world = self.shared.world;
        world.stop.store(1, ORDER);
        for child in self.clients.iter_mut().filter_map(Option::take) {
            child.succeeds();
        }
        let last = client::open(&self.address, "last").into_manager();
        if last.lock(LOCK).unwrap() == Acquired::OwnerDied {
            world.told_of_death.fetch_add(1, ORDER);
        }
        last.unlock(LOCK).unwrap();
        drop(last);
        self.remove_native_locks();
        let holds = self.shared.check_that_no_two_held();
        let (value, acknowledged) = (world.guarded.value(), world.acknowledged.load(ORDER));
        let (told, lost) = (world.told_of_death.load(ORDER), world.lost.load(ORDER));
        note(format_args!(
            "{what}: {holds} holds, {acknowledged} writes, {} deaths, {lost} lost, {told} told, {} calls failed; without \
             the token {} of {} writes",
            self.deaths,
            world.failures.load(ORDER),
            world.plain.load(ORDER),
            world.plain_writes.load(ORDER),
        ));
        // A client that is killed may have written without having counted it.
        assert!(value >= acknowledged && value <= acknowledged + self.deaths, "{value} of {acknowledged} writes");
        assert!(told >= self.deaths + lost, "{told} told of {} deaths and {lost} losses", self.deaths);
        self.shared
    }

    fn remove_native_locks(&self) {
        for host in (0..CLIENTS).map(|index| format!("host-{index}")).chain(["last".to_owned()]) {
            let options = lock_manager_etcd::Options::of_address(&self.address).unwrap().host(&host).unwrap();
            lock_manager_etcd::forget_host(&options).unwrap();
        }
        assert!(!self.prefix.is_empty());
    }

    fn told_exactly(what: &str, scene: Self) -> Shared {
        let deaths = scene.deaths;
        let shared = scene.end(what);
        let (told, lost) = (shared.world.told_of_death.load(ORDER), shared.world.lost.load(ORDER));
        assert_eq!(told, deaths + lost, "each death and each loss is told once");
        shared
    }
}

fn until_stopped(pid: i32) {
    eventually("the client is stopped", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    });
}

macro_rules! test {
    ($(#[$of:meta])* $name:ident $body:block) => {
        $(#[$of])*
        #[test]
        fn $name() {
            if is_there_or_skip() {
                support::alone::alone!($body);
            }
        }
    };
}

test! { a_killed_holders_death_is_told_once_and_no_update_is_lost {
    let mut scene = Scene::new();
    for _ in 0..rounds() {
        scene.kill_a_holder();
        scene.until_turns_go_on();
    }
    Scene::told_exactly("holders killed", scene);
}}

test! {
    /// The paused holder runs on after its lease, as a lease cannot prevent. The register that checks the token loses
    /// nothing; the other does, which is why there is a token.
    a_paused_holder_is_fenced_off_and_without_the_token_updates_are_lost {
        let scene = Scene::new();
        for _ in 0..rounds() {
            let index = scene.stop_a_holder();
            thread::sleep(LONG_PAUSE);
            scene.until_turns_go_on();
            scene.clients[index].as_ref().unwrap().signal(libc::SIGCONT);
            scene.until_all_take_turns();
        }
        let shared = Scene::told_exactly("holders paused", scene);
        let world = shared.world;
        assert!(world.lost.load(ORDER) >= rounds() as u64);
        assert!(world.plain.load(ORDER) < world.plain_writes.load(ORDER), "without the token, updates should be lost");
    }
}

test! { a_leader_that_is_stopped_is_waited_for_as_long_as_an_election {
    let scene = Scene::new();
    for _ in 0..rounds() {
        eventually("there is a leader", || scene.cluster.leader().is_some());
        let leader = scene.cluster.leader().unwrap();
        scene.cluster.signal(leader, libc::SIGSTOP);
        let pause = scene.until_turns_go_on();
        scene.cluster.signal(leader, libc::SIGCONT);
        note(format_args!("leader stopped: turns went on after {pause:?}"));
        assert!(pause < LONGEST_ELECTION, "{pause:?}");
        scene.until_all_take_turns();
    }
    scene.end("leaders stopped");
}}

test! { members_may_be_killed_and_come_back {
    let mut scene = Scene::new();
    for round in 0..rounds() {
        let index = match round % 2 {
            0 => scene.cluster.leader().unwrap_or(0),
            _ => round % MEMBERS,
        };
        scene.cluster.kill(index);
        scene.until_turns_go_on();
        scene.cluster.start_member(index);
        scene.cluster.until_ready();
    }
    scene.end("members killed");
}}

test! { a_follower_that_is_stopped_is_not_waited_for {
    let scene = Scene::new();
    for _ in 0..rounds() {
        eventually("there is a leader", || scene.cluster.leader().is_some());
        let follower = (scene.cluster.leader().unwrap() + 1) % MEMBERS;
        scene.cluster.signal(follower, libc::SIGSTOP);
        scene.until_turns_go_on();
        scene.cluster.signal(follower, libc::SIGCONT);
    }
    scene.end("followers stopped");
}}

test! { a_network_that_delays_swallows_and_cuts_loses_no_update {
    let scene = Scene::new();
    let faults = [Fault::Delay(30), Fault::DropRequests, Fault::DropAnswers, Fault::Cut, Fault::Delay(300)];
    for round in 0..rounds().max(faults.len()) {
        let fault = faults[round % faults.len()];
        // Of one endpoint, of two, or of all.
        let faulty = &scene.proxies[..1 + round % MEMBERS];
        faulty.iter().for_each(|proxy| proxy.set(fault));
        thread::sleep(Duration::from_millis(if round % 2 == 0 { 500 } else { 3000 }));
        faulty.iter().for_each(|proxy| proxy.set(Fault::None));
        scene.until_turns_go_on();
    }
    scene.end("the network");
}}

test! { of_a_ring_of_hosts_one_is_told_of_the_deadlock {
    alone::allow(LIMIT_SECONDS);
    let cluster = Cluster::start(MEMBERS);
    let address = format!("etcd://{}/{}", cluster.endpoints(), alone::prefix());
    for round in 0..rounds() {
        for size in 2..=8u32 {
            let board = support::board(2);
            let [holding, told] = [&board[0], &board[1]];
            let base = (round as u32 % 7) * 8;
            let members: Vec<_> = (0..size)
                .map(|own| {
                    let address = &address;
                    fork(move || {
                        let manager = client::open(address, &format!("ring-{own}")).into_manager();
                        let _ = manager.lock(base + own).unwrap();
                        holding.fetch_add(1, ORDER);
                        eventually("all hold one", || holding.load(ORDER) == size);
                        match manager.lock(base + (own + 1) % size) {
                            Ok(_) => manager.unlock(base + (own + 1) % size).unwrap(),
                            Err(error) => {
                                assert_eq!(error.errno(), libc::EDEADLK, "{error}");
                                told.fetch_add(1, ORDER);
                            }
                        }
                        manager.unlock(base + own).unwrap();
                    })
                })
                .collect();
            members.into_iter().for_each(Child::succeeds);
            assert_eq!(told.load(ORDER), 1, "a ring of {size} has one victim");
        }
    }
    for own in 0..8 {
        let options = lock_manager_etcd::Options::of_address(&address).unwrap().host(&format!("ring-{own}")).unwrap();
        lock_manager_etcd::forget_host(&options).unwrap();
    }
}}

test! { a_lost_lock_is_noticed_before_another_host_can_have_it {
    alone::allow(LIMIT_SECONDS);
    let cluster = Cluster::start(MEMBERS);
    let proxy = Proxy::start(cluster.client_port(0));
    let prefix = alone::prefix();
    let cut_off = client::open(&format!("etcd://127.0.0.1:{}/{prefix}", proxy.port()), "cut-off").into_manager();
    let address = format!("etcd://{}/{prefix}", cluster.endpoints());
    let other = client::open(&address, "other").into_manager();
    for _ in 0..rounds() {
        assert_ne!(cut_off.timed_lock(LOCK, Duration::from_secs(20)).map_err(|error| error.errno()), Err(libc::ETIMEDOUT));
        let descriptor = cut_off.lost_fd().unwrap();
        let is_readable = || {
            let mut polled = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
            // SAFETY: poll(2) reads and writes the one struct.
            unsafe { libc::poll(&raw mut polled, 1, 0) == 1 }
        };
        assert!(!is_readable());
        proxy.set(Fault::Cut);
        let cut_at = Instant::now();
        let noticed = thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                eventually("the loss is noticed", is_readable);
                Instant::now()
            });
            // The next is told; by then the first knows.
            assert_eq!(other.timed_lock(LOCK, Duration::from_secs(30)).unwrap(), Acquired::OwnerDied);
            let had_it = Instant::now();
            let noticed = watcher.join().unwrap();
            assert!(noticed < had_it, "noticed {:?} after another host had the lock", noticed - had_it);
            noticed
        });
        assert!(noticed - cut_at < TTL, "{:?}", noticed - cut_at);
        assert_eq!(cut_off.fencing_token(LOCK).unwrap_err().errno(), libc::EKEYEXPIRED);
        assert_eq!(cut_off.unlock(LOCK).unwrap_err().errno(), libc::EKEYEXPIRED);
        assert!(!is_readable());
        proxy.set(Fault::None);
        other.unlock(LOCK).unwrap();
    }
    drop((cut_off, other));
    for host in ["cut-off", "other"] {
        let options = lock_manager_etcd::Options::of_address(&address).unwrap().host(host).unwrap();
        lock_manager_etcd::forget_host(&options).unwrap();
    }
}}
