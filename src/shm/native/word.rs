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
//! OWNER is all but D, R, S and W. A serial of 0: the process owns the lock. Without readers: 0; OWNER, with W and S; D,
//! with W; R+W. With readers, who stand in cells (see `cells`):
//!
//! ```text
//!   S (+W, D)         shared: readers may be in
//!   R+S (+W, D)       read phase: shared, and writers stand back for readers that starve
//!   OWNER+R (+W, S, D)  draining: OWNER waits for the readers to leave, and is next. It does not hold the lock
//!
//!             first reader            a writer                 every cell is empty
//!   0, D+… ─────────────────▶ S ────────────────▶ OWNER+R ────────────────────────▶ OWNER
//!                             ▲                      │ gives up, or is dead
//!                             └──────────────────────┘
//! ```
//!
//! While a reader is in, the word is S without an owner, or OWNER+R: all else rests on that. Any word without an owner may
//! be taken unless R is set; with S in it, it is taken as OWNER+R.
//!
//! A cell is a word of the same make: 0; OWNER, with W if a writer sleeps on it: its reader is in, or looks whether it may
//! be; OWNER+S, with W: its reader starves, and is not in; OWNER+D: being written, and not valid yet.

/// Without an owner: the last holder died, and who acquires is told.
pub const D: u64 = 1 << 28;
/// Without an owner: reserved for those who slept. With one: it drains.
pub const R: u64 = 1 << 29;
/// With an owner: somebody starves, so that the unlocker must reserve. Without: readers may be in.
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
            let taken = me | if waiter.slept { W } else { word & W };
            // S6: with readers the word is taken to drain. D stays in it, for a drain may end without the lock.
            return Step::Take(if word & S == 0 { taken } else { taken | R | (word & D) });
        }
    }
    announced(word, waiter)
}

/// The step of a waiter that cannot have the lock.
const fn announced(word: u64, waiter: Waiter) -> Step {
    let announced = word | W | if waiter.starves && has_owner(word) { S } else { 0 };
    if announced == word { Step::Sleep } else { Step::Announce(announced) }
}

/// The step of a reader, which has no cell yet, or one in which it starves. [`Step::Take`] is of the word that it would
/// leave if it came in: it claims a cell first, and looks again (S1, S12).
#[must_use]
pub const fn reader_step(word: u64, waiter: Waiter) -> Step {
    if may_enter(word, waiter) { Step::Take(opened(word)) } else { announced(word, waiter) }
}

/// Whether a reader may come in: nobody owns the lock, and it is not reserved for others. In a read phase anybody may.
#[must_use]
pub const fn may_enter(word: u64, waiter: Waiter) -> bool {
    let is_reserved = word & R != 0 && word & S == 0;
    !has_owner(word) && (!is_reserved || waiter.woken || waiter.is_leaving || (waiter.saw_reserved && waiter.slept))
}

/// Whether a reader whose cell stands is in.
#[must_use]
pub const fn is_shared(word: u64) -> bool {
    !has_owner(word) && word & S != 0
}

/// What the first reader makes of a word that it may enter. A death stays due: a reader can mend nothing (S19).
#[must_use]
pub const fn opened(word: u64) -> u64 {
    S | (word & (D | W))
}

/// Whether the owner waits for readers to leave.
#[must_use]
pub const fn is_draining(word: u64) -> bool {
    has_owner(word) && word & R != 0
}

/// What ends a drain whose every cell is empty: `holder` holds (S8).
#[must_use]
pub const fn drained(word: u64, holder: u64) -> u64 {
    holder | (word & (W | S))
}

/// What a drain leaves that ends without the lock. Never 0: readers may be in (S9).
#[must_use]
pub const fn undrained(word: u64) -> u64 {
    S | (word & D) | if word & S != 0 { R | W } else { 0 }
}

/// What others make of the drain of one that does not come, though its readers are gone (S10).
#[must_use]
pub const fn revoked(word: u64) -> u64 {
    S | W | (word & D)
}

/// What takes a lock over from a holder that is dead, or its drain from a writer that is (S6).
#[must_use]
pub const fn taken_over(word: u64, me: u64) -> u64 {
    if is_draining(word) { me | R | W | (word & D) } else { me | W }
}

/// What marks a lock as a dead holder's: those who wait are woken. One that drained held nothing, and readers may be in
/// (S20).
#[must_use]
pub const fn abandoned(word: u64) -> u64 {
    if is_draining(word) { S | (word & (D | W)) } else { D | (word & W) }
}

/// The same by somebody who does not know whether others sleep (S5, S21).
#[must_use]
pub const fn found_dead(word: u64) -> u64 {
    abandoned(word) | W
}

/// What an unlock leaves.
#[must_use]
pub const fn released(word: u64) -> u64 {
    if word & S != 0 { R | W } else { 0 }
}

/// The same where a reader starves: all such readers are let in (S12).
#[must_use]
pub const fn released_to_readers() -> u64 {
    R | S | W
}

/// What a downgrade leaves (S15).
#[must_use]
pub const fn downgraded(word: u64) -> u64 {
    if word & S != 0 { R | S | W } else { S }
}

/// A reservation for those who slept, withdrawn, since none sleeps. `None`: there is none.
#[must_use]
pub const fn unreserved(word: u64) -> Option<u64> {
    if !has_owner(word) && word & R != 0 && word & W != 0 { Some(word & !(R | W)) } else { None }
}

/// Whether a cell's reader is in, or may be about to come in: a writer waits for it.
#[must_use]
pub const fn is_reader(cell: u64) -> bool {
    has_owner(cell) && cell & (S | D) == 0
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

    #[test]
    fn a_word_with_readers_is_taken_to_drain_and_never_given_up_as_free() {
        let me = of_thread(of_process(1, 1), 1);
        let fresh = Waiter::default();
        assert_eq!(step(S | D, me, fresh), Step::Take(me | R | D));
        assert_eq!(step(S | R | W, me, fresh), Step::Sleep);
        assert_eq!((undrained(me | R | D), undrained(me | R | S | W)), (S | D, S | R | W));
        assert_eq!((taken_over(me | R | D, 2 | me), abandoned(me | R | D | W)), (2 | me | R | W | D, S | D | W));
        assert_eq!(drained(me | R | D | W | S, me), me | W | S);
    }

    #[test]
    fn a_reader_enters_what_nobody_owns_but_no_place_kept_for_those_who_slept() {
        let fresh = Waiter::default();
        let woken = Waiter { woken: true, slept: true, ..fresh };
        assert_eq!(reader_step(0, fresh), Step::Take(S));
        assert_eq!(reader_step(R | S | W | D, fresh), Step::Take(S | W | D));
        assert_eq!((reader_step(R | W, fresh), reader_step(R | W, woken)), (Step::Sleep, Step::Take(S | W)));
        assert_eq!(reader_step(1, Waiter { starves: true, ..woken }), Step::Announce(1 | W | S));
    }
}
