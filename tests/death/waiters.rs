// SPDX-License-Identifier: MIT OR Apache-2.0
//! Those who wait: they get the lock of a holder that dies, and the death of one of them strands no other.

use std::sync::atomic::{AtomicU32, Ordering};

use lock_manager::{Acquired, Manager};

use super::support::alone::alone;
use super::support::{Child, Random, Segment, board, eventually, fork, taken_once};
use super::{Exit, LONG};

#[test]
fn a_waiter_gets_the_lock_of_a_killed_holder_and_is_told() {
    alone!({
        let segment = Segment::of(32);
        for _ in 0..20 {
            let holder = segment.holder_of(&[3]);
            let waiter = fork(|| {
                let manager = segment.open();
                assert_eq!(manager.timed_lock(3, LONG).unwrap(), Acquired::OwnerDied);
                manager.unlock(3).unwrap();
            });
            waiter.until_it_waits();
            holder.kill();
            waiter.succeeds();
            assert_eq!(taken_once(&segment.open(), 3), Acquired::Clean);
        }
    });
}

#[test]
fn of_many_waiters_one_is_told_and_all_get_the_lock() {
    alone!({
        let segment = Segment::of(32);
        let told = &board(1)[0];
        let holder = segment.holder_of(&[3]);
        let waiters: Vec<Child> = (0..8)
            .map(|_| {
                fork(|| {
                    let manager = segment.open();
                    let acquired = manager.timed_lock(3, LONG).unwrap();
                    told.fetch_add(u32::from(acquired == Acquired::OwnerDied), Ordering::Relaxed);
                    manager.unlock(3).unwrap();
                })
            })
            .collect();
        waiters.iter().for_each(Child::until_it_waits);
        holder.kill();
        waiters.into_iter().for_each(Child::succeeds);
        assert_eq!(told.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_waiter_killed_around_its_wake_up_strands_no_other() {
    const PROCESSES: u64 = 4;
    const ROUNDS: u32 = 100;
    alone!({
        let mut random = Random::seeded();
        let recipe = random.recipe();
        let stranders: Vec<Child> = (0..PROCESSES)
            .map(|_| {
                let seed = random.next();
                fork(|| (0..ROUNDS).for_each(|round| strand(&mut Random::from_seed(seed ^ u64::from(round)))))
            })
            .collect();
        // Waited for at the end alone: they must not be killed because one has failed.
        let results: Vec<_> = stranders.into_iter().map(Child::wait).collect();
        assert!(results.iter().all(|&exit| exit == Exit::Code(0)), "{results:?}, {recipe}");
    });
}

/// A holder unlocks, which wakes the first waiter, and locks again before that one gets its turn. Killed then, the
/// first waiter takes the wake-up with it: nothing that comes later wakes the second, though the lock is free.
fn strand(random: &mut Random) {
    let segment = Segment::of(32);
    let manager = segment.open();
    let _ = manager.lock(0).unwrap();
    let second_has_it = &board(1)[0];
    let wait = |report: Option<&AtomicU32>| {
        fork(|| {
            let manager = segment.open();
            let _ = manager.timed_lock(0, LONG).unwrap();
            report.inspect(|report| report.store(1, Ordering::Release));
            manager.unlock(0).unwrap();
        })
    };
    let first = wait(None);
    first.until_it_waits();
    let second = wait(Some(second_has_it));
    second.until_it_waits();
    manager.unlock(0).unwrap();
    let again = manager.try_lock(0);
    for _ in 0..random.below(1000) {
        std::hint::spin_loop();
    }
    first.kill();
    if again.is_ok() {
        manager.unlock(0).unwrap();
    }
    eventually("the second waiter has the lock", || second_has_it.load(Ordering::Acquire) == 1);
    second.succeeds();
}
