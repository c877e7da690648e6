// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! What the file manager asks of the engine: its locks are words of a native segment, and beside each it keeps a companion,
//! the record lock that libpod sees. So it has words in hand while it waits for the companion, and has to know who of this
//! process uses a lock before it lets the companion go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::Reason;
use crate::manager::{Acquired, Ownership};
use crate::sys::thread::waits::HeldWord;

use super::{Native, format, note, releasing, waiting, word};

/// What a lock is held by beside its word, for the sake of programs that know nothing of words.
pub(crate) trait Companion: Send + Sync {
    fn release(&self, id: u32);
}

impl Native {
    /// See [`View::holds_surely`].
    #[inline(always)]
    pub(crate) fn holds_surely(&self, id: u32) -> bool {
        self.view.holds_surely(id)
    }

    /// Makes room for a lock of that id, which is below the most that there can be.
    pub(crate) fn reach(&self, id: u32) -> std::result::Result<(), Reason> {
        if self.pool().has_lock(id) {
            return Ok(());
        }
        const STEP: u32 = 4096;
        let most = self.pool().geometry.max_locks();
        let wanted =
            (id + 1).checked_next_power_of_two().map_or(most, |rounded| rounded.min((id + 1).next_multiple_of(STEP)));
        let grown = self.pool().grow(format::rounded(wanted.min(most)));
        self.view.hear_of_more();
        grown
    }

    /// Whether the calling thread, or this process where it owns the lock, holds it through this manager.
    pub(crate) fn holds(&self, id: u32) -> bool {
        let Some(holder) = self.own_words().filter(|_| self.pool().has_lock(id)) else { return false };
        let owner = self.pool().word(id).load(Ordering::Relaxed) & word::OWNER;
        (Some(owner) == holder.thread_word || owner == holder.process_word)
            && note::manager(self.pool().note(id)) == self.view.manager
    }

    /// Whether a lock's word names a holder, or says that there may be readers, dead or alive. Of a lock that this process
    /// knows.
    pub(crate) fn is_taken(&self, id: u32) -> bool {
        let seen = self.pool().word(id).load(Ordering::Relaxed);
        word::has_owner(seen) || word::is_shared(seen)
    }

    /// Backs out of a word that the fast or the mid path took in vain.
    pub(crate) fn back_out(&self, id: u32) {
        self.view.back_out(id);
    }

    /// Gives a lock back that was taken just now, as if it had not been: a death that was told is still due.
    pub(crate) fn back_out_of(&self, id: u32, acquired: Acquired) {
        let Some(holder) = self.own_words() else { return };
        let owner = self.pool().word(id).load(Ordering::Relaxed) & word::OWNER;
        self.pool().back_out(id, owner, acquired);
        if Some(owner) == holder.thread_word {
            holder.thread.count_native_unlock();
        }
    }

    /// The word of a lock that was taken just now, for the case that the wait is left in which it is in hand. Until it is
    /// [held](Self::hold), no unlock gives it back.
    pub(crate) fn word_to_release(&self, id: u32, acquired: Acquired) -> HeldWord<'_> {
        self.view.note_manager(id, 0);
        let word = self.pool().word(id);
        let owner = word.load(Ordering::Relaxed) & word::OWNER;
        HeldWord { word, owner, release: releasing::back_out_of_left_wait(acquired) }
    }

    /// Has what was in hand be held through this manager.
    pub(crate) fn hold(&self, id: u32) {
        self.view.note_manager(id, self.view.manager);
    }

    /// Has `beside` called for each lock that a thread of this process leaves behind when it ends, while the lock is its
    /// yet. The first counts.
    pub(crate) fn set_companion(&self, companion: Arc<dyn Companion>) {
        let _as_before = self.pool().companion.get_or_make(|| Ok::<_, ()>(companion));
    }

    /// The cell in which the calling thread, or this process where it owns the lock, reads it.
    fn own_cell(&self, id: u32) -> Option<(&AtomicU64, u64)> {
        let holder = self.own_words().filter(|_| self.pool().has_lock(id))?;
        let cells = self.pool().cells(id)?;
        match self.ownership.chosen() {
            Ownership::Thread => holder.thread_word.and_then(|owner| cells.find(owner).map(|cell| (cell, owner))),
            Ownership::Process => {
                let owner = holder.process_word;
                cells.find_of_process(owner).map(|cell| (cell, owner))
            }
        }
    }

    /// Whether the calling thread, or this process where it owns the lock, reads it.
    pub(crate) fn reads(&self, id: u32) -> bool {
        self.own_cell(id).is_some()
    }

    /// Whether no other thread of this process reads a lock that the caller reads. Other threads are excluded.
    pub(crate) fn is_last_reader_here(&self, id: u32) -> bool {
        let cells = self.pool().cells(id);
        let own = self.own_cell(id);
        matches!((cells, own), (Some(cells), Some((own, _))) if !self.pool().is_read_here_beside(&cells, own))
    }

    /// Whether any thread of this process reads a lock, or is about to, or holds it exclusively. The word first: a downgrade
    /// has its cell before the word is a reader's.
    pub(crate) fn is_used_here(&self, id: u32) -> bool {
        let word = self.pool().word(id).load(Ordering::Acquire);
        let is_held = self.own_words().is_some_and(|holder| word::process(word) == holder.process_word);
        is_held && !word::is_draining(word) || self.is_read_here(id)
    }

    /// Whether any thread of this process reads a lock, or is about to.
    fn is_read_here(&self, id: u32) -> bool {
        self.pool().cells(id).is_some_and(|cells| self.pool().is_read_here(&cells, |_| true))
    }

    /// As [`word_to_release`](Self::word_to_release), of a lock that was taken shared.
    pub(crate) fn cell_to_release(&self, id: u32) -> Option<HeldWord<'_>> {
        let (word, owner) = self.own_cell(id)?;
        Some(HeldWord { word, owner, release: releasing::RELEASE_LEFT_CELL })
    }

    /// How many threads wait in calls on the manager.
    pub(crate) fn waiting(&self) -> &AtomicU64 {
        self.view.waiting()
    }

    /// The word that a lock is waited for on.
    pub(crate) fn futex(&self, id: u32) -> &AtomicU32 {
        waiting::futex_of(self.pool().word(id))
    }

    /// Whether the segment's remover has said that it is gone for good, as others than removers do not.
    pub(crate) fn is_retired(&self) -> bool {
        self.pool().is_retired()
    }

    /// Whether its file has lost its name, whoever took that away.
    pub(crate) fn has_lost_its_name(&self) -> bool {
        self.pool().segment.is_removed()
    }

    /// The segment's file as /proc shows it.
    pub(crate) fn as_mapped(&self) -> Option<crate::sys::liveness::procfs::MappedFile> {
        self.pool().segment.as_mapped()
    }

    /// How many locks there are, as far as this process knows.
    pub(crate) fn known_locks(&self) -> u32 {
        self.pool().num_locks_now()
    }
}
