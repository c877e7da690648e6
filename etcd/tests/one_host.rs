// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keys that go from hand to hand on one host: what other hosts are told of who has them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing helper is a failing test")]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use lock_manager::Manager;
use lock_manager_etcd::{EtcdManager, Options};

use support::etcd::{Cluster, is_there_or_skip};
use support::{alone, eventually};

const HANDED_ON: u32 = 1;
const OTHER: u32 = 2;
const LONG: Duration = Duration::from_secs(60);

/// Two managers of one host, and one of another.
struct Hosts {
    _cluster: Cluster,
    address: String,
    first: EtcdManager,
    second: EtcdManager,
    other: EtcdManager,
}

impl Hosts {
    fn new() -> Self {
        let cluster = Cluster::start(1);
        let address = format!("etcd://{}/{}", cluster.endpoints(), alone::prefix());
        let open = |host| EtcdManager::open(Options::of_address(&address).unwrap().host(host).unwrap(), 8).unwrap();
        let (first, second, other) = (open("one"), open("one"), open("two"));
        Self { _cluster: cluster, address, first, second, other }
    }

    /// Has the first manager's thread, which is the caller's, hand a lock on to another thread through the second. A key is
    /// handed on only soon after it was made, so on a busy machine that takes several attempts.
    fn hand_on<'s>(&'s self, scope: &'s thread::Scope<'s, '_>, then: impl FnOnce(&dyn Manager) + Send + 's) {
        let (first, second) = (self.first.manager(), self.second.manager());
        let (go, gone) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let (again, once_more) = mpsc::channel::<bool>();
        scope.spawn(move || {
            loop {
                gone.recv().unwrap();
                let _clean = second.lock(HANDED_ON).unwrap();
                tell.send(()).unwrap();
                if !once_more.recv().unwrap() {
                    return then(second);
                }
                second.unlock(HANDED_ON).unwrap();
            }
        });
        eventually("it is handed on", || {
            let _clean = first.lock(HANDED_ON).unwrap();
            go.send(()).unwrap();
            eventually("it waits", || self.first.manager().lock_info(HANDED_ON).unwrap().waiters == 1);
            // A waiter sleeps some time after it is counted.
            thread::sleep(Duration::from_millis(20));
            first.unlock(HANDED_ON).unwrap();
            told.recv().unwrap();
            let holder = self.other.look(HANDED_ON).unwrap().holder;
            let is_handed_on = holder.is_some_and(|(party, _)| party.handed_on);
            again.send(!is_handed_on).unwrap();
            is_handed_on
        });
    }

    fn until_waited_for(&self, id: u32) {
        eventually("another host waits", || self.other.look(id).unwrap().waiters.len() == 1);
    }

    fn end(self) {
        let Self { address, first, second, other, _cluster } = self;
        drop((first, second, other));
        let options = |host| Options::of_address(&address).unwrap().host(host).unwrap();
        lock_manager_etcd::forget_host(&options("two")).unwrap();
        lock_manager_etcd::remove(&options("one")).unwrap();
    }
}

/// Takes a lock if that ends well, gives it back, and says how it ended.
fn takes(manager: &dyn Manager, id: u32) -> Result<(), i32> {
    let taken = manager.timed_lock(id, LONG).and_then(|_| manager.unlock(id));
    taken.map_err(|error| error.errno())
}

/// Through the thread that made the key there is a circle; through the one that holds the lock there is none.
#[test]
fn a_lock_that_was_handed_on_is_not_its_first_holders() {
    if !is_there_or_skip() {
        return;
    }
    let hosts = Hosts::new();
    let (first, other) = (hosts.first.manager(), hosts.other.manager());
    thread::scope(|scope| {
        let (give, given) = mpsc::channel();
        hosts.hand_on(scope, move |second| {
            given.recv().unwrap();
            second.unlock(HANDED_ON).unwrap();
        });
        let theirs = scope.spawn(|| {
            let _clean = other.lock(OTHER).unwrap();
            let outcome = takes(other, HANDED_ON);
            other.unlock(OTHER).unwrap();
            outcome
        });
        hosts.until_waited_for(HANDED_ON);
        let hosts = &hosts;
        scope.spawn(move || {
            hosts.until_waited_for(OTHER);
            // Long enough for some looks at all waits.
            thread::sleep(Duration::from_secs(2));
            give.send(()).unwrap();
        });
        assert_eq!(takes(first, OTHER), Ok(()));
        assert_eq!(theirs.join().unwrap(), Ok(()));
    });
    hosts.end();
}

#[test]
fn a_circle_through_a_lock_that_was_handed_on_has_one_victim() {
    if !is_there_or_skip() {
        return;
    }
    let hosts = Hosts::new();
    let other = hosts.other.manager();
    thread::scope(|scope| {
        let ((go, gone), (tell, told)) = (mpsc::channel(), mpsc::channel());
        hosts.hand_on(scope, move |second| {
            gone.recv().unwrap();
            let outcome = takes(second, OTHER);
            second.unlock(HANDED_ON).unwrap();
            tell.send(outcome).unwrap();
        });
        let _clean = other.lock(OTHER).unwrap();
        go.send(()).unwrap();
        let theirs = takes(other, HANDED_ON);
        other.unlock(OTHER).unwrap();
        let outcomes = [theirs, told.recv().unwrap()];
        assert!(outcomes.contains(&Ok(())) && outcomes.contains(&Err(libc::EDEADLK)), "{outcomes:?}");
    });
    hosts.end();
}
