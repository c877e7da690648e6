// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The directory that the locks are in: found without following a link, trusted by its owner, and the same one for
//! good, whatever its name comes to mean.

use std::fs::File;
use std::os::fd::IntoRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) use crate::shm::Found;
use crate::shm::MAX_LOCKS;
use crate::sys::Errno;
use crate::sys::directory;
use crate::sys::file::{self, Access, Facts, FileSystem};
use crate::sys::process::effective_user;
use crate::{Error, Reason, Result};

/// The file of a directory that the words of its locks are in: a native segment.
pub(super) const TABLE: &str = ".lock_manager";

/// Of the files of ids, as libpod makes them.
const ID_MODE: u32 = 0o600;

/// How a directory is called: as the caller wrote it, and from the root on.
#[derive(Debug, Clone)]
pub(super) struct DirectoryName {
    shown: Arc<PathBuf>,
    path: PathBuf,
}

impl DirectoryName {
    pub(super) fn parse(path: &Path) -> Result<Self> {
        let shown: Arc<PathBuf> = Arc::new(path.to_path_buf());
        // Without a slash at the end, which would have a link followed.
        match std::path::absolute(path) {
            Ok(absolute) => Ok(Self { shown, path: absolute.components().collect() }),
            Err(_) => Err(Error::new(&shown, Reason::BadArgument("the name of the directory is empty; give its path"))),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn shown(&self) -> &Arc<PathBuf> {
        &self.shown
    }

    pub(super) fn error(&self, reason: Reason) -> Error {
        Error::new(&self.shown, reason)
    }

    pub(super) fn failed(&self, doing: &'static str) -> impl Fn(Errno) -> Error {
        move |errno| self.error(Reason::System { doing, errno })
    }
}

/// A directory, open.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) name: DirectoryName,
    pub(super) facts: Facts,
    pub(super) access: Access,
    /// The effective user of the process when it opened the directory.
    opened_by: u32,
    /// `None` only while it is dropped.
    file: Option<File>,
}

impl Directory {
    pub(super) fn open(name: &DirectoryName, access: Access) -> Result<Self> {
        let (file, opener) = directory::open_as_owner(&name.path).map_err(|errno| match errno.0 {
            libc::ENOENT => name.error(Reason::NotFound),
            libc::ENOTDIR if Facts::of_path(&name.path).is_ok_and(|facts| facts.is_link) => {
                name.error(Reason::SymbolicLink)
            }
            _ => name.error(Reason::System { doing: "opening the directory", errno }),
        })?;
        let facts = Facts::of(&file).map_err(name.failed("fstat"))?;
        if access == Access::Use
            && let Err((owner, caller)) = facts.check_owner(opener)
        {
            return Err(name.error(Reason::NotTrusted { owner, caller }));
        }
        if let FileSystem::Network(magic) = file::file_system_of(&file).map_err(name.failed("statfs"))? {
            return Err(name.error(Reason::NetworkFileSystem { magic }));
        }
        Ok(Self { name: name.clone(), facts, access, opened_by: effective_user(), file: Some(file) })
    }

    /// Runs `body` with the directory's descriptor: the one that was opened, or, if the program closed that (closefrom),
    /// another one of the same directory.
    fn with_descriptor<T>(&self, body: impl FnOnce(&File) -> T) -> Found<T> {
        if let Some(file) = &self.file
            && Facts::of(file).is_ok_and(|facts| facts.is_same_file(&self.facts))
        {
            return Ok(body(file));
        }
        let again = directory::open(&self.name.path).map_err(|errno| match errno.0 {
            libc::ENOENT | libc::ENOTDIR => Reason::Removed,
            _ => Reason::System { doing: "opening the directory again", errno },
        })?;
        match Facts::of(&again) {
            Ok(facts) if facts.is_same_file(&self.facts) => Ok(body(&again)),
            _ => Err(Reason::Removed),
        }
    }

    /// Whether the process has the rights with which it opened the directory.
    pub(super) fn is_opener(&self) -> bool {
        effective_user() == self.opened_by
    }

    /// When a name in the directory changed last, by one system call; `None` where more is to be looked at.
    pub(super) fn changed_last(&self) -> Option<u64> {
        let facts = self.file.as_ref().and_then(|file| Facts::of(file).ok())?;
        (facts.is_same_file(&self.facts) && facts.links > 0).then_some(facts.changed)
    }

    /// Whether the directory has lost its name.
    pub(super) fn is_removed(&self) -> bool {
        let links = self.with_descriptor(|file| Facts::of(file).map(|facts| facts.links));
        matches!(links, Err(Reason::Removed) | Ok(Ok(0)))
    }

    /// Where the locks' words are.
    pub(super) fn table_path(&self) -> PathBuf {
        self.name.path.join(TABLE)
    }

    /// Opens the file of an id, to lock it. `None`: there is none.
    pub(super) fn open_id(&self, id: u32) -> Found<Option<(File, Facts)>> {
        let name = IdName::new(id);
        let opened = self.with_descriptor(|directory| directory::open_at(directory, name.as_str()))?;
        match opened {
            Ok(file) => {
                let facts = Facts::of(&file).map_err(|errno| Reason::System { doing: "fstat", errno })?;
                if facts.is_regular { Ok(Some((file, facts))) } else { Err(stray(id)) }
            }
            Err(Errno(libc::ENOENT)) => Ok(None),
            Err(Errno(libc::ELOOP)) => Err(Reason::StrayFile { name: id.to_string(), is_link: true }),
            // Directories, sockets, devices: whatever they are, they are no locks.
            Err(Errno(libc::EISDIR | libc::ENXIO)) => Err(stray(id)),
            // The process has given up its rights since, so that it cannot know; nor could it lock beside libpod.
            Err(Errno(libc::EACCES)) if !self.is_opener() => Ok(None),
            Err(errno) => Err(Reason::System { doing: "opening a file of the directory", errno }),
        }
    }

    /// What the file of an id is. `None`: there is none.
    pub(super) fn facts_of_id(&self, id: u32) -> Found<Option<Facts>> {
        let name = IdName::new(id);
        match self.with_descriptor(|directory| directory::facts_at(directory, name.as_str()))? {
            Ok(facts) if facts.is_regular => Ok(Some(facts)),
            Ok(_) | Err(Errno(libc::ENOENT)) => Ok(None),
            Err(errno) => Err(Reason::System { doing: "looking at a file of the directory", errno }),
        }
    }

    /// Makes the file of an id; `false`: there is one.
    pub(super) fn make_id(&self, id: u32) -> Found<bool> {
        let name = IdName::new(id);
        match self.with_descriptor(|directory| directory::make_at(directory, name.as_str(), ID_MODE))? {
            Ok(()) => Ok(true),
            Err(Errno(libc::EEXIST)) => Ok(false),
            Err(Errno(libc::ENOENT)) if self.is_removed() => Err(Reason::Removed),
            Err(errno) => Err(Reason::System { doing: "making a file of the directory", errno }),
        }
    }

    /// Removes the file of an id; `false`: there was none.
    pub(super) fn remove_id(&self, id: u32) -> Found<bool> {
        self.remove_file(IdName::new(id).as_str())
    }

    /// Removes a file of the directory; `false`: there was none, or it is a directory, which no lock is.
    pub(super) fn remove_file(&self, name: &str) -> Found<bool> {
        match self.with_descriptor(|directory| directory::remove_at(directory, name))? {
            Ok(()) => Ok(true),
            Err(Errno(libc::ENOENT)) if self.is_removed() => Err(Reason::Removed),
            Err(Errno(libc::ENOENT | libc::EISDIR)) => Ok(false),
            Err(errno) => Err(Reason::System { doing: "removing a file of the directory", errno }),
        }
    }

    /// What is in the directory.
    pub(super) fn contents(&self) -> Found<Contents> {
        let mut contents = Contents::default();
        let listed = self.with_descriptor(|directory| {
            directory::for_each_name(directory, |name| match id_named(name) {
                Some(id) => contents.ids.push(id),
                None if name == TABLE.as_bytes() => contents.has_table = true,
                None => contents.has_others = true,
            })
        })?;
        listed.map_err(|errno| Reason::System { doing: "reading the directory", errno })?;
        Ok(contents)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // If the program closed the descriptor, its number may be a file of the program's by now.
        if let Some(file) = self.file.take()
            && !Facts::of(&file).is_ok_and(|facts| facts.is_same_file(&self.facts))
        {
            let _not_ours = file.into_raw_fd();
        }
    }
}

fn stray(id: u32) -> Reason {
    Reason::StrayFile { name: id.to_string(), is_link: false }
}

/// The name of an id's file, on the stack: a lock call looks it up.
struct IdName {
    digits: [u8; Self::MOST],
    start: usize,
}

impl IdName {
    const MOST: usize = 10;

    fn new(id: u32) -> Self {
        let (mut digits, mut start, mut rest) = ([0; Self::MOST], Self::MOST, id);
        loop {
            start -= 1;
            digits[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                return Self { digits, start };
            }
        }
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.digits[self.start..]).unwrap_or_default()
    }
}

/// What a directory contains.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// The allocated ids, in no order.
    pub(super) ids: Vec<u32>,
    pub(super) has_table: bool,
    /// Whether there are names that are neither ids nor the table's.
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
