// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client: it takes the lock, changes both registers, and notes what it was told.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use lock_manager::{Acquired, Manager};
use lock_manager_etcd::{EtcdManager, Options};

use super::support::{Child, alone, fork};
use super::world::{Client, HOLDING, IDLE, Shared, now};

const NUM_LOCKS: u32 = 64;
pub const TTL: Duration = Duration::from_secs(2);
const ORDER: Ordering = Ordering::SeqCst;
/// Longer than any test.
const LIMIT_SECONDS: u32 = 86_400;
const PATIENCE: Duration = Duration::from_secs(60);

pub fn open(address: &str, host: &str) -> EtcdManager {
    open_with(options(address, host).ttl(TTL).unwrap())
}

/// For clients whose leases must not end: with the usual TTL.
pub fn open_for_long(address: &str, host: &str) -> EtcdManager {
    open_with(options(address, host))
}

fn options(address: &str, host: &str) -> Options {
    Options::of_address(address).unwrap().patience(PATIENCE).host(host).unwrap()
}

fn open_with(options: Options) -> EtcdManager {
    EtcdManager::open(options, NUM_LOCKS).unwrap()
}

/// At what the clients of a group take turns.
#[derive(Clone)]
pub struct Turns {
    pub address: String,
    pub lock: u32,
    /// Between two turns of a client.
    pub pause: Duration,
}

impl Turns {
    /// The name of a host of the group.
    pub fn host(&self, name: &str) -> String {
        format!("host-{}-{name}", self.lock)
    }
}

/// Starts a client, which runs until it is told to stop.
pub fn start(shared: &Shared, index: usize, turns: &Turns) -> Child {
    fork(|| {
        alone::allow(LIMIT_SECONDS);
        let manager = open(&turns.address, &turns.host(&index.to_string())).into_manager();
        while shared.world.stop.load(ORDER) == 0 {
            take_a_turn(shared, &shared.world.clients[index], &manager, turns.lock);
            thread::sleep(turns.pause);
        }
    })
}

fn take_a_turn(shared: &Shared, client: &Client, manager: &dyn Manager, lock: u32) {
    let world = shared.world;
    match manager.timed_lock(lock, Duration::from_secs(5)) {
        Ok(Acquired::Clean) => {}
        Ok(Acquired::OwnerDied) => _ = world.told_of_death.fetch_add(1, ORDER),
        Err(_) => {
            world.failures.fetch_add(1, ORDER);
            return;
        }
    }
    let start = now();
    client.hold.start.store(start, ORDER);
    client.hold.end.store(start, ORDER);
    let token = manager.fencing_token(lock);
    client.hold.token.store(*token.as_ref().unwrap_or(&0), ORDER);
    client.phase.store(HOLDING, ORDER);
    let plain = world.plain.load(ORDER);
    let read = token.as_ref().ok().and_then(|&token| world.guarded.read(token));
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(1));
        let asked = now();
        if manager.fencing_token(lock).is_ok() {
            client.hold.end.store(asked, ORDER);
        }
    }
    if let (Ok(token), Some(value)) = (token, read)
        && world.guarded.write(token, value + 1)
    {
        world.acknowledged.fetch_add(1, ORDER);
    }
    world.plain.store(plain + 1, ORDER);
    world.plain_writes.fetch_add(1, ORDER);
    client.phase.store(IDLE, ORDER);
    let asked = now();
    match manager.unlock(lock) {
        Ok(()) => client.hold.end.store(asked, ORDER),
        Err(error) => {
            assert_eq!(error.errno(), libc::EKEYEXPIRED, "{error}");
            world.lost.fetch_add(1, ORDER);
            if error.to_string().contains("while it was unlocked") {
                world.unanswered.fetch_add(1, ORDER);
            }
        }
    }
    shared.note(&client.hold);
    client.turns.fetch_add(1, ORDER);
}
