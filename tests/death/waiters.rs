// SPDX-License-Identifier: MIT OR Apache-2.0
//! Those who wait: they get the lock of a holder that dies, and the death of one of them strands no other.

use std::sync::atomic::Ordering;

use lock_manager::{Acquired, Manager};

use super::LONG;
use super::support::alone::alone;
use super::support::stranding;
use super::support::{Child, Segment, board, fork, taken_once};

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
    alone!({ stranding::a_killed_waiter_strands_no_other(|| Segment::of(32)) });
}
