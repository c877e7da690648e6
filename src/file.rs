// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The file manager: a directory with one file for each allocated lock, named by its decimal id. libpod's file manager
//! uses the same files, so both can work on one directory at the same time. The locks themselves are those of the native
//! engine, whose words are in the directory's table.

mod directory;
mod ids;
mod inspection;
mod kept_fd;
mod locking;
mod pool;
mod record_locks;
mod tables;

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backend;
use crate::manager::sealed::Sealed;
use crate::manager::{Holder, Info, LockInfo, Manager, Ownership, UNLIMITED, Waiter};
use crate::ownership::OwnershipCell;
use crate::shm::{self, MAX_LOCKS};
use crate::sys::Errno;
use crate::sys::process::registry::Shared;
use crate::sys::syscall::file::Access;
use crate::{Error, Reason, Result};
use directory::{Directory, Outcome, SegmentName, TABLE};
use pool::Pool;
use tables::{Table, Tables};

const DIRECTORY_MODE: u32 = 0o700;

/// A manager whose locks are in a lock directory, with one file for each allocated lock. Ids are below [`MAX_LOCKS`].
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
    tables: Tables,
    storage: Arc<PathBuf>,
    ownership: OwnershipCell,
}

impl FileManager {
    /// Creates a lock directory. An existing directory is accepted if it is empty.
    ///
    /// # Errors
    /// `EEXIST` if the directory is not empty, or is not a directory; `ENOENT` if its parent directory does not exist;
    /// `EINVAL` for an empty path; `EACCES` as for [`open`](Self::open); `EOPNOTSUPP` on network file systems.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let name = SegmentName::of_table_in(path.as_ref())?;
        match DirBuilder::new().mode(DIRECTORY_MODE).create(name.directory()).map_err(Errno::from) {
            Ok(()) | Err(Errno(libc::EEXIST)) => {}
            Err(Errno(libc::ENOENT)) => return Err(name.error(Reason::NoParent)),
            Err(errno) => return Err(name.failed("making the directory")(errno)),
        }
        let directory = Directory::open(&name, Access::ReadWrite).map_err(|error| match error.reason() {
            Reason::System { errno: Errno(libc::ENOTDIR), .. } => name.error(Reason::Exists),
            _ => error,
        })?;
        let contents = directory.contents().map_err(|reason| name.error(reason))?;
        if contents.has_table || contents.has_others || !contents.ids.is_empty() {
            return Err(name.error(Reason::Exists));
        }
        let manager = Self::new(directory)?;
        // If two creators find the directory empty, one of them makes the table.
        manager.tables.create(&manager.pool)?;
        Ok(manager)
    }

    /// Opens an existing lock directory, made by this library or by libpod. If its table is missing or is from before this
    /// boot, a new table is made.
    ///
    /// # Errors
    /// `ENOENT` if there is no such directory; `EACCES` for a symbolic link, missing permissions, or an owner that is neither
    /// the caller nor root; `EPROTO` if its table file has another version or was not made by this library; `EOPNOTSUPP` on
    /// network file systems.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::over(Directory::open(&SegmentName::of_table_in(path.as_ref())?, Access::ReadWrite)?)
    }

    /// Opens a lock directory read only, whoever owns it, if permissions allow. Nothing is created in it, and calls that
    /// would change something return `EACCES`.
    ///
    /// # Errors
    /// As [`open`](Self::open), except that any owner is accepted.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self> {
        Self::over(Directory::open(&SegmentName::of_table_in(path.as_ref())?, Access::ReadOnly)?)
    }

    /// Opens the lock directory if it exists, and creates it otherwise. If two processes call it at once, one creates the
    /// directory and both succeed.
    ///
    /// # Errors
    /// As [`open`](Self::open) and [`create`](Self::create), without `EEXIST`.
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

    /// Removes a lock directory with its locks. Managers that still have it open get `ESTALE`.
    ///
    /// # Errors
    /// `ENOENT` if there is no such directory; `EPROTO` if it has only other files, and it stays; `ENOTEMPTY` if it has other
    /// files beside the locks, and only the locks are removed.
    pub fn remove(path: impl AsRef<Path>) -> Result<()> {
        let name = SegmentName::of_table_in(path.as_ref())?;
        let directory = Directory::open(&name, Access::ReadWrite)?;
        let located = |reason| name.error(reason);
        let contents = directory.contents().map_err(located)?;
        if contents.has_others && !contents.has_table {
            return Err(located(Reason::NotASegment(
                "it has no file .lock_manager, but it has files that are not locks",
            )));
        }
        // Remove the table first: its users are told, and make no other.
        match shm::remove_named(&name) {
            Err(error) if matches!(error.reason(), Reason::NotFound) => {}
            // It is damaged beyond recognition, or not a table: remove it with the rest.
            Err(error) if matches!(error.reason(), Reason::NotASegment(_)) => {
                directory.remove_file(TABLE).map_err(located)?;
            }
            removed => removed?,
        }
        for &id in &contents.ids {
            directory.remove_id(id).map_err(located)?;
        }
        match std::fs::remove_dir(name.directory()).map_err(Errno::from) {
            Ok(()) => Ok(()),
            Err(Errno(libc::ENOENT)) => Err(located(Reason::NotFound)),
            Err(errno) => Err(name.failed("removing the directory")(errno)),
        }
    }

    fn new(directory: Directory) -> Result<Self> {
        let storage = Arc::clone(directory.name.shown());
        let (tables, ownership) = (Tables::new(), OwnershipCell::default());
        Ok(Self { pool: Pool::open(directory)?, tables, storage, ownership })
    }

    fn over(directory: Directory) -> Result<Self> {
        let manager = Self::new(directory)?;
        // Open the table now and not at the first lock, to fail early, and to attach while the process has the right to.
        manager.tables.open(&manager.pool)?;
        Ok(manager)
    }

    /// The present table, for a manager that takes locks.
    fn table(&self) -> Result<&Table> {
        let table = self.tables.open(&self.pool)?.ok_or_else(|| self.error(Reason::ReadOnly))?;
        self.tell_owner(table)
    }

    /// The table that has replaced `table`, which has lost its name. Fails if a remover has removed the directory.
    fn replaced<'t>(&'t self, table: &'t Table) -> Result<&'t Table> {
        if table.native.is_retired() || self.pool.directory.is_removed() {
            return Err(self.error(Reason::Removed));
        }
        let table = self.tables.replace(table, &self.pool)?.ok_or_else(|| self.error(Reason::ReadOnly))?;
        self.tell_owner(table)
    }

    /// Fixes the ownership of the manager, and passes it on to a table.
    fn tell_owner<'t>(&self, table: &'t Table) -> Result<&'t Table> {
        Self::tell(table, self.ownership.fix());
        Ok(table)
    }

    fn tell(table: &Table, ownership: Ownership) {
        if ownership == Ownership::Process {
            let _settled_already = table.native.set_ownership(ownership);
        }
    }

    /// Closes the manager; the directory stays.
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

    fn error(&self, reason: Reason) -> Error {
        Error::new(&self.storage, reason)
    }

    /// The same, for a call that concerns one lock.
    fn error_at(&self, id: u32) -> impl Fn(Reason) -> Error {
        move |reason| self.error(reason.at_lock(id))
    }

    fn check_id(&self, id: u32) -> Outcome<()> {
        if id < MAX_LOCKS { Ok(()) } else { Err(Reason::OutOfRange { id, num_locks: MAX_LOCKS }) }
    }

    fn is_writable(&self) -> Outcome<()> {
        match self.pool.directory.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(Reason::ReadOnly),
        }
    }

    /// Begins a call that changes something. `id`: the lock that it concerns, if it concerns one.
    fn begin(&self, id: Option<u32>) -> Result<()> {
        id.map_or(Ok(()), |id| self.check_id(id)).map_err(|reason| self.error(reason))?;
        self.is_writable().map_err(|reason| self.error(reason))?;
        self.ensure_attached();
        Ok(())
    }

    /// Attaches a forked child to the table. Every call begins with this, so the child's first call does it, whichever that is.
    fn ensure_attached(&self) {
        if let Some(table) = self.tables.present() {
            let _as_well_later = table.native.retrieve_lock(0);
        }
    }
}

impl std::fmt::Debug for FileManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileManager").field("storage", &self.storage).finish_non_exhaustive()
    }
}

impl Sealed for FileManager {}

impl Manager for FileManager {
    fn allocate_lock(&self) -> Result<u32> {
        self.begin(None)?;
        self.pool.allocate().map_err(|reason| self.error(reason))
    }

    fn retrieve_lock(&self, id: u32) -> Result<()> {
        self.ensure_attached();
        self.check_id(id).map_err(|reason| self.error(reason))
    }

    fn allocate_and_retrieve_lock(&self, id: u32) -> Result<()> {
        self.begin(Some(id))?;
        self.pool.allocate_given(id).map_err(self.error_at(id))
    }

    fn free_lock(&self, id: u32) -> Result<()> {
        self.begin(Some(id))?;
        self.pool.free(id).map_err(self.error_at(id))
    }

    fn free_all_locks(&self) -> Result<()> {
        self.begin(None)?;
        self.pool.free_all().map_err(|reason| self.error(reason))
    }

    fn available_locks(&self) -> Result<u32> {
        self.ensure_attached();
        Ok(UNLIMITED)
    }

    fn num_locks(&self) -> Result<u32> {
        self.ensure_attached();
        Ok(UNLIMITED)
    }

    backend::lock_by_paths!();

    fn lock_holders(&self, id: u32) -> Result<Vec<Holder>> {
        self.ensure_attached();
        self.holders(id)
    }

    fn set_ownership(&self, ownership: Ownership) -> Result<()> {
        self.begin(None)?;
        self.ownership.choose(ownership).map_err(|reason| self.error(reason))?;
        // Pass it on now: this manager's first call may be an unlock of what the process reads through another manager.
        self.tables.all().try_for_each(|table| table.native.set_ownership(ownership))
    }

    fn locks_held(&self) -> Result<Vec<u32>> {
        self.ensure_attached();
        self.held_ids()
    }

    fn lock_info(&self, id: u32) -> Result<LockInfo> {
        self.ensure_attached();
        self.inspect(&[id])?.pop().ok_or_else(|| self.error(Reason::OutOfRange { id, num_locks: MAX_LOCKS }))
    }

    fn lock_infos(&self, ids: &[u32]) -> Result<Vec<LockInfo>> {
        self.ensure_attached();
        self.inspect(ids)
    }

    fn waiters(&self) -> Result<Vec<Waiter>> {
        self.ensure_attached();
        self.table_to_look()?.map_or_else(|| Ok(Vec::new()), |table| table.native.waiters())
    }

    fn info(&self) -> Result<Info> {
        self.ensure_attached();
        self.describe()
    }

    fn repair_lock(&self, id: u32) -> Result<()> {
        self.begin(Some(id))?;
        let info = self.lock_info(id)?;
        match self.tables.present() {
            // A word holds it, or did until its holder died.
            Some(table) if id < table.native.known_locks() && table.native.is_taken(id) => table.native.repair_lock(id),
            // libpod holds it. The kernel releases a dead process's record locks, so this process is alive.
            _ if info.held => Err(self.error(Reason::ProcessHolds { id, pid: info.pid as u32 })),
            _ => Ok(()),
        }
    }

    fn check_idle(&self) -> Result<()> {
        self.tables.all().try_for_each(|table| table.native.check_idle())
    }

    fn grow(&self, _num_locks: u32) -> Result<()> {
        Err(self.error(Reason::Unsupported("a lock directory has no number of locks; allocate as many as you need")))
    }
}

impl Drop for FileManager {
    fn drop(&mut self) {
        // The caller has not released its locks, so they stay held until the process ends.
        if self.check_idle().is_err() {
            self.pool.keep_forever();
        }
    }
}
