// SPDX-License-Identifier: MIT OR Apache-2.0
#![allow(unsafe_code, reason = "the kernel's half of a lock word")]
//! The times of a wait. First the waiter spins: it looks at the word for some microseconds, with pauses between the looks.
//! Then it sleeps, in slices with absolute deadlines.

use std::hint;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::sys::syscall::clock::Instant;
use crate::sys::thread::Thread;

use super::word::{self, RESERVED};

/// The shortest and the longest pause between two looks at a held lock. The pauses double, because each look takes the cache
/// line away from the holder, which needs it to unlock.
const FIRST_PAUSE_NS: u64 = 150;
const LONGEST_PAUSE_NS: u64 = 2_400;

/// A waiter spins for this time before it sleeps: as long as a sleep and its wake-up take. If the lock has changed hands
/// meanwhile, it spins for as long again, up to the longer time: its look may have come while the lock was held ten times in
/// a row, and the holder would pay for the wake-up.
const SPIN_NS: u64 = 7_000;
const BUSY_SPIN_NS: u64 = 100_000;

/// A wait that begins sooner than this after the thread's last one doubles the thread's first pause.
const SOON_NS: u64 = 2_000;
/// A wait that begins later than this, plus one and a half first pauses, halves it.
const LATE_NS: u64 = 3_000;
const MOST_DOUBLINGS: u64 = 6;

const MILLISECOND_NS: u64 = 1_000_000;

/// Slices grow to this length: a dead holder is found within 10 ms.
const LONGEST_SLICE_NS: u64 = 5 * MILLISECOND_NS;

/// If many threads of a process wait for a lock, one of them ends its slice, and judges the holder, this often.
const LOOK_APART_NS: u64 = 2 * MILLISECOND_NS;
/// But no slice becomes longer than this.
const LONGEST_STRETCH_NS: u64 = 100 * MILLISECOND_NS;

/// A waiter starves after this time: it asks the next unlock to reserve the lock.
const STARVING_NS: u64 = 2 * MILLISECOND_NS;

/// A waiter enters the next wake class each time it has waited this much longer.
const CLASS_STEP_NS: u64 = 20 * MILLISECOND_NS;
/// The wake classes, in the order in which a starving waiter is woken: the longest waiters first. The futex's queue does
/// not tell who has waited longest, because each new slice puts a sleeper at its tail.
pub(super) const CLASSES: [u32; 5] = [16, 8, 4, 2, 1];

/// The wake class of readers: all of them are woken at once. They are also in class 1, as every waiter is.
pub(super) const READERS: u32 = 32;

/// The half of a lock word that the kernel compares and wakes on.
pub(super) fn futex_of(lock: &AtomicU64) -> &AtomicU32 {
    let half = if cfg!(target_endian = "big") { 1 } else { 0 };
    // SAFETY: the half with bits 0 to 31 of a word that lives as long as the result; it is only handed to the kernel.
    unsafe { AtomicU32::from_ptr(lock.as_ptr().cast::<u32>().add(half)) }
}

/// Spins until the lock has no owner, or for as long as a short section takes. Returns whether to try the lock: it has no
/// owner, and is not reserved for waiters that slept.
pub(super) fn spin(slot: (&AtomicU64, &AtomicU64), thread: Thread) -> bool {
    back_off(slot, thread) && slot.0.load(Ordering::Relaxed) & RESERVED == 0
}

/// The same for a reader: a read phase lets it in, although the word is reserved.
pub(super) fn spin_to_share(slot: (&AtomicU64, &AtomicU64), thread: Thread) -> bool {
    back_off(slot, thread) && word::may_enter(slot.0.load(Ordering::Relaxed), word::WaitState::default())
}

/// Spins until the lock has no owner, and returns whether it has none. Two threads that want one lock all the time take its
/// cache line from each other at every turn. So a thread that often meets another pauses longer before its first look, up to
/// some microseconds. Meanwhile the other has the line to itself, and takes many turns at the price of one.
fn back_off((lock, note): (&AtomicU64, &AtomicU64), thread: Thread) -> bool {
    let is_free = |now| !word::has_owner(now);
    if is_free(lock.load(Ordering::Relaxed)) {
        return true;
    }
    let (start, mut turns) = (Instant::now(), note.load(Ordering::Relaxed));
    let pace = Pace::of(thread).at(start);
    let first = pace.first_pause();
    let mut end = start.after(SPIN_NS.max(first));
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
                // A long first pause is of no use for a lock that is held for long.
                let doublings = if is_busy { MOST_DOUBLINGS } else { 0 };
                Pace { end: now, doublings }.keep(thread);
                return false;
            }
            turns = note.load(Ordering::Relaxed);
            end = now.after(SPIN_NS.max(first));
        }
    }
}

/// Spins until `is_such` is true for a word, for as long as a short section takes. Returns whether it is.
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

/// The pauses between looks, which double. They go by the clock: a processor's own pause takes 3 to 140 cycles.
struct Looks {
    pause_ns: u64,
    next: Instant,
}

impl Looks {
    fn new(start: Instant, first_ns: u64) -> Self {
        Self { pause_ns: first_ns, next: start.after(first_ns) }
    }

    /// Pauses until it is time for the next look. Returns the time.
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

    /// The pace of a wait that begins now.
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

/// The wake classes of a waiter that has waited for this long.
pub(super) fn classes(waited_ns: u64) -> u32 {
    1 | match waited_ns / CLASS_STEP_NS {
        0 => 0,
        1 => 2,
        2 => 4,
        3 => 8,
        _ => 16,
    }
}

/// Whether a waiter that has waited for this long starves.
pub(super) fn starves(waited_ns: u64) -> bool {
    waited_ns >= STARVING_NS
}

/// The instant at which a waiter that began at `start` starves.
pub(super) fn starves_at(start: Instant) -> Instant {
    start.after(STARVING_NS)
}

/// The slices of one wait.
pub(super) struct Slices {
    length_ns: u64,
    /// The waiter's place among those of its process, in the order in which they came.
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

    /// The next instant at which it is this waiter's turn to look. In each round of this length every waiter has one turn. The
    /// clock and the waiter's place decide, and not the time at which it came: waiters that came together would otherwise all
    /// look at the same time.
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
        // The others pause as long. So a meeting after such a pause does not show that they were gone.
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
