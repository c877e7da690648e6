// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Which ids are taken: a bit each, changed under the segment's one mutex as Podman does. Each change is one store of
//! one word, so that a death leaves no bitmap half written and whoever comes next uses them as they are.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::sys::clock::Instant;
use crate::sys::file::Access;
use crate::sys::mutex::{Attempt, RobustMutex};
use crate::sys::thread::Thread;
use crate::{Reason, Result};

use super::Libpod;
use super::format::{GROUP, Geometry};
use super::judgement::{Verdict, Watch};
use super::locking::{SLICE_NS, spin};
use super::pool::Pool;

/// How long the mutex of the bitmaps may stay taken. It is held for a microsecond, so whoever holds it longer is
/// stopped, dead in a way that cannot be proven, or not there at all.
const GUARD_PATIENCE_NS: u64 = 2_000_000_000;

/// The bitmaps of a pool. Counting needs no guard; all that changes them does.
pub(super) struct Bitmaps<'p> {
    pub(super) pool: &'p Pool,
}

impl Bitmaps<'_> {
    fn word(&self, group: u32) -> &AtomicU32 {
        self.pool.segment.map.u32_at(Geometry::bitmap_offset(group))
    }

    fn place(&self, id: u32) -> (&AtomicU32, u32) {
        (self.word(id / GROUP), 1 << (id % GROUP))
    }

    /// Takes the lowest free id of the first group that has one, beginning where the last one was found.
    pub(super) fn allocate(&self) -> std::result::Result<u32, Reason> {
        let groups = self.pool.geometry.groups();
        let first = self.pool.next_group.load(Ordering::Relaxed);
        for group in (first..groups).chain(0..first) {
            let word = self.word(group);
            let bits = word.load(Ordering::Relaxed);
            if bits != u32::MAX {
                let bit = bits.trailing_ones();
                word.store(bits | 1 << bit, Ordering::Release);
                self.pool.next_group.store(group, Ordering::Relaxed);
                return Ok(group * GROUP + bit);
            }
        }
        Err(Reason::Exhausted { num_locks: self.pool.geometry.num_locks() })
    }

    pub(super) fn allocate_given(&self, id: u32) -> std::result::Result<(), Reason> {
        let (word, bit) = self.place(id);
        let bits = word.load(Ordering::Relaxed);
        if bits & bit != 0 {
            return Err(Reason::Allocated { id });
        }
        word.store(bits | bit, Ordering::Release);
        Ok(())
    }

    pub(super) fn free(&self, id: u32) -> std::result::Result<(), Reason> {
        let (word, bit) = self.place(id);
        let bits = word.load(Ordering::Relaxed);
        if bits & bit == 0 {
            return Err(Reason::NotAllocated { id });
        }
        word.store(bits & !bit, Ordering::Release);
        Ok(())
    }

    pub(super) fn free_all(&self) {
        for group in 0..self.pool.geometry.groups() {
            self.word(group).store(0, Ordering::Release);
        }
        self.pool.next_group.store(0, Ordering::Relaxed);
    }

    pub(super) fn is_allocated(&self, id: u32) -> bool {
        let (word, bit) = self.place(id);
        word.load(Ordering::Acquire) & bit != 0
    }

    pub(super) fn count_free(&self) -> u32 {
        (0..self.pool.geometry.groups()).map(|group| self.word(group).load(Ordering::Acquire).count_zeros()).sum()
    }
}

impl Libpod {
    /// [`with_bitmaps`](Self::with_bitmaps) if nothing stands in the way; `None`, with nothing changed, if anything
    /// does. Never fails or panics, and makes no call that could be a cancellation point or set errno.
    #[inline]
    pub(super) fn with_bitmaps_at_once<T>(
        &self,
        change: impl FnOnce(Bitmaps<'_>) -> std::result::Result<T, Reason>,
    ) -> Option<T> {
        let is_usual = self.access == Access::Use && Thread::calling().has_entered(self.process);
        if !is_usual || self.pool().segment.is_look_due(Instant::recently()) {
            return None;
        }
        let guard = self.pool().guard();
        if !matches!(self.pool().try_mutex(guard), Attempt::Acquired | Attempt::OwnerDied) {
            return None;
        }
        // What it refuses it leaves as it was, and the caller asks again for the reason.
        let changed = change(self.pool().bitmaps());
        if !self.pool().unlock_mutex(guard) {
            self.pool().pin();
        }
        changed.ok()
    }

    /// Runs `change` with the mutex that guards the bitmaps held.
    pub(super) fn with_bitmaps<T>(
        &self,
        change: impl FnOnce(Bitmaps<'_>) -> std::result::Result<T, Reason>,
    ) -> Result<T> {
        self.check_writable()?;
        if Thread::enter(self.process).is_err() {
            return Err(self.error(Reason::ClonedChild));
        }
        if self.pool().segment.is_removed_lately() {
            return Err(self.error(Reason::Removed));
        }
        let guard = self.pool().guard();
        let attempt = self.pool().try_mutex(guard);
        if !matches!(attempt, Attempt::Acquired | Attempt::OwnerDied) {
            self.acquire_guard(guard, attempt)?;
        }
        let changed = change(self.pool().bitmaps());
        if !self.pool().unlock_mutex(guard) {
            self.pool().pin();
        }
        changed.map_err(|reason| self.error(reason))
    }

    /// Waits for the guard, which `attempt` did not get.
    #[cold]
    fn acquire_guard(&self, guard: RobustMutex<'_>, mut attempt: Attempt) -> Result<()> {
        let _inside = self.count_waiter();
        let start = Instant::now();
        let mut watch = Watch::new();
        loop {
            match attempt {
                Attempt::Acquired | Attempt::OwnerDied => return Ok(()),
                Attempt::Foreign { found, expected } => {
                    return Err(self.error(Reason::ForeignMutex { id: None, found, expected }));
                }
                Attempt::Refused(code) => return Err(self.refused(code)),
                // The bitmaps are whole whoever left them, so there is nothing to lose by going on.
                Attempt::Lost => guard.revive(),
                Attempt::Held => {
                    if let Verdict::Gone(word) = watch.look(guard, &self.pool().segment) {
                        watch.bury(guard, word);
                    }
                    if self.pool().segment.is_removed_lately() {
                        return Err(self.error(Reason::Removed));
                    }
                }
            }
            let waited = Instant::now().since(start);
            if waited >= GUARD_PATIENCE_NS {
                let reason = Reason::BitmapsHeld { holder: guard.holder(), waited_ms: waited / 1_000_000 };
                return Err(self.error(reason));
            }
            spin(guard);
            attempt = self.pool().wait_mutex(guard, Instant::now().after(SLICE_NS.min(GUARD_PATIENCE_NS - waited)));
        }
    }
}
