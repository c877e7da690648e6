// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Which sleeps a cancel object ends. The slices of these waits are longer than any test: only a wake-up ends a sleep.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;

use super::*;
use crate::backend;
use crate::manager::Wait;
use crate::sys::thread::Thread;

const PATIENCE_NS: u64 = 30_000_000_000;

fn in_memory() -> Native {
    Native::in_memory(&Arc::new(PathBuf::from("locks of a test")), 1).unwrap()
}

fn hold(native: &Native, mode: Mode) {
    assert_eq!(backend::acquire(native, 0, mode, Wait::Forever, None).unwrap(), Acquired::Clean);
}

/// Waits for lock 0 in one slice. Says its thread's id before it sleeps to the end of it, and how that sleep ended.
fn wait_for_one_slice(
    native: &Native,
    mode: Mode,
    cancel: &Cancel,
    asleep: &AtomicU64,
) -> (WakeReason, Option<Reason>) {
    let deadline = Deadline::of(Wait::Forever);
    let request = Request { id: 0, mode, deadline, cancel: Some(cancel), missed: FastAcquire::GoSlow };
    let mut path = SlowPath::new(native, request);
    assert!(path.step().unwrap().is_none());
    let end = Instant::now().after(PATIENCE_NS);
    loop {
        if let Some(waiting) = &mut path.waiting {
            waiting.slices.end = end;
        }
        assert!(path.step().unwrap().is_none());
        // A reader sleeps until it starves first.
        let until = path.waiting.as_ref().map(|waiting| waiting.sleep.until);
        if until == Some(end) {
            asleep.store(Thread::calling().id(), Ordering::Release);
        }
        path.sleep();
        if until == Some(end) {
            let awake = path.waiting.as_ref().map(|waiting| waiting.awake);
            let reason = path.step().err();
            if reason.is_none() {
                cancel.trigger();
                assert!(path.step().is_err());
            }
            return (awake.unwrap(), reason);
        }
    }
}

fn await_sleep(thread: &AtomicU64) {
    loop {
        let id = thread.load(Ordering::Acquire);
        let status = fs::read_to_string(format!("/proc/self/task/{id}/stat")).unwrap_or_default();
        if id != 0 && status.contains(") S ") {
            return;
        }
        thread::yield_now();
    }
}

fn a_trigger_ends_the_sleep_of(waiters: Mode, holders: Mode) {
    let (native, cancel, other, asleep) = (in_memory(), Cancel::new(), Cancel::new(), AtomicU64::new(0));
    hold(&native, holders);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| wait_for_one_slice(&native, waiters, &cancel, &asleep));
        await_sleep(&asleep);
        other.trigger();
        assert_eq!(cancel.sleepers(), 1);
        cancel.trigger();
        let (awake, reason) = waiter.join().unwrap();
        assert_eq!(awake, WakeReason::Woken, "by the trigger, and not by the clock");
        assert!(matches!(reason, Some(Reason::Cancelled { id: 0 })), "{reason:?}");
    });
    assert_eq!(cancel.sleepers(), 0);
    cancel.check_unused().unwrap();
    backend::release(&native, 0, holders).unwrap();
    hold(&native, Mode::Exclusive);
    backend::release(&native, 0, Mode::Exclusive).unwrap();
}

#[test]
fn a_trigger_ends_the_sleep_of_a_writer() {
    a_trigger_ends_the_sleep_of(Mode::Exclusive, Mode::Exclusive);
}

#[test]
fn a_trigger_ends_the_sleep_of_a_reader() {
    a_trigger_ends_the_sleep_of(Mode::Shared, Mode::Exclusive);
}

/// Such a writer sleeps on a cell.
#[test]
fn a_trigger_ends_the_sleep_of_a_writer_that_drains() {
    a_trigger_ends_the_sleep_of(Mode::Exclusive, Mode::Shared);
}

/// It may look, but the wake-up was not for it.
#[test]
fn a_wake_up_in_the_class_of_a_cancel_object_ends_no_other_wait() {
    let (native, cancel, asleep) = (in_memory(), Cancel::new(), AtomicU64::new(0));
    hold(&native, Mode::Exclusive);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| wait_for_one_slice(&native, Mode::Exclusive, &cancel, &asleep));
        await_sleep(&asleep);
        futex::wake_all_at(futex_of(native.pool().word(0)).as_ptr().addr(), cancel.class());
        let (awake, reason) = waiter.join().unwrap();
        assert_eq!((awake, reason.is_none()), (WakeReason::Woken, true));
    });
    backend::release(&native, 0, Mode::Exclusive).unwrap();
}
