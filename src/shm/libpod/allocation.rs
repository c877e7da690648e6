// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Allocating and freeing. The bitmaps are changed with the segment's one mutex held. If its holder is gone, the mutex is
//! taken over.

use crate::sys::mutex::{Attempt, RobustMutex};
use crate::sys::syscall::clock::Instant;

use crate::Reason;

use super::super::Outcome;
use super::Libpod;
use super::judgement::{SLICE_NS, Watch};
use super::locking::refused;
use super::pool::Pool;

/// How long to wait for the mutex of the bitmaps. It is held for a microsecond, so a holder that keeps it longer is
/// stopped, dead without proof, or never existed.
const GUARD_PATIENCE_NS: u64 = 2_000_000_000;

impl Libpod {
    /// Runs `change` with the mutex that guards the bitmaps held.
    pub(super) fn with_bitmaps<T>(&self, change: impl FnOnce(&Pool) -> Outcome<T>) -> Outcome<T> {
        self.is_writable()?;
        let thread = self.enter()?;
        if self.pool.segment.is_removed_lately() {
            return Err(Reason::Removed);
        }
        let guard = self.pool.guard();
        let attempt = self.pool.try_mutex(guard);
        if !matches!(attempt, Attempt::Acquired | Attempt::OwnerDied) {
            if thread.is_inside_pool() && u64::from(guard.holder()) == thread.id() {
                return Err(Reason::Interrupted);
            }
            self.acquire_guard(guard, attempt)?;
        }
        let changed = change(&self.pool);
        self.unlock_guard(guard);
        changed
    }

    /// Waits for the guard after `attempt` did not get it.
    #[cold]
    fn acquire_guard(&self, guard: RobustMutex<'_>, mut attempt: Attempt) -> Outcome<()> {
        let start = Instant::now();
        let mut watch = Watch::default();
        loop {
            match attempt {
                Attempt::Acquired | Attempt::OwnerDied => return Ok(()),
                Attempt::Foreign { found, expected } => {
                    return Err(Reason::ForeignMutex { id: None, found, expected });
                }
                Attempt::Refused(code) => return Err(refused(code)),
                // Go on: a death leaves the bitmaps whole.
                Attempt::NotRecoverable => guard.make_recoverable(),
                Attempt::Held => {
                    watch.judge(guard, &self.pool.segment, None);
                    if self.pool.segment.is_removed_lately() {
                        return Err(Reason::Removed);
                    }
                }
            }
            let waited = Instant::now().since(start);
            if waited >= GUARD_PATIENCE_NS {
                let reason = Reason::BitmapsHeld { holder: guard.holder(), waited_ms: waited / 1_000_000 };
                return Err(reason);
            }
            guard.spin();
            let until = Instant::now().after(SLICE_NS.min(GUARD_PATIENCE_NS - waited));
            attempt = guard.conclude(self.pool.wait_mutex(guard, until));
        }
    }
}
