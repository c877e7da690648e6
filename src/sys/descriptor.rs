// SPDX-License-Identifier: MIT OR Apache-2.0
//! File descriptors that the program may close under the library.
//!
//! # What the platform does
//!
//! A descriptor is a number in a table that the whole process shares. A program may close numbers that it never opened:
//! daemons and launchers call closefrom(3) or close_range(2), at any time and from any thread. The kernel gives a closed
//! number to the next file that the program opens, and tells nobody.
//!
//! # What goes wrong
//!
//! After such a call, a number that the library has kept is closed, or it is the number of one of the program's files. Then
//!
//! - a read, or a question such as F_OFD_GETLK, is answered about another file: "nobody has a lock there" would make every
//!   live holder look dead;
//! - a write, a lock or fallocate(2) changes the program's file, and close(2) closes it. Dropping a [`File`] is worse: if
//!   its number is closed, the standard library may abort the process;
//! - the record locks of the closed description are gone, including the one that shows that this process lives.
//!
//! # The defence
//!
//! 1. A number never comes without the identity of its file, which is device and inode: [`CheckedFd`].
//! 2. *An answer counts only if the number was of the file afterwards. A change is made only if it was of the file before.*
//! 3. A number is closed only while it is of its file. Otherwise it is forgotten: it is the program's.
//! 4. A file that is needed for long is opened again when its descriptor is lost, and what was opened must be the same file:
//!    [`GuardedFile`].
//! 5. What must survive has no descriptor at all. A segment is a mapping, and so is the lock that shows that this process
//!    lives: [`Pinned`].
//! 6. The program may take the number even between open(2) and the first fstat(2). So each file that is opened here has a
//!    mark that hardly any file of a program has: it is a regular file opened with O_NONBLOCK; or it is empty and has the
//!    expected number of links; or, in /proc, it is opened read only and with O_APPEND. See [`GuardedFd::opened`], [`GuardedFd::created`] and
//!    [`proc_file`](super::liveness::proc_file).
//! 7. The library never keeps numbers 0, 1 and 2: a program writes to them without asking what is there. See [`standard_fds`].
//!
//! | type | for | when the number is lost |
//! | --- | --- | --- |
//! | [`CheckedFd`] | one step: a number from a table, and what it must be of | forgotten |
//! | [`GuardedFd`] | one call; closes itself | forgotten |
//! | [`GuardedFile`] | as long as a segment or directory is open | opened again |
//! | [`Pinned`] | a record lock, for the life of the process | cannot be lost, except on overlayfs |
//!
//! # What it cannot do
//!
//! - The kernel has no close, fallocate, fchmod or linkat "if it still is that file". If one thread closes all descriptors
//!   and another opens a file between the check and the call, the call meets that file.
//! - If the program opens the same file under the same number, the number passes for ours. So a descriptor is mapped only
//!   if the contents tell what the file is.
//! - The kernel may give the device and inode numbers to another file once nothing keeps the file alive. The mapping of a
//!   segment keeps its file alive.
//!
//! `docs/caveats.md` tells programs what remains for them to do.

mod guarded_file;
mod pinned;
pub(crate) mod record_lock;
pub(in crate::sys) mod standard_fds;

use std::fs::File;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

use crate::sys::Errno;
use crate::sys::syscall::file::{self, FileId, Metadata};

pub(crate) use guarded_file::GuardedFile;
pub(crate) use pinned::Pinned;

/// A descriptor's number, and the file that it must be of. Dropping it closes nothing.
#[derive(Debug)]
pub(crate) struct CheckedFd {
    file: ManuallyDrop<File>,
    id: FileId,
}

impl CheckedFd {
    /// Takes a number that may be closed, or another file's, by now.
    #[inline]
    pub(crate) fn new(number: RawFd, id: FileId) -> Self {
        // A number is never negative, and the mask shows that to the compiler. Without it the compiler would keep the panic
        // of a File of -1, and the fast path of a directory's lock must not contain a panic.
        let number = number & RawFd::MAX;
        // SAFETY: the File is never dropped, and its owner knows that the number may be anybody's.
        Self { file: ManuallyDrop::new(unsafe { File::from_raw_fd(number) }), id }
    }

    /// The file's present metadata, if the number still is of the file.
    pub(crate) fn metadata(&self) -> Option<Metadata> {
        Metadata::of(&self.file).ok().filter(|metadata| metadata.id() == self.id)
    }

    /// Whether the number still is of the file.
    pub(crate) fn is_intact(&self) -> bool {
        self.metadata().is_some()
    }

    /// Closes the number if it still is of the file, and returns whether it was. The caller does not use it again.
    pub(crate) fn close_if_intact(&self) -> bool {
        let is_intact = self.is_intact();
        if is_intact {
            // SAFETY: close(2) of a number that was opened by this library, as far as can be told, and is not used again.
            unsafe { libc::close(self.file.as_raw_fd()) };
        }
        is_intact
    }
}

/// The file for a system call. The answer counts only if the number [`is_intact`](CheckedFd::is_intact) afterwards.
impl Deref for CheckedFd {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

/// A descriptor for the time of a call. It closes itself when it is dropped, if it still is of its file.
#[derive(Debug)]
pub(crate) struct GuardedFd {
    fd: CheckedFd,
    metadata: Metadata,
}

impl GuardedFd {
    /// Guards what [`file::open`] has just opened. `EBADF`: the number is another file's already.
    pub(crate) fn opened(file: File) -> Result<Self, Errno> {
        Self::new_if(file, |file, _| file::is_by_open(file))
    }

    /// Guards a file that was created just now: it is empty and has `links` names. `EBADF`: as above.
    pub(crate) fn created(file: File, links: u64) -> Result<Self, Errno> {
        Self::new_if(file, |_, metadata| Ok(metadata.size == 0 && metadata.links == links))
    }

    /// Guards what was opened just now, and must be that file. `EBADF`: as above.
    pub(in crate::sys) fn of(file: File, id: FileId) -> Result<Self, Errno> {
        Self::new_if(file, |_, metadata| Ok(metadata.id() == id))
    }

    fn new_if(file: File, is_ours: impl FnOnce(&File, &Metadata) -> Result<bool, Errno>) -> Result<Self, Errno> {
        // If the number is another file's by now, it must not be closed.
        let file = ManuallyDrop::new(file);
        let metadata = Metadata::of(&file)?;
        if is_ours(&file, &metadata)? { Ok(Self::new(file, metadata)) } else { Err(Errno(libc::EBADF)) }
    }

    fn new(file: ManuallyDrop<File>, metadata: Metadata) -> Self {
        Self { fd: CheckedFd { file, id: metadata.id() }, metadata }
    }

    /// What the file was when it was opened.
    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Closes it, and says whether the number was of the file to the end.
    pub(crate) fn close(self) -> bool {
        ManuallyDrop::new(self).fd.close_if_intact()
    }

    /// The file, for an owner that keeps it longer.
    pub(crate) fn into_file(self) -> File {
        let mut whole = ManuallyDrop::new(self);
        // SAFETY: taken once: what it is taken from is not used or dropped after this.
        unsafe { ManuallyDrop::take(&mut whole.fd.file) }
    }
}

impl Deref for GuardedFd {
    type Target = CheckedFd;

    fn deref(&self) -> &CheckedFd {
        &self.fd
    }
}

impl Drop for GuardedFd {
    fn drop(&mut self) {
        self.fd.close_if_intact();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn a_file_of_the_programs_that_has_the_number_stays_open() {
        let path = PathBuf::from(format!("/dev/shm/lock_manager-number-{}", std::process::id()));
        // With a name and contents, opened as programs do.
        std::fs::write(&path, "program").unwrap();
        for take in [GuardedFd::opened, |file| GuardedFd::created(file, 0), |file| GuardedFd::created(file, 1)] {
            let program = File::open(&path).unwrap();
            let fd = CheckedFd::new(program.as_raw_fd(), Metadata::of(&program).unwrap().id());
            assert_eq!(take(program).unwrap_err(), Errno(libc::EBADF));
            assert!(fd.close_if_intact() && !fd.close_if_intact());
        }
        std::fs::remove_file(&path).unwrap();
    }
}
