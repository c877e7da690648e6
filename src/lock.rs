// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! A lock of a manager as a value, and the guards that unlock it when they go out of scope.

mod shared;

use std::marker::PhantomData;
use std::mem;
use std::time::Duration;

use crate::manager::{Acquired, Manager, Wait};
use crate::{Cancel, Error, LockInfo, Result};

pub use shared::{HeldShared, SharedGuard};

/// One numbered lock of a manager. Cheap to copy; dropping it neither unlocks nor frees anything.
///
/// ```
/// use lock_manager::{Lock, Held, ShmManager, SegmentOptions};
///
/// # let path = format!("/dev/shm/lock_manager-doc-{}", std::process::id());
/// let manager = ShmManager::create(&path, 64, &SegmentOptions::default())?;
/// let lock = Lock::allocate(&manager)?;
/// match lock.lock()? {
///     Held::Clean(_guard) => { /* what the lock protects is whole */ }
///     Held::OwnerDied(_guard) => { /* the last holder died inside: check and repair it first */ }
/// }
/// lock.free()?;
/// # ShmManager::remove(&path)?;
/// # Ok::<(), lock_manager::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Lock<'m> {
    manager: &'m dyn Manager,
    id: u32,
}

impl<'m> Lock<'m> {
    /// Allocates a new lock.
    ///
    /// # Errors
    /// As [`Manager::allocate_lock`].
    pub fn allocate(manager: &'m dyn Manager) -> Result<Self> {
        Ok(Self { manager, id: manager.allocate_lock()? })
    }

    /// Returns the lock with this id, allocated or not.
    ///
    /// # Errors
    /// As [`Manager::retrieve_lock`].
    pub fn retrieve(manager: &'m dyn Manager, id: u32) -> Result<Self> {
        manager.retrieve_lock(id)?;
        Ok(Self { manager, id })
    }

    /// Allocates the lock with this id.
    ///
    /// # Errors
    /// As [`Manager::allocate_and_retrieve_lock`].
    pub fn allocate_and_retrieve(manager: &'m dyn Manager, id: u32) -> Result<Self> {
        manager.allocate_and_retrieve_lock(id)?;
        Ok(Self { manager, id })
    }

    /// The id of the lock, by which other processes retrieve it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Waits for the lock without limit.
    ///
    /// # Errors
    /// As [`Manager::acquire`].
    pub fn lock(&self) -> Result<Held<'m>> {
        self.acquire(Wait::Forever, None)
    }

    /// Takes the lock if it is free.
    ///
    /// # Errors
    /// As [`Manager::acquire`]; `EBUSY` if it is held.
    pub fn try_lock(&self) -> Result<Held<'m>> {
        self.acquire(Wait::Try, None)
    }

    /// Waits for the lock for at most `timeout`.
    ///
    /// # Errors
    /// As [`Manager::acquire`]; `ETIMEDOUT` if it is still held then.
    pub fn timed_lock(&self, timeout: Duration) -> Result<Held<'m>> {
        self.acquire(Wait::at_most(timeout), None)
    }

    /// Waits for the lock for at most `timeout`, if one is given, and until `cancel` is triggered.
    ///
    /// # Errors
    /// As [`Manager::acquire`]; `ECANCELED` if it was triggered first.
    pub fn cancellable_lock(&self, timeout: Option<Duration>, cancel: &Cancel) -> Result<Held<'m>> {
        self.acquire(timeout.map_or(Wait::Forever, Wait::at_most), Some(cancel))
    }

    /// Frees the id, so that it can be allocated again. The lock itself can still be used.
    ///
    /// # Errors
    /// As [`Manager::free_lock`].
    pub fn free(self) -> Result<()> {
        self.manager.free_lock(self.id)
    }

    /// The state of the lock, read without touching it.
    ///
    /// # Errors
    /// As [`Manager::lock_info`].
    pub fn info(&self) -> Result<LockInfo> {
        self.manager.lock_info(self.id)
    }

    fn acquire(&self, wait: Wait, cancel: Option<&Cancel>) -> Result<Held<'m>> {
        let acquired = self.manager.acquire(self.id, wait, cancel)?;
        let guard = Guard { manager: self.manager, id: self.id, not_send: PhantomData };
        Ok(match acquired {
            Acquired::Clean => Held::Clean(guard),
            Acquired::OwnerDied => Held::OwnerDied(guard),
        })
    }
}

/// A lock that is held, and how its last holder left it. Either variant carries the guard, so a caller can neither overlook
/// an owner that died nor lose the lock.
#[derive(Debug)]
#[must_use = "dropping it unlocks at once"]
pub enum Held<'m> {
    /// What the lock protects is as the last holder left it.
    Clean(Guard<'m>),
    /// The last holder died holding it: what it protects may be half written.
    OwnerDied(Guard<'m>),
}

impl<'m> Held<'m> {
    /// The guard, for callers that do not care whether the owner died.
    pub fn into_guard(self) -> Guard<'m> {
        match self {
            Self::Clean(guard) | Self::OwnerDied(guard) => guard,
        }
    }

    /// Whether the last holder died holding the lock.
    #[must_use]
    pub fn owner_died(&self) -> bool {
        matches!(self, Self::OwnerDied(_))
    }
}

/// Holds a lock, and unlocks it when dropped. A guard is not `Send`, because the lock belongs to the thread that took it.
/// Programs that hand locks from thread to thread use the calls of [`Manager`] instead.
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<lock_manager::Guard<'static>>();
/// ```
#[derive(Debug)]
#[must_use = "dropping it unlocks at once"]
pub struct Guard<'m> {
    manager: &'m dyn Manager,
    id: u32,
    not_send: PhantomData<*const ()>,
}

impl<'m> Guard<'m> {
    /// The lock that is held.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Unlocks, and reports a failure. Dropping the guard also unlocks, but ignores a failure.
    ///
    /// # Errors
    /// As [`Manager::unlock`].
    pub fn unlock(self) -> Result<()> {
        let (manager, id) = (self.manager, self.id);
        mem::forget(self);
        manager.unlock(id)
    }

    /// Turns the exclusive hold into a shared one. Nobody else can hold the lock exclusively in between.
    ///
    /// # Errors
    /// As [`Manager::downgrade_lock`]. The error gives the guard back.
    pub fn downgrade(self) -> std::result::Result<SharedGuard<'m>, (Self, Error)> {
        let (manager, id) = (self.manager, self.id);
        match manager.downgrade_lock(id) {
            Ok(()) => {
                mem::forget(self);
                Ok(SharedGuard::of(manager, id))
            }
            Err(error) => Err((self, error)),
        }
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // This fails only if the thread no longer holds the lock: in a forked child, which holds nothing, or after the
        // segment was overwritten. There is nobody to tell and nothing to unlock.
        let _ = self.manager.unlock(self.id);
    }
}
