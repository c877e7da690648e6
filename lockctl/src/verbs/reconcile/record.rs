// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! What was allocated at some time, and how often each lock had been acquired by then, as a text file:
//!
//! ```text
//! lockctl reconcile record 1
//! storage DEVICE INODE
//! ID ACQUISITIONS
//! …
//! ```
//!
//! Device and inode are those of the storage: after it was removed and made anew, the record is of no use.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::exit::{Failure, sysexits};
use crate::output::text::shown;
use crate::storage::{Identity, Storage};
use crate::survey::Survey;

const HEADING: &str = "lockctl reconcile record 1";

#[derive(Debug, PartialEq, Eq)]
pub struct Record {
    place: Identity,
    /// Acquisitions by the id of the lock.
    pub locks: BTreeMap<u32, u64>,
}

impl Record {
    /// Of a look.
    pub fn of(storage: &Storage, survey: &Survey) -> Result<Self, Failure> {
        let allocated = survey.rows.iter().filter(|row| row.lock.allocated);
        Ok(Self { place: place(storage)?, locks: allocated.map(|row| (row.lock.id, row.lock.acquisitions)).collect() })
    }

    /// From the file that an earlier call wrote, which must be of this very storage.
    pub fn read(file: &Path, storage: &Storage) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(file).map_err(|error| Failure::system(shown(file), &error))?;
        let refuse = |why: &str| {
            let sentence =
                format!("{}: {why}; nothing was freed. Write one with --record, then make the list anew", shown(file));
            Failure::new(sysexits::DATAERR, sentence)
        };
        let record = Self::parse(&text).ok_or_else(|| refuse("is not a record of `lockctl reconcile`"))?;
        if record.place != place(storage)? {
            return Err(refuse("belongs to another storage, or to one that was removed and created anew since"));
        }
        Ok(record)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        (lines.next()? == HEADING).then_some(())?;
        let (device, inode) = lines.next()?.strip_prefix("storage ")?.split_once(' ')?;
        let mut locks = BTreeMap::new();
        for line in lines {
            let (id, acquisitions) = line.split_once(' ')?;
            locks.insert(id.parse().ok()?, acquisitions.parse().ok()?);
        }
        Some(Self { place: Identity { device: device.parse().ok()?, inode: inode.parse().ok()? }, locks })
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADING}\nstorage {} {}", self.place.device, self.place.inode)?;
        self.locks.iter().try_for_each(|(id, acquisitions)| writeln!(f, "{id} {acquisitions}"))
    }
}

fn place(storage: &Storage) -> Result<Identity, Failure> {
    storage.identity().map_err(|error| Failure::system(storage.shown(), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_nothing_else_is() {
        let record = Record { place: Identity { device: 7, inode: 23 }, locks: BTreeMap::from([(0, 5), (31, 0)]) };
        assert_eq!(Record::parse(&record.to_string()), Some(record));
        for bad in ["", "0\n1\n", HEADING, "lockctl reconcile record 1\nstorage 7 23\nx"] {
            assert_eq!(Record::parse(bad), None);
        }
    }
}
