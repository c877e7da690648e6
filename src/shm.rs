// SPDX-License-Identifier: MIT OR Apache-2.0
#![deny(unsafe_code)]
//! The shared-memory manager: finds out which layout a segment has, and with it which backend keeps its locks.

mod libpod;
mod name;
mod native;
mod options;
mod removal;
mod segment;

use std::path::Path;

use crate::backend::{AnyBackend, Backend, on_backend};
use crate::manager::{Layout, Manager, pass_on};
use crate::sys::syscall::file::Access;
use crate::{Error, Reason, Result};
pub(crate) use libpod::Libpod;
pub(crate) use name::{SegmentName, TABLE};
pub(crate) use native::{Companion, Native, SlowPath};
pub use options::{MAX_LOCKS, SegmentOptions};
use removal::Recognised;
use segment::Candidate;
pub(crate) use segment::check_trusted;

/// A result whose caller adds the storage to a failure.
pub(crate) type Outcome<T> = std::result::Result<T, Reason>;

const DEFAULT_MODE: u32 = 0o600;
const PERMISSION_BITS: u32 = 0o777;

/// How often an opener tries again that has lost a race against a creator or remover. Each round means that another
/// process has succeeded, so only a hostile one uses them up.
const OPEN_ROUNDS: u32 = 1000;

/// The kinds of storage that this library reads and writes, each with its format version. A libpod segment has a magic
/// number instead of a version.
#[must_use]
pub fn formats() -> Vec<(&'static str, String)> {
    vec![
        ("libpod segment", format!("magic {:#x}", libpod::MAGIC)),
        ("native segment, lock directory", format!("version {}", native::VERSION)),
    ]
}

/// How often the mid path waits for a lock. If another thread was faster, waiting again costs less than the slow path's
/// system calls.
const SHORT_WAITS: u32 = 2;

/// A manager whose locks are in a shared memory segment, named by a POSIX shm name (`"/name"`: one slash, first) or
/// the absolute path of a file.
///
/// Dropping a manager closes it. If this process still holds locks through it, its memory stays mapped, because the kernel
/// may still need it. [`check_idle`](Manager::check_idle) tells whether that is so.
///
/// ```
/// use lock_manager::{Acquired, Manager, SegmentOptions, ShmManager};
///
/// # let path = format!("/dev/shm/lock_manager-doc-shm-{}", std::process::id());
/// let manager = ShmManager::open_or_create(&path, 2048, &SegmentOptions::default())?;
/// let id = manager.allocate_lock()?;
/// if manager.lock(id)? == Acquired::OwnerDied {
///     // repair what the lock protects
/// }
/// manager.unlock(id)?;
/// # ShmManager::remove(&path)?;
/// # Ok::<(), lock_manager::Error>(())
/// ```
#[derive(Debug)]
pub struct ShmManager {
    pub(crate) backend: AnyBackend,
    layout: Layout,
}

impl ShmManager {
    /// Creates a segment of `num_locks` locks, rounded up to a multiple of 64 (libpod layout: 32).
    ///
    /// # Errors
    /// `EEXIST` if the name is taken; `EINVAL` for 0 or more than [`MAX_LOCKS`] locks, an invalid name, or mode bits beyond
    /// 0777; `ENOSPC` if the file system is full, and then nothing is left behind; `EOPNOTSUPP` on a network file system, or
    /// one that cannot reserve space.
    pub fn create(path: impl AsRef<Path>, num_locks: u32, options: &SegmentOptions) -> Result<Self> {
        Self::create_named(&SegmentName::parse(path.as_ref())?, num_locks, options)
    }

    fn create_named(name: &SegmentName, num_locks: u32, options: &SegmentOptions) -> Result<Self> {
        Self::check_count(name, num_locks)?;
        if num_locks == 0 {
            return Err(name.error(Reason::BadArgument(
                "a new segment needs at least one lock, but 0 were asked for; ask for 1 or more",
            )));
        }
        let mode = match options.mode {
            0 => DEFAULT_MODE,
            mode if mode & !PERMISSION_BITS == 0 => mode,
            _ => {
                return Err(name.error(Reason::BadArgument("the mode has bits beyond 0777; use permission bits alone")));
            }
        };
        Ok(match options.layout {
            Some(Layout::Libpod) => Libpod::create(name, num_locks, mode)?.into(),
            None | Some(Layout::Native) => Native::create(name, num_locks, options.max_locks, mode)?.into(),
        })
    }

    /// Opens an existing segment. It must have `num_locks` locks, rounded up as at creation; 0 accepts any number. If a
    /// native segment has grown, any number from its first to its present one is accepted.
    ///
    /// # Errors
    /// `ENOENT` if there is no such segment; `ERANGE` if it has another number of locks; `EPROTO` if it is not a segment of
    /// this library, is damaged, or was made for another libc, architecture or format version; `ESTALE` if it was made before
    /// this boot (native layout); `EACCES` for a symbolic link, missing permissions, or an owner that is neither the caller
    /// nor root; `EUSERS` if 8191 processes already use it (native layout).
    pub fn open(path: impl AsRef<Path>, num_locks: u32) -> Result<Self> {
        let name = SegmentName::parse(path.as_ref())?;
        Self::check_count(&name, num_locks)?;
        Self::open_named(&name, num_locks, Access::ReadWrite)
    }

    /// Opens the segment if it exists, and creates it otherwise. If two processes call it at once, one creates the segment
    /// and both succeed. The mode and `max_locks` of `options` count at creation only. A native segment from before this boot
    /// is replaced by a new one.
    ///
    /// # Errors
    /// As [`open`](Self::open) and [`create`](Self::create), without `EEXIST` and `ENOENT`; `EINVAL` if `num_locks` is 0 and
    /// there is no segment; `EPROTO` if `options` name a layout and the segment has the other one.
    pub fn open_or_create(path: impl AsRef<Path>, num_locks: u32, options: &SegmentOptions) -> Result<Self> {
        let name = SegmentName::parse(path.as_ref())?;
        Self::check_count(&name, num_locks)?;
        Self::open_or_create_named(&name, num_locks, num_locks, options)
    }

    /// Opens a segment of `num_locks`, or creates one of `new_locks`.
    fn open_or_create_named(
        name: &SegmentName,
        num_locks: u32,
        new_locks: u32,
        options: &SegmentOptions,
    ) -> Result<Self> {
        for _ in 0..OPEN_ROUNDS {
            match Self::open_named(name, num_locks, Access::ReadWrite) {
                Err(error) if matches!(error.reason(), Reason::NotFound) => {}
                Err(error) if matches!(error.reason(), Reason::BeforeBoot) => remove_if(name, native::is_before_boot)?,
                opened => return opened.and_then(|manager| manager.in_layout(name, options.layout)),
            }
            match Self::create_named(name, new_locks, options) {
                // Another process was faster, or removed the segment before this one had attached.
                Err(error) if matches!(error.reason(), Reason::Exists | Reason::Removed) => {}
                created => return created,
            }
        }
        Self::open_named(name, num_locks, Access::ReadWrite)
    }

    /// The manager, if it has the layout that was asked for.
    fn in_layout(self, name: &SegmentName, asked: Option<Layout>) -> Result<Self> {
        match asked {
            Some(asked) if asked != self.layout() => {
                Err(name.error(Reason::WrongLayout { there: self.layout(), asked }))
            }
            _ => Ok(self),
        }
    }

    /// Opens a segment read only, whoever owns it, if permissions allow. Calls that would change something then return
    /// `EACCES`.
    ///
    /// # Errors
    /// As [`open`](Self::open), except that any owner is accepted.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self> {
        let name = SegmentName::parse(path.as_ref())?;
        Self::open_named(&name, 0, Access::ReadOnly)
    }

    /// Removes a segment. Processes that still have it open get `ESTALE`: in the native layout from each allocation and lock
    /// call at once, in the libpod layout from allocation and waits within 100 ms. They can still unlock, and read
    /// information.
    ///
    /// # Errors
    /// `ENOENT` if there is no such segment; `EPROTO` if it does not carry this library's magic number, and it stays;
    /// `EACCES` as for [`open`](Self::open); `EACCES` or `EPERM` if the directory does not let the caller remove the name,
    /// and the segment stays in use; `EBUSY` if another process has held a record lock on it for 2 s.
    pub fn remove(path: impl AsRef<Path>) -> Result<()> {
        remove_named(&SegmentName::parse(path.as_ref())?)
    }

    /// Closes the manager; the storage stays.
    ///
    /// # Errors
    /// `EBUSY` if this process holds a lock through the manager, or another thread waits in a call on it. The error gives the
    /// manager back.
    pub fn close(self) -> std::result::Result<(), Box<(Self, Error)>> {
        match self.check_idle() {
            Ok(()) => Ok(()),
            Err(error) => Err(Box::new((self, error))),
        }
    }

    fn open_named(name: &SegmentName, num_locks: u32, access: Access) -> Result<Self> {
        for _ in 0..OPEN_ROUNDS {
            match Self::open_once(name, num_locks, access) {
                // It was removed while it was opened; or it was removed before and has a second name.
                Err(error) if matches!(error.reason(), Reason::Removed) => remove_if(name, native::is_removed)?,
                opened => return opened,
            }
        }
        Self::open_once(name, num_locks, access)
    }

    fn open_once(name: &SegmentName, num_locks: u32, access: Access) -> Result<Self> {
        let candidate = Candidate::open(name, access)?;
        let start = candidate.start()?;
        if native::is_ours(&start) {
            Ok(Native::open(candidate, &start, num_locks)?.into())
        } else if libpod::is_ours(&start) {
            Ok(Libpod::open(candidate, &start, num_locks)?.into())
        } else {
            Err(name.error(Reason::NotASegment("it does not begin with a magic number that this library knows")))
        }
    }

    fn check_count(name: &SegmentName, num_locks: u32) -> Result<()> {
        if num_locks > MAX_LOCKS {
            return Err(name.error(Reason::TooManyLocks { asked: num_locks, most: MAX_LOCKS }));
        }
        Ok(())
    }

    /// The layout of the segment.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The lock whose futex word is at this byte offset of the segment's file, if there is one. `/proc/PID/task/TID/syscall`
    /// and `/proc/PID/maps` give the offset for a waiting thread of any program.
    #[must_use]
    pub fn lock_at(&self, offset: u64) -> Option<u32> {
        on_backend!(self.backend, backend => backend.lock_at(offset))
    }
}

impl From<Native> for ShmManager {
    fn from(native: Native) -> Self {
        Self { backend: AnyBackend::Native(native), layout: Layout::Native }
    }
}

impl From<Libpod> for ShmManager {
    fn from(libpod: Libpod) -> Self {
        Self { backend: AnyBackend::Libpod(libpod), layout: Layout::Libpod }
    }
}

/// The first number of locks in the table of a lock directory. It need not grow while no higher id is locked.
const FIRST_TABLE_LOCKS: u32 = 1024;

/// Makes the table of a lock directory: a native segment that can grow to the largest number of locks.
pub(crate) fn create_table(name: &SegmentName) -> Result<Native> {
    Native::create(name, FIRST_TABLE_LOCKS, MAX_LOCKS, DEFAULT_MODE)
}

/// Opens the table of a lock directory, and makes it if it is missing. With read-only access it is not made: `None`.
pub(crate) fn open_table(name: &SegmentName, access: Access) -> Result<Option<Native>> {
    let options = SegmentOptions { layout: Some(Layout::Native), max_locks: MAX_LOCKS, mode: DEFAULT_MODE };
    let opened = match access {
        Access::ReadWrite => ShmManager::open_or_create_named(name, 0, FIRST_TABLE_LOCKS, &options)?,
        Access::ReadOnly => match ShmManager::open_named(name, 0, access) {
            Err(error) if matches!(error.reason(), Reason::NotFound) => return Ok(None),
            opened => opened?.in_layout(name, options.layout)?,
        },
    };
    Ok(if let AnyBackend::Native(native) = opened.backend { Some(native) } else { None })
}

/// Opens the segment of the first locks of a host, and makes it if it is missing.
pub(crate) fn open_host(name: &SegmentName, num_locks: u32) -> Result<Native> {
    let options = SegmentOptions { layout: Some(Layout::Native), max_locks: num_locks, mode: DEFAULT_MODE };
    match ShmManager::open_or_create_named(name, 0, num_locks, &options)?.backend {
        AnyBackend::Native(native) if native.known_locks() >= num_locks => Ok(native),
        AnyBackend::Native(native) => {
            Err(name.error(Reason::WrongCount { there: native.known_locks(), asked: num_locks }))
        }
        _ => Err(name.error(Reason::WrongLayout { there: Layout::Libpod, asked: Layout::Native })),
    }
}

/// Removes a segment, or the table of a lock directory. Its users are told.
pub(crate) fn remove_named(name: &SegmentName) -> Result<()> {
    removal::remove(name, |_, start| match native::recognise(start) {
        Recognised::No if libpod::is_ours(start) => Recognised::Yes,
        recognised => recognised,
    })
}

/// Removes a native segment if it is still this one. It is no failure if the segment is gone, or is another by now.
fn remove_if(name: &SegmentName, is_such: impl Fn(&Candidate, &[u8]) -> bool) -> Result<()> {
    let removed = removal::remove(name, |candidate, start| match native::recognise(start) {
        recognised if is_such(candidate, start) => recognised,
        _ => Recognised::No,
    });
    match removed {
        Err(error) if !matches!(error.reason(), Reason::NotFound | Reason::NotASegment(_)) => Err(error),
        _ => Ok(()),
    }
}

/// Passes a call on to the backend.
macro_rules! to_backend {
    ($self:ident, $backend:ident => $call:expr) => {
        on_backend!($self.backend, $backend => $call)
    };
}

pass_on!(ShmManager, to_backend);
