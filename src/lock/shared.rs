// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Shared holds: any number of readers at the same time, and no writer.

use std::marker::PhantomData;
use std::mem;
use std::time::Duration;

use crate::manager::{Acquired, Manager, Wait};
use crate::{Cancel, Result};

use super::Lock;

impl<'m> Lock<'m> {
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

    fn acquire_shared(&self, wait: Wait, cancel: Option<&Cancel>) -> Result<HeldShared<'m>> {
        let acquired = self.manager.acquire_shared(self.id, wait, cancel)?;
        let guard = SharedGuard::of(self.manager, self.id);
        Ok(match acquired {
            Acquired::Clean => HeldShared::Clean(guard),
            Acquired::OwnerDied => HeldShared::OwnerDied(guard),
        })
    }
}

/// A lock that is held shared, and how its last writer left it. Either variant carries the guard, so a caller can neither
/// overlook a writer that died nor lose the lock.
#[derive(Debug)]
#[must_use = "dropping it unlocks at once"]
pub enum HeldShared<'m> {
    /// What the lock protects is as the last writer left it.
    Clean(SharedGuard<'m>),
    /// A writer died holding the lock, and no writer has taken it since: what it protects may be half written.
    OwnerDied(SharedGuard<'m>),
}

impl<'m> HeldShared<'m> {
    /// The guard, for callers that do not care whether a writer died.
    pub fn into_guard(self) -> SharedGuard<'m> {
        match self {
            Self::Clean(guard) | Self::OwnerDied(guard) => guard,
        }
    }

    /// Whether a writer died holding the lock and no writer has taken it since.
    #[must_use]
    pub fn owner_died(&self) -> bool {
        matches!(self, Self::OwnerDied(_))
    }
}

/// Holds a lock shared, and unlocks it when dropped. Like [`Guard`](super::Guard), it is not `Send`.
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<lock_manager::SharedGuard<'static>>();
/// ```
#[derive(Debug)]
#[must_use = "dropping it unlocks at once"]
pub struct SharedGuard<'m> {
    manager: &'m dyn Manager,
    id: u32,
    not_send: PhantomData<*const ()>,
}

impl<'m> SharedGuard<'m> {
    pub(super) fn of(manager: &'m dyn Manager, id: u32) -> Self {
        Self { manager, id, not_send: PhantomData }
    }

    /// The lock that is held.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Unlocks, and reports a failure. Dropping the guard also unlocks, but ignores a failure.
    ///
    /// # Errors
    /// As [`Manager::unlock_shared`].
    pub fn unlock(self) -> Result<()> {
        let (manager, id) = (self.manager, self.id);
        mem::forget(self);
        manager.unlock_shared(id)
    }
}

impl Drop for SharedGuard<'_> {
    fn drop(&mut self) {
        // This fails only if the thread no longer holds the lock, as for an exclusive guard.
        let _ = self.manager.unlock_shared(self.id);
    }
}
