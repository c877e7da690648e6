// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The table file as one process has it open: to read and write records. The locks on them are on descriptions of their
//! own, one for each lock that is held.

use std::fs::File;
use std::os::fd::IntoRawFd;

use crate::Reason;
use crate::sys::directory::Making;
use crate::sys::file::{self, Facts};
use crate::sys::record_lock::{self, Attempt, Conflict, Range};

use super::directory::{Directory, Found, facts};
use super::record::{self, Record, TABLE};

/// One table file. libpod may remove it with everything else; then the next one is another.
#[derive(Debug)]
pub(super) struct Records {
    facts: Facts,
    /// `None` only while it is dropped.
    file: Option<File>,
}

impl Records {
    /// Opens the directory's table as it is; `None`: there is none that says anything.
    pub(super) fn look(directory: &Directory) -> Found<Option<Self>> {
        let Some(file) = directory.open_file(TABLE, Making::Never)? else { return Ok(None) };
        let facts = facts(&file, TABLE)?;
        let mut header = [0; record::SIZE];
        file::read_at(&file, &mut header, 0).map_err(reading)?;
        if header == [0; record::SIZE] {
            return Ok(None);
        }
        record::check_header(&header)?;
        Ok(Some(Self { facts, file: Some(file) }))
    }

    /// Opens the directory's table, and makes it where there is none.
    pub(super) fn open(directory: &Directory) -> Found<Self> {
        let file = directory
            .open_file(TABLE, Making::IfAbsent)?
            .ok_or(Reason::NotASegment("its file .lock_manager cannot be made"))?;
        let facts = facts(&file, TABLE)?;
        let mut header = [0; record::SIZE];
        let count = file::read_at(&file, &mut header, 0).map_err(reading)?;
        if count == 0 || header == [0; record::SIZE] {
            // Empty: made just now, by this process or by another that writes the same bytes.
            file::write_at(&file, &record::header(), 0).map_err(writing)?;
        } else {
            record::check_header(&header)?;
        }
        Ok(Self { facts, file: Some(file) })
    }

    /// Whether a look at the directory would find this very table; then its descriptor is good as well.
    pub(super) fn is_current(&self) -> bool {
        self.own_facts().is_some_and(|facts| facts.links > 0)
    }

    /// Takes the lock on a lock's record, on a description of its own. `None`: somebody else has it.
    pub(super) fn try_lock(&self, directory: &Directory, id: u32) -> Found<Option<Locked>> {
        let Some(file) = directory.open_file(TABLE, Making::Never)? else {
            return Ok(Some(Locked::Elsewhere));
        };
        match record_lock::try_lock(&file, record::range(id)).map_err(locking)? {
            Attempt::Held => return Ok(None),
            Attempt::Taken => {}
        }
        // After the lock: whoever removes the table from here on finds it taken.
        let facts = facts(&file, TABLE)?;
        let is_this = facts.is_same_file(&self.facts) && facts.links > 0;
        Ok(Some(if is_this { Locked::Here(file) } else { Locked::Elsewhere }))
    }

    /// Somebody's lock on a record within the range.
    pub(super) fn conflict(&self, range: Range) -> Found<Option<Conflict>> {
        record_lock::conflict(self.file()?, range).map_err(locking)
    }

    pub(super) fn read(&self, id: u32) -> Found<Record> {
        let mut bytes = [0; record::SIZE];
        // Behind the end of the file is as good as a hole.
        file::read_at(self.file()?, &mut bytes, record::offset(id)).map_err(reading)?;
        Ok(Record::read(&bytes))
    }

    /// Writes what `change` makes of a record, and returns what it was before.
    pub(super) fn replace(&self, id: u32, change: impl FnOnce(Record) -> Record) -> Found<Record> {
        let file = self.file()?;
        let mut bytes = [0; record::SIZE];
        file::read_at(file, &mut bytes, record::offset(id)).map_err(reading)?;
        let before = Record::read(&bytes);
        file::write_at(file, &change(before).bytes(), record::offset(id)).map_err(writing)?;
        Ok(before)
    }

    pub(super) fn write(&self, id: u32, record: Record) -> Found<()> {
        file::write_at(self.file()?, &record.bytes(), record::offset(id)).map_err(writing)
    }

    /// The descriptor, unless the program closed it (closefrom) and its number may be another file's.
    fn file(&self) -> Found<&File> {
        self.own_facts().and(self.file.as_ref()).ok_or(Reason::TableLost)
    }

    fn own_facts(&self) -> Option<Facts> {
        let facts = Facts::of(self.file.as_ref()?).ok()?;
        facts.is_same_file(&self.facts).then_some(facts)
    }

    pub(super) fn is_same_table(&self, other: &Self) -> bool {
        self.facts.is_same_file(&other.facts)
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        if self.own_facts().is_none()
            && let Some(file) = self.file.take()
        {
            let _not_ours = file.into_raw_fd();
        }
    }
}

/// A lock on a record that was free.
pub(super) enum Locked {
    Here(File),
    /// The directory has another table by now, or none: nothing is locked.
    Elsewhere,
}

fn reading(errno: crate::Errno) -> Reason {
    Reason::System { doing: "reading .lock_manager", errno }
}

fn writing(errno: crate::Errno) -> Reason {
    match errno.0 {
        libc::ENOSPC | libc::EDQUOT => Reason::NoSpace { bytes: record::SIZE as u64 },
        _ => Reason::System { doing: "writing .lock_manager", errno },
    }
}

pub(super) fn locking(errno: crate::Errno) -> Reason {
    Reason::System { doing: "locking a record (F_OFD_SETLK)", errno }
}
