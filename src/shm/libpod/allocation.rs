// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Allocating and freeing: the bitmaps are changed with the segment's one mutex held, which is taken over where its
//! holder is gone.

use crate::sys::mutex::{Attempt, RobustMutex};
use crate::sys::syscall::clock::Instant;

use crate::Reason;

use super::super::Outcome;
use super::Libpod;
use super::judgement::{SLICE_NS, Verdict, Watch};
use super::locking::refused;
use super::pool::Pool;

/// How long the mutex of the bitmaps may stay taken. It is held for a microsecond, so whoever holds it longer is
/// stopped, dead in a way that cannot be proven, or not there at all.
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

    /// Waits for the guard, which `attempt` did not get.
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
                // The bitmaps are whole whoever left them, so there is nothing to lose by going on.
                Attempt::NotRecoverable => guard.make_recoverable(),
                Attempt::Held => {
                    if let Verdict::Gone(word) = watch.look(guard, &self.pool.segment) {
                        watch.mark_owner_died(guard, word);
                    }
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
