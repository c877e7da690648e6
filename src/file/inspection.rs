// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Reading the state of locks without changing anything, and without opening the file of an id: closing it would release
//! this process's lock on it. The table shows the holders of words, /proc/locks the processes with record locks.

use std::collections::{BTreeMap, BTreeSet};

use crate::manager::{Holder, Info, Kind, LockInfo, Manager, UNLIMITED};
use crate::sys::Errno;
use crate::{Error, Reason, Result};

use super::FileManager;
use super::directory::Outcome;
use super::tables::Table;

/// The processes that have record locks on files in the table's directory, by inode.
fn record_locks(table: &Table) -> BTreeMap<u64, i32> {
    let locks = table.native.as_mapped().and_then(|file| file.process_locks_beside());
    locks.unwrap_or_default().into_iter().collect()
}

/// Adds to the state of a lock's word that process `pid` has the record lock.
fn add_record(info: &mut LockInfo, pid: i32, table: &Table) {
    if !info.held {
        (info.held, info.pid) = (true, pid);
        return;
    }
    // Another process has the record lock. So the threads with the word or the cells wait for it, unless the word has changed
    // hands since it was read.
    let is_another = pid != 0 && info.pid != 0 && pid != info.pid;
    let is_as_before = || {
        let again = table.native.lock_info(info.id);
        again.is_ok_and(|again| (again.tid, again.acquisitions) == (info.tid, info.acquisitions) && again.held)
    };
    if is_another && is_as_before() {
        (info.pid, info.tid, info.pid_namespace) = (pid, 0, 0);
        info.waiters += info.readers.max(1);
        info.readers = 0;
    }
}

impl FileManager {
    /// The present table, if there is one.
    pub(super) fn table_to_look(&self) -> Result<Option<&Table>> {
        match self.tables.open(&self.pool)? {
            Some(table) if table.native.has_lost_its_name() && !table.native.is_retired() => {
                match self.tables.replace(table, &self.pool) {
                    Ok(replaced) => {
                        replaced.into_iter().for_each(|table| Self::tell(table, self.ownership.chosen()));
                        Ok(replaced)
                    }
                    // The directory was removed. The old table still says who holds what.
                    Err(error) if *error.reason() == Reason::Removed => Ok(Some(table)),
                    Err(error) => Err(error),
                }
            }
            table => Ok(table),
        }
    }

    /// The locks that are held, ascending.
    pub(super) fn held_ids(&self) -> Result<Vec<u32>> {
        let Some(table) = self.table_to_look()? else { return Ok(Vec::new()) };
        let mut held: BTreeSet<u32> = table.native.locks_held()?.into_iter().collect();
        let records = record_locks(table);
        if !records.is_empty() {
            held.extend(self.ids_locked_in(&records).map_err(|reason| self.error(reason))?);
        }
        Ok(held.into_iter().collect())
    }

    fn ids_locked_in(&self, records: &BTreeMap<u64, i32>) -> Outcome<Vec<u32>> {
        let mut locked = Vec::new();
        let ids = match self.pool.directory.contents() {
            // This process has given up the right to read the directory: it sees no ids.
            Err(Reason::System { errno: Errno(libc::EACCES), .. }) if !self.pool.directory.is_opener() => Vec::new(),
            contents => contents?.ids,
        };
        for id in ids {
            if let Some(metadata) = self.pool.directory.metadata_of_id(id)?
                && records.contains_key(&metadata.inode)
            {
                locked.push(id);
            }
        }
        Ok(locked)
    }

    pub(super) fn inspect(&self, ids: &[u32]) -> Result<Vec<LockInfo>> {
        ids.iter().try_for_each(|&id| self.check_id(id)).map_err(|reason| self.error(reason))?;
        let table = self.table_to_look()?;
        let known = table.map_or(0, |table| table.native.known_locks());
        let in_table: Vec<u32> = ids.iter().copied().filter(|&id| id < known).collect();
        let mut words = match table {
            Some(table) => table.native.lock_infos(&in_table)?,
            None => Vec::new(),
        }
        .into_iter();
        let mut records = None;
        let infos = ids.iter().map(|&id| {
            let word = if id < known { words.next() } else { None };
            let metadata = self.pool.directory.metadata_of_id(id)?;
            let mut info = LockInfo { id, allocated: metadata.is_some(), ..word.unwrap_or_default() };
            if let (Some(metadata), Some(table)) = (metadata, table) {
                let records = records.get_or_insert_with(|| record_locks(table));
                if let Some(&pid) = records.get(&metadata.inode) {
                    add_record(&mut info, pid, table);
                }
            }
            Ok(info)
        });
        infos.collect::<Outcome<_>>().map_err(|reason| self.error(reason))
    }

    /// The holders of a lock. If another process has the record lock, it is the holder, and the threads that the word and
    /// the cells name wait for it.
    pub(super) fn holders(&self, id: u32) -> Result<Vec<Holder>> {
        self.check_id(id).map_err(|reason| self.error(reason))?;
        let Some(table) = self.table_to_look()? else { return Ok(Vec::new()) };
        let is_known = id < table.native.known_locks();
        let holders = if is_known { table.native.lock_holders(id)? } else { Vec::new() };
        let metadata = self.pool.directory.metadata_of_id(id).map_err(|reason| self.error(reason))?;
        let record = metadata.and_then(|metadata| record_locks(table).get(&metadata.inode).copied());
        // Holders without a process id may be the same process.
        let is_its = |holder: &Holder, pid| holder.pid == pid || holder.pid == 0 || pid == 0;
        Ok(match record {
            Some(pid) if !holders.iter().any(|holder| is_its(holder, pid)) => {
                vec![Holder { pid, ..Holder::default() }]
            }
            _ => holders,
        })
    }

    pub(super) fn describe(&self) -> Result<Info> {
        let attached = match self.table_to_look() {
            Ok(Some(table)) => table.native.info()?.attached,
            // A removed directory has no users.
            Ok(None) | Err(Error { .. }) => 0,
        };
        let retired =
            self.pool.directory.is_removed() || self.tables.present().is_some_and(|table| table.native.is_retired());
        Ok(Info { kind: Kind::File, layout: None, num_locks: UNLIMITED, max_locks: UNLIMITED, attached, retired })
    }
}
