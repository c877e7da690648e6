// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! A directory as this process has it open: once, however many managers are open on it. An id is allocated if its file
//! exists.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::sys::process::Process;
use crate::sys::process::per_process::PerProcess;
use crate::sys::process::registry::{Registry, Shared};
use crate::sys::syscall::file::Access;
use crate::{Reason, Result};

use super::directory::{Directory, Outcome};
use super::ids::{KnownIds, SURPRISES_BEFORE_LOOK};
use super::record_locks::RecordLocks;

static POOLS: Registry<Pool> = Registry::new();

/// A directory, and what this process knows of it.
pub(super) struct Pool {
    pub(super) directory: Arc<Directory>,
    pub(super) record_locks: Arc<RecordLocks>,
    process: &'static Process,
    /// A child starts with none: threads of its parent may have been changing the parent's.
    ids: PerProcess<Mutex<KnownIds>>,
}

impl Pool {
    pub(super) fn open(directory: Directory) -> Result<Shared<Self>> {
        let name = directory.name.clone();
        let reserving = |errno| name.error(Reason::of_reserving(errno));
        let process = Process::current().map_err(&reserving)?;
        let key =
            [directory.metadata.device, directory.metadata.inode, u64::from(directory.access == Access::ReadOnly)];
        let alone = process.exclude_other_threads();
        POOLS.get_or_make(
            &alone,
            key,
            |_| Ok(()),
            || {
                let ids = PerProcess::new().map_err(&reserving)?;
                let directory = Arc::new(directory);
                let record_locks = Arc::new(RecordLocks::new(process, Arc::clone(&directory)));
                Ok(Self { directory, record_locks, process, ids })
            },
        )
    }

    fn ids(&self) -> Outcome<MutexGuard<'_, KnownIds>> {
        self.process.begin_epoch();
        let ids = self.ids.get(|| Ok::<_, Reason>(Mutex::default()))?;
        // Use it even after a panic: the file system decides, and this is only a guess.
        Ok(ids.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes the file of the lowest id that is thought to be free.
    pub(super) fn allocate(&self) -> Outcome<u32> {
        let mut ids = self.ids()?;
        let mut surprises = 0;
        loop {
            let Some(id) = ids.take_lowest() else {
                *ids = KnownIds::all_but(&self.directory.contents()?.ids);
                let id = ids.take_lowest().ok_or(Reason::Exhausted { num_locks: crate::shm::MAX_LOCKS })?;
                ids.freed(id);
                continue;
            };
            match self.directory.make_id(id) {
                Ok(true) => return Ok(id),
                Ok(false) => surprises += 1,
                Err(reason) => {
                    ids.freed(id);
                    return Err(reason);
                }
            }
            if !ids.looked || surprises >= SURPRISES_BEFORE_LOOK {
                *ids = KnownIds::all_but(&self.directory.contents()?.ids);
                surprises = 0;
            }
        }
    }

    pub(super) fn allocate_given(&self, id: u32) -> Outcome<()> {
        let is_made = self.directory.make_id(id)?;
        self.ids()?.taken(id);
        if is_made { Ok(()) } else { Err(Reason::Allocated { id }) }
    }

    pub(super) fn free(&self, id: u32) -> Outcome<()> {
        if !self.directory.remove_id(id)? {
            return Err(Reason::NotAllocated { id });
        }
        self.ids()?.freed(id);
        Ok(())
    }

    pub(super) fn free_all(&self) -> Outcome<()> {
        let mut ids = self.ids()?;
        // A removed directory is empty, but its ids are not free.
        if self.directory.is_removed() {
            return Err(Reason::Removed);
        }
        for id in self.directory.contents()?.ids {
            self.directory.remove_id(id)?;
        }
        *ids = KnownIds::all_but(&[]);
        Ok(())
    }
}
