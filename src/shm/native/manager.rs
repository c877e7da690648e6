// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The native engine as a manager: the checks that each call begins with.

use std::sync::atomic::Ordering;

use crate::backend;
use crate::manager::sealed::Sealed;
use crate::manager::{Holder, Info, Kind, LockInfo, Manager, Ownership, Waiter};
use crate::sys::popcount;
use crate::sys::syscall::clock::Instant;
use crate::sys::syscall::file::Access;
use crate::sys::thread::Thread;
use crate::sys::thread::waits;
use crate::{Error, Reason, Result};

use super::super::MAX_LOCKS;
use super::{Backing, Native, format, note, sharing, word};

impl Native {
    pub(super) fn check_allocation(&self) -> Result<()> {
        self.check_writable()?;
        self.begin()?;
        if self.pool().is_removed_lately() { Err(self.error(Reason::Removed)) } else { Ok(()) }
    }

    #[cold]
    pub(super) fn error(&self, reason: Reason) -> Error {
        Error::new(&self.storage, reason)
    }

    pub(super) fn check_range(&self, id: u32) -> Result<()> {
        self.is_in_range(id).map_err(|reason| self.error(reason))
    }

    pub(super) fn check_writable(&self) -> Result<()> {
        self.is_writable().map_err(|reason| self.error(reason))
    }

    pub(super) fn is_in_range(&self, id: u32) -> std::result::Result<(), Reason> {
        let pool = self.pool();
        if pool.has_lock(id) { Ok(()) } else { Err(Reason::OutOfRange { id, num_locks: pool.num_locks() }) }
    }

    pub(super) fn is_writable(&self) -> std::result::Result<(), Reason> {
        if self.pool().access == Access::ReadWrite { Ok(()) } else { Err(Reason::ReadOnly) }
    }

    /// Checks that a lock may be taken or released through the manager.
    pub(super) fn may_lock(&self, id: u32) -> std::result::Result<(), Reason> {
        self.ensure_attached()?;
        self.is_in_range(id)?;
        self.is_writable()
    }

    /// A lock that this process holds through this manager.
    fn held_through(&self) -> Option<u32> {
        if !self.ownership.is_fixed() {
            return None;
        }
        let process_word = self.pool().attachment.peek()?.process_word;
        self.pool().touched_ids(self.pool().num_locks()).find(|&id| self.is_held_through(id, process_word))
    }

    /// Whether this process holds a lock through this manager. A lock's word and its note are written one after the
    /// other, so the note may for a moment still name the last manager.
    fn is_held_through(&self, id: u32, process_word: u64) -> bool {
        let (pool, deadline) = (self.pool(), Instant::now().after(NOTED_WITHIN_NS));
        loop {
            let (word, note) = (pool.word(id).load(Ordering::Acquire) & word::OWNER, pool.note(id));
            if word::process(word) != process_word || note::manager(note) != self.view.manager {
                return false;
            }
            let is_fixed = pool.is_calling_thread(word) || pool.sleeps(word) || Instant::now() >= deadline;
            // The answer counts only if word and note are still those that it was about.
            if is_fixed && pool.word(id).load(Ordering::Acquire) & word::OWNER == word && pool.note(id) == note {
                return true;
            }
            std::thread::yield_now();
        }
    }

    /// A lock that this process reads, if this is its last manager on the storage. A cell does not say through which
    /// manager its lock is read.
    fn read_at_last(&self) -> Option<u32> {
        if !self.view.pool.is_last() {
            return None;
        }
        let process_word = self.pool().attachment.peek()?.process_word;
        self.pool().read_by(process_word)
    }

    /// Every call begins with this. A forked child attaches in its first call, whichever that is: later it may have given
    /// up the rights to open the segment.
    #[inline]
    pub(super) fn ensure_attached(&self) -> std::result::Result<(), Reason> {
        match self.backing {
            Backing::Segment => {
                if self.pool().access == Access::ReadWrite && self.pool().attachment.peek().is_none() {
                    let _as_well_later = self.pool().attached();
                }
                Ok(())
            }
            Backing::Memory { epoch } if epoch == self.process.epoch() => Ok(()),
            Backing::Memory { .. } => Err(Reason::ForkedChild),
        }
    }

    /// The same, with the storage in the error.
    pub(super) fn begin(&self) -> Result<()> {
        self.ensure_attached().map_err(|reason| self.error(reason))
    }
}

/// The longest time between taking a lock and noting the manager.
const NOTED_WITHIN_NS: u64 = 100_000_000;

impl Sealed for Native {}

impl Manager for Native {
    fn allocate_lock(&self) -> Result<u32> {
        self.check_allocation()?;
        let first = self.pool().bitmap().allocate();
        // Another process may have grown the segment meanwhile.
        first.or_else(|_| {
            let num_locks = self.pool().num_locks_now();
            self.pool().bitmap().allocate().map_err(|_| self.error(Reason::Exhausted { num_locks }))
        })
    }

    fn retrieve_lock(&self, id: u32) -> Result<()> {
        self.begin()?;
        self.check_range(id)
    }

    fn allocate_and_retrieve_lock(&self, id: u32) -> Result<()> {
        self.begin()?;
        self.check_range(id)?;
        self.check_allocation()?;
        if self.pool().bitmap().allocate_given(id) { Ok(()) } else { Err(self.error(Reason::Allocated { id })) }
    }

    fn free_lock(&self, id: u32) -> Result<()> {
        self.begin()?;
        self.check_range(id)?;
        self.check_allocation()?;
        if self.pool().bitmap().free(id) { Ok(()) } else { Err(self.error(Reason::NotAllocated { id })) }
    }

    fn free_all_locks(&self) -> Result<()> {
        self.check_allocation()?;
        // Growth in memory changes which bits of the last word stand for no lock. A segment has no such bits.
        let _alone = matches!(self.backing, Backing::Memory { .. }).then(|| self.process.exclude_other_threads());
        let num_locks = self.pool().num_locks_now();
        self.pool().bitmap_of(num_locks).free_all(num_locks);
        Ok(())
    }

    fn available_locks(&self) -> Result<u32> {
        self.begin()?;
        popcount::detect();
        Ok(self.pool().count_free())
    }

    fn num_locks(&self) -> Result<u32> {
        self.begin()?;
        Ok(self.pool().num_locks_now())
    }

    backend::lock_by_paths!();

    fn lock_holders(&self, id: u32) -> Result<Vec<Holder>> {
        self.begin()?;
        self.check_range(id)?;
        Ok(self.pool().holders(id))
    }

    fn set_ownership(&self, ownership: Ownership) -> Result<()> {
        self.check_writable()?;
        self.begin()?;
        self.ownership.choose(ownership).map_err(|reason| self.error(reason))
    }

    fn locks_held(&self) -> Result<Vec<u32>> {
        self.begin()?;
        Ok(self.pool().held_ids())
    }

    fn lock_info(&self, id: u32) -> Result<LockInfo> {
        self.begin()?;
        self.check_range(id)?;
        Ok(self.pool().inspect(id))
    }

    fn lock_infos(&self, ids: &[u32]) -> Result<Vec<LockInfo>> {
        self.begin()?;
        ids.iter().try_for_each(|&id| self.check_range(id))?;
        Ok(self.pool().inspect_all(ids))
    }

    fn waiters(&self) -> Result<Vec<Waiter>> {
        self.begin()?;
        Ok(self.pool().waiters())
    }

    fn info(&self) -> Result<Info> {
        self.begin()?;
        let described = self.pool().describe();
        Ok(match self.backing {
            Backing::Segment => described,
            Backing::Memory { .. } => Info { kind: Kind::InMemory, layout: None, max_locks: MAX_LOCKS, ..described },
        })
    }

    fn repair_lock(&self, id: u32) -> Result<()> {
        self.begin()?;
        self.check_range(id)?;
        self.check_writable()?;
        self.pool().repair(id).map_err(|reason| self.error(reason))
    }

    fn check_idle(&self) -> Result<()> {
        // A child holds none of its parent's locks.
        if self.ensure_attached() == Err(Reason::ForkedChild) {
            return Ok(());
        }
        waits::undo_abandoned(Thread::calling());
        sharing::sweep_claim(Thread::calling());
        match (self.view.waiting().load(Ordering::Relaxed), self.held_through().or_else(|| self.read_at_last())) {
            (0, None) => Ok(()),
            (0, Some(id)) => Err(self.error(Reason::StillHeld { id })),
            (threads, _) => Err(self.error(Reason::StillWaiting { threads: threads as u32 })),
        }
    }

    fn grow(&self, num_locks: u32) -> Result<()> {
        self.begin()?;
        self.check_writable()?;
        let (there, most) = (self.pool().num_locks_now(), self.pool().geometry.max_locks());
        if num_locks > most {
            return Err(self.error(Reason::TooManyLocks { asked: num_locks, most }));
        }
        if num_locks < there {
            return Err(self.error(Reason::Shrinking { there, asked: num_locks }));
        }
        self.check_allocation()?;
        let grown = match self.backing {
            Backing::Segment => self.pool().grow(format::rounded(num_locks)),
            Backing::Memory { .. } => {
                let _alone = self.process.exclude_other_threads();
                self.pool().grow_nameless(num_locks)
            }
        };
        self.view.hear_of_more();
        grown.map_err(|reason| self.error(reason))
    }
}
