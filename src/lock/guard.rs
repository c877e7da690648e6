// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Guards, which unlock a lock when they go out of scope.

use std::marker::PhantomData;
use std::mem;

use crate::manager::{Acquired, Manager, Mode};
use crate::{Error, Result};

/// A lock that is held by a guard, and how its last exclusive holder left it. Either variant carries the guard, so a caller
/// can neither overlook an owner that died nor lose the lock.
#[derive(Debug)]
#[must_use = "dropping it unlocks at once"]
pub enum HeldBy<G> {
    /// What the lock protects is as its last exclusive holder left it.
    Clean(G),
    /// The last exclusive holder died holding the lock: what it protects may be half written. A reader is told this until a
    /// writer has held the lock and was told.
    OwnerDied(G),
}

/// A lock that is held exclusively.
pub type Held<'m> = HeldBy<Guard<'m>>;

/// A lock that is held shared.
pub type HeldShared<'m> = HeldBy<SharedGuard<'m>>;

impl<G> HeldBy<G> {
    pub(super) fn by(acquired: Acquired, guard: G) -> Self {
        match acquired {
            Acquired::Clean => Self::Clean(guard),
            Acquired::OwnerDied => Self::OwnerDied(guard),
        }
    }

    /// The guard, for callers that do not care whether the owner died.
    pub fn into_guard(self) -> G {
        match self {
            Self::Clean(guard) | Self::OwnerDied(guard) => guard,
        }
    }

    /// Whether the last exclusive holder died holding the lock.
    #[must_use]
    pub fn owner_died(&self) -> bool {
        matches!(self, Self::OwnerDied(_))
    }
}

/// What a guard holds. It unlocks when dropped.
#[derive(Debug)]
struct Hold<'m> {
    manager: &'m dyn Manager,
    id: u32,
    mode: Mode,
    not_send: PhantomData<*const ()>,
}

impl<'m> Hold<'m> {
    fn new(manager: &'m dyn Manager, id: u32, mode: Mode) -> Self {
        Self { manager, id, mode, not_send: PhantomData }
    }

    fn release(&self) -> Result<()> {
        match self.mode {
            Mode::Exclusive => self.manager.unlock(self.id),
            Mode::Shared => self.manager.unlock_shared(self.id),
        }
    }

    fn unlock(self) -> Result<()> {
        let released = self.release();
        mem::forget(self);
        released
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        // This fails only if the thread no longer holds the lock: in a forked child, which holds nothing, or after the
        // segment was overwritten. There is nobody to tell and nothing to unlock.
        let _ = self.release();
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
pub struct Guard<'m>(Hold<'m>);

impl<'m> Guard<'m> {
    pub(super) fn of(manager: &'m dyn Manager, id: u32) -> Self {
        Self(Hold::new(manager, id, Mode::Exclusive))
    }

    /// The lock that is held.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id
    }

    /// Unlocks, and reports a failure. Dropping the guard also unlocks, but ignores a failure.
    ///
    /// # Errors
    /// As [`Manager::unlock`].
    pub fn unlock(self) -> Result<()> {
        self.0.unlock()
    }

    /// Turns the exclusive hold into a shared one. Nobody else can hold the lock exclusively in between.
    ///
    /// # Errors
    /// As [`Manager::downgrade_lock`]. The error gives the guard back.
    pub fn downgrade(mut self) -> std::result::Result<SharedGuard<'m>, (Self, Error)> {
        match self.0.manager.downgrade_lock(self.0.id) {
            Ok(()) => {
                self.0.mode = Mode::Shared;
                Ok(SharedGuard(self.0))
            }
            Err(error) => Err((self, error)),
        }
    }
}

/// Holds a lock shared, and unlocks it when dropped. Like [`Guard`], it is not `Send`.
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<lock_manager::SharedGuard<'static>>();
/// ```
#[derive(Debug)]
#[must_use = "dropping it unlocks at once"]
pub struct SharedGuard<'m>(Hold<'m>);

impl<'m> SharedGuard<'m> {
    pub(super) fn of(manager: &'m dyn Manager, id: u32) -> Self {
        Self(Hold::new(manager, id, Mode::Shared))
    }

    /// The lock that is held.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id
    }

    /// Unlocks, and reports a failure. Dropping the guard also unlocks, but ignores a failure.
    ///
    /// # Errors
    /// As [`Manager::unlock_shared`].
    pub fn unlock(self) -> Result<()> {
        self.0.unlock()
    }
}
