// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Looking without touching: who has a record lock is asked for with F_OFD_GETLK, which takes none.

use std::collections::BTreeSet;

use crate::Reason;
use crate::manager::{LockInfo, Ownership};
use crate::sys::directory::Making;
use crate::sys::procfs;
use crate::sys::record_lock::{self, Owner, Range};

use super::directory::Found;
use super::pool::Pool;
use super::record::{self, Identity, Record};
use super::records::{Records, locking};

impl Pool {
    /// Every lock that somebody holds, ascending.
    pub(super) fn held_ids(&self) -> Found<Vec<u32>> {
        let mut held = BTreeSet::new();
        let records = self.locks()?.storage.records_to_look()?;
        let mut unseen = vec![record::every_range()];
        // The kernel names one lock at a time, and not the lowest.
        while let (Some(records), Some(range)) = (&records, unseen.pop()) {
            let Some(conflict) = records.conflict(range)? else { continue };
            // An attempt, too, has the record for an instant.
            if let Some(id) = record::id(conflict.range)
                && records.read(id)?.holder.is_some()
            {
                held.insert(id);
            }
            let start = conflict.range.start().max(range.start());
            if range.start() < start {
                unseen.push(Range::between(range.start(), start));
            }
            if let (Some(end), Some(last)) = (conflict.range.end(), range.end())
                && end < last
            {
                unseen.push(Range::between(end, last));
            }
        }
        for id in self.directory.contents()?.ids {
            let process = match self.process_with_file(id) {
                // A link, a directory: nobody's lock.
                Err(Reason::StrayFile { .. }) => None,
                found => found?,
            };
            if process.is_some() {
                held.insert(id);
            }
        }
        Ok(held.into_iter().collect())
    }

    /// The process that has a lock on the file of that id, as libpod does; 0 if it cannot be seen from here. Ours belong to
    /// descriptions, and are told of by their records.
    fn process_with_file(&self, id: u32) -> Found<Option<i32>> {
        let Some(file) = self.directory.open_file(&id.to_string(), Making::Never)? else { return Ok(None) };
        let conflict = record_lock::conflict(&file, Range::WHOLE).map_err(locking)?;
        Ok(conflict.and_then(|conflict| match conflict.owner {
            Owner::Process(pid) => Some(pid),
            Owner::Description => None,
        }))
    }

    pub(super) fn inspect(&self, id: u32) -> Found<LockInfo> {
        let table = self.locks()?;
        let look = table.look(id);
        let (record, is_taken) = match table.storage.records_to_look()? {
            Some(records) => (records.read(id)?, is_taken(&records, id)?),
            None => (Record::NOBODYS, false),
        };
        let mut info = LockInfo {
            id,
            allocated: self.directory.open_file(&id.to_string(), Making::Never)?.is_some(),
            held: is_taken && record.holder.is_some(),
            owner_died: !is_taken && record.holder.is_some(),
            waiters: look.waiters,
            waited_ns: look.waited_ns,
            acquisitions: record.acquisitions,
            ..LockInfo::default()
        };
        if info.held {
            info.ownership = if record.tid == 0 { Ownership::Process } else { Ownership::Thread };
            if let Some(holder) = record.holder {
                info.pid_namespace = holder.pid_namespace.into();
                if is_visible(&holder) {
                    info.pid = holder.pid as i32;
                    info.tid = record.tid as i32;
                }
            }
        } else if let Some(pid) = self.process_with_file(id)? {
            info.held = true;
            info.pid = pid;
        }
        Ok(info)
    }
}

fn is_taken(records: &Records, id: u32) -> Found<bool> {
    Ok(records.conflict(record::range(id))?.is_some())
}

/// Whether the process of that identity can be seen from here under its number.
fn is_visible(holder: &Identity) -> bool {
    u64::from(holder.pid_namespace) == procfs::pid_namespace("self")
        && procfs::start_time(holder.pid as i32) == holder.start_time
}
