// SPDX-License-Identifier: MIT OR Apache-2.0
//! Record locks. Those of an open file description (F_OFD_SETLK) conflict with those of every other description and with
//! those of processes, and end with the description. Those of a process (F_SETLK) are what libpod takes.

use std::fs::File;
use std::os::fd::AsRawFd;

use crate::sys::Errno;
use crate::sys::syscall::large;

/// A range of bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    start: u64,
    /// 0: to the end, however far the file grows.
    length: u64,
}

impl Range {
    /// The whole file.
    pub(crate) const WHOLE: Self = Self { start: 0, length: 0 };

    /// From `start` up to but not including `end`.
    pub(crate) fn between(start: u64, end: u64) -> Self {
        Self { start, length: end - start }
    }

    pub(crate) fn start(self) -> u64 {
        self.start
    }

    fn to_libc(self, kind: libc::c_int) -> Result<large::flock, Errno> {
        // SAFETY: all-zero bytes are a valid flock, whose fields are set below.
        let mut lock: large::flock = unsafe { std::mem::zeroed() };
        lock.l_type = kind as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        lock.l_start = large::off_t::try_from(self.start).map_err(|_| Errno(libc::EINVAL))?;
        lock.l_len = large::off_t::try_from(self.length).map_err(|_| Errno(libc::EINVAL))?;
        Ok(lock)
    }
}

/// The result of an attempt to lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    Taken,
    /// Another description, or another process, has it.
    Held,
}

/// Takes a write lock if no other description or process has a lock there; never waits.
pub(crate) fn try_lock(file: &File, range: Range) -> Result<Attempt, Errno> {
    take(file, large::F_OFD_SETLK, libc::F_WRLCK, range)
}

/// Releases every lock of the file's description, even if other processes have that description open.
pub(crate) fn unlock_all(file: &File) -> Result<(), Errno> {
    control(file, large::F_OFD_SETLK, &mut Range::WHOLE.to_libc(libc::F_UNLCK)?)
}

/// Takes a write lock on the whole file for this process (POSIX's F_SETLK) if no other process and no description has a
/// lock; never waits. It ends with the process, passes to no child, and *any* close(2) of the file by this process drops it.
pub(crate) fn try_lock_for_process(file: &File) -> Result<Attempt, Errno> {
    take(file, large::F_SETLK, libc::F_WRLCK, Range::WHOLE)
}

/// The same with a read lock, which other processes may have, too. All threads of this process share it, and a write lock
/// that the process had becomes this one.
pub(crate) fn try_share_for_process(file: &File) -> Result<Attempt, Errno> {
    take(file, large::F_SETLK, libc::F_RDLCK, Range::WHOLE)
}

/// Releases this process's lock.
pub(crate) fn unlock_for_process(file: &File) -> Result<(), Errno> {
    control(file, large::F_SETLK, &mut Range::WHOLE.to_libc(libc::F_UNLCK)?)
}

/// Whether another description or process has a write lock there. A read lock does not count.
pub(crate) fn is_write_locked(file: &File, range: Range) -> Result<bool, Errno> {
    let mut lock = range.to_libc(libc::F_RDLCK)?;
    control(file, large::F_OFD_GETLK, &mut lock)?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

fn take(file: &File, command: libc::c_int, kind: libc::c_int, range: Range) -> Result<Attempt, Errno> {
    match control(file, command, &mut range.to_libc(kind)?) {
        Ok(()) => Ok(Attempt::Taken),
        Err(Errno(libc::EAGAIN | libc::EACCES)) => Ok(Attempt::Held),
        Err(errno) => Err(errno),
    }
}

fn control(file: &File, command: libc::c_int, lock: &mut large::flock) -> Result<(), Errno> {
    // SAFETY: fcntl(2) reads and writes the flock, which lives past the call.
    Errno::check(unsafe { large::fcntl(file.as_raw_fd(), command, std::ptr::from_mut(lock)) })?;
    Ok(())
}
