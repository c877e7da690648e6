// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files: opened without following links or waiting, made whole before they get their name.

use std::ffi::{CStr, CString};
use std::fs::{File, Permissions};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use super::process::effective_user;
use super::{Errno, mapping, standard};

pub(super) use super::file_system::is_procfs;
pub(crate) use super::file_system::{FileSystem, file_system_of, is_on_overlay, write_in_place};

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reading and writing.
    Use,
    /// Reading only.
    Look,
}

/// What fstat(2) says of an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
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

impl Facts {
    /// By fstat(2) itself: it is asked often, and costs a process's first call less than `File::metadata`.
    pub(crate) fn of(file: &File) -> Result<Self, Errno> {
        // SAFETY: fstat(2) fills the struct it is given when it returns 0.
        Self::told(|facts| unsafe { libc::fstat(file.as_raw_fd(), facts) })
    }

    /// Of what a path names now, without following a link.
    pub(crate) fn of_path(path: &Path) -> Result<Self, Errno> {
        // SAFETY: lstat(2) reads the path and fills the struct it is given when it returns 0.
        with_c_string(bytes_of(path), |path| Self::told(|facts| unsafe { libc::lstat(path, facts) }))?
    }

    /// Of what a name in a directory is of now, without following a link.
    pub(super) fn at(directory: &File, name: &[u8]) -> Result<Self, Errno> {
        let at = directory.as_raw_fd();
        // SAFETY: fstatat(2) reads the name and fills the struct it is given when it returns 0.
        let tell = |name, facts| unsafe { libc::fstatat(at, name, facts, libc::AT_SYMLINK_NOFOLLOW) };
        with_c_string(name, |name| Self::told(|facts| tell(name, facts)))?
    }

    /// Of what a path names now, through whatever links.
    pub(super) fn of_path_followed(path: &[u8]) -> Result<Self, Errno> {
        // SAFETY: stat(2) reads the path and fills the struct it is given when it returns 0.
        with_c_string(path, |path| Self::told(|facts| unsafe { libc::stat(path, facts) }))?
    }

    #[allow(clippy::unnecessary_cast, reason = "the number of links is narrower on some processors")]
    fn told(tell: impl FnOnce(*mut libc::stat) -> libc::c_int) -> Result<Self, Errno> {
        let mut facts = MaybeUninit::uninit();
        if tell(facts.as_mut_ptr()) != 0 {
            return Err(Errno::last());
        }
        // SAFETY: filled, as the call returned 0.
        let facts: libc::stat = unsafe { facts.assume_init() };
        Ok(Self {
            device: facts.st_dev,
            inode: facts.st_ino,
            owner: facts.st_uid,
            size: facts.st_size as u64,
            links: facts.st_nlink as u64,
            changed: (facts.st_ctime as u64).wrapping_mul(1_000_000_000).wrapping_add(facts.st_ctime_nsec as u64),
            is_regular: facts.st_mode & libc::S_IFMT == libc::S_IFREG,
            is_link: facts.st_mode & libc::S_IFMT == libc::S_IFLNK,
        })
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

    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

fn bytes_of(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// Calls with a path as C has it, on the stack: through std it would cost a process's first call two more pages of code.
/// What the call has to say of errno it says itself.
pub(super) fn with_c_string<T>(bytes: &[u8], call: impl FnOnce(*const libc::c_char) -> T) -> Result<T, Errno> {
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
    let _occupied = standard::Occupied::now()?;
    let opened = open_at(directory, path, flags)?;
    // Where the program has closed one since. What was made there is made, so an error would come too late.
    match standard::move_away(&opened) {
        Ok(None) => Ok(opened),
        Ok(Some(moved)) => Ok(moved),
        Err(_) if flags & libc::O_EXCL != 0 => Ok(opened),
        Err(errno) => Err(errno),
    }
}

/// The same by a path alone.
pub(super) fn open_with(path: &Path, flags: libc::c_int) -> Result<File, Errno> {
    open_above_standard(libc::AT_FDCWD, bytes_of(path), flags)
}

fn access_flag(access: Access) -> libc::c_int {
    match access {
        Access::Use => libc::O_RDWR,
        Access::Look => libc::O_RDONLY,
    }
}

/// Of the file itself, without waiting for whoever else has it.
fn unfollowed(access: Access) -> libc::c_int {
    access_flag(access) | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY
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
pub(super) fn is_by_open(file: &File) -> Result<bool, Errno> {
    // SAFETY: fcntl(2) with this command touches no memory.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) } {
        -1 => Err(Errno::last()),
        flags => Ok(flags & libc::O_NONBLOCK != 0),
    }
}

/// Opens an existing file through a link of /proc.
pub(super) fn open_following(path: &Path, access: Access) -> Result<File, Errno> {
    open_with(path, access_flag(access) | libc::O_NONBLOCK | libc::O_NOCTTY)
}

/// Makes a file without a name in `directory`; it vanishes with its last descriptor unless it is linked.
pub(crate) fn create_unnamed(directory: &Path) -> Result<File, Errno> {
    open_with(directory, libc::O_RDWR | libc::O_TMPFILE)
}

/// Makes a file in memory that has no name and is nobody else's. `name` is what /proc/PID/maps shows it as.
pub(crate) fn create_in_memory(name: &CStr) -> Result<File, Errno> {
    let _occupied = standard::Occupied::now()?;
    // SAFETY: memfd_create(2) reads the name.
    match unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) } {
        -1 => Err(Errno::last()),
        // SAFETY: the number is this call's own.
        number => Ok(unsafe { File::from_raw_fd(number) }),
    }
}

/// Makes a file under a name that must not exist.
pub(crate) fn create_named(path: &Path) -> Result<File, Errno> {
    open_with(path, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW)
}

/// Sets the permission bits, which the umask does not touch here.
pub(crate) fn set_mode(file: &File, mode: u32) -> Result<(), Errno> {
    Ok(file.set_permissions(Permissions::from_mode(mode))?)
}

/// Gives an unnamed file its name; EEXIST if that is taken.
pub(crate) fn link_unnamed(file: &File, path: &Path) -> Result<(), Errno> {
    let link = |from, to| {
        // SAFETY: linkat(2) reads the two strings, which live past the call.
        let code = unsafe { libc::linkat(libc::AT_FDCWD, from, libc::AT_FDCWD, to, libc::AT_SYMLINK_FOLLOW) };
        if code == 0 { Ok(()) } else { Err(Errno::last()) }
    };
    let from = format!("/proc/thread-self/fd/{}", file.as_raw_fd());
    with_c_string(from.as_bytes(), |from| with_c_string(bytes_of(path), |to| link(from, to)))??
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
    let end = if whole == end { end } else { whole.min(Facts::of(file)?.size).max(end) };
    // Past the limit the kernel would send SIGXFSZ, which ends the process, where the file had to become longer.
    if end > file_size_limit() && Facts::of(file)?.size < end {
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
    if Facts::of(file)?.size < end {
        write_at(file, &[0], end - 1)?;
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

/// How long a file of this process may become; a write beyond is SIGXFSZ.
pub(crate) fn file_size_limit() -> u64 {
    let mut limit = MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: getrlimit(2) fills the struct it is given when it returns 0.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_FSIZE, limit.as_mut_ptr()) == 0 {
            limit.assume_init().rlim_cur
        } else {
            u64::MAX
        }
    }
}

/// Fills `buffer` from the file's start; the number of bytes there were.
pub(crate) fn read_start(file: &File, buffer: &mut [u8]) -> Result<usize, Errno> {
    read_at(file, buffer, 0)
}

/// Fills `buffer` from `offset` on; the number of bytes there were.
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut filled = 0;
    while filled < buffer.len() {
        let (rest, from) = (&mut buffer[filled..], offset + filled as u64);
        // SAFETY: pread(2) writes into the rest of the buffer, and says how much.
        match unsafe { libc::pread(file.as_raw_fd(), rest.as_mut_ptr().cast(), rest.len(), from as libc::off_t) } {
            0 => break,
            count @ 1.. => filled += count as usize,
            _ => match Errno::last() {
                Errno(libc::EINTR) => {}
                errno => return Err(errno),
            },
        }
    }
    Ok(filled)
}

/// Writes all of `bytes` at `offset`.
pub(crate) fn write_at(file: &File, bytes: &[u8], offset: u64) -> Result<(), Errno> {
    // Past the limit the kernel would send SIGXFSZ, which ends the process.
    if offset.saturating_add(bytes.len() as u64) > file_size_limit() {
        return Err(Errno(libc::EFBIG));
    }
    Ok(file.write_all_at(bytes, offset)?)
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
            assert_eq!(Facts::of_path(&path), Err(Errno(libc::ENOENT)));
            let made = create_named(&path).unwrap();
            assert_eq!(create_named(&path).unwrap_err(), Errno(libc::EEXIST));
            let facts = Facts::of(&made).unwrap();
            assert_eq!(Facts::of_path(&path), Ok(facts));
            assert_eq!(Facts::of(&open(&path, Access::Look).unwrap()), Ok(facts));
        }
        std::fs::remove_dir_all(&directory).unwrap();
        for path in ["/dev/shm/\0", &format!("/dev/shm/{}\0", "x/".repeat(200))] {
            assert_eq!(open(Path::new(path), Access::Use).unwrap_err(), Errno(libc::EINVAL));
        }
    }
}
