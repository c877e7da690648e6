// SPDX-License-Identifier: MIT OR Apache-2.0
#![allow(unsafe_code, reason = "the fast path: addresses checked once, when the manager is made, not at each call")]
//! The fast and the mid path of lock, unlock and allocation: nothing here can fail or panic.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::backend::Release;
use crate::manager::Acquired;
use crate::sys::mutex::RobustMutex;
use crate::sys::syscall::clock::Instant;
use crate::sys::syscall::file::Access;
use crate::sys::thread::caller_state::BlockedSignals;
use crate::sys::thread::{LOCAL_ID_MASK, Thread};

use super::super::{Outcome, SHORT_WAITS};
use super::Libpod;
use super::format::Geometry;
use super::pool::Pool;

/// The most mutexes that a thread may hold. The kernel frees 2048 of a dead thread (ROBUST_LIST_LIMIT) and forgets the
/// rest. The difference is for mutexes of other libraries.
pub(super) const MOST_HELD: u64 = 2000;

// SAFETY: the pointers are into memory that the pool, itself Send and Sync, keeps mapped, and which is accessed as
// atomics and robust mutexes only.
unsafe impl Send for Libpod {}
// SAFETY: as above.
unsafe impl Sync for Libpod {}

impl Libpod {
    #[inline(always)]
    fn lockable_mutex(&self, id: u32) -> RobustMutex<'_> {
        debug_assert!(id < self.lockable);
        // SAFETY: addresses() checked that the mapping has the size of its geometry, so every lock below `lockable`
        // lies within; the mapping lives as long as self.
        unsafe { RobustMutex::at_address(self.mutexes.add(Geometry::mutex_distance(id)), &self.mutex_layout) }
    }

    #[inline(always)]
    fn lockable_holder(&self, id: u32) -> &AtomicU64 {
        debug_assert!(id < self.lockable);
        // SAFETY: the table has a word for each lock, and lives as long as self.
        unsafe { &*self.holders.add(id as usize) }
    }

    /// Takes a free lock. `None`: nothing was done.
    #[inline(always)]
    pub(super) fn try_mutex_of(&self, id: u32) -> Option<Acquired> {
        if id >= self.lockable {
            return None;
        }
        let thread = Thread::calling();
        if !thread.has_entered(self.process) || thread.held() >= MOST_HELD {
            return None;
        }
        // SAFETY: lockable only where the pool is mapped for writing. The mapping outlives every mutex that is held: a
        // manager with a lock held cannot be closed and is kept when it is dropped. The thread has entered, which a
        // child cloned behind the libc's back has not.
        match unsafe { self.lockable_mutex(id).try_lock() } {
            Some(0) => {
                self.remember(id);
                Some(Acquired::Clean)
            }
            Some(code) => self.acquired_after_death(id, code),
            None => None,
        }
    }

    /// [`with_bitmaps`](Self::with_bitmaps) if the guard is free. `None`: nothing was changed. Never fails or panics, and
    /// has no cancellation point.
    #[inline]
    pub(super) fn with_bitmaps_fast<T>(&self, change: impl FnOnce(&Pool) -> Outcome<T>) -> Option<T> {
        let segment = &self.pool.segment;
        let is_usual = segment.access == Access::ReadWrite && Thread::calling().has_entered(self.process);
        if !is_usual || segment.is_look_due(Instant::now_coarse()) {
            return None;
        }
        let thread = Thread::calling();
        // Count first: a signal handler that comes after this must not wait for its own thread. Blocking signals would
        // cost many times as much.
        thread.count_inside_pool();
        // SAFETY: addresses() checked that it lies within the mapping, which lives as long as self.
        let guard = unsafe { RobustMutex::at_address(self.guard, &self.mutex_layout) };
        // SAFETY: as in try_mutex_of; it is given back below.
        let code = unsafe { guard.try_lock() };
        let changed = if code.is_some_and(|code| guard.is_acquired_by(code)) {
            // A refusal changes nothing, and the caller asks again for the reason.
            let changed = change(&self.pool).ok();
            self.unlock_guard(guard);
            changed
        } else {
            undo_refused(guard, code);
            None
        };
        thread.count_outside_pool();
        changed
    }

    /// Unlocks the mutex that guards the bitmaps. The calling thread has taken it through this mapping.
    #[inline]
    pub(super) fn unlock_guard(&self, guard: RobustMutex<'_>) {
        // SAFETY: taken by the caller, through a mapping that stayed since.
        if !unsafe { guard.unlock() } {
            self.pool.keep_forever();
        }
    }

    /// The mid path: waits for a held lock for a few microseconds, without sleeping.
    #[inline]
    pub(super) fn spin_for_mutex_of(&self, id: u32) -> Option<Acquired> {
        (0..SHORT_WAITS).find_map(|_| {
            if id < self.lockable
                && self.lockable_holder(id).load(Ordering::Relaxed) & LOCAL_ID_MASK != Thread::calling().local_id()
            {
                self.lockable_mutex(id).spin();
            }
            self.try_mutex_of(id)
        })
    }

    #[cold]
    #[inline(never)]
    fn acquired_after_death(&self, id: u32, code: i32) -> Option<Acquired> {
        if !self.lockable_mutex(id).is_acquired_by(code) {
            undo_refused(self.lockable_mutex(id), Some(code));
            return None;
        }
        self.remember(id);
        Some(Acquired::OwnerDied)
    }

    /// Records that the calling thread holds the lock. Nothing between the mutex and this can fail.
    #[inline(always)]
    pub(super) fn remember(&self, id: u32) {
        // Ask for the thread again: keeping it across the libc's call takes one more store, and a locked instruction
        // waits for every store.
        let thread = Thread::calling();
        self.lockable_holder(id).store(self.manager | thread.local_id(), Ordering::Relaxed);
        thread.count_acquired();
    }

    /// Releases the lock if the calling thread holds it through this manager.
    #[inline(always)]
    pub(super) fn unlock_mutex_of(&self, id: u32) -> Release {
        if id >= self.lockable {
            return Release::NotHolder;
        }
        let (thread, holder) = (Thread::calling(), self.lockable_holder(id));
        // This needs no check for a fork: a child's table is empty, and local ids are never used again.
        if holder.load(Ordering::Relaxed) != self.manager | thread.local_id() {
            return Release::NotHolder;
        }
        // Clear this before the mutex is free: after that, another thread of this process may write here.
        holder.store(0, Ordering::Relaxed);
        thread.count_released();
        // SAFETY: the thread took it through this mapping, which stayed mapped since.
        if unsafe { self.lockable_mutex(id).unlock() } { Release::Done } else { Release::Overwritten }
    }
}

/// Undoes what the libc may have done to a mutex that it has not given to the caller. Signals are let in here, and one
/// may end the thread; so this function has nothing to undo, and blocks them for the part that has.
#[cold]
#[inline(never)]
fn undo_refused(mutex: RobustMutex<'_>, code: Option<i32>) {
    if code == Some(libc::ENOTRECOVERABLE) {
        let signals = BlockedSignals::block();
        undo_refused_undisturbed(mutex, code);
        signals.restore();
    }
}

/// By the C convention, out of which nothing unwinds.
#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "called from here alone")]
extern "C" fn undo_refused_undisturbed(mutex: RobustMutex<'_>, code: Option<i32>) {
    mutex.conclude(code);
}
