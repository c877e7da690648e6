// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holders: one at a time, and who may be one.

use std::cell::Cell;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lock_manager::Acquired;

use super::door::Opened;
use super::subject::Subject;
use super::support::process::{own_tid, until_thread_waits};
use super::support::{board, eventually, fork};

/// Where a lock that is lost would be waited for in vain.
const LONG_NS: u64 = 20_000_000_000;
const SHORT_NS: u64 = 30_000_000;

/// Counts in two words that are equal whenever nobody is inside.
fn count(manager: &dyn Opened, words: &[AtomicU32], rounds: u32) {
    for round in 0..rounds {
        let acquired = if round % 2 == 0 { manager.lock(1) } else { manager.timed_lock(1, LONG_NS) };
        assert_eq!(acquired, Ok(Acquired::Clean));
        let before = words[0].load(Ordering::Relaxed);
        words[0].store(before + 1, Ordering::Relaxed);
        assert_eq!(words[1].load(Ordering::Relaxed), before);
        words[1].store(before + 1, Ordering::Relaxed);
        manager.unlock(1).unwrap();
    }
}

pub fn a_lock_excludes_threads(subject: &Subject) {
    const THREADS: u32 = 4;
    const ROUNDS: u32 = 500;
    let (manager, words) = (subject.make(), board(2));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| count(&*manager, words, ROUNDS));
        }
    });
    assert_eq!(words[0].load(Ordering::Relaxed), THREADS * ROUNDS);
}

pub fn a_lock_excludes_managers_and_processes(subject: &Subject) {
    const ROUNDS: u32 = 200;
    let (manager, words) = (subject.make(), board(2));
    let [one, other] = [(); 2].map(|()| fork(|| count(&*subject.open(), words, ROUNDS)));
    // A child that goes on with its parent's manager.
    let heir = fork(|| count(&*manager, words, ROUNDS));
    let second = subject.open();
    thread::scope(|scope| {
        scope.spawn(|| count(&*manager, words, ROUNDS));
        scope.spawn(|| count(&*second, words, ROUNDS));
    });
    for child in [one, other, heir] {
        child.succeeds();
    }
    assert_eq!(words[0].load(Ordering::Relaxed), 5 * ROUNDS);
}

pub fn a_held_lock_is_busy_and_a_wait_for_it_ends_in_time(subject: &Subject) {
    let manager = subject.make();
    assert_eq!(manager.timed_lock(0, 0), Ok(Acquired::Clean));
    thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(manager.try_lock(0), Err(libc::EBUSY));
            assert_eq!(manager.timed_lock(0, 0), Err(libc::ETIMEDOUT));
            let start = Instant::now();
            assert_eq!(manager.timed_lock(0, SHORT_NS), Err(libc::ETIMEDOUT));
            assert!(start.elapsed() >= Duration::from_nanos(SHORT_NS), "{:?}", start.elapsed());
        });
    });
    manager.unlock(0).unwrap();
    assert_eq!(manager.timed_lock(0, u64::MAX), Ok(Acquired::Clean));
    manager.unlock(0).unwrap();
}

pub fn waiting_for_oneself_is_a_deadlock(subject: &Subject) {
    let manager = subject.make();
    let _ = manager.lock(2).unwrap();
    let own = |manager: &dyn Opened| {
        let cancel = lock_manager::Cancel::new();
        [manager.lock(2), manager.timed_lock(2, 0), manager.cancellable_lock(2, LONG_NS, &cancel)]
    };
    assert_eq!(own(&*manager), [Err(libc::EDEADLK); 3]);
    assert_eq!(manager.try_lock(2), Err(libc::EBUSY));
    if subject.is_shared() {
        let other = subject.open();
        assert_eq!(own(&*other), [Err(libc::EDEADLK); 3]);
        assert_eq!(other.try_lock(2), Err(libc::EBUSY));
    }
    // Once.
    manager.unlock(2).unwrap();
    assert_eq!(manager.unlock(2), Err(libc::EPERM));
}

pub fn only_the_holder_unlocks(subject: &Subject) {
    let manager = subject.make();
    assert_eq!(manager.unlock(4), Err(libc::EPERM));
    let _ = manager.lock(4).unwrap();
    thread::scope(|scope| {
        let elsewhere = scope.spawn(|| manager.unlock(4));
        assert_eq!(elsewhere.join().unwrap(), Err(libc::EPERM));
    });
    if subject.is_shared() {
        assert_eq!(subject.open().unlock(4), Err(libc::EPERM));
    }
    assert_eq!(manager.held(), Ok(vec![4]));
    manager.unlock(4).unwrap();
}

pub fn allocation_changes_nothing_in_a_lock(subject: &Subject) {
    let manager = subject.make();
    let busy = || thread::scope(|scope| scope.spawn(|| manager.try_lock(0)).join().unwrap());
    let _ = manager.lock(0).unwrap();
    assert!(!manager.look(0).unwrap().allocated);
    manager.allocate_given(0).unwrap();
    assert_eq!(busy(), Err(libc::EBUSY));
    manager.free(0).unwrap();
    assert_eq!(busy(), Err(libc::EBUSY));
    manager.allocate_given(0).unwrap();
    manager.free_all().unwrap();
    assert_eq!(busy(), Err(libc::EBUSY));
    assert_eq!(manager.held(), Ok(vec![0]));
    manager.unlock(0).unwrap();
    assert_eq!(manager.try_lock(0), Ok(Acquired::Clean));
    // A lock is no allocation.
    assert!(!manager.look(0).unwrap().allocated);
    manager.unlock(0).unwrap();
}

pub fn a_lock_is_handed_over_to_every_waiter(subject: &Subject) {
    const WAITERS: u32 = 8;
    let manager = subject.make();
    let _ = manager.lock(6).unwrap();
    let turns = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..WAITERS {
            scope.spawn(|| {
                assert_eq!(manager.timed_lock(6, LONG_NS), Ok(Acquired::Clean));
                turns.fetch_add(1, Ordering::Relaxed);
                manager.unlock(6).unwrap();
            });
        }
        manager.unlock(6).unwrap();
    });
    assert_eq!(turns.into_inner(), WAITERS);
}

pub fn a_forked_child_is_refused(subject: &Subject) {
    let manager = subject.make();
    let _ = manager.lock(5).unwrap();
    fork(|| {
        assert_eq!([manager.lock(7), manager.try_lock(5)], [Err(libc::EOPNOTSUPP); 2]);
        assert_eq!(manager.unlock(5), Err(libc::EOPNOTSUPP));
        assert_eq!(manager.allocate(), Err(libc::EOPNOTSUPP));
        let lookups = [manager.retrieve(5), manager.free(5), manager.look(5).map(drop), manager.held().map(drop)];
        assert_eq!(lookups, [Err(libc::EOPNOTSUPP); 4]);
        // Memory that is not there is not touched by giving it back, either.
        assert_eq!(manager.close(), Ok(()));
    })
    .succeeds();
    is_still_held(&*manager, 5);
}

/// That a child's end changed nothing: this thread holds the lock, and gives it back.
fn is_still_held(manager: &dyn Opened, id: u32) {
    thread::scope(|scope| {
        let elsewhere = scope.spawn(|| manager.try_lock(id));
        assert_eq!(elsewhere.join().unwrap(), Err(libc::EBUSY));
    });
    manager.unlock(id).unwrap();
    assert_eq!(manager.try_lock(id), Ok(Acquired::Clean));
    manager.unlock(id).unwrap();
}

pub fn a_forked_child_holds_nothing(subject: &Subject) {
    let manager = subject.make();
    let _ = manager.lock(5).unwrap();
    fork(|| {
        assert_eq!(manager.unlock(5), Err(libc::EPERM));
        assert_eq!(manager.try_lock(5), Err(libc::EBUSY));
        assert_eq!(manager.timed_lock(5, SHORT_NS), Err(libc::ETIMEDOUT));
        assert_eq!(manager.lock(7), Ok(Acquired::Clean));
        manager.unlock(7).unwrap();
    })
    .succeeds();
    is_still_held(&*manager, 5);
}

pub fn a_process_cannot_own_locks(subject: &Subject) {
    let manager = subject.make();
    assert_eq!(manager.own_by_process(), Err(libc::EOPNOTSUPP));
    // It stays the thread's.
    let _ = manager.lock(3).unwrap();
    assert!(!manager.look(3).unwrap().by_process);
    let elsewhere = thread::scope(|scope| scope.spawn(|| manager.unlock(3)).join().unwrap());
    assert_eq!(elsewhere, Err(libc::EPERM));
    manager.unlock(3).unwrap();
}

pub fn a_process_may_own_locks(subject: &Subject) {
    let manager = subject.make();
    manager.own_by_process().unwrap();
    let _ = manager.lock(3).unwrap();
    assert!(manager.look(3).unwrap().by_process);
    // Nothing says that the process cannot unlock it meanwhile, so its threads wait, the holder too.
    assert_eq!(manager.timed_lock(3, SHORT_NS), Err(libc::ETIMEDOUT));
    assert_eq!(manager.try_lock(3), Err(libc::EBUSY));
    let taken = Cell::new(None);
    thread::scope(|scope| {
        scope.spawn(|| manager.unlock(3).unwrap()).join().unwrap();
        // Taken by a thread that ends: the process holds it on.
        scope.spawn(|| manager.lock(3).unwrap()).join().map(|acquired| taken.set(Some(acquired))).unwrap();
    });
    assert_eq!(taken.get(), Some(Acquired::Clean));
    assert_eq!(manager.try_lock(3), Err(libc::EBUSY));
    manager.unlock(3).unwrap();
    assert_eq!(manager.try_lock(3), Ok(Acquired::Clean));
    manager.unlock(3).unwrap();
}

pub fn ownership_is_settled_by_the_first_lock(subject: &Subject) {
    let manager = subject.make();
    let _ = manager.lock(0).unwrap();
    assert_eq!(manager.own_by_process(), Err(libc::EBUSY));
    manager.unlock(0).unwrap();
    assert_eq!(manager.own_by_process(), Err(libc::EBUSY));
}

pub fn a_manager_in_use_is_not_closed(subject: &Subject) {
    let manager = subject.make();
    let _ = manager.lock(8).unwrap();
    assert_eq!(manager.close(), Err(libc::EBUSY));
    manager.unlock(8).unwrap();
    if subject.is_shared() {
        // Another manager holds the lock, and a thread waits for it in a call on this one.
        let holder = subject.open();
        let _ = holder.lock(8).unwrap();
        let waiter = AtomicI32::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                waiter.store(own_tid(), Ordering::Release);
                assert_eq!(manager.timed_lock(8, LONG_NS), Ok(Acquired::Clean));
                manager.unlock(8).unwrap();
            });
            eventually("the waiter is there", || waiter.load(Ordering::Acquire) != 0);
            until_thread_waits(waiter.load(Ordering::Acquire));
            assert_eq!(manager.close(), Err(libc::EBUSY));
            holder.unlock(8).unwrap();
        });
        holder.close().unwrap();
    }
    manager.close().unwrap();
}
