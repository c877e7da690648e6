// SPDX-License-Identifier: MIT OR Apache-2.0
//! Directories by descriptor: what is opened, made and removed in one stays in it, whatever its name becomes.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::path::Path;

use super::Errno;
use super::file::{self, Facts, Opener};

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
    let flags = libc::O_RDWR | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    file::open_above_standard(directory.as_raw_fd(), name.as_bytes(), flags)
}

/// Makes a regular file of the directory, without opening it: to close it would drop what locks this process has on it.
pub(crate) fn make_at(directory: &File, name: &str, mode: u32) -> Result<(), Errno> {
    file::with_c_string(name.as_bytes(), |name| {
        // SAFETY: mknodat(2) reads the name, which lives past the call.
        match unsafe { libc::mknodat(directory.as_raw_fd(), name, libc::S_IFREG | mode, 0) } {
            0 => Ok(()),
            _ => Err(Errno::last()),
        }
    })?
}

/// What a name in the directory is of, without following a link or opening it.
pub(crate) fn facts_at(directory: &File, name: &str) -> Result<Facts, Errno> {
    Facts::at(directory, name.as_bytes())
}

/// Removes a file of the directory.
pub(crate) fn remove_at(directory: &File, name: &str) -> Result<(), Errno> {
    // SAFETY: unlinkat(2) reads the name, which lives past the call.
    file::with_c_string(name.as_bytes(), |name| match unsafe { libc::unlinkat(directory.as_raw_fd(), name, 0) } {
        0 => Ok(()),
        _ => Err(Errno::last()),
    })?
}

/// Calls `see` with each name in the directory, but for "." and "..".
pub(crate) fn for_each_name(directory: &File, mut see: impl FnMut(&[u8])) -> Result<(), Errno> {
    // A description of its own: a position in the directory is shared by all who share the description.
    let own = open_self(directory)?;
    // SAFETY: fdopendir(3) takes the descriptor over if it succeeds; closedir(3) below closes it with the stream.
    let stream = unsafe { libc::fdopendir(own.as_raw_fd()) };
    if stream.is_null() {
        return Err(Errno::last());
    }
    let _taken_over = own.into_raw_fd();
    let ended = loop {
        // SAFETY: readdir(3) on a stream that nobody else uses; the entry is valid until the next call on it. A null
        // with errno unchanged is the end.
        let name = unsafe {
            *libc::__errno_location() = 0;
            let entry = libc::readdir(stream);
            if entry.is_null() {
                break Errno::last();
            }
            CStr::from_ptr((*entry).d_name.as_ptr())
        };
        if !matches!(name.to_bytes(), b"." | b"..") {
            see(name.to_bytes());
        }
    };
    // SAFETY: the stream was opened above and is used no more.
    unsafe { libc::closedir(stream) };
    if ended.0 == 0 { Ok(()) } else { Err(ended) }
}

fn open_self(directory: &File) -> Result<File, Errno> {
    file::open_at(directory.as_raw_fd(), b".", libc::O_RDONLY | libc::O_DIRECTORY)
}
