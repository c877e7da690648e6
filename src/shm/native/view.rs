// SPDX-License-Identifier: MIT OR Apache-2.0
#![allow(unsafe_code, reason = "the fast path: addresses checked once, when the manager is made, not at each call")]
//! What lock and unlock need of a pool, one load away from the manager. One compare-and-swap takes a free lock, one
//! gives it back; whatever else there is to do is somebody else's, in `locking` and `releasing`.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use crate::manager::Acquired;
use crate::sys::arena::Line;
use crate::sys::file::Access;
use crate::sys::registry::Shared;
use crate::sys::thread::Thread;

use super::super::{AtOnce, Release};
use super::format::{self, slot};
use super::note;
use super::pool::Pool;

/// Words of a manager that no child inherits.
mod private {
    /// The attachment for which threads may use the fast path; 0: none, or the process owns what it locks.
    pub(super) const TICKET: usize = 0;
    /// How many threads wait in calls on the manager.
    pub(super) const WAITING: usize = 1;
}

/// A manager's view of its pool.
pub(super) struct View {
    /// The slot of lock 0, with those of all lockable ones behind it.
    slots: AtomicPtr<u8>,
    retired: *const AtomicU32,
    ticket: *const AtomicU64,
    /// The manager's number among those of the process; see `note`.
    pub(super) token: u64,
    /// As many locks as may be taken through the manager, as far as it has heard: none if it was opened to look.
    lockable: AtomicU32,
    private: Line,
    /// Keeps everything above alive and in place.
    pub(super) pool: Shared<Pool>,
}

// SAFETY: the pointers are into memory that the pool and the view's own page, themselves Send and Sync, keep mapped,
// and which is accessed as atomics only.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    pub(super) fn new(pool: Shared<Pool>, token: u64) -> Result<Self, crate::sys::Errno> {
        let private = Line::claim()?;
        let (slots, lockable) = (AtomicPtr::new(ptr::null_mut()), AtomicU32::new(0));
        let (retired, ticket) = (ptr::from_ref(pool.retired()), ptr::from_ref(private.word(private::TICKET)));
        let view = Self { slots, retired, ticket, token, lockable, private, pool };
        view.hear_of_more();
        Ok(view)
    }

    /// Lets the fast path reach all locks that the process knows of.
    pub(super) fn hear_of_more(&self) {
        let count = self.pool.num_locks();
        if self.pool.access == Access::Use && count > self.lockable.load(Ordering::Acquire) {
            // Whoever gets here after the manager was made stores the same address: a segment that has grown is mapped
            // once more, for good.
            self.slots.store(self.pool.slots(count), Ordering::Relaxed);
            self.lockable.fetch_max(count, Ordering::Release);
        }
    }

    /// Lets threads that have settled at an attachment use the fast path.
    pub(super) fn open_fast_path(&self, attachment: u64) {
        self.ticket().store(attachment, Ordering::Relaxed);
    }

    pub(super) fn waiting(&self) -> &AtomicU64 {
        self.private.word(private::WAITING)
    }

    #[inline(always)]
    fn ticket(&self) -> &AtomicU64 {
        // SAFETY: a word of the view's own page, which lives as long as self.
        unsafe { &*self.ticket }
    }

    #[inline(always)]
    fn retired(&self) -> &AtomicU32 {
        // SAFETY: a word of the header, which the pool keeps mapped as long as self.
        unsafe { &*self.retired }
    }

    /// Whether that lock may be taken through the manager.
    #[inline(always)]
    fn is_lockable(&self, id: u32) -> bool {
        // Acquire: with the address behind which its slot is.
        id < self.lockable.load(Ordering::Acquire)
    }

    /// The lock word and the note of a lock that is lockable.
    #[inline(always)]
    fn slot(&self, id: u32) -> (&AtomicU64, &AtomicU64) {
        debug_assert!(self.is_lockable(id));
        // SAFETY: the caller has seen that the lock is lockable, and with it an address behind which slots() has checked
        // that the slots of all lockable ones lie, in a mapping that lives as long as self.
        unsafe {
            let slot = self.slots.load(Ordering::Relaxed).add(id as usize * format::size::SLOT);
            (AtomicU64::from_ptr(slot.add(slot::WORD).cast()), AtomicU64::from_ptr(slot.add(slot::NOTE).cast()))
        }
    }

    /// Takes the lock if nothing stands in the way; does nothing if anything does.
    #[inline(always)]
    pub(super) fn acquire_at_once(&self, id: u32) -> AtOnce {
        if !self.is_lockable(id) {
            return AtOnce::Undecided;
        }
        let thread = Thread::calling();
        let Some(me) = thread.owner_at(self.ticket().load(Ordering::Relaxed)) else {
            return AtOnce::Undecided;
        };
        // Before the swap, behind which the processor begins anew: nothing is left to be looked up there.
        let ((lock, note), token) = (self.slot(id), self.token);
        let retired = self.retired();
        if lock.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return AtOnce::Undecided;
        }
        if retired.load(Ordering::Relaxed) != 0 {
            return AtOnce::Retired;
        }
        note.store(note::taken(note.load(Ordering::Relaxed), token), Ordering::Relaxed);
        thread.count_word_taken();
        AtOnce::Acquired(Acquired::Clean)
    }

    /// Gives a lock back that was taken though the segment was retired.
    pub(super) fn hand_back(&self, id: u32) {
        if let Some(me) = Thread::calling().owner_at(self.ticket().load(Ordering::Relaxed)) {
            self.pool.hand_back(id, me, Acquired::Clean);
        }
    }

    /// Notes who has the lock now: none of it decides.
    #[inline(always)]
    pub(super) fn remember(&self, id: u32) {
        let (_, note) = self.slot(id);
        note.store(note::taken(note.load(Ordering::Relaxed), self.token), Ordering::Relaxed);
    }

    /// Gives the lock back if the calling thread holds it through this manager and nobody waits.
    #[inline(always)]
    pub(super) fn release_at_once(&self, id: u32) -> Release {
        if !self.is_lockable(id) {
            return Release::Undecided;
        }
        let thread = Thread::calling();
        let Some(me) = thread.owner_at(self.ticket().load(Ordering::Relaxed)) else {
            return Release::Undecided;
        };
        let (lock, note) = self.slot(id);
        if note::manager(note.load(Ordering::Relaxed)) != self.token
            || lock.compare_exchange(me, 0, Ordering::Release, Ordering::Relaxed).is_err()
        {
            return Release::Undecided;
        }
        thread.count_word_given_back();
        Release::Done
    }
}
