// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! One directory as this process has it open: once, however many managers are open on it.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::sys::directory::Making;
use crate::sys::file::Access;
use crate::sys::per_process::PerProcess;
use crate::sys::process::{self, Process};
use crate::sys::procfs;
use crate::sys::registry::{Registry, Shared};
use crate::table::Table;
use crate::{Reason, Result};

use super::directory::Directory;
use super::directory::Found;
use super::ids::{Believed, SURPRISES_BEFORE_LOOK};
use super::record::Identity;
use super::storage::Files;

static POOLS: Registry<Pool> = Registry::new();

/// A directory and what this process knows of it.
pub(super) struct Pool {
    pub(super) directory: Arc<Directory>,
    process: &'static Process,
    own: PerProcess<Own>,
}

/// What a child must not inherit, because its parent's threads may be changing it.
struct Own {
    locks: Arc<Table<Files>>,
    ids: Mutex<Believed>,
}

impl Pool {
    pub(super) fn open(directory: Directory) -> Result<Shared<Self>> {
        let name = directory.name.clone();
        let reserving = name.failed("reserving memory");
        let process = Process::current().map_err(&reserving)?;
        let key = [directory.facts.device, directory.facts.inode, u64::from(directory.access == Access::Look)];
        let alone = process.exclude_other_threads();
        POOLS.get_or_make(
            &alone,
            key,
            |_| Ok(()),
            || {
                let own = PerProcess::new().map_err(&reserving)?;
                Ok(Self { directory: Arc::new(directory), process, own })
            },
        )
    }

    fn own(&self) -> Found<&Own> {
        self.own.get(|| {
            self.process.settle();
            let identity = Identity {
                pid: process::pid() as u32,
                start_time: procfs::own_start_time(),
                pid_namespace: procfs::pid_namespace("self") as u32,
            };
            let files = Files::new(Arc::clone(&self.directory), identity);
            Ok(Own { locks: Table::new(self.process, files), ids: Mutex::new(Believed::all()) })
        })
    }

    /// The locks that this process holds and waits for.
    pub(super) fn locks(&self) -> Found<&Table<Files>> {
        Ok(&self.own()?.locks)
    }

    /// The same, unless this process has done nothing yet.
    pub(super) fn locks_if_any(&self) -> Option<&Table<Files>> {
        self.own.peek().map(|own| &*own.locks)
    }

    /// Makes the file of an id that has none. Which one: the lowest that is believed to be free.
    pub(super) fn allocate(&self) -> Found<u32> {
        let mut ids = self.own()?.ids.lock();
        let mut surprises = 0;
        loop {
            let Some(id) = ids.take_lowest() else {
                *ids = Believed::all_but(self.directory.contents()?.ids);
                let id = ids.take_lowest().ok_or(Reason::Exhausted { num_locks: u32::MAX })?;
                ids.freed(id);
                continue;
            };
            match self.make_file(id) {
                Ok(true) => return Ok(id),
                Ok(false) => surprises += 1,
                Err(reason) => {
                    ids.freed(id);
                    return Err(reason);
                }
            }
            if !ids.looked || surprises >= SURPRISES_BEFORE_LOOK {
                *ids = Believed::all_but(self.directory.contents()?.ids);
                surprises = 0;
            }
        }
    }

    pub(super) fn allocate_given(&self, id: u32) -> Found<()> {
        let own = self.own()?;
        let is_made = self.make_file(id)?;
        own.ids.lock().taken(id);
        if is_made { Ok(()) } else { Err(Reason::Allocated { id }) }
    }

    /// `false`: there is one.
    fn make_file(&self, id: u32) -> Found<bool> {
        Ok(self.directory.open_file(&id.to_string(), Making::Exclusively)?.is_some())
    }

    pub(super) fn free(&self, id: u32) -> Found<()> {
        let own = self.own()?;
        if !self.directory.remove_file(&id.to_string())? {
            return Err(Reason::NotAllocated { id });
        }
        own.ids.lock().freed(id);
        Ok(())
    }

    pub(super) fn free_all(&self) -> Found<()> {
        let mut ids = self.own()?.ids.lock();
        for id in self.directory.contents()?.ids {
            self.directory.remove_file(&id.to_string())?;
        }
        *ids = Believed::all_but(Vec::new());
        Ok(())
    }
}
