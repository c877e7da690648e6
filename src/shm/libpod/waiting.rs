// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! How a mutex is waited for: a few looks first, then sleeps of a bounded length.

use std::hint;

use crate::sys::mutex::RobustMutex;

/// The longest sleep in one go. A plain wait can be stranded for ever on a free mutex when another waiter is killed
/// between its wake-up and its turn, because the kernel then wakes nobody else; and whether the storage was removed
/// must be noticed within 100 ms.
pub(super) const SLICE_NS: u64 = 50_000_000;

/// How often a held mutex is read before its waiter sleeps: some microseconds in all, as long as a short section takes.
/// With long pauses: each read takes the cache line away from the holder, who needs it to unlock.
const SPIN_READS: u32 = 8;
const PAUSES_PER_READ: u32 = 60;

/// Reads until the mutex looks free or a short section would have ended; taking it is the caller's.
pub(super) fn spin(mutex: RobustMutex<'_>) {
    for _ in 0..SPIN_READS {
        if mutex.holder() == 0 {
            return;
        }
        for _ in 0..PAUSES_PER_READ {
            hint::spin_loop();
        }
    }
}
