// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults of members, of clients, and of the network between them. Four clients, each a host of its own by name, take turns
//! at one lock and change two registers: one checks the fencing token, the other does not.
//!
//! `make test-etcd` runs a thousand rounds of each fault, and otherwise some. A round is one fault and its end. Faults of
//! clients happen to several groups at once, each with a lock and a network of its own, so that a round costs less.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing helper is a failing test")]

#[path = "faults/client.rs"]
mod client;
#[path = "faults/history.rs"]
mod history;
#[path = "faults/proxy.rs"]
mod proxy;
#[path = "faults/scene.rs"]
mod scene;
#[path = "../../tests/support/mod.rs"]
mod support;
#[path = "faults/world.rs"]
mod world;

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use lock_manager::{Acquired, Manager};

use proxy::{Fault, Network, Proxy};
use scene::{Group, LIMIT_SECONDS, MEMBERS, Scene, Told, forget_host};
use support::etcd::{Cluster, is_there_or_skip};
use support::{Child, alone, eventually, fork, note};

const ORDER: Ordering = Ordering::SeqCst;
const FEW_ROUNDS: usize = 2;
/// Longer than the lease, and than an election's grace for it.
const LONG_PAUSE: Duration = Duration::from_millis(3500);
/// Three seconds are what it takes at most where the machine has nothing else to do.
const LONGEST_ELECTION: Duration = Duration::from_secs(30);
const MOST_GROUPS: usize = 8;

fn rounds() -> usize {
    std::env::var("LOCK_MANAGER_ETCD_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(FEW_ROUNDS)
}

/// How many groups a fault happens to at once.
fn groups() -> usize {
    rounds().min(MOST_GROUPS)
}

/// How often it then happens to all of them.
fn rounds_of_all() -> usize {
    rounds().div_ceil(groups())
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

test! {
    /// Every other client comes back at once, and its host tells the next. Of the others, the lease ends first, and etcd does.
    a_killed_holders_death_is_told_once_and_no_update_is_lost {
        let mut scene = Scene::of(groups());
        for round in 0..rounds_of_all() {
            let killed: Vec<_> = scene.groups.iter_mut().map(Group::kill_a_holder).collect();
            let is_at_once = |index: &usize| (round + index).is_multiple_of(2);
            (0..killed.len()).filter(is_at_once).for_each(|index| scene.groups[index].restart(killed[index]));
            scene.until_turns_go_on();
            let is_later = |index: &usize| !is_at_once(index);
            (0..killed.len()).filter(is_later).for_each(|index| scene.groups[index].restart(killed[index]));
            scene.until_all_take_turns();
        }
        scene.end("holders killed", Told::Once);
    }
}

test! {
    /// The paused holder runs on after its lease, as a lease cannot prevent. The register that checks the token loses
    /// nothing; the other does, which is why there is a token.
    a_paused_holder_is_fenced_off_and_without_the_token_updates_are_lost {
        let scene = Scene::of(groups());
        for _ in 0..rounds_of_all() {
            let stopped: Vec<_> = scene.groups.iter().map(Group::stop_a_holder).collect();
            thread::sleep(LONG_PAUSE);
            scene.until_turns_go_on();
            scene.groups.iter().zip(&stopped).for_each(|(group, &index)| group.client(index).signal(libc::SIGCONT));
            scene.until_all_take_turns();
        }
        for shared in scene.end("holders paused", Told::Once) {
            assert!(shared.world.lost.load(ORDER) >= rounds_of_all() as u64);
            let (kept, written) = (shared.world.plain.load(ORDER), shared.world.plain_writes.load(ORDER));
            assert!(kept < written, "without the token, updates should be lost");
        }
    }
}

test! { a_leader_that_is_stopped_is_waited_for_as_long_as_an_election {
    let mut scene = Scene::of(1);
    for _ in 0..rounds() {
        eventually("there is a leader", || scene.cluster.leader().is_some());
        let leader = scene.cluster.leader().unwrap();
        scene.cluster.signal(leader, libc::SIGSTOP);
        let pause = scene.until_turns_go_on();
        scene.went_on.push(world::now());
        scene.cluster.signal(leader, libc::SIGCONT);
        note(format_args!("leader stopped: turns went on after {pause:?}"));
        assert!(pause < LONGEST_ELECTION, "{pause:?}");
        scene.until_all_take_turns();
    }
    scene.end("leaders stopped", Told::OnceOrMore);
}}

test! { members_may_be_killed_and_come_back {
    let mut scene = Scene::of(1);
    for round in 0..rounds().max(4) {
        let index = match round % 2 {
            0 => scene.cluster.leader().unwrap_or(0),
            _ => round % MEMBERS,
        };
        // One that is asked to end answers what it can, until it is gone.
        match round % 4 {
            0 | 1 => scene.cluster.kill(index),
            _ => scene.cluster.end(index),
        }
        scene.until_turns_go_on();
        scene.cluster.start_member(index);
        scene.cluster.until_ready();
    }
    scene.end("members killed", Told::OnceOrMore);
}}

test! { a_leader_may_hand_over {
    let scene = Scene::of(1);
    for _ in 0..rounds().max(MEMBERS) {
        eventually("the leader hands over", || scene.cluster.hands_over());
        scene.until_turns_go_on();
    }
    scene.end("leaders that handed over", Told::OnceOrMore);
}}

test! { a_follower_that_is_stopped_is_not_waited_for {
    let scene = Scene::of(1);
    for _ in 0..rounds() {
        eventually("there is a leader", || scene.cluster.leader().is_some());
        let follower = (scene.cluster.leader().unwrap() + 1) % MEMBERS;
        scene.cluster.signal(follower, libc::SIGSTOP);
        scene.until_turns_go_on();
        scene.cluster.signal(follower, libc::SIGCONT);
    }
    scene.end("followers stopped", Told::OnceOrMore);
}}

test! { a_network_that_delays_swallows_and_cuts_loses_no_update {
    let scene = Scene::of(groups());
    let faults = [Fault::Delay(30), Fault::DropRequests, Fault::DropAnswers, Fault::Cut, Fault::Delay(300)];
    for round in 0..rounds_of_all().max(faults.len()) {
        for (index, group) in scene.groups.iter().enumerate() {
            // Of one endpoint, of two, or of all.
            let faulty = &group.proxies[..1 + (round + index) % MEMBERS];
            faulty.iter().for_each(|proxy| proxy.set(faults[round % faults.len()]));
        }
        thread::sleep(Duration::from_millis(if round % 2 == 0 { 500 } else { 3000 }));
        scene.groups.iter().flat_map(|group| &group.proxies).for_each(|proxy| proxy.set(Fault::None));
        scene.until_turns_go_on();
    }
    scene.end("the network", Told::OnceOrMore);
}}

test! {
    /// A round is a ring. Some run at once, each with locks and hosts of its own, and of a size of its own.
    of_a_ring_of_hosts_one_is_told_of_the_deadlock {
        alone::allow(LIMIT_SECONDS);
        let cluster = Cluster::start(MEMBERS);
        let address = format!("etcd://{}/{}", cluster.endpoints(), alone::prefix());
        for _ in 0..rounds().div_ceil(SIZES.len()) {
            let rings: Vec<_> = SIZES.iter().map(|&size| Ring::start(&address, size)).collect();
            rings.into_iter().for_each(Ring::has_one_victim);
        }
        for (size, own) in SIZES.iter().flat_map(|&size| (0..size).map(move |own| (size, own))) {
            forget_host(&address, &Ring::host(size, own));
        }
    }
}

const SIZES: [u32; 7] = [2, 3, 4, 5, 6, 7, 8];

/// Hosts that each hold a lock and wait for the next one's.
struct Ring {
    size: u32,
    told: &'static std::sync::atomic::AtomicU32,
    members: Vec<Child>,
}

impl Ring {
    fn host(size: u32, own: u32) -> String {
        format!("ring-{size}-{own}")
    }

    fn start(address: &str, size: u32) -> Self {
        let board = support::board(2);
        let [holding, told] = [&board[0], &board[1]];
        // Locks of the rings that are smaller come before.
        let base = (2..size).sum::<u32>();
        let member = |own| {
            fork(move || {
                let manager = client::open_for_long(address, &Self::host(size, own)).into_manager();
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
        };
        Self { size, told, members: (0..size).map(member).collect() }
    }

    fn has_one_victim(self) {
        self.members.into_iter().for_each(Child::succeeds);
        assert_eq!(self.told.load(ORDER), 1, "a ring of {} has one victim", self.size);
    }
}

test! { a_lost_lock_is_noticed_before_another_host_can_have_it {
    alone::allow(LIMIT_SECONDS);
    let cluster = Cluster::start(MEMBERS);
    let network = Network::start(&vec![cluster.endpoint(0); groups()]);
    thread::scope(|scope| {
        for (lock, proxy) in (0..).zip(&network.proxies) {
            scope.spawn({
                let cluster = &cluster;
                move || losses_are_noticed(cluster, proxy, lock)
            });
        }
    });
}}

fn losses_are_noticed(cluster: &Cluster, proxy: &Proxy, lock: u32) {
    let [cut_off_host, other_host] = ["cut-off", "other"].map(|name| format!("{name}-{lock}"));
    let prefix = alone::prefix();
    let cut_off = client::open(&format!("etcd://127.0.0.1:{}/{prefix}", proxy.port()), &cut_off_host).into_manager();
    let address = format!("etcd://{}/{prefix}", cluster.endpoints());
    let other = client::open(&address, &other_host).into_manager();
    for _ in 0..rounds_of_all() {
        let taken = cut_off.timed_lock(lock, Duration::from_secs(20)).map_err(|error| error.to_string());
        assert!(taken.is_ok(), "{taken:?}");
        let descriptor = cut_off.lost_fd().unwrap();
        let is_readable = || {
            let mut polled = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
            // SAFETY: poll(2) reads and writes the one struct.
            unsafe { libc::poll(&raw mut polled, 1, 0) == 1 }
        };
        assert!(!is_readable());
        proxy.set(Fault::Cut);
        // The next is told; by then the first knows.
        assert_eq!(other.timed_lock(lock, Duration::from_secs(30)).unwrap(), Acquired::OwnerDied);
        assert!(is_readable(), "another host has the lock, and it is not noticed");
        assert_eq!(cut_off.fencing_token(lock).unwrap_err().errno(), libc::EKEYEXPIRED);
        assert_eq!(cut_off.unlock(lock).unwrap_err().errno(), libc::EKEYEXPIRED);
        assert!(!is_readable());
        proxy.set(Fault::None);
        // The machine may have stood still for as long as a lease is good.
        let unlocked = other.unlock(lock).map_err(|error| error.errno());
        assert!([Ok(()), Err(libc::EKEYEXPIRED)].contains(&unlocked), "{unlocked:?}");
    }
    drop((cut_off, other));
    forget_host(&address, &cut_off_host);
    forget_host(&address, &other_host);
}
