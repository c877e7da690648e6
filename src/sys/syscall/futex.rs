// SPDX-License-Identifier: MIT OR Apache-2.0
//! futex(2) on words that processes share. A sleeper has a set of *classes* (FUTEX_WAIT_BITSET), and a wake-up reaches only
//! sleepers of its classes.

use std::ptr;
use std::sync::atomic::AtomicU32;

use crate::sys::Errno;
use crate::sys::syscall::clock::Instant;

/// Every sleeper has one of these.
pub(crate) const ALL_CLASSES: u32 = libc::FUTEX_BITSET_MATCH_ANY as u32;

/// Wakes one waiter, if there is one.
pub(crate) fn wake_one(word: &AtomicU32) {
    wake_one_of(word, ALL_CLASSES);
}

/// Sleeps until a wake-up, a signal or the deadline. Does not sleep if the word is not `expected`.
pub(crate) fn wait(word: &AtomicU32, expected: u32, deadline: Instant) {
    wait_for_classes(word, expected, deadline, ALL_CLASSES);
}

/// Wakes one waiter of `classes`, and says whether there was one.
pub(crate) fn wake_one_of(word: &AtomicU32, classes: u32) -> bool {
    wake(word, 1, classes)
}

/// Wakes all waiters of `classes`, and says whether there was one.
pub(crate) fn wake_all_of(word: &AtomicU32, classes: u32) -> bool {
    wake(word, libc::c_int::MAX, classes)
}

/// Wakes all waiters on the futex at `address` that sleep with a bit of `classes`; how many there were. If no memory is
/// there any more, there is none.
pub(crate) fn wake_all_at(address: usize, classes: u32) -> u64 {
    u64::try_from(wake_at(address, libc::c_int::MAX, classes)).unwrap_or(0)
}

fn wake(word: &AtomicU32, count: libc::c_int, classes: u32) -> bool {
    wake_at(word.as_ptr().addr(), count, classes) > 0
}

fn wake_at(address: usize, count: libc::c_int, classes: u32) -> libc::c_long {
    // SAFETY: FUTEX_WAKE_BITSET uses the address only, to look for sleepers; it touches no memory of the caller's.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            address,
            libc::FUTEX_WAKE_BITSET,
            count,
            ptr::null::<libc::timespec>(),
            ptr::null::<u32>(),
            classes,
        )
    }
}

/// How a sleep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WakeReason {
    /// A wake-up. No other sleeper got it.
    Woken,
    /// The deadline passed.
    TimedOut,
    /// The word was not the expected one, and the caller did not sleep.
    ValueChanged,
    /// A signal came.
    Signal,
}

/// Sleeps as [`wait`] does. A wake-up of any of `classes` ends the sleep. Returns how it ended.
pub(crate) fn wait_for_classes(word: &AtomicU32, expected: u32, deadline: Instant, classes: u32) -> WakeReason {
    let deadline = deadline.timespec();
    // SAFETY: FUTEX_WAIT_BITSET reads the word and the timespec, both alive; its deadline is absolute on
    // CLOCK_MONOTONIC, which a signal does not move.
    let code = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT_BITSET,
            expected,
            &raw const deadline,
            ptr::null::<u32>(),
            classes,
        )
    };
    match (code, Errno::last().0) {
        (0, _) => WakeReason::Woken,
        (_, libc::ETIMEDOUT) => WakeReason::TimedOut,
        (_, libc::EINTR) => WakeReason::Signal,
        _ => WakeReason::ValueChanged,
    }
}
