// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The lock word: its bits, its states, and every step from one state to the next. Each step is a pure function of the
//! word that was read; the caller makes it with one compare-and-swap from exactly that word.
//!
//! ```text
//!  63       54 53          32 31 30 29 28 27          13 12       0
//! ┌───────────┬──────────────┬──┬──┬──┬──┬──────────────┬──────────┐
//! │generation,│ serial of    │ W│ S│ R│ D│ generation,  │ entry    │
//! │  high 10  │ the thread   │  │  │  │  │   low 15     │          │
//! └───────────┴──────────────┴──┴──┴──┴──┴──────────────┴──────────┘
//!                             └──────── the futex ───────────────┘
//!
//!    D OWNER_DIED    R RESERVED, DRAINING    S STARVING, SHARED    W WAITERS
//! ```
//!
//! OWNER is every bit but those four. It names an entry of the attach table, the entry's generation, and the thread's serial
//! there; a serial of 0 says that the process owns the lock.
//!
//! | state | word | what it means |
//! | --- | --- | --- |
//! | free | 0 | Nobody holds the lock. |
//! | abandoned | OWNER_DIED | Nobody holds the lock, and its last holder died. The next holder is told. |
//! | reserved | RESERVED + WAITERS | Nobody holds the lock. Only a waiter that slept may take it. |
//! | held | OWNER | OWNER holds the lock exclusively. With STARVING, its unlock makes the lock reserved. |
//! | shared | SHARED | Readers may hold the lock: the cells name them. With OWNER_DIED, readers and the next writer are told. |
//! | read phase | SHARED + RESERVED + WAITERS | As shared, and writers let starving readers go first. |
//! | draining | OWNER + DRAINING | OWNER waits until every reader has left. It is next, and does not hold the lock yet. |
//!
//! WAITERS may be set in every state but free: a thread may sleep on the word, so the thread that frees the lock wakes one.
//!
//! ```text
//!              lock                unlock, nobody starves
//!    free ─────────────▶ held ─────────────────────────────▶ free
//!                        │  ▲ │
//!        the owner died  │  │ └──unlock, a waiter starves──▶ reserved ──a waiter that slept──▶ held
//!                        ▼  │ lock, told
//!                     abandoned
//!
//!                   first reader            a writer                 every cell is empty
//!    free, abandoned ───────────▶ shared ────────────────▶ draining ────────────────────▶ held
//!                                   ▲                         │ gives up, or is dead
//!                                   └─────────────────────────┘
//! ```
//!
//! One invariant carries shared locks: while a reader holds the lock, the word is shared or draining. A word without an
//! owner may be taken unless RESERVED is set. A word with SHARED is taken as draining.
//!
//! A reader's cell (see `cells`) has the same bits: 0 is empty; OWNER, with WAITERS if a writer sleeps on the cell, is a
//! reader that holds the lock, or that has claimed the cell and has not read the word again; OWNER + STARVING is a reader
//! that starves and does not hold the lock; OWNER + UNFINISHED is being written, and not valid yet.

/// Without an owner: the last holder died, and the next holder is told.
pub const OWNER_DIED: u64 = 1 << 28;
/// Without an owner: reserved for waiters that slept.
pub const RESERVED: u64 = 1 << 29;
/// The same bit with an owner: the owner drains, and does not hold the lock.
pub const DRAINING: u64 = RESERVED;
/// With an owner: a waiter starves, so the unlock must reserve the lock. In a cell: its reader starves.
pub const STARVING: u64 = 1 << 30;
/// The same bit without an owner: readers may hold the lock.
pub const SHARED: u64 = STARVING;
/// A thread may sleep on the word: the thread that frees the lock must wake one.
pub const WAITERS: u64 = 1 << 31;
/// In a cell of the table: being written, not valid yet.
pub const UNFINISHED: u64 = OWNER_DIED;

/// The bits that name a holder.
pub const OWNER: u64 = !(OWNER_DIED | RESERVED | STARVING | WAITERS);

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

/// The word of a lock that a process owns.
#[must_use]
pub const fn of_process(entry: u32, generation: u64) -> u64 {
    let low = generation & ((1 << GENERATION_LOW_BITS) - 1);
    let high = (generation >> GENERATION_LOW_BITS) & ((1 << GENERATION_HIGH_BITS) - 1);
    (entry & MAX_ENTRY) as u64 | low << GENERATION_LOW_SHIFT | high << GENERATION_HIGH_SHIFT
}

/// The word of a lock that one of its threads owns.
#[must_use]
pub const fn of_thread(process: u64, serial: u32) -> u64 {
    process | ((serial & MAX_SERIAL) as u64) << SERIAL_SHIFT
}

/// The word of the process whose thread `owner` names.
#[must_use]
pub const fn process(owner: u64) -> u64 {
    owner & OWNER & !SERIAL_MASK
}

/// The entry that a word names; 0: none.
#[must_use]
pub const fn entry(word: u64) -> u32 {
    (word & MAX_ENTRY as u64) as u32
}

/// The low bits of the generation that a word names.
#[must_use]
pub const fn generation(word: u64) -> u64 {
    let low = (word >> GENERATION_LOW_SHIFT) & ((1 << GENERATION_LOW_BITS) - 1);
    let high = (word >> GENERATION_HIGH_SHIFT) & ((1 << GENERATION_HIGH_BITS) - 1);
    high << GENERATION_LOW_BITS | low
}

/// The serial of the thread that a word names; 0: the process owns the lock.
#[must_use]
pub const fn serial(word: u64) -> u32 {
    ((word & SERIAL_MASK) >> SERIAL_SHIFT) as u32
}

/// Whether the word names an owner. A word whose entry is 0 names none, whatever else is in it.
#[must_use]
pub const fn has_owner(word: u64) -> bool {
    entry(word) != 0
}

/// The half that the kernel compares when a thread goes to sleep on the word.
#[must_use]
pub const fn futex(word: u64) -> u32 {
    word as u32
}

/// What a waiter knows about its own wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WaitState {
    /// It has slept in this call. So others may sleep, too, and it keeps WAITERS.
    pub slept: bool,
    /// The futex woke it, and it has not slept since. It has to use the wake-up, or pass it on.
    pub woken: bool,
    /// It has waited so long that the next unlock must reserve the lock.
    pub starves: bool,
    /// It saw the lock reserved at both ends of a slice, and no thread took the lock meanwhile.
    pub saw_reserved: bool,
    /// Its time is over: it takes any lock without an owner.
    pub is_leaving: bool,
}

/// What a waiter does with the word that it read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Swap the word for this one, and hold the lock, or drain it.
    Take(u64),
    /// Swap the word for this one, which shows that a thread waits, and look again.
    Announce(u64),
    /// Sleep on the word as it is.
    Sleep,
}

/// The step of a writer whose word as an owner is `me`.
#[must_use]
pub const fn step(word: u64, me: u64, waiter: WaitState) -> Step {
    if !has_owner(word) {
        let reserved = word & RESERVED != 0;
        let may_take = !reserved || waiter.woken || waiter.is_leaving || (waiter.saw_reserved && waiter.slept);
        if may_take {
            let taken = me | if waiter.slept { WAITERS } else { word & WAITERS };
            // S6: with readers, the word is taken to drain. OWNER_DIED stays in it: a drain may end without the lock.
            return Step::Take(if word & SHARED == 0 { taken } else { taken | DRAINING | (word & OWNER_DIED) });
        }
    }
    announced(word, waiter)
}

/// The step of a waiter that cannot have the lock.
const fn announced(word: u64, waiter: WaitState) -> Step {
    let announced = word | WAITERS | if waiter.starves && has_owner(word) { STARVING } else { 0 };
    if announced == word { Step::Sleep } else { Step::Announce(announced) }
}

/// The step of a reader without a cell, or with one in which it starves. Before [`Step::Take`], it claims a cell and
/// looks at the word again (S1, S12).
#[must_use]
pub const fn reader_step(word: u64, waiter: WaitState) -> Step {
    if may_enter(word, waiter) { Step::Take(opened(word)) } else { announced(word, waiter) }
}

/// Whether a reader may take the lock: it has no owner, and is not reserved. In a read phase every reader may.
#[must_use]
pub const fn may_enter(word: u64, waiter: WaitState) -> bool {
    let is_reserved = word & RESERVED != 0 && word & SHARED == 0;
    !has_owner(word) && (!is_reserved || waiter.woken || waiter.is_leaving || (waiter.saw_reserved && waiter.slept))
}

/// Whether a reader with a cell holds the lock.
#[must_use]
pub const fn is_shared(word: u64) -> bool {
    !has_owner(word) && word & SHARED != 0
}

/// The word that the first reader leaves. OWNER_DIED stays: a reader can repair nothing (S19).
#[must_use]
pub const fn opened(word: u64) -> u64 {
    SHARED | (word & (OWNER_DIED | WAITERS))
}

/// Whether the owner waits for readers to leave.
#[must_use]
pub const fn is_draining(word: u64) -> bool {
    has_owner(word) && word & DRAINING != 0
}

/// The word that ends a drain when every cell is empty: `holder` holds the lock (S8).
#[must_use]
pub const fn drained(word: u64, holder: u64) -> u64 {
    holder | (word & (WAITERS | STARVING))
}

/// The word that a drain leaves if it ends without the lock. Never 0: readers may hold the lock (S9).
#[must_use]
pub const fn undrained(word: u64) -> u64 {
    SHARED | (word & OWNER_DIED) | if word & STARVING != 0 { RESERVED | WAITERS } else { 0 }
}

/// The word by which another waiter ends a drain that makes no progress although its readers are gone (S10).
#[must_use]
pub const fn revoked(word: u64) -> u64 {
    SHARED | WAITERS | (word & OWNER_DIED)
}

/// The word that takes a lock over from a dead holder, or a drain from a dead writer (S6).
#[must_use]
pub const fn taken_over(word: u64, me: u64) -> u64 {
    if is_draining(word) { me | DRAINING | WAITERS | (word & OWNER_DIED) } else { me | WAITERS }
}

/// The word that a dead holder's lock gets; the caller wakes. A dead writer that drained did not hold the lock, and
/// readers may (S20).
#[must_use]
pub const fn abandoned(word: u64) -> u64 {
    if is_draining(word) { SHARED | (word & (OWNER_DIED | WAITERS)) } else { OWNER_DIED | (word & WAITERS) }
}

/// The same by a thread that does not know whether others sleep (S5, S21).
#[must_use]
pub const fn found_dead(word: u64) -> u64 {
    abandoned(word) | WAITERS
}

/// The word that an unlock leaves.
#[must_use]
pub const fn released(word: u64) -> u64 {
    if word & STARVING != 0 { RESERVED | WAITERS } else { 0 }
}

/// The word that an unlock leaves if a reader starves: all such readers are let in (S12).
#[must_use]
pub const fn released_to_readers() -> u64 {
    RESERVED | SHARED | WAITERS
}

/// The word that a downgrade leaves (S15).
#[must_use]
pub const fn downgraded(word: u64) -> u64 {
    if word & STARVING != 0 { RESERVED | SHARED | WAITERS } else { SHARED }
}

/// The word without its reservation, for the case that no thread sleeps. `None`: it has none.
#[must_use]
pub const fn unreserved(word: u64) -> Option<u64> {
    if !has_owner(word) && word & RESERVED != 0 && word & WAITERS != 0 {
        Some(word & !(RESERVED | WAITERS))
    } else {
        None
    }
}

/// Whether a writer waits for the reader of this cell: the reader holds the lock, or has claimed the cell and may come to
/// hold it.
#[must_use]
pub const fn is_reader(cell: u64) -> bool {
    has_owner(cell) && cell & (STARVING | UNFINISHED) == 0
}

/// The word stored when backing out of a lock that this caller took just now: as an unlock leaves it.
#[must_use]
pub const fn backed_out(word: u64) -> u64 {
    released(word)
}

/// The word stored when backing out of a lock whose last holder died: the next holder must still be told.
#[must_use]
pub const fn backed_out_untold(word: u64) -> u64 {
    OWNER_DIED | (word & WAITERS)
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
            assert_eq!(process(word | WAITERS | STARVING), of_process(entry_, generation_));
        }
    }

    #[test]
    fn a_generation_beyond_its_bits_begins_again() {
        assert_eq!(of_process(3, GENERATION_MASK + 1), of_process(3, 0));
    }

    #[test]
    fn a_reserved_lock_is_for_waiters_that_slept() {
        let me = of_thread(of_process(1, 1), 1);
        let fresh = WaitState::default();
        assert_eq!(step(RESERVED | WAITERS, me, fresh), Step::Sleep);
        assert_eq!(
            step(RESERVED | WAITERS, me, WaitState { woken: true, slept: true, ..fresh }),
            Step::Take(me | WAITERS)
        );
        assert_eq!(step(RESERVED | WAITERS, me, WaitState { is_leaving: true, ..fresh }), Step::Take(me | WAITERS));
        assert_eq!(step(OWNER_DIED, me, fresh), Step::Take(me));
        assert_eq!(step(me, me, fresh), Step::Announce(me | WAITERS));
        assert_eq!(
            step(me | WAITERS, me, WaitState { starves: true, ..fresh }),
            Step::Announce(me | WAITERS | STARVING)
        );
    }

    #[test]
    fn a_word_with_readers_is_taken_to_drain_and_never_given_up_as_free() {
        let me = of_thread(of_process(1, 1), 1);
        let fresh = WaitState::default();
        assert_eq!(step(SHARED | OWNER_DIED, me, fresh), Step::Take(me | DRAINING | OWNER_DIED));
        assert_eq!(step(SHARED | RESERVED | WAITERS, me, fresh), Step::Sleep);
        assert_eq!(
            (undrained(me | DRAINING | OWNER_DIED), undrained(me | DRAINING | STARVING | WAITERS)),
            (SHARED | OWNER_DIED, SHARED | RESERVED | WAITERS)
        );
        assert_eq!(
            (taken_over(me | DRAINING | OWNER_DIED, 2 | me), abandoned(me | DRAINING | OWNER_DIED | WAITERS)),
            (2 | me | DRAINING | WAITERS | OWNER_DIED, SHARED | OWNER_DIED | WAITERS)
        );
        assert_eq!(drained(me | DRAINING | OWNER_DIED | WAITERS | STARVING, me), me | WAITERS | STARVING);
    }

    #[test]
    fn a_reader_enters_a_word_without_an_owner_unless_it_is_reserved_for_waiters_that_slept() {
        let fresh = WaitState::default();
        let woken = WaitState { woken: true, slept: true, ..fresh };
        assert_eq!(reader_step(0, fresh), Step::Take(SHARED));
        assert_eq!(
            reader_step(RESERVED | SHARED | WAITERS | OWNER_DIED, fresh),
            Step::Take(SHARED | WAITERS | OWNER_DIED)
        );
        assert_eq!(
            (reader_step(RESERVED | WAITERS, fresh), reader_step(RESERVED | WAITERS, woken)),
            (Step::Sleep, Step::Take(SHARED | WAITERS))
        );
        assert_eq!(reader_step(1, WaitState { starves: true, ..woken }), Step::Announce(1 | WAITERS | STARVING));
    }
}
