// SPDX-License-Identifier: MIT OR Apache-2.0
//! A lock belongs to the thread that took it, through the manager that took it, and to nobody else.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing helper is a failing test")]

#[path = "ownership/children.rs"]
mod children;
#[path = "ownership/closing.rs"]
mod closing;
mod support;

use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lock_manager::{Acquired, Held, Lock, Manager, Reason, ShmManager};
use support::alone::{alone, alone_as_root};
use support::process::{own_tid, until_thread_waits};
use support::{Segment, errno_of, eventually, fork, namespace, taken_once};

/// Where a lock that is lost would be waited for in vain.
const LONG: Duration = support::timing::scaled(Duration::from_secs(20));

#[test]
fn a_thread_that_holds_a_lock_is_told_instead_of_waiting_for_itself() {
    alone!({
        let segment = Segment::of(32);
        let [manager, other] = [segment.open(), segment.open()];
        let _ = manager.lock(3).unwrap();
        // Through whichever manager.
        for again in [&manager, &other] {
            for refused in [again.lock(3), again.timed_lock(3, LONG), again.timed_lock(3, Duration::ZERO)] {
                assert_eq!(refused.unwrap_err().reason(), &Reason::SelfDeadlock { id: 3 });
            }
            let error = again.try_lock(3).unwrap_err();
            assert_eq!(error.reason(), &Reason::Held { id: 3, holder: own_tid() as u32 });
        }
        assert_eq!(errno_of(manager.lock(3)), libc::EDEADLK);
        assert_eq!(errno_of(manager.try_lock(3)), libc::EBUSY);
        // It still holds it, once.
        manager.unlock(3).unwrap();
        assert_eq!(taken_once(&other, 3), Acquired::Clean);
    });
}

#[test]
fn only_the_thread_that_took_a_lock_can_unlock_it() {
    alone!({
        let segment = Segment::of(32);
        let manager = segment.open();
        let _ = manager.lock(3).unwrap();
        let elsewhere = || {
            let unlocked = manager.unlock(3).unwrap_err();
            assert_eq!((unlocked.errno(), unlocked.reason()), (libc::EPERM, &Reason::NotHolder { id: 3 }));
            assert_eq!(errno_of(manager.try_lock(3)), libc::EBUSY);
        };
        thread::scope(|scope| scope.spawn(elsewhere).join()).unwrap();
        assert_eq!(manager.locks_held().unwrap(), [3]);
        manager.unlock(3).unwrap();
    });
}

#[test]
fn a_lock_is_released_through_the_manager_that_took_it() {
    alone!({
        let segment = Segment::of(32);
        let [manager, other] = [segment.open(), segment.open()];
        let _ = manager.lock(3).unwrap();
        assert_eq!(errno_of(other.unlock(3)), libc::EPERM);
        let _ = other.lock(4).unwrap();
        assert_eq!(errno_of(manager.unlock(4)), libc::EPERM);
        manager.unlock(3).unwrap();
        other.unlock(4).unwrap();
        assert_eq!(other.locks_held().unwrap(), [0; 0]);
    });
}

#[test]
fn unlocking_what_is_not_held_is_refused_and_changes_nothing() {
    alone!({
        let segment = Segment::of(32);
        let manager = segment.open();
        let before = segment.bytes();
        assert_eq!(errno_of(manager.unlock(3)), libc::EPERM);
        assert_eq!(segment.bytes(), before);
        let _ = manager.lock(3).unwrap();
        manager.unlock(3).unwrap();
        assert_eq!(errno_of(manager.unlock(3)), libc::EPERM);
        assert_eq!(taken_once(&manager, 3), Acquired::Clean);
    });
}

#[test]
fn an_id_out_of_range_is_refused_by_every_call() {
    alone!({
        let segment = Segment::of(32);
        let manager = segment.open();
        for id in [32, 33, 1 << 31, u32::MAX] {
            for code in [
                errno_of(manager.lock(id)),
                errno_of(manager.try_lock(id)),
                errno_of(manager.timed_lock(id, LONG)),
                errno_of(manager.unlock(id)),
                errno_of(manager.retrieve_lock(id)),
                errno_of(manager.allocate_and_retrieve_lock(id)),
                errno_of(manager.free_lock(id)),
                errno_of(manager.lock_info(id)),
                errno_of(manager.repair_lock(id)),
            ] {
                assert_eq!(code, libc::EINVAL, "{id}");
            }
        }
    });
}

#[test]
fn freeing_an_id_leaves_its_lock_held() {
    alone!({
        let segment = Segment::of(32);
        let manager = segment.open();
        let id = manager.allocate_lock().unwrap();
        let _ = manager.lock(id).unwrap();
        manager.free_lock(id).unwrap();
        assert_eq!(errno_of(manager.free_lock(id)), libc::ENOENT);
        assert_eq!(manager.locks_held().unwrap(), [id]);
        assert_eq!(manager.allocate_lock().unwrap(), id);
        manager.free_all_locks().unwrap();
        assert_eq!(manager.locks_held().unwrap(), [id]);
        manager.unlock(id).unwrap();
    });
}

#[test]
fn a_wait_with_a_limit_ends_there_and_not_before() {
    alone!({
        let segment = Segment::of(32);
        let manager = segment.open();
        let _ = manager.lock(3).unwrap();
        let holder = own_tid() as u32;
        let elsewhere = || {
            for timeout in [0, 1, 20, 180].map(Duration::from_millis) {
                let start = Instant::now();
                let error = manager.timed_lock(3, timeout).unwrap_err();
                let waited = start.elapsed();
                let timeout_ns = timeout.as_nanos() as u64;
                assert_eq!(error.reason(), &Reason::TimedOut { id: 3, timeout_ns, holder });
                assert_eq!(error.errno(), libc::ETIMEDOUT);
                assert!(waited >= timeout && waited < LONG, "{waited:?} of {timeout:?}");
            }
            // Free, it is taken at once whatever the limit.
            let _ = manager.timed_lock(4, Duration::ZERO).unwrap();
            manager.unlock(4).unwrap();
        };
        thread::scope(|scope| scope.spawn(elsewhere).join()).unwrap();
        manager.unlock(3).unwrap();
    });
}

#[test]
fn a_signal_ends_no_wait() {
    static HANDLED: AtomicU32 = AtomicU32::new(0);
    extern "C" fn count(_signal: libc::c_int) {
        HANDLED.fetch_add(1, Ordering::Relaxed);
    }
    const SIGNALS: u32 = 200;
    const LIMIT: Duration = Duration::from_millis(500);
    alone!({
        // SAFETY: all-zero bytes are a valid sigaction: no flags, so no SA_RESTART, and an empty mask; the handler
        // only adds to an atomic.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = count as extern "C" fn(libc::c_int) as libc::sighandler_t;
            assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
        }
        let segment = Segment::of(32);
        let manager = segment.open();
        let _ = manager.lock(3).unwrap();
        let tid = AtomicI32::new(0);
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                tid.store(own_tid(), Ordering::Release);
                let start = Instant::now();
                let limited = errno_of(manager.timed_lock(3, LIMIT));
                (limited, start.elapsed(), manager.lock(3).map(|_| manager.unlock(3)))
            });
            eventually("the waiter is there", || tid.load(Ordering::Acquire) != 0);
            let tid = tid.load(Ordering::Acquire);
            let interrupt = || {
                let before = HANDLED.load(Ordering::Relaxed);
                // SAFETY: tgkill(2) touches no memory.
                unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, libc::SIGUSR1) };
                eventually("the signal is handled", || HANDLED.load(Ordering::Relaxed) > before);
            };
            let start = Instant::now();
            while start.elapsed() < LIMIT * 2 {
                interrupt();
            }
            for _ in 0..SIGNALS {
                until_thread_waits(tid);
                interrupt();
            }
            manager.unlock(3).unwrap();
            let (limited, waited, unlimited) = waiter.join().unwrap();
            assert_eq!(limited, libc::ETIMEDOUT);
            assert!(waited >= LIMIT, "{waited:?}");
            unlimited.unwrap().unwrap();
        });
        assert!(HANDLED.load(Ordering::Relaxed) > SIGNALS);
    });
}

#[test]
fn looking_neither_takes_a_lock_nor_swallows_the_news_of_a_death() {
    alone!({
        let segment = Segment::of(32);
        let manager = segment.open();
        let living = segment.holder_of(&[7]);
        segment.holder_of(&[3]).kill();
        let before = segment.bytes();
        for viewer in [&manager, &ShmManager::open_read_only(&segment.name).unwrap()] {
            assert_eq!(viewer.locks_held().unwrap(), [7]);
            let dead = viewer.lock_info(3).unwrap();
            assert_eq!((dead.id, dead.held, dead.owner_died, dead.pid, dead.tid), (3, false, true, 0, 0));
            let held = viewer.lock_info(7).unwrap();
            assert_eq!((held.held, held.owner_died, held.pid, held.tid), (true, false, living.pid(), living.pid()));
            assert_ne!(held.pid_namespace, 0);
            let free = viewer.lock_info(4).unwrap();
            assert_eq!((free.held, free.owner_died, free.allocated, free.pid), (false, false, false, 0));
            assert_eq!(viewer.available_locks().unwrap(), 32);
            viewer.retrieve_lock(3).unwrap();
            assert_eq!(viewer.info().unwrap().num_locks, 32);
        }
        assert_eq!(segment.bytes(), before);
        assert_eq!(taken_once(&manager, 3), Acquired::OwnerDied);
    });
}

#[test]
fn a_guard_unlocks_when_it_goes_and_carries_the_news_of_a_death() {
    alone!({
        let segment = Segment::of(32);
        let manager = segment.open();
        let lock = Lock::allocate(&manager).unwrap();
        let mut guard = Some(lock.lock().unwrap());
        assert!(guard.as_ref().is_some_and(|guard| !guard.owner_died()));
        // A child's copy of the guard is no holder: its end unlocks nothing.
        fork(|| drop(guard.take())).succeeds();
        assert!(lock.info().unwrap().held);
        drop(guard);
        assert!(!lock.info().unwrap().held);

        segment.holder_of(&[lock.id()]).kill();
        let Held::OwnerDied(guard) = lock.try_lock().unwrap() else { panic!("nobody said that the holder died") };
        assert_eq!(guard.id(), lock.id());
        drop(guard);
        let guard = lock.timed_lock(LONG).unwrap();
        assert!(!guard.owner_died());
        guard.into_guard().unlock().unwrap();
        assert!(!lock.info().unwrap().held);
        lock.free().unwrap();
    });
}

#[test]
fn a_thread_of_the_same_number_in_another_pid_namespace_is_another_thread() {
    alone_as_root!({
        let segment = Segment::of(32);
        let [held, done] = [&support::board(2)[0], &support::board(2)[1]];
        // As the first process of a namespace of its own.
        let as_process_1 = |body: &dyn Fn(&ShmManager)| {
            fork(|| {
                namespace::new_pid_namespace_for_children();
                fork(|| {
                    assert_eq!((std::process::id(), own_tid()), (1, 1));
                    body(&segment.open());
                })
                .succeeds();
            })
        };
        let holder = as_process_1(&|manager| {
            let _ = manager.lock(0).unwrap();
            held.store(1, Ordering::Release);
            eventually("the other has tried all", || done.load(Ordering::Acquire) == 1);
            assert_eq!(manager.locks_held().unwrap(), [0]);
            manager.unlock(0).unwrap();
            assert_eq!(taken_once(manager, 0), Acquired::Clean);
            assert_eq!(taken_once(manager, 1), Acquired::OwnerDied);
        });
        eventually("the lock is held", || held.load(Ordering::Acquire) == 1);
        as_process_1(&|manager| {
            assert_eq!(errno_of(manager.unlock(0)), libc::EPERM);
            assert_eq!(errno_of(manager.try_lock(0)), libc::EBUSY);
            assert_eq!(errno_of(manager.timed_lock(0, Duration::from_millis(300))), libc::ETIMEDOUT);
            assert_eq!(errno_of(manager.repair_lock(0)), libc::EBUSY);
            assert_eq!(manager.locks_held().unwrap(), [0]);
            assert_eq!(manager.lock(1).unwrap(), Acquired::Clean);
        })
        .succeeds();
        done.store(1, Ordering::Release);
        holder.succeeds();
    });
}
