// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The directory that the locks are in: found without following a link, trusted by its owner, and the same one for
//! good, whatever its name comes to mean.

use std::fs::File;
use std::os::fd::IntoRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::sys::Errno;
use crate::sys::directory::{self, Making};
use crate::sys::file::{self, Access, Facts, FileSystem};
use crate::sys::pinned::{Pinned, Pinning};
use crate::{Error, Reason, Result};

use super::record::TABLE;

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
    pinning: Pinning,
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
        let overlay = file::is_on_overlay(&file).map_err(name.failed("statfs"))?;
        let pinning = if overlay { Pinning::ByDescriptor } else { Pinning::ByMapping };
        Ok(Self { name: name.clone(), facts, access, pinning, file: Some(file) })
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

    /// Whether the directory has lost its name.
    pub(super) fn is_removed(&self) -> bool {
        let links = self.with_descriptor(|file| Facts::of(file).map(|facts| facts.links));
        matches!(links, Err(Reason::Removed) | Ok(Ok(0)))
    }

    /// Opens a file of the directory. `None`: there is none, or with [`Making::Exclusively`] there is one. Whether it is
    /// a regular one is for [`facts`] to say.
    pub(super) fn open_file(&self, name: &str, making: Making) -> Found<Option<File>> {
        let making = if self.access == Access::Look { Making::NeverToLook } else { making };
        match self.with_descriptor(|directory| directory::open_at(directory, name, making))? {
            Ok(file) => Ok(Some(file)),
            Err(Errno(libc::EEXIST)) if making == Making::Exclusively => Ok(None),
            Err(Errno(libc::ENOENT)) if self.is_removed() => Err(Reason::Removed),
            Err(Errno(libc::ENOENT)) if matches!(making, Making::Never | Making::NeverToLook) => Ok(None),
            Err(Errno(libc::ELOOP)) => Err(Reason::StrayFile { name: name.to_owned(), is_link: true }),
            // Directories, sockets, devices: whatever they are, they are no locks.
            Err(Errno(libc::EISDIR | libc::ENXIO)) => Err(stray(name)),
            Err(errno) => Err(Reason::System { doing: "opening a file of the directory", errno }),
        }
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

    /// Keeps the locks that `file`'s description holds for as long as the answer lives.
    pub(super) fn pin(&self, file: File) -> Found<Pinned> {
        Pinned::new(file, self.pinning)
            .map_err(|errno| Reason::System { doing: "mapping a file that keeps a lock", errno })
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

fn stray(name: &str) -> Reason {
    Reason::StrayFile { name: name.to_owned(), is_link: false }
}

/// What fstat says of the file of that name, which must be a regular one.
pub(super) fn facts(file: &File, name: &str) -> Found<Facts> {
    match Facts::of(file) {
        Ok(facts) if facts.is_regular => Ok(facts),
        Ok(_) => Err(stray(name)),
        Err(errno) => Err(Reason::System { doing: "fstat", errno }),
    }
}

/// What the pieces of the file manager return: they leave it to the manager to name the storage.
pub(super) type Found<T> = std::result::Result<T, Reason>;

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
    if is_plain { str::from_utf8(name).ok()?.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_decimal_numbers_below_2_to_the_32_are_ids() {
        assert_eq!([b"0".as_slice(), b"17", b"4294967295"].map(id_named), [Some(0), Some(17), Some(u32::MAX)]);
        for name in ["", "00", "007", "+1", "-1", "1 ", "4294967296", "x", ".lock_manager", "1.tmp"] {
            assert_eq!(id_named(name.as_bytes()), None, "{name:?}");
        }
    }
}
