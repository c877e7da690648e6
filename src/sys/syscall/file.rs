// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files: opened without following links or waiting, made whole before they get their name.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::sys::Errno;
use crate::sys::descriptor::standard_fds;
use crate::sys::process::effective_user;
use crate::sys::syscall::mapping;

pub(crate) use crate::sys::syscall::file_system::{FileSystem, file_system_of, is_on_overlay, write_in_place};

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reading and writing.
    ReadWrite,
    /// Reading only.
    ReadOnly,
}

/// Which file it is, among all that there are at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// What fstat(2) says of an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) owner: u32,
    pub(crate) size: u64,
    pub(crate) links: u64,
    /// When the file, or a name in a directory, changed last (st_ctime): nanoseconds since 1970, modulo 2^64.
    pub(crate) changed: u64,
    pub(crate) is_regular: bool,
    pub(crate) is_link: bool,
}

impl Metadata {
    /// By fstat(2) itself: it is asked often, and costs a process's first call less than `File::metadata`. With a frame of its
    /// own: in one of its callers', what a wait left on the stack could go unnoticed.
    #[inline(never)]
    pub(crate) fn of(file: &File) -> Result<Self, Errno> {
        // SAFETY: fstat(2) fills the struct it is given when it returns 0.
        unsafe { Errno::filled_by(|metadata| libc::fstat(file.as_raw_fd(), metadata)) }.map(Self::from)
    }

    /// Of what a path names now, without following a link.
    pub(crate) fn of_path(path: &Path) -> Result<Self, Errno> {
        Self::told(libc::AT_FDCWD, bytes_of(path), libc::AT_SYMLINK_NOFOLLOW)
    }

    /// Of what a name in a directory is of now, without following a link.
    pub(crate) fn at(directory: &File, name: &str) -> Result<Self, Errno> {
        Self::told(directory.as_raw_fd(), name.as_bytes(), libc::AT_SYMLINK_NOFOLLOW)
    }

    /// Of what a path names now, through whatever links.
    pub(in crate::sys) fn of_path_followed(path: &[u8]) -> Result<Self, Errno> {
        Self::told(libc::AT_FDCWD, path, 0)
    }

    fn told(directory: RawFd, path: &[u8], flags: libc::c_int) -> Result<Self, Errno> {
        // SAFETY: fstatat(2) reads the path and fills the struct it is given when it returns 0.
        let tell = |path| unsafe { Errno::filled_by(|metadata| libc::fstatat(directory, path, metadata, flags)) };
        with_c_string(path, tell)?.map(Self::from)
    }

    /// Whether the calling process, which opened the file, may rely on what is in it: it is its own, or root's. If not, the
    /// numbers of its owner and of the caller.
    pub(crate) fn check_owner(&self, opener: Opener) -> Result<(), (u32, u32)> {
        if self.owner == 0 {
            return Ok(());
        }
        let caller = effective_user();
        if self.owner == caller && opener == Opener::Owner { Ok(()) } else { Err((self.owner, caller)) }
    }

    /// Which file it is.
    #[inline]
    pub(crate) fn id(&self) -> FileId {
        FileId { device: self.device, inode: self.inode }
    }
}

impl From<libc::stat> for Metadata {
    #[allow(clippy::unnecessary_cast, reason = "the number of links is narrower on some processors")]
    fn from(metadata: libc::stat) -> Self {
        Self {
            device: metadata.st_dev,
            inode: metadata.st_ino,
            owner: metadata.st_uid,
            size: metadata.st_size as u64,
            links: metadata.st_nlink as u64,
            changed: (metadata.st_ctime as u64).wrapping_mul(1_000_000_000).wrapping_add(metadata.st_ctime_nsec as u64),
            is_regular: metadata.st_mode & libc::S_IFMT == libc::S_IFREG,
            is_link: metadata.st_mode & libc::S_IFMT == libc::S_IFLNK,
        }
    }
}

fn bytes_of(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// Calls with a path as C has it, on the stack: through std it would cost a process's first call two more pages of code.
/// What the call has to say of errno it says itself.
pub(in crate::sys) fn with_c_string<T>(bytes: &[u8], call: impl FnOnce(*const libc::c_char) -> T) -> Result<T, Errno> {
    const SHORT: usize = 256;
    if bytes.len() >= SHORT {
        let long = CString::new(bytes).map_err(|_| Errno(libc::EINVAL))?;
        return Ok(call(long.as_ptr()));
    }
    if bytes.contains(&0) {
        return Err(Errno(libc::EINVAL));
    }
    let mut buffer = [0u8; SHORT];
    buffer[..bytes.len()].copy_from_slice(bytes);
    Ok(call(buffer.as_ptr().cast()))
}

/// Opens a file as openat(2) does, not to be inherited by what is executed.
pub(super) fn open_at(directory: RawFd, path: &[u8], flags: libc::c_int) -> Result<File, Errno> {
    const MODE: libc::c_uint = 0o600;
    let open = |path| loop {
        // SAFETY: openat(2) reads the path.
        match unsafe { libc::openat(directory, path, flags | libc::O_CLOEXEC, MODE) } {
            -1 if Errno::last().0 == libc::EINTR => {}
            -1 => return Err(Errno::last()),
            // SAFETY: the number is this call's own.
            number => return Ok(unsafe { File::from_raw_fd(number) }),
        }
    };
    with_c_string(path, open)?
}

/// The same, for what is not to be written to by mistake: by a number above those of the standard files.
pub(super) fn open_above_standard(directory: RawFd, path: &[u8], flags: libc::c_int) -> Result<File, Errno> {
    let _placeholders = standard_fds::Placeholders::open()?;
    let opened = open_at(directory, path, flags)?;
    // Where the program has closed one since. What was made there is made, so an error would come too late.
    match standard_fds::move_away(&opened) {
        Ok(moved) => Ok(moved.unwrap_or(opened)),
        Err(_) if flags & libc::O_EXCL != 0 => Ok(opened),
        Err(errno) => Err(errno),
    }
}

/// The same by a path alone.
pub(super) fn open_with(path: &Path, flags: libc::c_int) -> Result<File, Errno> {
    open_above_standard(libc::AT_FDCWD, bytes_of(path), flags)
}

/// Without waiting for whoever else has the file.
fn at_once(access: Access) -> libc::c_int {
    let flag = match access {
        Access::ReadWrite => libc::O_RDWR,
        Access::ReadOnly => libc::O_RDONLY,
    };
    flag | libc::O_NONBLOCK | libc::O_NOCTTY
}

/// The same, of the file itself.
pub(super) fn unfollowed(access: Access) -> libc::c_int {
    at_once(access) | libc::O_NOFOLLOW
}

/// Opens an existing file. A symbolic link is ELOOP; a FIFO or device neither blocks nor becomes a terminal.
pub(crate) fn open(path: &Path, access: Access) -> Result<File, Errno> {
    open_with(path, unfollowed(access))
}

/// Who opened a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opener {
    /// The file's owner, or a process that may act for that user.
    Owner,
    Other,
}

/// As [`open`], and says whether the file's owner is the caller. That the owner reads as the caller's number does not say
/// so: in a user namespace each user that it does not know reads as the same one.
pub(crate) fn open_as_owner(path: &Path, access: Access) -> Result<(File, Opener), Errno> {
    as_owner(|flags| open_with(path, unfollowed(access) | flags))
}

/// Opens with flags that the kernel lets the owner alone have, or without.
pub(super) fn as_owner(open: impl Fn(libc::c_int) -> Result<File, Errno>) -> Result<(File, Opener), Errno> {
    match open(libc::O_NOATIME) {
        Err(Errno(libc::EPERM)) => Ok((open(0)?, Opener::Other)),
        opened => Ok((opened?, Opener::Owner)),
    }
}

/// Whether a file can have been opened by [`open`]: hardly anybody else has a regular file that does not block.
pub(in crate::sys) fn is_by_open(file: &File) -> Result<bool, Errno> {
    // SAFETY: fcntl(2) with this command touches no memory.
    Ok(Errno::check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) })? & libc::O_NONBLOCK != 0)
}

/// Opens an existing file through a link of /proc.
pub(in crate::sys) fn open_following(path: &Path, access: Access) -> Result<File, Errno> {
    open_with(path, at_once(access))
}

/// Makes a file without a name in `directory`; it vanishes with its last descriptor unless it is linked.
pub(crate) fn create_unnamed(directory: &Path) -> Result<File, Errno> {
    open_with(directory, libc::O_RDWR | libc::O_TMPFILE)
}

/// Makes a file in memory that has no name and is nobody else's. `name` is what /proc/PID/maps shows it as.
pub(crate) fn create_in_memory(name: &CStr) -> Result<File, Errno> {
    let _placeholders = standard_fds::Placeholders::open()?;
    // SAFETY: memfd_create(2) reads the name; the number that it returns is this call's own.
    unsafe { Ok(File::from_raw_fd(Errno::check(libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC))?)) }
}

/// Makes a file under a name that must not exist.
pub(crate) fn create_named(path: &Path) -> Result<File, Errno> {
    open_with(path, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW)
}

/// Gives an unnamed file its name; EEXIST if that is taken.
pub(crate) fn link_unnamed(file: &File, path: &Path) -> Result<(), Errno> {
    let link = |from, to| {
        // SAFETY: linkat(2) reads the two strings, which live past the call.
        Errno::check(unsafe { libc::linkat(libc::AT_FDCWD, from, libc::AT_FDCWD, to, libc::AT_SYMLINK_FOLLOW) })
    };
    let from = format!("/proc/thread-self/fd/{}", file.as_raw_fd());
    with_c_string(from.as_bytes(), |from| with_c_string(bytes_of(path), |to| link(from, to)))??.map(drop)
}

/// Reserves the bytes from `start` up to but not including `end`, so that no later touch is a SIGBUS, and makes the file
/// at least that long. What others write there meanwhile stays as it is, but for the last byte, which nobody may use: never
/// posix_fallocate(3), which writes zeros over it where the file system cannot reserve. `EOPNOTSUPP`: neither the file
/// system nor the kernel can.
pub(crate) fn reserve(file: &File, start: u64, end: u64) -> Result<(), Errno> {
    if start >= end {
        return Ok(());
    }
    // A touch needs room for all of its page that the file has, whose blocks may be smaller.
    let page = mapping::page_size();
    let (start, whole) = (start / page * page, end.next_multiple_of(page));
    let end = if whole == end { end } else { whole.min(Metadata::of(file)?.size).max(end) };
    // Past the limit the kernel would send SIGXFSZ, which ends the process, where the file had to become longer.
    if end > file_size_limit() && Metadata::of(file)?.size < end {
        return Err(Errno(libc::EFBIG));
    }
    let offset = libc::off_t::try_from(start).map_err(|_| Errno(libc::EFBIG))?;
    let length = libc::off_t::try_from(end).map_err(|_| Errno(libc::EFBIG))? - offset;
    loop {
        // SAFETY: fallocate(2) touches no memory.
        if unsafe { libc::fallocate(file.as_raw_fd(), 0, offset, length) } == 0 {
            return Ok(());
        }
        match Errno::last() {
            Errno(libc::EINTR) => {}
            Errno(libc::EOPNOTSUPP | libc::ENOSYS) => return reserve_by_touching(file, start, end),
            errno => return Err(errno),
        }
    }
}

/// The same on a file system without fallocate(2), such as ext3 or ramfs.
fn reserve_by_touching(file: &File, start: u64, end: u64) -> Result<(), Errno> {
    // Not by ftruncate(2): of two who make it longer, one could make it shorter again.
    if Metadata::of(file)?.size < end {
        // The file may have become shorter since that was asked.
        if end > file_size_limit() {
            return Err(Errno(libc::EFBIG));
        }
        file.write_all_at(&[0], end - 1)?;
    }
    mapping::populate(file, start, end)
}

/// Where the description stands in the file. `None`: the descriptor is of nothing that has such a place.
pub(crate) fn position(file: &File) -> Option<u64> {
    // SAFETY: lseek(2) touches no memory.
    u64::try_from(unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_CUR) }).ok()
}

/// Has the description stand somewhere, be it behind the file's end. `None`: the file system has no such place.
pub(crate) fn set_position(file: &File, position: u64) -> Option<u64> {
    let offset = libc::off_t::try_from(position).ok()?;
    // SAFETY: as above.
    u64::try_from(unsafe { libc::lseek(file.as_raw_fd(), offset, libc::SEEK_SET) }).ok()
}

/// The first stretch of a file, from a place on, that anybody has touched: the rest is reserved at most, and zeros. Moves
/// the description. `None`: there is none.
pub(crate) fn next_touched(file: &File, from: u64) -> Result<Option<Range<u64>>, Errno> {
    let seek = |from: u64, whence| {
        let from = libc::off_t::try_from(from).map_err(|_| Errno(libc::EOVERFLOW))?;
        // SAFETY: as above.
        let found = unsafe { libc::lseek(file.as_raw_fd(), from, whence) };
        u64::try_from(found).map_err(|_| Errno::last())
    };
    match seek(from, libc::SEEK_DATA) {
        Err(Errno(libc::ENXIO)) => Ok(None),
        Err(errno) => Err(errno),
        Ok(start) => Ok(Some(start..seek(start, libc::SEEK_HOLE)?)),
    }
}

/// How long a file of this process may become; a write beyond is SIGXFSZ.
fn file_size_limit() -> u64 {
    // SAFETY: getrlimit(2) fills the struct it is given when it returns 0.
    let limit = unsafe { Errno::filled_by(|limit: *mut libc::rlimit| libc::getrlimit(libc::RLIMIT_FSIZE, limit)) };
    limit.map_or(u64::MAX, |limit| limit.rlim_cur)
}

/// Fills `buffer` from the file's start; the number of bytes there were.
pub(crate) fn read_start(file: &File, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], filled as u64).map_err(Errno::from) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno(libc::EINTR)) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_be_long_and_has_no_nul() {
        let directory = format!("/dev/shm/lock_manager-file-{}", std::process::id());
        let long = Path::new(&directory).join("x".repeat(200));
        std::fs::create_dir_all(&long).unwrap();
        for name in ["f", &"y".repeat(100), &"z".repeat(255)] {
            let path = long.join(name);
            assert_eq!(Metadata::of_path(&path), Err(Errno(libc::ENOENT)));
            let made = create_named(&path).unwrap();
            assert_eq!(create_named(&path).unwrap_err(), Errno(libc::EEXIST));
            let metadata = Metadata::of(&made).unwrap();
            assert_eq!(Metadata::of_path(&path), Ok(metadata));
            assert_eq!(Metadata::of(&open(&path, Access::ReadOnly).unwrap()), Ok(metadata));
        }
        std::fs::remove_dir_all(&directory).unwrap();
        for path in ["/dev/shm/\0", &format!("/dev/shm/{}\0", "x/".repeat(200))] {
            assert_eq!(open(Path::new(path), Access::ReadWrite).unwrap_err(), Errno(libc::EINVAL));
        }
    }
}
