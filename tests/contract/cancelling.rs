// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ending waits from another thread.

use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;

use lock_manager::{Acquired, Cancel};

use super::subject::Subject;
use super::support::eventually;
use super::support::process::{own_tid, until_thread_waits};

const LONG_NS: u64 = 20_000_000_000;
const SHORT_NS: u64 = 30_000_000;

pub fn a_triggered_object_wins_over_a_free_lock(subject: &Subject) {
    let (manager, cancel) = (subject.make(), Cancel::new());
    assert_eq!(manager.cancellable_lock(0, u64::MAX, &cancel), Ok(Acquired::Clean));
    manager.unlock(0).unwrap();
    cancel.trigger();
    // And stays triggered.
    for _ in 0..2 {
        assert_eq!(manager.cancellable_lock(0, LONG_NS, &cancel), Err(libc::ECANCELED));
    }
    assert_eq!(manager.held(), Ok(vec![]));
    assert_eq!(manager.try_lock(0), Ok(Acquired::Clean));
    manager.unlock(0).unwrap();
}

pub fn triggering_ends_a_wait(subject: &Subject) {
    let (manager, cancel) = (subject.make(), Cancel::new());
    let _ = manager.lock(0).unwrap();
    let waiters = [(); 3].map(|()| AtomicI32::new(0));
    thread::scope(|scope| {
        for (waiter, timeout_ns) in waiters.iter().zip([u64::MAX, LONG_NS, u64::MAX]) {
            let (manager, cancel) = (&manager, &cancel);
            scope.spawn(move || {
                waiter.store(own_tid(), Ordering::Release);
                assert_eq!(manager.cancellable_lock(0, timeout_ns, cancel), Err(libc::ECANCELED));
            });
        }
        for waiter in &waiters {
            eventually("the waiter is there", || waiter.load(Ordering::Acquire) != 0);
            until_thread_waits(waiter.load(Ordering::Acquire));
        }
        cancel.trigger();
    });
    manager.unlock(0).unwrap();
    assert_eq!(manager.try_lock(0), Ok(Acquired::Clean));
    manager.unlock(0).unwrap();
}

pub fn a_wait_that_is_not_cancelled_ends_as_others_do(subject: &Subject) {
    let (manager, cancel) = (subject.make(), Cancel::new());
    let _ = manager.lock(0).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(manager.cancellable_lock(0, 0, &cancel), Err(libc::ETIMEDOUT));
            assert_eq!(manager.cancellable_lock(0, SHORT_NS, &cancel), Err(libc::ETIMEDOUT));
        });
    });
    let waiter = AtomicI32::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            waiter.store(own_tid(), Ordering::Release);
            assert_eq!(manager.cancellable_lock(0, u64::MAX, &cancel), Ok(Acquired::Clean));
            manager.unlock(0).unwrap();
        });
        eventually("the waiter is there", || waiter.load(Ordering::Acquire) != 0);
        until_thread_waits(waiter.load(Ordering::Acquire));
        manager.unlock(0).unwrap();
    });
}
