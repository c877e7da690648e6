// SPDX-License-Identifier: MIT OR Apache-2.0
//! futex(2) on words that processes share.

use std::ptr;
use std::sync::atomic::AtomicU32;

use super::clock::Instant;

/// Wakes one waiter, if there is one.
pub(crate) fn wake_one(word: &AtomicU32) {
    // SAFETY: FUTEX_WAKE looks at the address only, which is that of a live word.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
}

/// Sleeps until the word is not `expected`, somebody wakes, a signal comes, or the deadline passes.
pub(crate) fn wait_until(word: &AtomicU32, expected: u32, deadline: Instant) {
    let deadline = deadline.timespec();
    // SAFETY: FUTEX_WAIT_BITSET reads the word and the timespec, both alive; its deadline is absolute on
    // CLOCK_MONOTONIC, which a signal does not move.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT_BITSET,
            expected,
            &raw const deadline,
            ptr::null::<u32>(),
            libc::FUTEX_BITSET_MATCH_ANY,
        )
    };
}
