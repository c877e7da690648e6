// SPDX-License-Identifier: MIT OR Apache-2.0
//! Directories by descriptor: what is opened, made and removed in one stays in it, whatever its name becomes.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use crate::sys::Errno;
use crate::sys::descriptor::GuardedFd;
use crate::sys::liveness::proc_file;
use crate::sys::syscall::file::{self, Access, Metadata, Opener};

const ITSELF: libc::c_int = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;

/// Opens a directory itself: a symbolic link is ENOTDIR, as is everything else.
pub(crate) fn open(path: &Path) -> Result<File, Errno> {
    file::open_with(path, ITSELF)
}

/// The same, and says whether its owner is the caller.
pub(crate) fn open_as_owner(path: &Path) -> Result<(File, Opener), Errno> {
    file::as_owner(|flags| file::open_with(path, ITSELF | flags))
}

/// Opens a file of the directory for reading and writing, without following a link or waiting for a FIFO.
pub(crate) fn open_at(directory: &File, name: &str) -> Result<File, Errno> {
    file::open_above_standard(directory.as_raw_fd(), name.as_bytes(), file::unfollowed(Access::ReadWrite))
}

/// Makes a regular file of the directory, without opening it: to close it would drop what locks this process has on it.
pub(crate) fn make_at(directory: &File, name: &str, mode: u32) -> Result<(), Errno> {
    // SAFETY: mknodat(2) reads the name, which lives past the call.
    let make = |name| Errno::check(unsafe { libc::mknodat(directory.as_raw_fd(), name, libc::S_IFREG | mode, 0) });
    file::with_c_string(name.as_bytes(), make)?.map(drop)
}

/// Removes a file of the directory.
pub(crate) fn remove_at(directory: &File, name: &str) -> Result<(), Errno> {
    // SAFETY: unlinkat(2) reads the name, which lives past the call.
    let remove = |name| Errno::check(unsafe { libc::unlinkat(directory.as_raw_fd(), name, 0) });
    file::with_c_string(name.as_bytes(), remove)?.map(drop)
}

/// Calls `see` with each name in the directory, but for "." and "..".
pub(crate) fn for_each_name(directory: &File, mut see: impl FnMut(&[u8])) -> Result<(), Errno> {
    let metadata = Metadata::of(directory)?;
    // A description of its own: a position in the directory is shared by all who share the description.
    let own = file::open_at(directory.as_raw_fd(), b".", libc::O_RDONLY | libc::O_DIRECTORY)?;
    let own = GuardedFd::of(own, metadata.id())?;
    let listed = proc_file::for_each_entry(own.as_raw_fd(), |name| {
        if !matches!(name.to_bytes(), b"." | b"..") {
            see(name.to_bytes());
        }
    });
    match listed {
        _ if !own.close() => Err(Errno(libc::EBADF)),
        // The directory was removed, with all that was in it.
        Err(Errno(libc::ENOENT)) => Ok(()),
        listed => listed,
    }
}
