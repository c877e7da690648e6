// SPDX-License-Identifier: MIT OR Apache-2.0
#![allow(unsafe_code, reason = "the kernel's half of a lock word")]
//! How a lock word is waited for: a few looks first, then slices of sleep with absolute deadlines.

use std::hint;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::sys::clock::Instant;

use super::word::{self, R};

/// How often a held lock is read before its waiter sleeps, and the pauses in between: each read takes the cache line
/// away from the holder, who needs it to unlock.
const SPIN_READS: u32 = 30;
const PAUSES_PER_READ: u32 = 16;

const MILLISECOND_NS: u64 = 1_000_000;

/// Slices grow to that: a dead holder is found within 10 ms.
const LONGEST_SLICE_NS: u64 = 5 * MILLISECOND_NS;

/// Of many waiters of one process on one lock, one looks that often.
const LOOK_APART_NS: u64 = 2 * MILLISECOND_NS;
const LONGEST_STRETCH_NS: u64 = 100 * MILLISECOND_NS;

/// Whoever has waited that long has the lock reserved for those who slept.
const STARVING_NS: u64 = 2 * MILLISECOND_NS;

/// The classes of the longest waiters, woken before others: a slice that ends puts its sleeper at the queue's tail.
const CLASS_STEP_NS: u64 = 20 * MILLISECOND_NS;
pub(super) const CLASSES: [u32; 5] = [16, 8, 4, 2, 1];

/// The half of a lock word that the kernel compares and wakes on.
pub(super) fn futex_of(lock: &AtomicU64) -> &AtomicU32 {
    let half = if cfg!(target_endian = "big") { 1 } else { 0 };
    // SAFETY: the half with bits 0 to 31 of a word that lives as long as the result; it is only handed to the kernel.
    unsafe { AtomicU32::from_ptr(lock.as_ptr().cast::<u32>().add(half)) }
}

/// Reads until the lock is free, or changes hands in a way that only a sleeper may take part in, or a short section
/// would have ended. Whether to try.
pub(super) fn spin(lock: &AtomicU64) -> bool {
    for _ in 0..SPIN_READS {
        let now = lock.load(Ordering::Relaxed);
        if !word::has_owner(now) {
            return now & R == 0;
        }
        for _ in 0..PAUSES_PER_READ {
            hint::spin_loop();
        }
    }
    false
}

/// The classes to sleep in after that much waiting.
pub(super) fn classes(waited_ns: u64) -> u32 {
    1 | match waited_ns / CLASS_STEP_NS {
        0 => 0,
        1 => 2,
        2 => 4,
        3 => 8,
        _ => 16,
    }
}

/// Whether a waiter starves after that much waiting.
pub(super) fn starves(waited_ns: u64) -> bool {
    waited_ns >= STARVING_NS
}

/// The slices of one wait.
pub(super) struct Slices {
    length_ns: u64,
    pub(super) end: Instant,
}

impl Slices {
    pub(super) fn new(start: Instant) -> Self {
        Self { length_ns: MILLISECOND_NS, end: start.after(MILLISECOND_NS) }
    }

    /// Begins the next slice. `crowd`: how many threads of this process wait for the lock and may share the looking.
    pub(super) fn next(&mut self, now: Instant, crowd: u64) {
        self.length_ns = (self.length_ns + MILLISECOND_NS).min(LONGEST_SLICE_NS);
        let stretched = crowd.saturating_mul(LOOK_APART_NS).min(LONGEST_STRETCH_NS);
        self.end = now.after(self.length_ns.max(stretched));
    }
}
