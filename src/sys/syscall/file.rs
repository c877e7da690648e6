// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opening, creating and reserving files. An open follows no link and does not wait.

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
use crate::sys::syscall::{large, mapping};

pub(crate) use crate::sys::syscall::file_system::{FileSystem, file_system_of, is_on_overlay, write_in_place};

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reading and writing.
    ReadWrite,
    /// Reading only.
    ReadOnly,
}

/// Identifies a file, among all files that exist at one time.
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
    /// By fstat(2) itself, which costs a process's first call less than `File::metadata`. Never inlined: in a caller's larger
    /// frame the canary of an abandoned wait could survive on the stack (see [`waits`](crate::sys::thread::waits)).
    #[inline(never)]
    pub(crate) fn of(file: &File) -> Result<Self, Errno> {
        // SAFETY: fstat(2) fills the struct it is given when it returns 0.
        unsafe { Errno::filled_by(|metadata| large::fstat(file.as_raw_fd(), metadata)) }.map(Self::from)
    }

    /// Of the file that a path names now. A link is not followed.
    pub(crate) fn of_path(path: &Path) -> Result<Self, Errno> {
        Self::by_path(libc::AT_FDCWD, bytes_of(path), libc::AT_SYMLINK_NOFOLLOW)
    }

    /// Of the file that a name in a directory names now. A link is not followed.
    pub(crate) fn at(directory: &File, name: &str) -> Result<Self, Errno> {
        Self::by_path(directory.as_raw_fd(), name.as_bytes(), libc::AT_SYMLINK_NOFOLLOW)
    }

    /// Of the file that a path names now. Links are followed.
    pub(in crate::sys) fn of_path_followed(path: &[u8]) -> Result<Self, Errno> {
        Self::by_path(libc::AT_FDCWD, path, 0)
    }

    fn by_path(directory: RawFd, path: &[u8], flags: libc::c_int) -> Result<Self, Errno> {
        // SAFETY: fstatat(2) reads the path and fills the struct it is given when it returns 0.
        let tell = |path| unsafe { Errno::filled_by(|metadata| large::fstatat(directory, path, metadata, flags)) };
        with_c_string(path, tell)?.map(Self::from)
    }

    /// Whether the calling process, which opened the file, may trust its contents: the file is its own user's, or root's. `Err`:
    /// the user ids of the owner and of the caller.
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

impl From<large::stat> for Metadata {
    #[allow(clippy::unnecessary_cast, reason = "the numbers are narrower on some processors")]
    fn from(metadata: large::stat) -> Self {
        Self {
            device: metadata.st_dev as u64,
            inode: metadata.st_ino as u64,
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

/// Calls `call` with a path as a C string on the stack. The standard library's way would cost a process's first call two more
/// pages of code. `call` itself reports its errno.
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

/// Opens a file by openat(2), to be closed at exec.
pub(super) fn open_at(directory: RawFd, path: &[u8], flags: libc::c_int) -> Result<File, Errno> {
    const MODE: libc::c_uint = 0o600;
    let open = |path| loop {
        // SAFETY: openat(2) reads the path.
        match unsafe { large::openat(directory, path, flags | libc::O_CLOEXEC, MODE) } {
            -1 if Errno::last().0 == libc::EINTR => {}
            -1 => return Err(Errno::last()),
            // SAFETY: the number is this call's own.
            number => return Ok(unsafe { File::from_raw_fd(number) }),
        }
    };
    with_c_string(path, open)?
}

/// The same, under a number above 2, so that nobody writes to it by mistake (see [`standard_fds`]).
pub(super) fn open_above_standard(directory: RawFd, path: &[u8], flags: libc::c_int) -> Result<File, Errno> {
    let _placeholders = standard_fds::Placeholders::open()?;
    let opened = open_at(directory, path, flags)?;
    // The program may have closed a standard file since. A created file keeps such a number: it exists already, so an error
    // would come too late.
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

/// Flags for an open that does not wait.
fn at_once(access: Access) -> libc::c_int {
    let flag = match access {
        Access::ReadWrite => libc::O_RDWR,
        Access::ReadOnly => libc::O_RDONLY,
    };
    flag | libc::O_NONBLOCK | libc::O_NOCTTY
}

/// The same, and a symbolic link is an error.
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

/// As [`open`], and tells whether the caller is the file's owner. A comparison of user ids does not show it: in a user
/// namespace, all users that are not mapped there have the same id.
pub(crate) fn open_as_owner(path: &Path, access: Access) -> Result<(File, Opener), Errno> {
    as_owner(|flags| open_with(path, unfollowed(access) | flags))
}

/// Opens with a flag that the kernel grants to the owner alone (O_NOATIME), or without it.
pub(super) fn as_owner(open: impl Fn(libc::c_int) -> Result<File, Errno>) -> Result<(File, Opener), Errno> {
    match open(libc::O_NOATIME) {
        Err(Errno(libc::EPERM)) => Ok((open(0)?, Opener::Other)),
        opened => Ok((opened?, Opener::Owner)),
    }
}

/// Whether a file can have been opened by [`open`]: hardly any program opens a regular file with O_NONBLOCK.
pub(in crate::sys) fn is_by_open(file: &File) -> Result<bool, Errno> {
    // SAFETY: fcntl(2) with this command touches no memory.
    Ok(Errno::check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) })? & libc::O_NONBLOCK != 0)
}

/// Opens an existing file through a link in /proc.
pub(in crate::sys) fn open_following(path: &Path, access: Access) -> Result<File, Errno> {
    open_with(path, at_once(access))
}

/// Creates a file without a name in `directory`. It vanishes with its last descriptor unless it is linked.
pub(crate) fn create_unnamed(directory: &Path) -> Result<File, Errno> {
    open_with(directory, libc::O_RDWR | libc::O_TMPFILE)
}

/// Creates a file in memory that has no name and that nobody else can open. /proc/PID/maps shows it as `name`.
pub(crate) fn create_in_memory(name: &CStr) -> Result<File, Errno> {
    let _placeholders = standard_fds::Placeholders::open()?;
    // SAFETY: memfd_create(2) reads the name; the number that it returns is this call's own.
    unsafe { Ok(File::from_raw_fd(Errno::check(libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC))?)) }
}

/// Creates a file under a name that must not exist.
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

/// Reserves the bytes from `start` up to but not including `end`, so that no later access is a SIGBUS, and makes the file at
/// least that long. What others write there meanwhile stays, except in the last byte, which nobody may use. `EOPNOTSUPP`:
/// neither the file system nor the kernel can reserve.
///
/// posix_fallocate(3) will not do: if the file system cannot reserve, that function writes zeros over what others wrote.
pub(crate) fn reserve(file: &File, start: u64, end: u64) -> Result<(), Errno> {
    if start >= end {
        return Ok(());
    }
    // An access needs room for all of its page that the file has; the blocks of the file may be smaller.
    let page = mapping::page_size();
    let (start, whole) = (start / page * page, end.next_multiple_of(page));
    let end = if whole == end { end } else { whole.min(Metadata::of(file)?.size).max(end) };
    // Making the file longer than the limit is a SIGXFSZ, which ends the process.
    if end > file_size_limit() && Metadata::of(file)?.size < end {
        return Err(Errno(libc::EFBIG));
    }
    let offset = large::off_t::try_from(start).map_err(|_| Errno(libc::EFBIG))?;
    let length = large::off_t::try_from(end).map_err(|_| Errno(libc::EFBIG))? - offset;
    loop {
        // SAFETY: fallocate(2) touches no memory.
        if unsafe { large::fallocate(file.as_raw_fd(), 0, offset, length) } == 0 {
            return Ok(());
        }
        match Errno::last() {
            Errno(libc::EINTR) => {}
            Errno(libc::EOPNOTSUPP | libc::ENOSYS) => return reserve_by_touching(file, start, end),
            errno => return Err(errno),
        }
    }
}

/// [`reserve`] on a file system without fallocate(2), such as ext3 or ramfs.
fn reserve_by_touching(file: &File, start: u64, end: u64) -> Result<(), Errno> {
    // ftruncate(2) will not do: if two processes make the file longer, one could make it shorter again.
    if Metadata::of(file)?.size < end {
        // The file may have become shorter since the check above.
        if end > file_size_limit() {
            return Err(Errno(libc::EFBIG));
        }
        file.write_all_at(&[0], end - 1)?;
    }
    mapping::populate(file, start, end)
}

/// The position of the description in the file. `None`: the descriptor is closed, or of something without positions.
pub(crate) fn position(file: &File) -> Option<u64> {
    // SAFETY: lseek(2) touches no memory.
    u64::try_from(unsafe { large::lseek(file.as_raw_fd(), 0, libc::SEEK_CUR) }).ok()
}

/// Sets the position of the description, which may lie behind the file's end. `None`: the file system has no such position.
pub(crate) fn set_position(file: &File, position: u64) -> Option<u64> {
    let offset = large::off_t::try_from(position).ok()?;
    // SAFETY: as above.
    u64::try_from(unsafe { large::lseek(file.as_raw_fd(), offset, libc::SEEK_SET) }).ok()
}

/// The first range of a file, from a position on, that has been written to. The bytes before it read as zeros. Changes the
/// position of the description. `None`: there is no such range.
pub(crate) fn next_touched(file: &File, from: u64) -> Result<Option<Range<u64>>, Errno> {
    let seek = |from: u64, whence| {
        let from = large::off_t::try_from(from).map_err(|_| Errno(libc::EOVERFLOW))?;
        // SAFETY: as above.
        let found = unsafe { large::lseek(file.as_raw_fd(), from, whence) };
        u64::try_from(found).map_err(|_| Errno::last())
    };
    match seek(from, libc::SEEK_DATA) {
        Err(Errno(libc::ENXIO)) => Ok(None),
        Err(errno) => Err(errno),
        Ok(start) => Ok(Some(start..seek(start, libc::SEEK_HOLE)?)),
    }
}

/// How long this process may make a file; a write beyond that is a SIGXFSZ.
fn file_size_limit() -> u64 {
    // SAFETY: getrlimit(2) fills the struct it is given when it returns 0.
    let limit = unsafe { Errno::filled_by(|limit: *mut large::rlimit| large::getrlimit(libc::RLIMIT_FSIZE, limit)) };
    limit.map_or(u64::MAX, |limit| limit.rlim_cur)
}

/// Fills `buffer` from the file's start, and returns the number of bytes that there were.
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
