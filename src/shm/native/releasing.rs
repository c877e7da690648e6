// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Releasing a lock, and whom to wake.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Reason;
use crate::manager::Acquired;
use crate::sys::syscall::futex;
use crate::sys::thread::Thread;
use crate::sys::thread::waits::ReleaseWord;

use super::Native;
use super::abandoning::ROUNDS;
use super::cells::{self, Cells};
use super::note;
use super::pool::Pool;
use super::sharing;
use super::waiting::{CLASSES, READERS, futex_of};
use super::word::{self, OWNER, STARVING, WAITERS};

impl Native {
    /// Releases a lock that the calling thread or this process holds exclusively.
    #[cold]
    pub(super) fn release_word(&self, id: u32) -> std::result::Result<(), Reason> {
        self.may_lock(id)?;
        let holder = self.own_words().ok_or(Reason::NotHolder { id })?;
        let lock = self.pool().word(id);
        for _ in 0..ROUNDS {
            let seen = lock.load(Ordering::Relaxed);
            let owner = seen & OWNER;
            let is_threads = Some(owner) == holder.thread_word;
            if !is_threads && owner != holder.process_word {
                return Err(Reason::NotHolder { id });
            }
            // A thread that drains does not hold the lock. That includes a drain that a signal handler jumped out of.
            if word::is_draining(seen) || note::manager(self.pool().note(id)) != self.view.manager {
                return Err(Reason::NotHolder { id });
            }
            let next = self.pool().next_after(seen, id);
            if lock.compare_exchange(seen, next.released(seen), Ordering::Release, Ordering::Relaxed).is_ok() {
                if is_threads {
                    holder.thread.count_native_unlock();
                }
                wake(lock, seen, next);
                return Ok(());
            }
        }
        let found = lock.load(Ordering::Relaxed);
        Err(Reason::Damaged { what: "the word of a lock that this thread holds", found, expected: 0 })
    }
}

/// Whose turn it is after an unlock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Any thread. If a waiter starves, a writer.
    Anybody,
    /// All readers, because one of them starves.
    Readers,
}

impl Next {
    /// Whose turn it is after an unlock of the word `seen`, by the lock's cells. `Err`: the page of the table that this
    /// process has to make usable first.
    pub(super) fn after(seen: u64, cells: Option<&Cells<'_>>) -> std::result::Result<Self, u32> {
        match cells {
            Some(cells) if seen & STARVING != 0 && cells.has_starving()? => Ok(Self::Readers),
            _ => Ok(Self::Anybody),
        }
    }

    /// The word after the unlock.
    pub(super) fn released(self, seen: u64) -> u64 {
        match self {
            Self::Anybody => word::released(seen),
            Self::Readers => word::released_to_readers(),
        }
    }
}

/// Backs out of a word. Returns whether it named `me`.
fn back_out(lock: &AtomicU64, me: u64, acquired: Acquired) -> bool {
    for _ in 0..ROUNDS {
        let seen = lock.load(Ordering::Relaxed);
        if seen & OWNER != me {
            return false;
        }
        let next = match acquired {
            Acquired::Clean => word::backed_out(seen),
            Acquired::OwnerDied => word::backed_out_untold(seen),
        };
        if lock.compare_exchange(seen, next, Ordering::Release, Ordering::Relaxed).is_ok() {
            wake(lock, seen, Next::Anybody);
            return true;
        }
    }
    false
}

/// How to back out of a word that a thread has while it waits for the companion, if a signal handler jumps out of that wait.
pub(super) fn back_out_of_left_wait(acquired: Acquired) -> ReleaseWord {
    fn give_back(lock: &AtomicU64, owner: u64, acquired: Acquired) {
        if back_out(lock, owner, acquired) && word::serial(owner) != 0 {
            Thread::calling().count_native_unlock();
        }
    }
    match acquired {
        Acquired::Clean => |lock, owner| give_back(lock, owner, Acquired::Clean),
        Acquired::OwnerDied => |lock, owner| give_back(lock, owner, Acquired::OwnerDied),
    }
}

impl Pool {
    /// Whose turn it is after an unlock of the word `seen`.
    pub(super) fn next_after(&self, seen: u64, id: u32) -> Next {
        let cells = self.cells(id);
        loop {
            match Next::after(seen, cells.as_ref()) {
                Ok(next) => return next,
                Err(page) if self.make_table_page_usable(page).is_ok() => {}
                // The cells cannot be read. Starving readers are not lost: the next unlock reads them again.
                Err(_) => return Next::Anybody,
            }
        }
    }

    /// Backs out of a lock that was just taken.
    #[cold]
    #[inline(never)]
    pub(super) fn back_out(&self, id: u32, me: u64, acquired: Acquired) {
        back_out(self.word(id), me, acquired);
    }
}

/// Wakes the threads whose turn it is after an unlock of the word `seen`.
pub(super) fn wake(lock: &AtomicU64, seen: u64, next: Next) {
    match next {
        // If no reader sleeps, the starving readers are awake, and the last of them wakes the oldest writer.
        Next::Readers => _ = futex::wake_all_of(futex_of(lock), READERS),
        Next::Anybody if seen & STARVING != 0 => wake_oldest(lock),
        Next::Anybody if seen & WAITERS != 0 => futex::wake_one(futex_of(lock)),
        Next::Anybody => {}
    }
}

/// Wakes one of the threads that have waited longest. If none sleeps, withdraws the reservation.
pub(super) fn wake_oldest(lock: &AtomicU64) {
    let found = CLASSES.into_iter().any(|class| futex::wake_one_of(futex_of(lock), class));
    if !found {
        unreserve(lock);
    }
}

/// Wakes one thread. If none sleeps, withdraws the reservation.
pub(super) fn wake_any(lock: &AtomicU64) {
    if !futex::wake_one_of(futex_of(lock), futex::ALL_CLASSES) {
        unreserve(lock);
    }
}

/// Wakes the writers that sleep on a cell.
#[cold]
pub(super) fn wake_cell(cell: &AtomicU64) {
    futex::wake_all_of(futex_of(cell), futex::ALL_CLASSES);
}

/// Withdraws a reservation that no woken waiter can use (L9).
fn unreserve(lock: &AtomicU64) {
    let seen = lock.load(Ordering::Relaxed);
    if let Some(next) = word::unreserved(seen)
        && lock.compare_exchange(seen, next, Ordering::Release, Ordering::Relaxed).is_ok()
    {
        futex::wake_one(futex_of(lock));
    }
}

/// Ends the drain of `owner` without the lock (S9).
pub(super) fn undrain(lock: &AtomicU64, owner: u64, next_after: impl Fn(u64) -> Next) {
    for _ in 0..ROUNDS {
        let seen = lock.load(Ordering::Relaxed);
        if seen & OWNER != owner || !word::is_draining(seen) {
            return;
        }
        let next = next_after(seen);
        if lock.compare_exchange(seen, word::undrained(seen), Ordering::Release, Ordering::Relaxed).is_ok() {
            return wake(lock, seen, next);
        }
    }
}

/// How to end a drain if a signal handler jumps out of its wait.
pub(super) const END_LEFT_DRAIN: ReleaseWord = |lock, owner| {
    for _ in 0..ROUNDS {
        let seen = lock.load(Ordering::Relaxed);
        if seen & OWNER != owner || !word::is_draining(seen) {
            return;
        }
        if lock.compare_exchange(seen, word::undrained(seen), Ordering::Release, Ordering::Relaxed).is_ok() {
            // The cells are unknown here, so wake readers first: a reader that finds no starving one wakes a writer.
            if seen & STARVING == 0 || !futex::wake_all_of(futex_of(lock), READERS) {
                wake(lock, seen, Next::Anybody);
            }
            return;
        }
    }
};

/// How to release a shared hold if a signal handler jumps out of the wait for its companion.
pub(super) const RELEASE_LEFT_CELL: ReleaseWord = |cell, owner| {
    if sharing::leave(cell, owner) && word::serial(owner) != 0 {
        Thread::calling().count_shared_unlock();
    }
};

/// How to release the cell of a starving reader if a signal handler jumps out of its wait. By then the cell may be another
/// thread's, or a hold that a signal handler of the same thread has claimed.
pub(super) const RELEASE_LEFT_CLAIM: ReleaseWord = |cell, owner| {
    if cells::is_starving_claim_of(cell.load(Ordering::Relaxed), owner) {
        sharing::leave(cell, owner);
    }
};
