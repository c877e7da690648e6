// SPDX-License-Identifier: MIT OR Apache-2.0
//! Killed after any instruction of a call that changes something, a process leaves everything as others can use it.

use std::cell::RefCell;
use std::time::Duration;

use lock_manager::{Manager, ShmManager};

use super::support::alone::alone;
use super::support::step::{Stepped, at_every_instruction, opened_and_used};
use super::support::{Segment, fork, layout};

/// Where the waits below would be lost.
const LONG: Duration = super::support::timing::scaled(Duration::from_secs(20));

fn lock_and_unlock(manager: &ShmManager) {
    let _ = manager.lock(0).unwrap();
    manager.unlock(0).unwrap();
}

/// The lock can be had, and is nobody's afterwards.
fn assert_not_lost(manager: &ShmManager, count: u64) {
    let acquired = manager.timed_lock(0, LONG);
    assert!(acquired.is_ok(), "lost by a death after {count} instructions: {acquired:?}");
    manager.unlock(0).unwrap();
    assert_eq!(manager.locks_held().unwrap(), [0; 0], "after {count} instructions");
}

#[test]
fn of_lock_and_unlock_no_lock_is_lost() {
    alone!({
        let segment = Segment::of(32);
        let manager = segment.open();
        at_every_instruction(
            || Stepped::start(|| opened_and_used(&segment), lock_and_unlock),
            |stepped, count| {
                stepped.kill();
                assert_not_lost(&manager, count);
            },
        );
    });
}

#[test]
fn of_a_threads_first_lock_no_lock_is_lost() {
    alone!({
        let segment = Segment::of(32);
        let manager = segment.open();
        at_every_instruction(
            || Stepped::start(|| segment.open(), lock_and_unlock),
            |stepped, count| {
                stepped.kill();
                assert_not_lost(&manager, count);
            },
        );
    });
}

#[test]
fn of_an_unlock_with_a_waiter_the_waiter_gets_the_lock() {
    alone!({
        let segment = Segment::of(32);
        let manager = segment.open();
        let start = || {
            let lock = || {
                let manager = opened_and_used(&segment);
                let _ = manager.lock(0).unwrap();
                manager
            };
            Stepped::start(lock, |manager| manager.unlock(0).unwrap())
        };
        let waiters = RefCell::new(Vec::new());
        // The waiter sleeps before the first step; the holder is stopped until then.
        let with_waiter = || {
            let holder = start();
            let waiter = fork(|| {
                let manager = segment.open();
                let acquired = manager.timed_lock(0, LONG);
                assert!(acquired.is_ok(), "{acquired:?}");
                manager.unlock(0).unwrap();
            });
            waiter.until_it_waits();
            assert_ne!(segment.word_at(layout::word(0)) & layout::WAITERS, 0);
            waiters.borrow_mut().push(waiter);
            holder
        };
        at_every_instruction(with_waiter, |holder, count| {
            holder.kill();
            waiters.borrow_mut().pop().unwrap().succeeds();
            assert_not_lost(&manager, count);
        });
    });
}

#[test]
fn of_allocate_and_free_at_most_one_id_is_lost_and_none_is_given_twice() {
    const IN_USE: u32 = 10;
    alone!({
        let segment = Segment::of(64);
        let manager = segment.open();
        for _ in 0..IN_USE {
            manager.allocate_lock().unwrap();
        }
        let allocate_and_free = |manager: &ShmManager| {
            let id = manager.allocate_lock().unwrap();
            assert!(id >= IN_USE);
            manager.free_lock(id).unwrap();
        };
        at_every_instruction(
            || Stepped::start(|| opened_and_used(&segment), allocate_and_free),
            |stepped, count| {
                stepped.kill();
                let allocated: Vec<u32> = (0..64).filter(|&id| manager.lock_info(id).unwrap().allocated).collect();
                assert!((0..IN_USE).all(|id| allocated.contains(&id)), "{allocated:?} after {count} instructions");
                let leaked = allocated.len() as u32 - IN_USE;
                assert!(leaked <= 1, "{allocated:?} after {count} instructions");
                assert_eq!(manager.available_locks().unwrap(), 64 - IN_USE - leaked);
                // The next gets another, and what was lost can be given back by its id.
                let next = manager.allocate_lock().unwrap();
                assert!(!allocated.contains(&next), "{next} was given twice, after {count} instructions");
                for id in allocated.into_iter().skip(IN_USE as usize).chain([next]) {
                    manager.free_lock(id).unwrap();
                }
            },
        );
    });
}
