// SPDX-License-Identifier: MIT OR Apache-2.0
#![allow(unsafe_code, reason = "the fast path: addresses checked once, when the manager is made, not at each call")]
//! What lock and unlock need of a pool, one load away from the manager: between two locked instructions the processor
//! hides nothing, so each further pointer to follow would be paid in full.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::manager::Acquired;
use crate::sys::file::Access;
use crate::sys::mutex::{RobustMutex, Shape};
use crate::sys::process::Process;
use crate::sys::registry::Shared;
use crate::sys::thread::{SERIAL_MASK, Thread};
use crate::sys::undisturbed::Signals;

use super::super::Release;
use super::bitmaps::Bitmaps;
use super::format::Geometry;
use super::pool::Pool;
use super::waiting::spin;

/// The most mutexes that a thread may hold. The kernel frees 2048 of a dead thread (ROBUST_LIST_LIMIT) and forgets the
/// rest; the difference is for mutexes of others.
pub(super) const MOST_HELD: u64 = 2000;

/// A manager's view of its pool.
pub(super) struct View {
    /// The mutex of lock 0.
    mutexes: *mut u8,
    /// The one that guards the bitmaps.
    guard: *mut u8,
    /// As many locks as may be taken through the manager: all, or none if it was opened to look.
    lockable: u32,
    shape: Shape,
    /// One word for each lock: who of this process holds it, as the manager's token and the thread's serial.
    holders: *const AtomicU64,
    /// Names the manager among those of the process, above the bits of a serial.
    token: u64,
    process: &'static Process,
    /// Keeps everything above alive and in place.
    pub(super) pool: Shared<Pool>,
}

// SAFETY: the pointers are into memory that the pool, itself Send and Sync, keeps mapped, and which is accessed as
// atomics and robust mutexes only.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    pub(super) fn new(pool: Shared<Pool>, process: &'static Process, token: u64, access: Access) -> Self {
        let num_locks = pool.geometry.num_locks();
        let (mutexes, guard, holders) = pool.addresses();
        let lockable = if access == Access::Use { num_locks } else { 0 };
        Self { mutexes, guard, lockable, shape: pool.shape(), holders, token, process, pool }
    }

    #[inline(always)]
    fn mutex(&self, id: u32) -> RobustMutex<'_> {
        debug_assert!(id < self.lockable);
        // SAFETY: addresses() checked that the mapping has the size of its geometry, so every lock below `lockable`
        // lies within; the mapping lives as long as self.
        unsafe { RobustMutex::at_address(self.mutexes.add(Geometry::mutex_distance(id)), &self.shape) }
    }

    #[inline(always)]
    fn holder(&self, id: u32) -> &AtomicU64 {
        debug_assert!(id < self.lockable);
        // SAFETY: the table has a word for each lock, and lives as long as self.
        unsafe { &*self.holders.add(id as usize) }
    }

    /// Takes the lock if nothing stands in the way; `None`, with nothing done, if anything does.
    #[inline(always)]
    pub(super) fn acquire_at_once(&self, id: u32) -> Option<Acquired> {
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
        match unsafe { self.mutex(id).try_lock_raw() } {
            Some(0) => {
                self.remember(id);
                Some(Acquired::Clean)
            }
            Some(code) => self.acquired_after_death(id, code),
            None => None,
        }
    }

    /// Runs `change` with the mutex that guards the bitmaps held, if it is free. The thread has entered, and the pool is
    /// mapped for writing.
    #[inline]
    pub(super) fn with_guard_at_once<T>(&self, change: impl FnOnce() -> T) -> Option<T> {
        // SAFETY: addresses() checked that it lies within the mapping, which lives as long as self.
        let guard = unsafe { RobustMutex::at_address(self.guard, &self.shape) };
        // SAFETY: as in acquire_at_once; it is given back below.
        let code = unsafe { guard.try_lock_raw() };
        if !code.is_some_and(|code| guard.is_acquired_by(code)) {
            settle(guard, code);
            return None;
        }
        let changed = change();
        // SAFETY: taken above.
        if !unsafe { guard.unlock() } {
            self.pool.pin();
        }
        Some(changed)
    }

    #[inline]
    pub(super) fn bitmaps(&self) -> Bitmaps<'_> {
        self.pool.bitmaps()
    }

    /// Waits for a moment until the lock looks free, unless the calling thread holds it.
    pub(super) fn spin(&self, id: u32) {
        if id < self.lockable && self.holder(id).load(Ordering::Relaxed) & SERIAL_MASK != Thread::calling().serial() {
            spin(self.mutex(id));
        }
    }

    #[cold]
    #[inline(never)]
    fn acquired_after_death(&self, id: u32, code: i32) -> Option<Acquired> {
        if !self.mutex(id).is_acquired_by(code) {
            settle(self.mutex(id), Some(code));
            return None;
        }
        self.remember(id);
        Some(Acquired::OwnerDied)
    }

    /// Notes that the calling thread holds the lock now. Nothing between the mutex and this can fail.
    #[inline(always)]
    pub(super) fn remember(&self, id: u32) {
        // Asked for anew: a register kept across the call of the libc would be one more store before a locked
        // instruction, which waits for every store.
        let thread = Thread::calling();
        self.holder(id).store(self.token | thread.serial(), Ordering::Relaxed);
        thread.count_acquired();
    }

    /// Gives the lock back if the calling thread holds it through this manager.
    #[inline(always)]
    pub(super) fn release(&self, id: u32) -> Release {
        if id >= self.lockable {
            return Release::NotHolder;
        }
        let (thread, holder) = (Thread::calling(), self.holder(id));
        // Whether or not the thread has entered since a fork: a child's table is empty, and serials are not used again.
        if holder.load(Ordering::Relaxed) != self.token | thread.serial() {
            return Release::NotHolder;
        }
        // Before the mutex is free: after it, another thread of this process may write its own.
        holder.store(0, Ordering::Relaxed);
        thread.count_released();
        // SAFETY: the thread took it through this mapping, which stayed mapped since.
        if unsafe { self.mutex(id).unlock() } { Release::Done } else { Release::Overwritten }
    }
}

/// Undoes what the libc may have done to a mutex that it has not given. Its callers have signals coming, one of which may
/// end the thread: like them it has nothing to be undone, and holds them back from what has.
#[cold]
#[inline(never)]
fn settle(mutex: RobustMutex<'_>, code: Option<i32>) {
    if code == Some(libc::ENOTRECOVERABLE) {
        let signals = Signals::hold_back();
        settle_undisturbed(mutex, code);
        signals.let_come();
    }
}

/// By the C convention, out of which nothing unwinds.
#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "called from here alone")]
extern "C" fn settle_undisturbed(mutex: RobustMutex<'_>, code: Option<i32>) {
    mutex.settle_raw(code);
}
