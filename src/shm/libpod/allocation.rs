// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Allocating and freeing: the bitmaps are changed with the segment's one mutex held, which is taken over where its
//! holder is gone.

use crate::sys::clock::Instant;
use crate::sys::file::Access;
use crate::sys::mutex::{Attempt, RobustMutex};
use crate::sys::thread::Thread;
use crate::{Reason, Result};

use super::Libpod;
use super::bitmaps::Bitmaps;
use super::judgement::{Verdict, Watch};
use super::waiting::{SLICE_NS, spin};

/// How long the mutex of the bitmaps may stay taken. It is held for a microsecond, so whoever holds it longer is
/// stopped, dead in a way that cannot be proven, or not there at all.
const GUARD_PATIENCE_NS: u64 = 2_000_000_000;

impl Libpod {
    /// [`with_bitmaps`](Self::with_bitmaps) if nothing stands in the way; `None`, with nothing changed, if anything
    /// does. Never fails or panics, and makes no call that could be a cancellation point.
    #[inline]
    pub(super) fn with_bitmaps_at_once<T>(
        &self,
        change: impl FnOnce(Bitmaps<'_>) -> std::result::Result<T, Reason>,
    ) -> Option<T> {
        let is_usual = self.access == Access::Use && Thread::calling().has_entered(self.process);
        if !is_usual || self.pool().segment.is_look_due(Instant::recently()) {
            return None;
        }
        let thread = Thread::calling();
        // Before: a signal handler that comes anywhere behind it is not to wait for its own thread. Holding signals back
        // would cost many times what the rest does.
        thread.count_inside_pool();
        // What it refuses it leaves as it was, and the caller asks again for the reason.
        let changed = self.view.with_guard_at_once(|| change(self.view.bitmaps()).ok()).flatten();
        thread.count_outside_pool();
        changed
    }

    /// Runs `change` with the mutex that guards the bitmaps held.
    pub(super) fn with_bitmaps<T>(
        &self,
        change: impl FnOnce(Bitmaps<'_>) -> std::result::Result<T, Reason>,
    ) -> Result<T> {
        self.check_writable()?;
        let thread = self.enter().map_err(|reason| self.error(reason))?;
        if self.pool().segment.is_removed_lately() {
            return Err(self.error(Reason::Removed));
        }
        let guard = self.pool().guard();
        let attempt = self.pool().try_mutex(guard);
        if !matches!(attempt, Attempt::Acquired | Attempt::OwnerDied) {
            if thread.is_inside_pool() && u64::from(guard.holder()) == thread.id() {
                return Err(self.error(Reason::Interrupted));
            }
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
