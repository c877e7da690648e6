// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The directory of the locks. It is opened without following a link, and its owner is checked. It stays the same directory
//! even if its name leads to another one later.

use std::cell::Cell;
use std::fs::File;
use std::io::Write;

use crate::shm::{self, MAX_LOCKS};
pub(super) use crate::shm::{Outcome, SegmentName, TABLE};
use crate::sys::Errno;
use crate::sys::descriptor::GuardedFile;
use crate::sys::process::effective_user;
use crate::sys::syscall::directory;
use crate::sys::syscall::file::{Access, Metadata};
use crate::{Reason, Result};

/// The mode of an id's file, as libpod makes it.
const ID_MODE: u32 = 0o600;

/// An open directory.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) name: SegmentName,
    pub(super) metadata: Metadata,
    pub(super) access: Access,
    /// The effective user of the process when it opened the directory.
    opened_by: u32,
    file: GuardedFile,
}

impl Directory {
    pub(super) fn open(name: &SegmentName, access: Access) -> Result<Self> {
        let (file, opener) = directory::open_as_owner(name.directory()).map_err(|errno| match errno.0 {
            libc::ENOENT => name.error(Reason::NotFound),
            libc::ENOTDIR if Metadata::of_path(name.directory()).is_ok_and(|metadata| metadata.is_link) => {
                name.error(Reason::SymbolicLink)
            }
            _ => name.error(Reason::System { doing: "opening the directory", errno }),
        })?;
        let metadata = Metadata::of(&file).map_err(name.failed("fstat"))?;
        shm::check_trusted(name, access, &file, &metadata, opener)?;
        // A directory can be opened for reading only.
        let file = GuardedFile::new(file, metadata.id(), name.directory().to_owned(), Access::ReadOnly);
        Ok(Self { name: name.clone(), metadata, access, opened_by: effective_user(), file })
    }

    /// Runs `question` on the directory's descriptor. If the program has closed that (closefrom), the directory is opened
    /// again.
    fn ask<T>(&self, question: impl Fn(&File) -> T) -> Outcome<T> {
        self.file.with_file(|file| Ok(question(file))).map_err(|_| match directory::open(self.name.directory()) {
            Ok(_) | Err(Errno(libc::ENOENT | libc::ENOTDIR)) => Reason::Removed,
            Err(errno) => Reason::System { doing: "opening the directory again", errno },
        })
    }

    /// The same for a change. It is not made twice, even if the descriptor is lost meanwhile.
    fn change(
        &self,
        change: impl Fn(&File) -> std::result::Result<(), Errno>,
    ) -> Outcome<std::result::Result<(), Errno>> {
        let done = Cell::new(false);
        self.ask(|file| if done.get() { Ok(()) } else { change(file).inspect(|()| done.set(true)) })
    }

    /// Whether the process has the rights with which it opened the directory.
    pub(super) fn is_opener(&self) -> bool {
        effective_user() == self.opened_by
    }

    /// When a name in the directory last changed, by one system call. `None`: the descriptor is lost, or the directory is
    /// removed.
    pub(super) fn changed_last(&self) -> Option<u64> {
        self.file.metadata().filter(|metadata| metadata.links > 0).map(|metadata| metadata.changed)
    }

    /// Whether the directory has lost its name.
    pub(super) fn is_removed(&self) -> bool {
        let links = self.ask(|file| Metadata::of(file).map(|metadata| metadata.links));
        matches!(links, Err(Reason::Removed) | Ok(Ok(0)))
    }

    /// Whether its name leads to another directory, or to none, as far as this process may know.
    pub(super) fn has_lost_its_name(&self) -> bool {
        match Metadata::of_path(self.name.directory()) {
            Ok(metadata) => metadata.id() != self.metadata.id(),
            Err(Errno(errno)) => matches!(errno, libc::ENOENT | libc::ENOTDIR),
        }
    }

    /// Opens the file of an id to lock it. `None`: there is none.
    pub(super) fn open_id(&self, id: u32) -> Outcome<Option<(File, Metadata)>> {
        let name = IdName::new(id);
        let opened = self.ask(|directory| directory::open_at(directory, name.as_str()))?;
        match opened {
            Ok(file) => {
                let metadata = Metadata::of(&file).map_err(|errno| Reason::System { doing: "fstat", errno })?;
                if metadata.is_regular { Ok(Some((file, metadata))) } else { Err(stray(id)) }
            }
            Err(Errno(libc::ENOENT)) => Ok(None),
            Err(Errno(libc::ELOOP)) => Err(Reason::StrayFile { name: id.to_string(), is_link: true }),
            // A directory, a socket or a device, not a lock.
            Err(Errno(libc::EISDIR | libc::ENXIO)) => Err(stray(id)),
            // The process has given up its rights since. It cannot see whether the file is there, nor lock it against libpod.
            Err(Errno(libc::EACCES)) if !self.is_opener() => Ok(None),
            Err(errno) => Err(Reason::System { doing: "opening a file in the directory", errno }),
        }
    }

    /// The metadata of an id's file. `None`: there is none.
    pub(super) fn metadata_of_id(&self, id: u32) -> Outcome<Option<Metadata>> {
        let name = IdName::new(id);
        match self.ask(|directory| Metadata::at(directory, name.as_str()))? {
            Ok(metadata) if metadata.is_regular => Ok(Some(metadata)),
            Ok(_) | Err(Errno(libc::ENOENT)) => Ok(None),
            // As for opening.
            Err(Errno(libc::EACCES)) if !self.is_opener() => Ok(None),
            Err(errno) => Err(Reason::System { doing: "reading the status of a file in the directory", errno }),
        }
    }

    /// Creates the file of an id. `false`: there is one.
    pub(super) fn make_id(&self, id: u32) -> Outcome<bool> {
        let name = IdName::new(id);
        match self.change(|directory| directory::make_at(directory, name.as_str(), ID_MODE))? {
            Ok(()) => Ok(true),
            Err(Errno(libc::EEXIST)) => Ok(false),
            Err(Errno(libc::ENOENT)) if self.is_removed() => Err(Reason::Removed),
            Err(errno) => Err(Reason::System { doing: "creating a file in the directory", errno }),
        }
    }

    /// Removes the file of an id. `false`: there was none.
    pub(super) fn remove_id(&self, id: u32) -> Outcome<bool> {
        self.remove_file(IdName::new(id).as_str())
    }

    /// Removes a file of the directory. `false`: there was none, or it is a directory, which is not a lock.
    pub(super) fn remove_file(&self, name: &str) -> Outcome<bool> {
        match self.change(|directory| directory::remove_at(directory, name))? {
            Ok(()) => Ok(true),
            Err(Errno(libc::ENOENT)) if self.is_removed() => Err(Reason::Removed),
            Err(Errno(libc::ENOENT | libc::EISDIR)) => Ok(false),
            Err(errno) => Err(Reason::System { doing: "removing a file from the directory", errno }),
        }
    }

    /// What is in the directory.
    pub(super) fn contents(&self) -> Outcome<Contents> {
        let list = |directory: &File| {
            let mut contents = Contents::default();
            directory::for_each_name(directory, |name| match id_named(name) {
                Some(id) => contents.ids.push(id),
                None if name == TABLE.as_bytes() => contents.has_table = true,
                None => contents.has_others = true,
            })?;
            Ok(contents)
        };
        self.ask(list)?.map_err(|errno| Reason::System { doing: "reading the directory", errno })
    }
}

fn stray(id: u32) -> Reason {
    Reason::StrayFile { name: id.to_string(), is_link: false }
}

/// The name of an id's file. On the stack, because a lock call looks it up.
struct IdName([u8; Self::MOST]);

impl IdName {
    const MOST: usize = u32::MAX.ilog10() as usize + 1;

    fn new(id: u32) -> Self {
        let mut name = [0; Self::MOST];
        // There is room for every number.
        let _written = write!(&mut name[..], "{id}");
        Self(name)
    }

    fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default().trim_end_matches('\0')
    }
}

/// What a directory contains.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// The allocated ids, in no order.
    pub(super) ids: Vec<u32>,
    pub(super) has_table: bool,
    /// Whether there are other names than ids and the table's.
    pub(super) has_others: bool,
}

/// The id that a file name stands for: decimal, as libpod writes it, so without leading zeros or sign.
fn id_named(name: &[u8]) -> Option<u32> {
    let is_plain = name.iter().all(u8::is_ascii_digit) && (name.len() == 1 || name.first() != Some(&b'0'));
    let id = if is_plain { str::from_utf8(name).ok()?.parse().ok() } else { None };
    id.filter(|&id| id < MAX_LOCKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_decimal_number() {
        for id in [0, 7, 10, 16_777_215, u32::MAX] {
            assert_eq!(IdName::new(id).as_str(), id.to_string());
        }
    }

    #[test]
    fn only_plain_decimal_numbers_below_2_to_the_24_are_ids() {
        assert_eq!([b"0".as_slice(), b"17", b"16777215"].map(id_named), [Some(0), Some(17), Some(MAX_LOCKS - 1)]);
        for name in ["", "00", "007", "+1", "-1", "1 ", "16777216", "4294967296", "x", ".lock_manager", "1.tmp"] {
            assert_eq!(id_named(name.as_bytes()), None, "{name:?}");
        }
    }
}
