// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The lock word, and every step it can take. Pure functions of the word that was read: whoever makes a step does it
//! with one compare-and-swap from exactly that word.
//!
//! ```text
//!  63       54 53          32 31 30 29 28 27          13 12       0
//! ┌───────────┬──────────────┬──┬──┬──┬──┬──────────────┬──────────┐
//! │generation,│ serial of    │ W│ S│ R│ D│ generation,  │ entry    │
//! │  high 10  │ the thread   │  │  │  │  │   low 15     │          │
//! └───────────┴──────────────┴──┴──┴──┴──┴──────────────┴──────────┘
//!                             └──────── the futex ───────────────┘
//!
//!        lock                         unlock: W ─▶ wake one
//!   0 ──────────▶ OWNER ──────────▶ 0
//!                  │ ▲  ╲ W: somebody may sleep
//!     owner died   │ │   ╲ S: somebody starves ──unlock──▶ R+W ──▶ who slept
//!                  ▼ │ lock: owner died
//!                  D ┘ (+W)
//! ```
//!
//! OWNER is all but D, R, S and W. Legal: 0; OWNER, with W and S; D, with W; R+W. Any other word without an owner may be
//! taken unless R is set. A serial of 0: the process owns the lock.

/// Free, and its last holder died: who acquires is told.
pub const D: u64 = 1 << 28;
/// Reserved for those who slept.
pub const R: u64 = 1 << 29;
/// Somebody starves: the unlocker must reserve.
pub const S: u64 = 1 << 30;
/// Somebody may sleep: the unlocker must wake.
pub const W: u64 = 1 << 31;

/// The bits that name a holder.
pub const OWNER: u64 = !(D | R | S | W);

const ENTRY_BITS: u32 = 13;
const GENERATION_LOW_BITS: u32 = 15;
const GENERATION_HIGH_BITS: u32 = 10;
const SERIAL_BITS: u32 = 22;
const GENERATION_LOW_SHIFT: u32 = ENTRY_BITS;
const SERIAL_SHIFT: u32 = 32;
const GENERATION_HIGH_SHIFT: u32 = SERIAL_SHIFT + SERIAL_BITS;

/// The largest entry that a word can name.
pub const MAX_ENTRY: u32 = (1 << ENTRY_BITS) - 1;
/// The bits of a generation that a word has.
pub const GENERATION_MASK: u64 = (1 << (GENERATION_LOW_BITS + GENERATION_HIGH_BITS)) - 1;
/// The largest serial.
pub const MAX_SERIAL: u32 = (1 << SERIAL_BITS) - 1;
const SERIAL_MASK: u64 = (MAX_SERIAL as u64) << SERIAL_SHIFT;

/// The word of a process that owns a lock.
#[must_use]
pub const fn of_process(entry: u32, generation: u64) -> u64 {
    let low = generation & ((1 << GENERATION_LOW_BITS) - 1);
    let high = (generation >> GENERATION_LOW_BITS) & ((1 << GENERATION_HIGH_BITS) - 1);
    (entry & MAX_ENTRY) as u64 | low << GENERATION_LOW_SHIFT | high << GENERATION_HIGH_SHIFT
}

/// The word of one of its threads.
#[must_use]
pub const fn of_thread(process: u64, serial: u32) -> u64 {
    process | ((serial & MAX_SERIAL) as u64) << SERIAL_SHIFT
}

/// The word of the process to which the thread of `owner` belongs.
#[must_use]
pub const fn process(owner: u64) -> u64 {
    owner & OWNER & !SERIAL_MASK
}

/// The entry that a word names; 0: nobody.
#[must_use]
pub const fn entry(word: u64) -> u32 {
    (word & MAX_ENTRY as u64) as u32
}

/// The generation that a word names, as far as it has bits for it.
#[must_use]
pub const fn generation(word: u64) -> u64 {
    let low = (word >> GENERATION_LOW_SHIFT) & ((1 << GENERATION_LOW_BITS) - 1);
    let high = (word >> GENERATION_HIGH_SHIFT) & ((1 << GENERATION_HIGH_BITS) - 1);
    high << GENERATION_LOW_BITS | low
}

/// The serial that a word names; 0: the process owns the lock.
#[must_use]
pub const fn serial(word: u64) -> u32 {
    ((word & SERIAL_MASK) >> SERIAL_SHIFT) as u32
}

/// Whether somebody is named as the holder. A word whose entry is 0 names nobody, whatever else is in it.
#[must_use]
pub const fn has_owner(word: u64) -> bool {
    entry(word) != 0
}

/// The half that the kernel compares when a thread goes to sleep.
#[must_use]
pub const fn futex(word: u64) -> u32 {
    word as u32
}

/// What a waiter knows of its own wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiter {
    /// It slept in this call, so that others may sleep, too.
    pub slept: bool,
    /// The futex woke it, and it has not slept since: the wake-up is its own to use or to pass on.
    pub woken: bool,
    /// It has waited for so long that the next unlock is to reserve the lock for those who slept.
    pub starves: bool,
    /// It saw the lock reserved at both ends of a whole slice, and nobody took it meanwhile.
    pub saw_reserved: bool,
    /// Its time is over, so that it takes whatever nobody holds.
    pub is_leaving: bool,
}

/// What a waiter does with the word that it read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nobody holds it: swap it for that word, and hold it.
    Take(u64),
    /// It has to show that it waits: swap it for that word, and look again.
    Announce(u64),
    /// Sleep on the word as it is.
    Sleep,
}

/// The step of a waiter whose word as an owner is `me`.
#[must_use]
pub const fn step(word: u64, me: u64, waiter: Waiter) -> Step {
    if !has_owner(word) {
        let reserved = word & R != 0;
        let may_take = !reserved || waiter.woken || waiter.is_leaving || (waiter.saw_reserved && waiter.slept);
        if may_take {
            return Step::Take(me | if waiter.slept { W } else { word & W });
        }
    }
    let announced = word | W | if waiter.starves && has_owner(word) { S } else { 0 };
    if announced == word { Step::Sleep } else { Step::Announce(announced) }
}

/// What takes a lock over from a holder that is dead.
#[must_use]
pub const fn taken_over(me: u64) -> u64 {
    me | W
}

/// What marks a lock as a dead holder's: those who wait are woken.
#[must_use]
pub const fn abandoned(word: u64) -> u64 {
    D | (word & W)
}

/// What an unlock leaves.
#[must_use]
pub const fn released(word: u64) -> u64 {
    if word & S != 0 { R | W } else { 0 }
}

/// What a lock is given back as that was taken though the segment was retired: the death that was due is still due.
#[must_use]
pub const fn handed_back(word: u64, owner_died: bool) -> u64 {
    if owner_died { D | (word & W) } else { released(word) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_names_what_it_was_made_of() {
        for (entry_, generation_, serial_) in [(1, 1, 1), (8191, GENERATION_MASK, MAX_SERIAL), (77, 1 << 15, 0)] {
            let word = of_thread(of_process(entry_, generation_), serial_);
            assert_eq!((entry(word), generation(word), serial(word)), (entry_, generation_, serial_));
            assert_eq!(word & OWNER, word);
            assert_eq!(process(word | W | S), of_process(entry_, generation_));
        }
    }

    #[test]
    fn a_generation_beyond_its_bits_begins_again() {
        assert_eq!(of_process(3, GENERATION_MASK + 1), of_process(3, 0));
    }

    #[test]
    fn what_is_reserved_is_for_those_who_slept() {
        let me = of_thread(of_process(1, 1), 1);
        let fresh = Waiter::default();
        assert_eq!(step(R | W, me, fresh), Step::Sleep);
        assert_eq!(step(R | W, me, Waiter { woken: true, slept: true, ..fresh }), Step::Take(me | W));
        assert_eq!(step(R | W, me, Waiter { is_leaving: true, ..fresh }), Step::Take(me | W));
        assert_eq!(step(D, me, fresh), Step::Take(me));
        assert_eq!(step(me, me, fresh), Step::Announce(me | W));
        assert_eq!(step(me | W, me, Waiter { starves: true, ..fresh }), Step::Announce(me | W | S));
    }
}
