// SPDX-License-Identifier: MIT OR Apache-2.0
#![allow(unsafe_code, reason = "the kernel's half of a lock word")]
//! How a lock word is waited for: a few looks first, then slices of sleep with absolute deadlines.

use std::hint;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::sys::syscall::clock::Instant;

use super::word::{self, RESERVED};

/// How often a held lock is read before its waiter sleeps, and the pauses in between, at first and at most: each read takes
/// the cache line away from the holder, who needs it to unlock, so that they double. In all some microseconds, as a sleep and
/// its wake-up cost.
const SPIN_READS: u32 = 6;
const FIRST_PAUSES: u32 = 16;
const MOST_PAUSES: u32 = 256;

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

/// The class of readers, all of whom are woken at once, beside the first that anybody is in.
pub(super) const READERS: u32 = 32;

/// The half of a lock word that the kernel compares and wakes on.
pub(super) fn futex_of(lock: &AtomicU64) -> &AtomicU32 {
    let half = if cfg!(target_endian = "big") { 1 } else { 0 };
    // SAFETY: the half with bits 0 to 31 of a word that lives as long as the result; it is only handed to the kernel.
    unsafe { AtomicU32::from_ptr(lock.as_ptr().cast::<u32>().add(half)) }
}

/// Reads until the lock is free, or changes hands in a way that only a sleeper may take part in, or a short section
/// would have ended. Whether to try.
pub(super) fn spin(lock: &AtomicU64) -> bool {
    let is_free = |now| !word::has_owner(now);
    spin_until(lock, is_free) && lock.load(Ordering::Relaxed) & RESERVED == 0
}

/// The same for a reader, whom a read phase lets in.
pub(super) fn spin_to_share(lock: &AtomicU64) -> bool {
    let is_free = |now| !word::has_owner(now);
    spin_until(lock, is_free) && word::may_enter(lock.load(Ordering::Relaxed), word::WaitState::default())
}

/// Reads until a word is such, as long as a short section takes. Whether it is.
pub(super) fn spin_until(lock: &AtomicU64, is_such: impl Fn(u64) -> bool) -> bool {
    let mut pauses = FIRST_PAUSES;
    for _ in 0..SPIN_READS {
        if is_such(lock.load(Ordering::Relaxed)) {
            return true;
        }
        for _ in 0..pauses {
            hint::spin_loop();
        }
        pauses = (pauses * 2).min(MOST_PAUSES);
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

/// When a waiter that began then starves.
pub(super) fn starves_at(start: Instant) -> Instant {
    start.after(STARVING_NS)
}

/// The slices of one wait.
pub(super) struct Slices {
    length_ns: u64,
    /// The waiter's place among those of its process, as they came.
    place: u64,
    pub(super) end: Instant,
}

impl Slices {
    pub(super) fn new(start: Instant, place: u64) -> Self {
        Self { length_ns: MILLISECOND_NS, place, end: start.after(MILLISECOND_NS) }
    }

    /// Begins the next slice. `waiters`: how many threads of this process wait for the lock and may share the looking.
    pub(super) fn next(&mut self, now: Instant, waiters: u64) {
        self.length_ns = (self.length_ns + MILLISECOND_NS).min(LONGEST_SLICE_NS);
        let round = waiters.saturating_mul(LOOK_APART_NS).min(LONGEST_STRETCH_NS);
        self.end = if round <= self.length_ns {
            now.after(self.length_ns)
        } else {
            self.turn(now.after(MILLISECOND_NS), round)
        };
    }

    /// When it is next this waiter's turn to look, in rounds in which each has one. By the clock and its place: those who
    /// came together would otherwise all look together, and nobody in between.
    fn turn(&self, earliest: Instant, round: u64) -> Instant {
        let place = self.place.wrapping_mul(LOOK_APART_NS) % round;
        let past = (earliest.nanoseconds() + round - place) % round;
        earliest.after(round - past)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_waiters_one_looks_every_two_milliseconds_whenever_they_came() {
        const WAITERS: u64 = 40;
        let now = Instant::from_nanoseconds(77_777_777_777);
        let mut ends: Vec<u64> = (0..WAITERS)
            .map(|place| {
                let mut slices = Slices::new(now, place);
                slices.next(now, WAITERS);
                slices.end.since(now)
            })
            .collect();
        ends.sort_unstable();
        assert!(
            ends[0] >= MILLISECOND_NS && ends.iter().zip(&ends[1..]).all(|(one, next)| next - one == LOOK_APART_NS),
            "{ends:?}"
        );
        assert!(ends[WAITERS as usize - 1] <= MILLISECOND_NS + WAITERS * LOOK_APART_NS);
    }

    #[test]
    fn a_lone_waiters_slices_grow() {
        let now = Instant::from_nanoseconds(5);
        let mut slices = Slices::new(now, 0);
        for milliseconds in [2, 3, 4, 5, 5] {
            slices.next(now, 1);
            assert_eq!(slices.end.since(now), milliseconds * MILLISECOND_NS);
        }
    }
}
