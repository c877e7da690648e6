// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Taking a lock from other processes: first its record in the table file, whose identity does not change with
//! allocation, then, for libpod's sake, the file of its id if there is one.
//!
//! Where a process may die in here, and what the next holder then finds:
//!
//! | after | the next holder |
//! | --- | --- |
//! | either lock, before the record is written | what was there before: nobody had the lock since |
//! | the record is written | a record: owner died |
//! | the record is cleared at unlock | none: the lock was given back |

use std::fs::File;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::Reason;
use crate::manager::{Acquired, Ownership};
use crate::sys::directory::Making;
use crate::sys::pinned::Pinned;
use crate::sys::record_lock::{self, Attempt, Range};
use crate::table::{Holder, Storage};

use super::directory::{Directory, Found, facts};
use super::record::{Identity, Record};
use super::records::{Locked, Records, locking};

/// How often a file that vanishes in the midst of an attempt is looked for again. Each round means that somebody
/// removed it just then, and takes some microseconds: who removes all the time is not to make a slow process fail.
const ROUNDS: u32 = 10_000;

/// A directory's locks, as one process takes them.
pub(super) struct Files {
    pub(super) directory: Arc<Directory>,
    pub(super) identity: Identity,
    records: Mutex<Option<Arc<Records>>>,
}

/// A lock that is held. Dropped, it leaves its record behind.
pub(super) struct Hold {
    records: Arc<Records>,
    record: Record,
    /// The file of the id, which libpod would lock; let go of first, since whoever has the record tries it next.
    _file: Option<Pinned>,
    _entry: Pinned,
}

impl Files {
    pub(super) fn new(directory: Arc<Directory>, identity: Identity) -> Self {
        Self { directory, identity, records: Mutex::new(None) }
    }

    /// The table that was current when it was last used. Whoever locks in it finds out whether it still is.
    fn recent_records(&self) -> Found<Arc<Records>> {
        let known = self.records.lock().clone();
        known.map_or_else(|| self.records(), Ok)
    }

    /// The directory's table as of now, made where there is none.
    pub(super) fn records(&self) -> Found<Arc<Records>> {
        let records = self.current_records(|directory| Records::open(directory).map(Some))?;
        records.ok_or(Reason::TableLost)
    }

    /// The directory's table as of now, if there is one.
    pub(super) fn records_to_look(&self) -> Found<Option<Arc<Records>>> {
        self.current_records(Records::look)
    }

    fn current_records(&self, open: impl FnOnce(&Directory) -> Found<Option<Records>>) -> Found<Option<Arc<Records>>> {
        let mut known = self.records.lock();
        if let Some(records) = known.as_ref().filter(|records| records.is_current()) {
            return Ok(Some(Arc::clone(records)));
        }
        if self.directory.is_removed() {
            return Err(Reason::Removed);
        }
        let records = open(&self.directory)?.map(Arc::new);
        known.clone_from(&records);
        Ok(records)
    }

    /// Takes the lock on the file of that id. `None`: somebody else has it.
    fn lock_file(&self, id: u32) -> Found<Option<FileLock>> {
        let name = id.to_string();
        let Some(file) = self.directory.open_file(&name, Making::Never)? else {
            return Ok(Some(FileLock::NotNeeded));
        };
        match record_lock::try_lock(&file, Range::WHOLE).map_err(locking)? {
            Attempt::Held => return Ok(None),
            Attempt::Taken => {}
        }
        // Freed meanwhile, and perhaps allocated again: then others lock another file.
        Ok(Some(if facts(&file, &name)?.links > 0 { FileLock::Taken(file) } else { FileLock::Gone }))
    }
}

enum FileLock {
    Taken(File),
    /// The id is not allocated.
    NotNeeded,
    /// The file was removed in between.
    Gone,
}

impl Storage for Files {
    type Hold = Hold;

    /// An unlock is to be noticed within 5 ms, and nobody tells of it.
    const RETRY_NS: u64 = 3_000_000;

    fn check(&self) -> Found<()> {
        if self.directory.is_removed() { Err(Reason::Removed) } else { Ok(()) }
    }

    fn take(&self, id: u32, holder: &Holder) -> Found<Option<(Hold, Acquired)>> {
        for round in 0..ROUNDS {
            let records = if round == 0 { self.recent_records()? } else { self.records()? };
            let entry = match records.try_lock(&self.directory, id)? {
                None => return Ok(None),
                Some(Locked::Elsewhere) => continue,
                Some(Locked::Here(entry)) => entry,
            };
            let file = match self.lock_file(id)? {
                None => return Ok(None),
                Some(FileLock::Gone) => continue,
                Some(FileLock::NotNeeded) => None,
                Some(FileLock::Taken(file)) => Some(self.directory.pin(file)?),
            };
            let entry = self.directory.pin(entry)?;
            let tid = if holder.ownership == Ownership::Thread { holder.tid } else { 0 };
            let mine = |before: Record| {
                let acquisitions = before.acquisitions.wrapping_add(1);
                Record { holder: Some(self.identity), tid, acquisitions }
            };
            let before = match records.replace(id, mine) {
                Err(Reason::TableLost) => continue,
                replaced => replaced?,
            };
            let record = mine(before);
            let acquired = if before.holder.is_some() { Acquired::OwnerDied } else { Acquired::Clean };
            return Ok(Some((Hold { records, record, _file: file, _entry: entry }, acquired)));
        }
        Err(Reason::Unsettled { id, rounds: ROUNDS })
    }

    fn give_back(&self, id: u32, hold: Hold) -> Found<()> {
        let cleared = Record { holder: None, tid: 0, ..hold.record };
        match hold.records.write(id, cleared) {
            // The program closed our descriptor. The table may still be there, under its name.
            Err(Reason::TableLost) => match self.records() {
                Ok(records) if records.is_same_table(&hold.records) => records.write(id, cleared),
                // Nobody will look into the old one.
                Ok(_) | Err(Reason::Removed) => Ok(()),
                Err(reason) => Err(reason),
            },
            written => written,
        }
    }
}
