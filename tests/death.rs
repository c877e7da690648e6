// SPDX-License-Identifier: MIT OR Apache-2.0
//! However a holder dies, its locks are free and the next holder is told, once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing helper is a failing test")]

#[cfg(target_arch = "x86_64")]
#[path = "death/every_instruction.rs"]
mod every_instruction;
#[path = "death/repair.rs"]
mod repair;
mod support;
#[path = "death/waiters.rs"]
mod waiters;

use std::ffi::CStr;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use lock_manager::{Acquired, Manager, Reason};
use support::alone::alone;
use support::process::sleep_until_killed;
use support::raw_mutex::RawMutex;
use support::{Exit, Segment, board, errno_of, eventually, fork, layout, namespace, taken_once};

/// Where a lock that is lost would be waited for in vain.
const LONG: Duration = support::timing::scaled(Duration::from_secs(20));

/// Becomes a program that does nothing until it is killed. Returns only if that fails.
fn exec_sleep() {
    exec(c"/bin/sleep", c"60");
}

fn exec(program: &CStr, argument: &CStr) {
    let arguments = [program.as_ptr(), argument.as_ptr(), std::ptr::null()];
    // SAFETY: execv(3) reads the strings and the array, which live until it returns, if it does.
    unsafe { libc::execv(program.as_ptr(), arguments.as_ptr()) };
}

/// Waits until the process has become another program than this.
fn until_exec(pid: i32) {
    let own = std::fs::read_link("/proc/self/exe").unwrap();
    eventually("the child has become another program", || {
        std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| program != own)
    });
}

#[test]
fn the_next_holder_and_no_other_is_told_that_the_last_was_killed() {
    alone!({
        let segment = Segment::of(32);
        let manager = segment.open();
        segment.holder_of(&[3]).kill();
        assert_eq!(taken_once(&manager, 3), Acquired::OwnerDied);
        assert_eq!(taken_once(&manager, 3), Acquired::Clean);
        assert_eq!(taken_once(&manager, 4), Acquired::Clean);
    });
}

#[test]
fn who_is_told_and_dies_before_unlocking_leaves_the_news_to_the_next() {
    alone!({
        let segment = Segment::of(32);
        for _ in 0..3 {
            segment.holder_of(&[3]).kill();
            assert!(segment.open().lock_info(3).unwrap().owner_died);
        }
        assert_eq!(taken_once(&segment.open(), 3), Acquired::OwnerDied);
    });
}

#[test]
fn every_way_to_call_is_told() {
    alone!({
        let segment = Segment::of(32);
        let manager = segment.open();
        segment.holder_of(&[0, 1, 2]).kill();
        assert_eq!(manager.lock(0).unwrap(), Acquired::OwnerDied);
        assert_eq!(manager.try_lock(1).unwrap(), Acquired::OwnerDied);
        assert_eq!(manager.timed_lock(2, Duration::ZERO).unwrap(), Acquired::OwnerDied);
        assert_eq!(manager.locks_held().unwrap(), [0, 1, 2]);
        (0..3).for_each(|id| manager.unlock(id).unwrap());
    });
}

#[test]
fn a_holder_that_crashes_frees_its_locks() {
    alone!({
        let segment = Segment::of(32);
        for signal in [libc::SIGSEGV, libc::SIGABRT, libc::SIGTERM] {
            let holder = fork(|| {
                let _ = segment.open().lock(3).unwrap();
                // SAFETY: signal(2) and raise(3) touch no memory; Rust's own handler, for a stack that is full, goes.
                unsafe {
                    libc::signal(signal, libc::SIG_DFL);
                    libc::raise(signal);
                }
            });
            assert_eq!(holder.wait(), Exit::Signal(signal));
            assert_eq!(taken_once(&segment.open(), 3), Acquired::OwnerDied);
        }
    });
}

#[test]
fn a_holder_that_exits_frees_its_locks() {
    alone!({
        let segment = Segment::of(32);
        fork(|| assert_eq!(segment.open().lock(3).unwrap(), Acquired::Clean)).succeeds();
        assert_eq!(taken_once(&segment.open(), 3), Acquired::OwnerDied);
    });
}

#[test]
fn a_stopped_holder_is_never_robbed_and_dies_like_any_other() {
    alone!({
        let segment = Segment::of(32);
        let manager = segment.open();
        let holder = segment.holder_of(&[3]);
        holder.signal(libc::SIGSTOP);
        holder.until_it_is_stopped();
        // Many slices long.
        assert_eq!(errno_of(manager.timed_lock(3, Duration::from_millis(700))), libc::ETIMEDOUT);
        assert_eq!(errno_of(manager.repair_lock(3)), libc::EBUSY);
        assert_eq!(manager.lock_info(3).unwrap().tid, holder.pid());
        holder.kill();
        assert_eq!(taken_once(&manager, 3), Acquired::OwnerDied);
    });
}

#[test]
fn a_thread_that_ends_frees_its_locks_while_its_process_lives() {
    alone!({
        let segment = Segment::of(32);
        let manager = segment.open();
        thread::scope(|scope| scope.spawn(|| manager.lock(3).unwrap()).join().map(drop)).unwrap();
        assert_eq!(taken_once(&manager, 3), Acquired::OwnerDied);
        assert_eq!(taken_once(&manager, 3), Acquired::Clean);
    });
}

#[test]
fn exec_frees_the_locks_of_the_processs_first_thread() {
    alone!({
        let segment = Segment::of(32);
        let holder = fork(|| {
            let _ = segment.open().lock(3).unwrap();
            exec_sleep();
        });
        until_exec(holder.pid());
        assert_eq!(taken_once(&segment.open(), 3), Acquired::OwnerDied);
    });
}

#[test]
fn exec_frees_the_locks_of_the_processs_other_threads() {
    alone!({
        let segment = Segment::of(32);
        let holder = fork(|| {
            let manager = segment.open();
            thread::scope(|scope| {
                let [held, go] = [&board(2)[0], &board(2)[1]];
                scope.spawn(|| {
                    let _ = manager.lock(3).unwrap();
                    held.store(1, Ordering::Release);
                    eventually("never", || go.load(Ordering::Acquire) == 1);
                });
                eventually("the other thread holds it", || held.load(Ordering::Acquire) == 1);
                exec_sleep();
            });
        });
        until_exec(holder.pid());
        assert_eq!(taken_once(&segment.open(), 3), Acquired::OwnerDied);
    });
}

#[test]
fn a_lock_that_exec_by_another_than_the_first_thread_loses_is_found_again() {
    alone!({
        if !namespace::sees_all_processes_or_skip() {
            return;
        }
        let segment = Segment::of(32);
        let manager = segment.open();
        for find in [
            |manager: &dyn Manager| manager.timed_lock(3, LONG),
            |manager: &dyn Manager| {
                manager.repair_lock(3)?;
                manager.try_lock(3)
            },
        ] {
            let holder = fork(|| {
                let lock_and_exec = || {
                    let _ = segment.open().lock(3).unwrap();
                    exec_sleep();
                };
                thread::scope(|scope| drop(scope.spawn(lock_and_exec)));
            });
            until_exec(holder.pid());
            assert_eq!(find(&manager).unwrap(), Acquired::OwnerDied);
            manager.unlock(3).unwrap();
            assert_eq!(taken_once(&manager, 3), Acquired::Clean);
        }
    });
}

#[test]
fn an_exec_that_fails_frees_nothing() {
    alone!({
        let segment = Segment::of(32);
        let manager = segment.open();
        assert_eq!(manager.lock(3).unwrap(), Acquired::Clean);
        exec(c"/there/is/no/such/program", c"");
        fork(|| assert_eq!(errno_of(segment.open().try_lock(3)), libc::EBUSY)).succeeds();
        manager.unlock(3).unwrap();
        assert_eq!(taken_once(&manager, 3), Acquired::Clean);
    });
}

#[test]
fn a_thread_holds_2000_locks_at_most_and_all_are_freed_when_it_dies() {
    const MOST: u32 = 2000;
    alone!({
        let segment = Segment::of(2048);
        let manager = segment.open();
        let ready = &board(1)[0];
        let holder = fork(|| {
            let manager = segment.open();
            (0..MOST).for_each(|id| assert_eq!(manager.lock(id).unwrap(), Acquired::Clean));
            for refused in [manager.lock(MOST), manager.try_lock(MOST), manager.timed_lock(MOST, LONG)] {
                let error = refused.unwrap_err();
                assert_eq!((error.errno(), error.reason()), (libc::ENOLCK, &Reason::TooManyHeld { most: MOST }));
            }
            // Another thread has 2000 of its own, and one given back makes room for one.
            thread::scope(|scope| scope.spawn(|| taken_once(&manager, MOST)).join().map(drop)).unwrap();
            manager.unlock(0).unwrap();
            assert_eq!(manager.lock(MOST).unwrap(), Acquired::Clean);
            ready.store(1, Ordering::Release);
            sleep_until_killed();
        });
        eventually("the holder has all", || ready.load(Ordering::Acquire) == 1);
        assert_eq!(manager.locks_held().unwrap().len() as u32, MOST);
        holder.kill();
        assert_eq!(taken_once(&manager, 0), Acquired::Clean);
        for id in 1..=MOST {
            assert_eq!(taken_once(&manager, id), Acquired::OwnerDied, "{id}");
        }
    });
}

#[test]
fn who_dies_while_allocating_holds_up_nobody() {
    alone!({
        let segment = Segment::of(32);
        let manager = segment.open();
        assert_eq!(manager.allocate_lock().unwrap(), 0);
        for round in 1..4 {
            // A program without this library, in the midst of an allocation of its own.
            let ready = &board(1)[0];
            let allocator = fork(|| {
                let code = RawMutex::map(&segment.file(), layout::AT_GUARD).lock();
                ready.store(1 + code as u32, Ordering::Release);
                sleep_until_killed();
            });
            eventually("it has the guard", || ready.load(Ordering::Acquire) != 0);
            assert_eq!(ready.load(Ordering::Acquire), 1);
            let waiter = fork(|| assert_eq!(segment.open().allocate_lock().unwrap(), round));
            waiter.until_it_waits();
            allocator.kill();
            waiter.succeeds();
        }
        assert_eq!(manager.available_locks().unwrap(), 28);
    });
}
