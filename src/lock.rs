// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! A lock of a manager as a value.

mod guard;

use std::time::Duration;

use crate::manager::{Manager, Wait};
use crate::{Cancel, LockInfo, Result};

pub use guard::{Guard, Held, HeldBy, HeldShared, SharedGuard};

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

    /// Waits without limit until the lock can be held shared.
    ///
    /// ```
    /// use lock_manager::{HeldShared, InMemoryManager, Lock};
    ///
    /// let manager = InMemoryManager::new(1)?;
    /// let lock = Lock::allocate(&manager)?;
    /// match lock.lock_shared()? {
    ///     HeldShared::Clean(_guard) => { /* what the lock protects is whole, and nobody changes it */ }
    ///     HeldShared::OwnerDied(_guard) => { /* a writer died inside: check the data, or lock exclusively and repair it */ }
    /// }
    /// # Ok::<(), lock_manager::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Manager::acquire_shared`].
    pub fn lock_shared(&self) -> Result<HeldShared<'m>> {
        self.acquire_shared(Wait::Forever, None)
    }

    /// Takes the lock shared if no writer holds it or is next.
    ///
    /// # Errors
    /// As [`Manager::acquire_shared`]; `EBUSY` if a writer holds it or is next.
    pub fn try_lock_shared(&self) -> Result<HeldShared<'m>> {
        self.acquire_shared(Wait::Try, None)
    }

    /// Waits for at most `timeout` until the lock can be held shared.
    ///
    /// # Errors
    /// As [`Manager::acquire_shared`]; `ETIMEDOUT` if writers had it all the time.
    pub fn timed_lock_shared(&self, timeout: Duration) -> Result<HeldShared<'m>> {
        self.acquire_shared(Wait::at_most(timeout), None)
    }

    /// Waits for at most `timeout`, if one is given, and until `cancel` is triggered, until the lock can be held shared.
    ///
    /// # Errors
    /// As [`Manager::acquire_shared`]; `ECANCELED` if it was triggered first.
    pub fn cancellable_lock_shared(&self, timeout: Option<Duration>, cancel: &Cancel) -> Result<HeldShared<'m>> {
        self.acquire_shared(timeout.map_or(Wait::Forever, Wait::at_most), Some(cancel))
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
        Ok(HeldBy::by(acquired, Guard::of(self.manager, self.id)))
    }

    fn acquire_shared(&self, wait: Wait, cancel: Option<&Cancel>) -> Result<HeldShared<'m>> {
        let acquired = self.manager.acquire_shared(self.id, wait, cancel)?;
        Ok(HeldBy::by(acquired, SharedGuard::of(self.manager, self.id)))
    }
}
