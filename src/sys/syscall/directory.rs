// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opening, creating and removing files in an open directory. The directory's name does not matter.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

use crate::sys::Errno;
use crate::sys::descriptor::GuardedFd;
use crate::sys::syscall::file::{self, Access, Metadata, Opener};

const ITSELF: libc::c_int = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;

/// Opens a directory. `ENOTDIR`: a symbolic link, or anything else that is not a directory.
pub(crate) fn open(path: &Path) -> Result<File, Errno> {
    file::open_with(path, ITSELF)
}

/// The same, and says whether the caller is its owner.
pub(crate) fn open_as_owner(path: &Path) -> Result<(File, Opener), Errno> {
    file::as_owner(|flags| file::open_with(path, ITSELF | flags))
}

/// Opens a file of the directory for reading and writing, without following a link or waiting for a FIFO.
pub(crate) fn open_at(directory: &File, name: &str) -> Result<File, Errno> {
    file::open_above_standard(directory.as_raw_fd(), name.as_bytes(), file::unfollowed(Access::ReadWrite))
}

/// Creates a regular file in the directory without opening it: closing it would drop this process's locks on it.
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
    // A description of its own, because a description has one position for all its users.
    let own = file::open_at(directory.as_raw_fd(), b".", libc::O_RDONLY | libc::O_DIRECTORY)?;
    let own = GuardedFd::of(own, metadata.id())?;
    let listed = for_each_entry(own.as_raw_fd(), |name| {
        if !matches!(name.to_bytes(), b"." | b"..") {
            see(name.to_bytes());
        }
    });
    match listed {
        _ if !own.close() => Err(Errno(libc::EBADF)),
        // The directory was removed, so it is empty.
        Err(Errno(libc::ENOENT)) => Ok(()),
        listed => listed,
    }
}

/// Calls `show` with each name in a directory, by a descriptor that has read nothing yet. The names count only if the number
/// was of the directory to the end, which the caller checks.
pub(in crate::sys) fn for_each_entry(directory: RawFd, mut show: impl FnMut(&CStr)) -> Result<(), Errno> {
    /// A linux_dirent64: inode, offset, length of the entry, kind, name.
    const LENGTH_AT: usize = 16;
    const NAME_AT: usize = 19;
    const BUFFER: usize = 4096;
    #[repr(align(8))]
    struct Entries([u8; BUFFER]);
    let mut entries = Entries([0; BUFFER]);
    loop {
        // SAFETY: getdents64(2) writes at most as many bytes as the buffer has, and says how many.
        let count = unsafe { libc::syscall(libc::SYS_getdents64, directory, entries.0.as_mut_ptr(), BUFFER) };
        let mut rest = match usize::try_from(count) {
            Ok(0) => return Ok(()),
            Ok(count) => entries.0.get(..count).unwrap_or_default(),
            Err(_) => return Err(Errno::last()),
        };
        while let Some(length) = rest.get(LENGTH_AT..).and_then(|bytes| bytes.first_chunk()) {
            let entry = rest.split_at_checked(u16::from_ne_bytes(*length).into());
            let (entry, others) = entry.ok_or(Errno(libc::EIO))?;
            let name = CStr::from_bytes_until_nul(entry.get(NAME_AT..).unwrap_or_default());
            show(name.map_err(|_| Errno(libc::EIO))?);
            rest = others;
        }
    }
}
