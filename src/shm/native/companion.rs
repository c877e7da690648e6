// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! What the file manager needs from the engine. Its locks are words of a native segment, and each word has a companion: the
//! record lock that libpod sees. The file manager holds a word while it waits for the companion, and it must know whether
//! another thread of the process uses the lock before it releases the companion.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::Reason;
use crate::manager::{Acquired, Ownership};
use crate::sys::thread::waits::HeldWord;

use super::{Native, format, note, releasing, waiting, word};

/// The second half of each lock of a storage: it keeps out programs that do not know words.
pub(crate) trait Companion: Send + Sync {
    fn release(&self, id: u32);
}

impl Native {
    /// See [`View::holds_surely`](super::view::View::holds_surely).
    #[inline(always)]
    pub(crate) fn holds_surely(&self, id: u32) -> bool {
        self.view.holds_surely(id)
    }

    /// Grows the segment so far that it has lock `id`, which is below its largest number of locks.
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

    /// Whether the calling thread holds the lock through this manager, or this process does if it owns the lock.
    pub(crate) fn holds(&self, id: u32) -> bool {
        let Some(holder) = self.own_words().filter(|_| self.pool().has_lock(id)) else { return false };
        let owner = self.pool().word(id).load(Ordering::Relaxed) & word::OWNER;
        (Some(owner) == holder.thread_word || owner == holder.process_word)
            && note::manager(self.pool().note(id)) == self.view.manager
    }

    /// Whether the word of a lock names a holder, or says that there may be readers, dead or alive. The lock is one that
    /// this process knows.
    pub(crate) fn is_taken(&self, id: u32) -> bool {
        let seen = self.pool().word(id).load(Ordering::Relaxed);
        word::has_owner(seen) || word::is_shared(seen)
    }

    /// Backs out of a word that the fast or the mid path took without coming to hold the lock.
    pub(crate) fn back_out(&self, id: u32) {
        self.view.back_out(id);
    }

    /// Backs out of a lock that was just taken. If its last holder died, the next holder has to be told.
    pub(crate) fn back_out_of(&self, id: u32, acquired: Acquired) {
        let Some(holder) = self.own_words() else { return };
        let owner = self.pool().word(id).load(Ordering::Relaxed) & word::OWNER;
        self.pool().back_out(id, owner, acquired);
        if Some(owner) == holder.thread_word {
            holder.thread.count_native_unlock();
        }
    }

    /// The word of a lock that was just taken, and how to release it if a signal handler jumps out of the wait for the
    /// companion. No unlock releases the word until [`hold`](Self::hold) is called.
    pub(crate) fn word_to_release(&self, id: u32, acquired: Acquired) -> HeldWord<'_> {
        self.view.note_manager(id, 0);
        let word = self.pool().word(id);
        let owner = word.load(Ordering::Relaxed) & word::OWNER;
        HeldWord { word, owner, release: releasing::back_out_of_left_wait(acquired) }
    }

    /// From here on the lock is held through this manager.
    pub(crate) fn hold(&self, id: u32) {
        self.view.note_manager(id, self.view.manager);
    }

    /// Sets what releases the companions of locks that a thread still holds when it ends. Only the first call counts.
    pub(crate) fn set_companion(&self, companion: Arc<dyn Companion>) {
        let _as_before = self.pool().companion.get_or_make(|| Ok::<_, ()>(companion));
    }

    /// The cell by which the calling thread reads the lock, or this process if it owns the lock.
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

    /// Whether the calling thread reads the lock, or this process if it owns the lock.
    pub(crate) fn reads(&self, id: u32) -> bool {
        self.own_cell(id).is_some()
    }

    /// Whether the caller reads the lock and no other thread of this process does. The caller excludes other threads.
    pub(crate) fn is_last_reader_here(&self, id: u32) -> bool {
        let cells = self.pool().cells(id);
        let own = self.own_cell(id);
        matches!((cells, own), (Some(cells), Some((own, _))) if !self.pool().is_read_here_beside(&cells, own))
    }

    /// Whether a thread of this process reads the lock, has claimed a cell to read it, or holds it exclusively. It reads the
    /// word before the cells: a downgrade claims its cell before it changes the word.
    pub(crate) fn is_used_here(&self, id: u32) -> bool {
        let word = self.pool().word(id).load(Ordering::Acquire);
        let is_held = self.own_words().is_some_and(|holder| word::process(word) == holder.process_word);
        is_held && !word::is_draining(word) || self.is_read_here(id)
    }

    /// Whether a thread of this process reads the lock, or is about to.
    fn is_read_here(&self, id: u32) -> bool {
        self.pool().cells(id).is_some_and(|cells| self.pool().is_read_here(&cells, |_| true))
    }

    /// As [`word_to_release`](Self::word_to_release), for a lock that was taken shared.
    pub(crate) fn cell_to_release(&self, id: u32) -> Option<HeldWord<'_>> {
        let (word, owner) = self.own_cell(id)?;
        Some(HeldWord { word, owner, release: releasing::RELEASE_LEFT_CELL })
    }

    /// Who owns what is taken through the manager.
    pub(crate) fn ownership(&self) -> Ownership {
        self.ownership.chosen()
    }

    /// Whether a thread of any process may sleep on a lock that the caller holds. A caller that slept itself cannot know that
    /// it was the last.
    pub(crate) fn is_waited_for(&self, id: u32) -> bool {
        self.pool().word(id).load(Ordering::Relaxed) & word::WAITERS != 0
    }

    /// The number of threads that wait in calls on the manager.
    pub(crate) fn waiting(&self) -> &AtomicU64 {
        self.view.waiting()
    }

    /// The segment's file, as probes name it.
    pub(crate) fn inode(&self) -> u64 {
        self.pool().segment.metadata.inode
    }

    /// The futex of a lock.
    pub(crate) fn futex(&self, id: u32) -> &AtomicU32 {
        waiting::futex_of(self.pool().word(id))
    }

    /// Whether a remover of this library has removed the segment.
    pub(crate) fn is_retired(&self) -> bool {
        self.pool().is_retired()
    }

    /// Whether the segment's file has lost its name, also by another program.
    pub(crate) fn has_lost_its_name(&self) -> bool {
        self.pool().segment.is_removed()
    }

    /// The segment's file as /proc shows it.
    pub(crate) fn as_mapped(&self) -> Option<crate::sys::liveness::mapped_file::MappedFile> {
        self.pool().segment.as_mapped()
    }

    /// The number of locks, as far as this process knows.
    pub(crate) fn known_locks(&self) -> u32 {
        self.pool().num_locks_now()
    }
}
