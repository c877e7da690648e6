// SPDX-License-Identifier: MIT OR Apache-2.0
#![allow(unsafe_code, reason = "the kernel's half of a lock word")]
//! The times of a wait: a few looks first, then slices of sleep with absolute deadlines.

use std::hint;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::sys::syscall::clock::Instant;
use crate::sys::thread::Thread;

use super::word::{self, RESERVED};

/// The pause between two looks at a lock that is held, at first and at most: each look takes the cache line away from the
/// holder, who needs it to unlock, so that the pauses double.
const FIRST_PAUSE_NS: u64 = 150;
const LONGEST_PAUSE_NS: u64 = 2_400;

/// A waiter looks for that long before it sleeps: as long as a sleep and its wake-up take. It looks longer where the lock
/// changes hands meanwhile.
const SPIN_NS: u64 = 7_000;
const BUSY_SPIN_NS: u64 = 20_000;
/// A thread that backs off looks that often.
const FEWEST_LOOKS: u64 = 3;

/// A thread that has to wait again so soon after its last wait doubles its first pause; one that did not wait for that long,
/// and half as long again as it pauses, halves it.
const SOON_NS: u64 = 2_000;
const LATE_NS: u64 = 3_000;
const MOST_DOUBLINGS: u64 = 6;

const MILLISECOND_NS: u64 = 1_000_000;

/// Slices grow to this length: a dead holder is found within 10 ms.
const LONGEST_SLICE_NS: u64 = 5 * MILLISECOND_NS;

/// If many threads of a process wait for a lock, one of them looks this often.
const LOOK_APART_NS: u64 = 2 * MILLISECOND_NS;
const LONGEST_STRETCH_NS: u64 = 100 * MILLISECOND_NS;

/// A waiter starves after this time, and has the lock reserved.
const STARVING_NS: u64 = 2 * MILLISECOND_NS;

/// The wake classes of the longest waiters, which are woken first. They are needed because each new slice puts a sleeper
/// at the tail of the futex's queue.
const CLASS_STEP_NS: u64 = 20 * MILLISECOND_NS;
pub(super) const CLASSES: [u32; 5] = [16, 8, 4, 2, 1];

/// The wake class of readers, who are all woken at once. They are also in the class 1, as every waiter is.
pub(super) const READERS: u32 = 32;

/// The half of a lock word that the kernel compares and wakes on.
pub(super) fn futex_of(lock: &AtomicU64) -> &AtomicU32 {
    let half = if cfg!(target_endian = "big") { 1 } else { 0 };
    // SAFETY: the half with bits 0 to 31 of a word that lives as long as the result; it is only handed to the kernel.
    unsafe { AtomicU32::from_ptr(lock.as_ptr().cast::<u32>().add(half)) }
}

/// Looks until the lock is free, or changes hands in a way that only a sleeper may take part in, or a short section
/// would have ended. Whether to try.
pub(super) fn spin(slot: (&AtomicU64, &AtomicU64), thread: Thread) -> bool {
    back_off(slot, thread) && slot.0.load(Ordering::Relaxed) & RESERVED == 0
}

/// The same for a reader, whom a read phase lets in.
pub(super) fn spin_to_share(slot: (&AtomicU64, &AtomicU64), thread: Thread) -> bool {
    back_off(slot, thread) && word::may_enter(slot.0.load(Ordering::Relaxed), word::WaitState::default())
}

/// Looks until nobody owns the lock. Threads on two processors that both want it all the time take its cache line from each
/// other at every turn; so a thread that meets another again and again stays away for longer, up to some microseconds, while
/// the other has the line for itself and takes many turns at the price of one.
fn back_off((lock, note): (&AtomicU64, &AtomicU64), thread: Thread) -> bool {
    let is_free = |now| !word::has_owner(now);
    if is_free(lock.load(Ordering::Relaxed)) {
        return true;
    }
    let (start, turns) = (Instant::now(), note.load(Ordering::Relaxed));
    let pace = Pace::of(thread).at(start);
    let first = pace.first_pause();
    let end = start.after(SPIN_NS.max(first * FEWEST_LOOKS));
    let mut looks = Looks::new(start, first);
    loop {
        let now = looks.pause();
        if is_free(lock.load(Ordering::Relaxed)) {
            Pace { end: now, ..pace }.keep(thread);
            return true;
        }
        if now >= end {
            let is_busy = note.load(Ordering::Relaxed) != turns;
            if !is_busy || now >= start.after(BUSY_SPIN_NS) {
                // For a lock that is held for long it is no use to stay away.
                let doublings = if is_busy { MOST_DOUBLINGS } else { 0 };
                Pace { end: now, doublings }.keep(thread);
                return false;
            }
        }
    }
}

/// Looks until a word is such, as long as a short section takes. Whether it is.
pub(super) fn spin_until(word: &AtomicU64, is_such: impl Fn(u64) -> bool) -> bool {
    if is_such(word.load(Ordering::Relaxed)) {
        return true;
    }
    let start = Instant::now();
    let mut looks = Looks::new(start, FIRST_PAUSE_NS);
    loop {
        let now = looks.pause();
        if is_such(word.load(Ordering::Relaxed)) {
            return true;
        }
        if now >= start.after(SPIN_NS) {
            return false;
        }
    }
}

/// Looks with pauses that double. By the clock: a processor's own pause takes 3 to 140 cycles.
struct Looks {
    pause_ns: u64,
    next: Instant,
}

impl Looks {
    fn new(start: Instant, first_ns: u64) -> Self {
        Self { pause_ns: first_ns, next: start.after(first_ns) }
    }

    /// Waits for the next look. When that is.
    fn pause(&mut self) -> Instant {
        /// Cheaper than a look at the clock.
        const HINTS: u32 = 8;
        loop {
            for _ in 0..HINTS {
                hint::spin_loop();
            }
            let now = Instant::now();
            if now >= self.next {
                self.pause_ns = (self.pause_ns * 2).min(LONGEST_PAUSE_NS.max(self.pause_ns));
                self.next = now.after(self.pause_ns);
                return now;
            }
        }
    }
}

/// How a thread backs off, and when its last wait ended.
#[derive(Clone, Copy)]
struct Pace {
    end: Instant,
    doublings: u64,
}

impl Pace {
    const DOUBLINGS_BITS: u32 = 4;

    fn of(thread: Thread) -> Self {
        let kept = thread.pace();
        let doublings = (kept & ((1 << Self::DOUBLINGS_BITS) - 1)).min(MOST_DOUBLINGS);
        Self { end: Instant::from_nanoseconds(kept >> Self::DOUBLINGS_BITS), doublings }
    }

    fn keep(self, thread: Thread) {
        thread.set_pace(self.end.nanoseconds() << Self::DOUBLINGS_BITS | self.doublings);
    }

    /// How it backs off in a wait that begins now.
    fn at(self, now: Instant) -> Self {
        let apart = now.since(self.end);
        let doublings = if apart < SOON_NS {
            (self.doublings + 1).min(MOST_DOUBLINGS)
        } else if apart > LATE_NS + self.first_pause() * 3 / 2 {
            self.doublings.saturating_sub(1)
        } else {
            self.doublings
        };
        Self { doublings, ..self }
    }

    fn first_pause(self) -> u64 {
        FIRST_PAUSE_NS << self.doublings
    }
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
    fn who_meets_others_again_and_again_stays_away_for_longer_and_comes_back_when_they_are_gone() {
        let mut now = Instant::from_nanoseconds(77_777_777_777);
        let mut pace = Pace { end: Instant::BOOT, doublings: 0 };
        pace = pace.at(now);
        assert_eq!(pace.first_pause(), FIRST_PAUSE_NS);
        for doublings in 1..=MOST_DOUBLINGS + 1 {
            pace = Pace { end: now, ..pace }.at(now.after(SOON_NS - 1));
            assert_eq!(pace.doublings, doublings.min(MOST_DOUBLINGS));
            now = now.after(SOON_NS);
        }
        // Others stay away that long, too: that they are met again behind their pause does not mean that they are gone.
        pace = Pace { end: now, ..pace }.at(now.after(pace.first_pause()));
        assert_eq!(pace.doublings, MOST_DOUBLINGS);
        for doublings in (0..MOST_DOUBLINGS).rev() {
            pace = Pace { end: now, ..pace }.at(now.after(LATE_NS + 2 * pace.first_pause()));
            assert_eq!(pace.doublings, doublings);
        }
    }

    #[test]
    fn a_threads_pace_is_its_own_and_stays() {
        let (thread, end) = (Thread::calling(), Instant::from_nanoseconds(1 << 59));
        Pace { end, doublings: 5 }.keep(thread);
        let kept = Pace::of(thread);
        assert_eq!((kept.end, kept.doublings), (end, 5));
        let others = std::thread::spawn(|| Pace::of(Thread::calling()).doublings);
        assert_eq!(others.join().unwrap(), 0);
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
