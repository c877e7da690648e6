// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The file manager: one directory, one file for each allocated lock, named by its decimal id. libpod's file manager
//! uses the same files, so both can work on one directory at a time; what this library knows beyond it is in the
//! directory's table file.

mod directory;
mod ids;
mod inspection;
mod pool;
mod record;
mod records;
mod storage;

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cancel::Cancel;
use crate::manager::{Acquired, Info, Kind, LockInfo, Manager, Ownership, UNLIMITED, Wait};
use crate::ownership::OwnershipCell;
use crate::sys::Errno;
use crate::sys::file::Access;
use crate::sys::registry::Shared;
use crate::{Error, Reason, Result};
use directory::{Directory, DirectoryName};
use pool::Pool;
use record::TABLE;
pub(crate) use record::VERSION as FORMAT_VERSION;
use records::Records;

const DIRECTORY_MODE: u32 = 0o700;

/// A manager whose locks are the files of a directory. There is no limit to their number but that of 32 bits.
///
/// ```
/// use lock_manager::{FileManager, Manager};
///
/// # let directory = std::env::temp_dir().join(format!("lock_manager-doc-file-{}", std::process::id()));
/// let manager = FileManager::open_or_create(&directory)?;
/// let id = manager.allocate_lock()?;
/// let _clean = manager.lock(id)?;
/// manager.unlock(id)?;
/// # drop(manager);
/// # FileManager::remove(&directory)?;
/// # Ok::<(), lock_manager::Error>(())
/// ```
pub struct FileManager {
    pool: Shared<Pool>,
    storage: Arc<PathBuf>,
    ownership: OwnershipCell,
    token: u64,
}

impl FileManager {
    /// Makes a directory for locks. An empty one that is there already will do.
    ///
    /// # Errors
    /// `EEXIST` if there is something in it, or it is no directory; `EINVAL` for an empty path; `EACCES` as for
    /// [`open`](Self::open); `EOPNOTSUPP` on network file systems.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let name = DirectoryName::parse(path.as_ref())?;
        match DirBuilder::new().mode(DIRECTORY_MODE).create(name.path()).map_err(Errno::from) {
            Ok(()) | Err(Errno(libc::EEXIST)) => {}
            Err(Errno(libc::ENOENT)) => return Err(name.error(Reason::NoParent)),
            Err(errno) => return Err(name.failed("making the directory")(errno)),
        }
        let directory = Directory::open(&name, Access::Use).map_err(|error| match error.reason() {
            Reason::System { errno: Errno(libc::ENOTDIR), .. } => name.error(Reason::Exists),
            _ => error,
        })?;
        let contents = directory.contents().map_err(|reason| name.error(reason))?;
        if contents.has_table || contents.has_others || !contents.ids.is_empty() {
            return Err(name.error(Reason::Exists));
        }
        // Of two creators that found it empty, one makes the table.
        match directory.open_file(TABLE, crate::sys::directory::Making::Exclusively) {
            Ok(Some(_)) => Self::serve(directory),
            Ok(None) => Err(name.error(Reason::Exists)),
            Err(reason) => Err(name.error(reason)),
        }
    }

    /// Opens a directory that exists, be it libpod's or ours.
    ///
    /// # Errors
    /// `ENOENT` if there is none; `EACCES` for a symbolic link, missing permissions, or an owner that is neither the
    /// caller nor root; `EPROTO` if its table file is of another version or none of ours; `EOPNOTSUPP` on network
    /// file systems.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::serve(Directory::open(&DirectoryName::parse(path.as_ref())?, Access::Use)?)
    }

    /// Opens a directory to look at it, whoever owns it if permissions allow. Nothing is made in it, and calls that
    /// change something are `EACCES`.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for the owner.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self> {
        Self::serve(Directory::open(&DirectoryName::parse(path.as_ref())?, Access::Look)?)
    }

    /// Opens the directory if it exists, else makes it; of two first users at once, one makes it and both succeed.
    ///
    /// # Errors
    /// As [`open`](Self::open) and [`create`](Self::create), but for `EEXIST`.
    pub fn open_or_create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        match Self::open(path) {
            Err(error) if matches!(error.reason(), Reason::NotFound) => {}
            opened => return opened,
        }
        match Self::create(path) {
            Err(error) if matches!(error.reason(), Reason::Exists) => Self::open(path),
            created => created,
        }
    }

    /// Removes a directory with its locks. Managers that have it open are told `ESTALE`.
    ///
    /// # Errors
    /// `ENOENT` if there is none; `EPROTO` if there is nothing of ours in it but something else, and it stays;
    /// `ENOTEMPTY` if there is something else in it beside the locks, which go.
    pub fn remove(path: impl AsRef<Path>) -> Result<()> {
        let name = DirectoryName::parse(path.as_ref())?;
        let directory = Directory::open(&name, Access::Use)?;
        let located = |reason| name.error(reason);
        let contents = directory.contents().map_err(located)?;
        if contents.has_others && !contents.has_table {
            return Err(located(Reason::NotASegment("it has no file .lock_manager, but others that are no locks")));
        }
        for id in &contents.ids {
            directory.remove_file(&id.to_string()).map_err(located)?;
        }
        directory.remove_file(TABLE).map_err(located)?;
        match std::fs::remove_dir(name.path()).map_err(Errno::from) {
            Ok(()) => Ok(()),
            Err(Errno(libc::ENOENT)) => Err(located(Reason::NotFound)),
            Err(errno) => Err(name.failed("removing the directory")(errno)),
        }
    }

    fn serve(directory: Directory) -> Result<Self> {
        static NEXT_TOKEN: AtomicU64 = AtomicU64::new(1);
        // To say now, not at the first lock, that it does not fit.
        let checked = match directory.access {
            Access::Use => Records::open(&directory).map(drop),
            Access::Look => Records::look(&directory).map(drop),
        };
        checked.map_err(|reason| directory.name.error(reason))?;
        let storage = Arc::clone(directory.name.shown());
        let pool = Pool::open(directory)?;
        let token = NEXT_TOKEN.fetch_add(1, Ordering::Relaxed);
        Ok(Self { pool, storage, ownership: OwnershipCell::default(), token })
    }

    /// Closes the manager; the directory stays.
    ///
    /// # Errors
    /// `EBUSY` if this process holds a lock through it or another thread waits in a call on it; the manager comes
    /// back with the error.
    pub fn close(self) -> std::result::Result<(), Box<(Self, Error)>> {
        match self.check_idle() {
            Ok(()) => Ok(()),
            Err(error) => Err(Box::new((self, error))),
        }
    }

    fn error(&self, reason: Reason) -> Error {
        Error::new(&self.storage, reason)
    }

    /// The same, of a call that one lock is the matter of.
    fn error_at(&self, id: u32) -> impl Fn(Reason) -> Error {
        move |reason| match reason {
            Reason::System { doing, errno } => self.error(Reason::SystemAtLock { id, doing, errno }),
            reason => self.error(reason),
        }
    }

    fn check_writable(&self) -> Result<()> {
        match self.pool.directory.access {
            Access::Use => Ok(()),
            Access::Look => Err(self.error(Reason::ReadOnly)),
        }
    }
}

impl std::fmt::Debug for FileManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileManager").field("storage", &self.storage).finish_non_exhaustive()
    }
}

impl Manager for FileManager {
    fn allocate_lock(&self) -> Result<u32> {
        self.check_writable()?;
        self.pool.allocate().map_err(|reason| self.error(reason))
    }

    fn retrieve_lock(&self, _id: u32) -> Result<()> {
        Ok(())
    }

    fn allocate_and_retrieve_lock(&self, id: u32) -> Result<()> {
        self.check_writable()?;
        self.pool.allocate_given(id).map_err(self.error_at(id))
    }

    fn free_lock(&self, id: u32) -> Result<()> {
        self.check_writable()?;
        self.pool.free(id).map_err(self.error_at(id))
    }

    fn free_all_locks(&self) -> Result<()> {
        self.check_writable()?;
        self.pool.free_all().map_err(|reason| self.error(reason))
    }

    fn available_locks(&self) -> Result<u32> {
        Ok(UNLIMITED)
    }

    fn num_locks(&self) -> Result<u32> {
        Ok(UNLIMITED)
    }

    fn acquire(&self, id: u32, wait: Wait, cancel: Option<&Cancel>) -> Result<Acquired> {
        self.check_writable()?;
        let acquire = || self.pool.locks()?.acquire(self.token, self.ownership.settle(), id, wait, cancel);
        acquire().map_err(self.error_at(id))
    }

    fn unlock(&self, id: u32) -> Result<()> {
        let unlock = || self.pool.locks()?.release(self.token, id);
        unlock().map_err(self.error_at(id))
    }

    fn set_ownership(&self, ownership: Ownership) -> Result<()> {
        self.ownership.choose(ownership).map_err(|reason| self.error(reason))
    }

    fn locks_held(&self) -> Result<Vec<u32>> {
        self.pool.held_ids().map_err(|reason| self.error(reason))
    }

    fn lock_info(&self, id: u32) -> Result<LockInfo> {
        self.pool.inspect(id).map_err(self.error_at(id))
    }

    fn info(&self) -> Result<Info> {
        Ok(Info {
            kind: Kind::File,
            layout: None,
            num_locks: UNLIMITED,
            max_locks: UNLIMITED,
            attached: 0,
            retired: self.pool.directory.is_removed(),
        })
    }

    fn repair_lock(&self, id: u32) -> Result<()> {
        self.check_writable()?;
        let info = self.lock_info(id)?;
        if !info.held {
            return Ok(());
        }
        // The kernel gives a dead holder's record locks back by itself, so whoever has one lives, or is a child that
        // inherited it.
        Err(self.error(Reason::ProcessHolds { id, pid: info.pid as u32 }))
    }

    fn check_idle(&self) -> Result<()> {
        let Some(locks) = self.pool.locks_if_any() else { return Ok(()) };
        match (locks.waiting_through(self.token), locks.held_through(self.token)) {
            (0, None) => Ok(()),
            (0, Some(id)) => Err(self.error(Reason::StillHeld { id })),
            (threads, _) => Err(self.error(Reason::StillWaiting { threads })),
        }
    }

    fn grow(&self, _num_locks: u32) -> Result<()> {
        Err(self
            .error(Reason::Unsupported("a directory of locks has no number of locks; allocate as many as you need")))
    }
}

impl Drop for FileManager {
    fn drop(&mut self) {
        // The lock stays held, as the caller never gave it back; the process's end is what frees it.
        if self.check_idle().is_err() {
            self.pool.keep_for_ever();
        }
    }
}
