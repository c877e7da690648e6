// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The in-memory manager: the same locks with the same rules, for this process only. For tests of programs that use
//! the library, and for programs that need numbered locks and no other process.

mod ids;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::cancel::Cancel;
use crate::manager::{Acquired, Info, Kind, LockInfo, Manager, Ownership, Wait};
use crate::ownership::OwnershipCell;
use crate::shm::MAX_LOCKS;
use crate::sys::process::{self, Process};
use crate::sys::procfs;
use crate::table::{Holder, Storage, Table};
use crate::{Error, Reason, Result};
use ids::Ids;

/// What errors call the storage.
const NAME: &str = "in-memory locks";

/// The table knows managers by number; here each has a table of its own.
const THIS: u64 = 0;

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
pub struct InMemoryManager {
    table: Arc<Table<Memory>>,
    ids: Mutex<Ids>,
    ownership: OwnershipCell,
}

impl InMemoryManager {
    /// Makes `num_locks` locks, all free.
    ///
    /// # Errors
    /// `EINVAL` for 0 or more than [`MAX_LOCKS`].
    pub fn new(num_locks: u32) -> Result<Self> {
        if num_locks == 0 {
            return Err(error(Reason::BadArgument("a manager needs at least one lock, 0 were asked for")));
        }
        check_count(num_locks)?;
        let process = Process::current().map_err(|errno| error(Reason::System { doing: "reserving memory", errno }))?;
        Ok(Self {
            table: Table::new(process, Memory::default()),
            ids: Mutex::new(Ids::new(num_locks)),
            ownership: OwnershipCell::default(),
        })
    }

    /// Before anything that a parent's thread may have been in the midst of when this child was made.
    fn check_process(&self) -> Result<()> {
        if self.table.is_current() { Ok(()) } else { Err(error(Reason::ForkedChild)) }
    }

    fn ids(&self) -> Result<parking_lot::MutexGuard<'_, Ids>> {
        self.check_process()?;
        Ok(self.ids.lock())
    }

    fn check_range(&self, id: u32) -> Result<()> {
        self.ids()?.check_range(id).map_err(error)
    }
}

impl std::fmt::Debug for InMemoryManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InMemoryManager").finish_non_exhaustive()
    }
}

impl Drop for InMemoryManager {
    fn drop(&mut self) {
        // A child's copy stays: to take it down, it would need mutexes that a thread of its parent's may have had when it
        // was made.
        if !self.table.is_current() {
            std::mem::forget(Arc::clone(&self.table));
        }
    }
}

fn error(reason: Reason) -> Error {
    Error::new(&Arc::new(PathBuf::from(NAME)), reason)
}

fn check_count(num_locks: u32) -> Result<()> {
    match num_locks {
        ..=MAX_LOCKS => Ok(()),
        asked => Err(error(Reason::TooManyLocks { asked, most: MAX_LOCKS })),
    }
}

impl Manager for InMemoryManager {
    fn allocate_lock(&self) -> Result<u32> {
        self.ids()?.allocate().map_err(error)
    }

    fn retrieve_lock(&self, id: u32) -> Result<()> {
        self.check_range(id)
    }

    fn allocate_and_retrieve_lock(&self, id: u32) -> Result<()> {
        self.ids()?.allocate_given(id).map_err(error)
    }

    fn free_lock(&self, id: u32) -> Result<()> {
        self.ids()?.free(id).map_err(error)
    }

    fn free_all_locks(&self) -> Result<()> {
        self.ids()?.free_all();
        Ok(())
    }

    fn available_locks(&self) -> Result<u32> {
        Ok(self.ids()?.available())
    }

    fn num_locks(&self) -> Result<u32> {
        Ok(self.ids()?.num_locks())
    }

    fn acquire(&self, id: u32, wait: Wait, cancel: Option<&Cancel>) -> Result<Acquired> {
        self.check_range(id)?;
        self.table.acquire(THIS, self.ownership.settle(), id, wait, cancel).map_err(error)
    }

    fn unlock(&self, id: u32) -> Result<()> {
        self.check_range(id)?;
        self.table.release(THIS, id).map_err(error)
    }

    fn set_ownership(&self, ownership: Ownership) -> Result<()> {
        self.check_process()?;
        self.ownership.choose(ownership).map_err(error)
    }

    fn locks_held(&self) -> Result<Vec<u32>> {
        self.check_process()?;
        Ok(self.table.held())
    }

    fn lock_info(&self, id: u32) -> Result<LockInfo> {
        self.check_range(id)?;
        let look = self.table.look(id);
        let mut info = LockInfo {
            id,
            allocated: self.ids()?.is_allocated(id),
            owner_died: self.table.storage.died.lock().contains(&id),
            waiters: look.waiters,
            waited_ns: look.waited_ns,
            ..LockInfo::default()
        };
        if let Some(holder) = look.holder {
            info.held = true;
            info.pid = process::pid();
            info.tid = holder.tid as i32;
            info.ownership = holder.ownership;
            info.pid_namespace = procfs::pid_namespace("self");
        }
        Ok(info)
    }

    fn info(&self) -> Result<Info> {
        Ok(Info {
            kind: Kind::InMemory,
            layout: None,
            num_locks: self.num_locks()?,
            max_locks: MAX_LOCKS,
            attached: 1,
            retired: false,
        })
    }

    fn repair_lock(&self, id: u32) -> Result<()> {
        self.check_range(id)?;
        match self.table.look(id).holder {
            None => Ok(()),
            // A thread that ends gives its locks back itself, so whoever is named here lives.
            Some(holder) => Err(error(Reason::HolderLives { id, holder: holder.tid })),
        }
    }

    fn check_idle(&self) -> Result<()> {
        // A child holds nothing of its parent's.
        if !self.table.is_current() {
            return Ok(());
        }
        match (self.table.waiting_through(THIS), self.table.held_through(THIS)) {
            (0, None) => Ok(()),
            (0, Some(id)) => Err(error(Reason::StillHeld { id })),
            (threads, _) => Err(error(Reason::StillWaiting { threads })),
        }
    }

    fn grow(&self, num_locks: u32) -> Result<()> {
        check_count(num_locks)?;
        self.ids()?.grow(num_locks).map_err(error)
    }
}

/// The locks whose last holder ended with them. Nobody outside of this process can hold one.
#[derive(Default)]
struct Memory {
    died: Arc<Mutex<HashSet<u32>>>,
}

/// Marks its lock unless it is given back.
struct Hold {
    id: u32,
    died: Arc<Mutex<HashSet<u32>>>,
    is_given_back: bool,
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.is_given_back {
            self.died.lock().insert(self.id);
        }
    }
}

impl Storage for Memory {
    type Hold = Hold;

    /// Never needed: take() fails for nobody.
    const RETRY_NS: u64 = 0;

    fn check(&self) -> std::result::Result<(), Reason> {
        Ok(())
    }

    fn take(&self, id: u32, _holder: &Holder) -> std::result::Result<Option<(Hold, Acquired)>, Reason> {
        let acquired = if self.died.lock().remove(&id) { Acquired::OwnerDied } else { Acquired::Clean };
        Ok(Some((Hold { id, died: Arc::clone(&self.died), is_given_back: false }, acquired)))
    }

    fn give_back(&self, _id: u32, mut hold: Hold) -> std::result::Result<(), Reason> {
        hold.is_given_back = true;
        Ok(())
    }
}
