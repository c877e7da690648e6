// SPDX-License-Identifier: MIT OR Apache-2.0
//! What robust mutexes of POSIX lose for ever is recovered here, most of it within milliseconds.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lock_manager::{Acquired, Manager};

use super::LONG;
use super::support::alone::alone;
use super::support::made::{leak, pthread, raw_clone};
use super::support::process::sleep_until_killed;
use super::support::stranding;
use super::support::timing::{RECOVERED, mostly_within};
use super::support::{Child, Segment, board, errno_of, eventually, fork, taken_once};

/// Waits for lock 3 in a child, has `die` end its holder, and tells how long after that the waiter had the lock.
pub fn recovered(segment: &Segment, die: impl FnOnce()) -> Duration {
    let (micros, origin) = (&board(1)[0], Instant::now());
    let waiter = fork(|| {
        let manager = segment.open();
        assert_eq!(manager.timed_lock(3, LONG).unwrap(), Acquired::OwnerDied);
        micros.store(origin.elapsed().as_micros() as u32, Ordering::Release);
        manager.unlock(3).unwrap();
        assert_eq!(taken_once(&manager, 3), Acquired::Clean);
    });
    waiter.until_it_waits();
    let start = origin.elapsed();
    die();
    waiter.succeeds();
    Duration::from_micros(micros.load(Ordering::Acquire).into()).saturating_sub(start)
}

/// A child that does `prepare` and lives on with what that gives.
fn prepared<T>(prepare: impl FnOnce() -> T) -> Child {
    let ready = &board(1)[0];
    let child = fork(|| {
        let _kept = prepare();
        ready.store(1, Ordering::Release);
        sleep_until_killed();
    });
    eventually("the child is ready", || ready.load(Ordering::Acquire) == 1);
    child
}

#[test]
fn exec_by_a_thread_that_is_not_the_first() {
    alone!({
        let segment = Segment::native(64);
        mostly_within(RECOVERED, "exec by another than the first thread", |_| {
            let [ready, go] = [&board(1)[0], &board(1)[0]];
            let holder = fork(|| {
                let manager = leak(segment.open());
                pthread(move || {
                    let _ = manager.lock(3).unwrap();
                    ready.store(1, Ordering::Release);
                    eventually("the waiter waits", || go.load(Ordering::Acquire) == 1);
                    let (program, argument) = (c"/bin/sleep", c"60");
                    let arguments = [program.as_ptr(), argument.as_ptr(), std::ptr::null()];
                    // SAFETY: execv(3) reads the strings and the array, which live until it returns, if it does.
                    unsafe { libc::execv(program.as_ptr(), arguments.as_ptr()) };
                });
                sleep_until_killed();
            });
            eventually("it holds the lock", || ready.load(Ordering::Acquire) == 1);
            let time = recovered(&segment, || go.store(1, Ordering::Release));
            assert!(super::support::process::state_of(holder.pid()).is_some(), "the program goes on");
            time
        });
    });
}

#[test]
fn closing_while_a_lock_is_held() {
    alone!({
        let [segment, other] = [Segment::native(64), Segment::native(64)];
        let holder = prepared(|| {
            let (manager, second) = (segment.open(), other.open());
            let _ = manager.lock(3).unwrap();
            let _ = second.lock(3).unwrap();
            let (manager, error) = *manager.close().unwrap_err();
            assert_eq!(error.errno(), libc::EBUSY);
            // Dropped without a look, it leaves the lock held as long as the process lives.
            drop(manager);
            assert_eq!(errno_of(segment.open().try_lock(3)), libc::EBUSY);
            drop(second);
        });
        let (manager, second) = (segment.open(), other.open());
        for held in [&manager, &second] {
            assert_eq!(errno_of(held.timed_lock(3, Duration::from_millis(100))), libc::ETIMEDOUT);
        }
        assert!(recovered(&segment, || holder.kill()) < LONG);
        assert_eq!(taken_once(&second, 3), Acquired::OwnerDied);
        // The same for another thread's lock, which is free when the thread ends.
        let manager = leak(manager);
        let [held, go] = [&board(1)[0], &board(1)[0]];
        let thread = pthread(move || {
            let _ = manager.lock(3).unwrap();
            held.store(1, Ordering::Release);
            eventually("the other has closed", || go.load(Ordering::Acquire) == 1);
        });
        eventually("it holds the lock", || held.load(Ordering::Acquire) == 1);
        assert_eq!(errno_of(manager.check_idle()), libc::EBUSY);
        assert!(recovered(&segment, || go.store(1, Ordering::Release)) < LONG);
        thread.join();
    });
}

#[test]
fn three_thousand_locks_of_one_thread() {
    const LOCKS: u32 = 3000;
    alone!({
        let segment = Segment::native(LOCKS);
        let manager = segment.open();
        let all: Vec<u32> = (0..LOCKS).collect();
        mostly_within(RECOVERED, "the first of 3000 locks", |_| {
            let holder = segment.holder_of(&all);
            assert_eq!(manager.locks_held().unwrap(), all);
            let time = recovered(&segment, || holder.signal(libc::SIGKILL));
            drop(holder);
            let start = Instant::now();
            for &id in all.iter().filter(|&&id| id != 3) {
                assert_eq!(taken_once(&manager, id), Acquired::OwnerDied, "{id}");
            }
            super::support::note(format_args!("the others within {:?}", start.elapsed()));
            time
        });
    });
}

#[test]
fn a_list_of_mutexes_that_the_kernel_has_lost() {
    alone!({
        let segment = Segment::native(64);
        mostly_within(RECOVERED, "a holder without a list of mutexes is killed", |_| {
            let holder = segment_holder_without_a_list(&segment);
            recovered(&segment, || holder.signal(libc::SIGKILL))
        });
    });
}

fn segment_holder_without_a_list(segment: &Segment) -> Child {
    prepared(|| {
        let manager = segment.open();
        let _ = manager.lock(3).unwrap();
        // The head of a list is three words.
        let size = 3 * size_of::<usize>();
        // SAFETY: set_robust_list(2) with no list: the kernel looks at none.
        let code = unsafe { libc::syscall(libc::SYS_set_robust_list, 0, size) };
        assert_eq!(code, 0);
        manager
    })
}

#[test]
fn a_waiter_killed_around_its_wake_up_strands_no_other() {
    alone!({ stranding::a_killed_waiter_strands_no_other(|| Segment::native(64)) });
}

#[test]
fn a_child_cloned_behind_the_libcs_back() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let _ = manager.lock(4).unwrap();
        mostly_within(RECOVERED, "a raw clone that holds is killed", |_| {
            let ready = &board(1)[0];
            let holder = raw_clone(|| {
                assert_eq!(errno_of(manager.unlock(4)), libc::EPERM);
                assert_eq!(taken_once(&manager, 5), Acquired::Clean);
                let _ = manager.lock(3).unwrap();
                ready.store(1, Ordering::Release);
                sleep_until_killed();
            });
            eventually("it holds the lock", || ready.load(Ordering::Acquire) == 1);
            assert_eq!(errno_of(manager.try_lock(3)), libc::EBUSY);
            assert_eq!(manager.lock_info(3).unwrap().pid, holder.pid());
            recovered(&segment, || holder.signal(libc::SIGKILL))
        });
        manager.unlock(4).unwrap();
    });
}
