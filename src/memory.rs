// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The in-memory manager: the same locks with the same rules, in memory of this process's own. For tests of programs that
//! use the library, and for programs that need numbered locks and no other process.

use std::path::PathBuf;
use std::sync::Arc;

use crate::cancel::Cancel;
use crate::manager::{Acquired, Holder, Info, LockInfo, Manager, Ownership, Wait, Waiter};
use crate::shm::{MAX_LOCKS, Native};
use crate::{Error, Reason, Result};

/// What errors call the storage.
const NAME: &str = "in-memory locks";

/// A manager whose locks are of this process only. In a forked child its calls are `EOPNOTSUPP`.
///
/// ```
/// use lock_manager::{InMemoryManager, Manager};
///
/// let manager = InMemoryManager::new(10)?;
/// let id = manager.allocate_lock()?;
/// let _clean = manager.lock(id)?;
/// assert_eq!(manager.locks_held()?, [id]);
/// manager.unlock(id)?;
/// # Ok::<(), lock_manager::Error>(())
/// ```
#[derive(Debug)]
pub struct InMemoryManager {
    native: Native,
}

impl InMemoryManager {
    /// Makes `num_locks` locks, all free.
    ///
    /// # Errors
    /// `EINVAL` for 0 or more than [`MAX_LOCKS`]; `ENOMEM` and the like where there is no memory for them.
    pub fn new(num_locks: u32) -> Result<Self> {
        let storage = Arc::new(PathBuf::from(NAME));
        let refuse = |reason| Err(Error::new(&storage, reason));
        match num_locks {
            0 => refuse(Reason::BadArgument("a manager needs at least one lock, 0 were asked for")),
            1..=MAX_LOCKS => Ok(Self { native: Native::in_memory(&storage, num_locks)? }),
            asked => refuse(Reason::TooManyLocks { asked, most: MAX_LOCKS }),
        }
    }

    /// The engine.
    pub(crate) fn into_native(self) -> Native {
        self.native
    }
}

impl Manager for InMemoryManager {
    fn allocate_lock(&self) -> Result<u32> {
        self.native.allocate_lock()
    }

    fn retrieve_lock(&self, id: u32) -> Result<()> {
        self.native.retrieve_lock(id)
    }

    fn allocate_and_retrieve_lock(&self, id: u32) -> Result<()> {
        self.native.allocate_and_retrieve_lock(id)
    }

    fn free_lock(&self, id: u32) -> Result<()> {
        self.native.free_lock(id)
    }

    fn free_all_locks(&self) -> Result<()> {
        self.native.free_all_locks()
    }

    fn available_locks(&self) -> Result<u32> {
        self.native.available_locks()
    }

    fn num_locks(&self) -> Result<u32> {
        self.native.num_locks()
    }

    fn acquire(&self, id: u32, wait: Wait, cancel: Option<&Cancel>) -> Result<Acquired> {
        self.native.acquire(id, wait, cancel)
    }

    fn unlock(&self, id: u32) -> Result<()> {
        self.native.unlock(id)
    }

    fn acquire_shared(&self, id: u32, wait: Wait, cancel: Option<&Cancel>) -> Result<Acquired> {
        self.native.acquire_shared(id, wait, cancel)
    }

    fn unlock_shared(&self, id: u32) -> Result<()> {
        self.native.unlock_shared(id)
    }

    fn downgrade_lock(&self, id: u32) -> Result<()> {
        self.native.downgrade_lock(id)
    }

    fn lock_holders(&self, id: u32) -> Result<Vec<Holder>> {
        self.native.lock_holders(id)
    }

    fn set_ownership(&self, ownership: Ownership) -> Result<()> {
        self.native.set_ownership(ownership)
    }

    fn locks_held(&self) -> Result<Vec<u32>> {
        self.native.locks_held()
    }

    fn lock_info(&self, id: u32) -> Result<LockInfo> {
        self.native.lock_info(id)
    }

    fn lock_infos(&self, ids: &[u32]) -> Result<Vec<LockInfo>> {
        self.native.lock_infos(ids)
    }

    fn waiters(&self) -> Result<Vec<Waiter>> {
        self.native.waiters()
    }

    fn info(&self) -> Result<Info> {
        self.native.info()
    }

    fn repair_lock(&self, id: u32) -> Result<()> {
        self.native.repair_lock(id)
    }

    fn check_idle(&self) -> Result<()> {
        self.native.check_idle()
    }

    fn grow(&self, num_locks: u32) -> Result<()> {
        self.native.grow(num_locks)
    }
}
