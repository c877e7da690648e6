// SPDX-License-Identifier: MIT OR Apache-2.0
//! A waiter that is killed around its wake-up: a plain robust mutex leaves the others asleep for ever.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lock_manager::Manager;

use super::{Child, Exit, Random, Segment, board, eventually, fork};

/// Longer than any wait of the scenario, and shorter than a test may take.
const LONG: Duration = super::timing::scaled(Duration::from_secs(20));

/// Kills such waiters in four hundred rounds, each on a segment that `fresh` makes.
pub fn a_killed_waiter_strands_no_other(fresh: fn() -> Segment) {
    const PROCESSES: u64 = 4;
    const ROUNDS: u32 = 100;
    let mut random = Random::seeded();
    let recipe = random.recipe();
    let stranders: Vec<Child> = (0..PROCESSES)
        .map(|_| {
            let seed = random.next();
            fork(|| (0..ROUNDS).for_each(|round| strand(fresh, &mut Random::from_seed(seed ^ u64::from(round)))))
        })
        .collect();
    // Waited for at the end alone: they must not be killed because one has failed.
    let results: Vec<_> = stranders.into_iter().map(Child::wait).collect();
    assert!(results.iter().all(|&exit| exit == Exit::Code(0)), "{results:?}, {recipe}");
}

/// A holder unlocks, which wakes the first waiter, and locks again before that one gets its turn. Killed then, the
/// first waiter takes the wake-up with it: nothing that comes later wakes the second, though the lock is free.
fn strand(fresh: fn() -> Segment, random: &mut Random) {
    let segment = fresh();
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
