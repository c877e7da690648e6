// SPDX-License-Identifier: MIT OR Apache-2.0
#![deny(unsafe_code)]
//! The native layout: locks that need no list of the kernel's and in which no thread id decides.
//!
//! Every process that uses a segment has an entry in it, and a record lock on the entry's byte for as long as it lives.
//! A lock word names its holder whole: entry, generation of the entry, serial of the thread. One compare-and-swap takes
//! it, one gives it back; whoever finds the named holder dead swaps exactly the word that was judged. Nothing that
//! decides ownership is written anywhere else.

mod abandoning;
mod attachment;
mod backend;
mod bitmap;
mod caller;
mod cells;
mod companion;
mod converting;
mod deadlock;
mod entries;
mod format;
mod geometry;
mod inspection;
mod judgement;
mod local_waiters;
mod locking;
mod manager;
mod note;
mod pool;
mod reading;
mod records;
mod releasing;
mod rules;
mod sharing;
mod space;
mod table;
mod view;
mod waiting;
mod waits_for;
mod word;
mod writing;

/// What the bitmap and the cells are made of; the models put another in its place.
mod atomic {
    pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    /// What was changed before, and is read behind, is in the one order of all that is sequentially consistent: the accesses
    /// say so themselves. The models' do not know it, and have a fence here.
    #[inline(always)]
    pub(super) const fn in_sequence() {}
}

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::manager::Manager;
use crate::ownership::OwnershipCell;
use crate::sys::Errno;
use crate::sys::liveness;
use crate::sys::process::{Process, effective_user};
use crate::sys::syscall::file::{Access, FileSystem};
use crate::{Error, Reason, Result};

use super::MAX_LOCKS;
use super::name::SegmentName;
use super::removal::{self, Recognised};
use super::segment::Candidate;
pub(super) use caller::watch_thread_end;
pub(crate) use companion::Companion;
pub(super) use format::{VERSION, is_ours};
use geometry::Geometry;
pub(crate) use locking::SlowPath;
use pool::Pool;
use space::Space;
use view::View;

/// What a remover is told of a file that starts with these bytes.
pub(super) fn recognise(start: &[u8]) -> Recognised {
    if is_ours(start) { Recognised::WithRetiredWord(format::header::RETIRED as u64) } else { Recognised::No }
}

/// Whether a native segment that starts with these bytes was removed for good; if it has a name, that is another one.
pub(super) fn is_removed(_: &Candidate, start: &[u8]) -> bool {
    is_ours(start) && format::is_removed(start)
}

/// Whether a native segment that starts with these bytes is known to be from before this boot.
pub(super) fn is_before_boot(candidate: &Candidate, start: &[u8]) -> bool {
    let check = |geometry| check_boot(candidate, start, geometry);
    is_ours(start) && matches!(Geometry::read(start).and_then(check), Err(Reason::BeforeBoot))
}

/// Whether a segment may be used as far as the boot is concerned. The living prove that it is of this one, whatever its id
/// says: containers may have an id of their own mounted over the kernel's.
fn check_boot(candidate: &Candidate, start: &[u8], geometry: Geometry) -> std::result::Result<(), Reason> {
    // What is in memory was made since the boot.
    if candidate.file_system == FileSystem::Memory {
        return Ok(());
    }
    let boot = liveness::boot_id();
    if boot.is_ok_and(|boot| format::boot(start) == Some(boot))
        || removal::is_in_use(candidate, entries::bytes(geometry))?
    {
        return Ok(());
    }
    Err(boot.map_or_else(space::no_boot, |_| Reason::BeforeBoot))
}

/// Where the locks of a manager are at backing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backing {
    /// In a segment that has a name.
    Segment,
    /// In memory of the process of that epoch.
    Memory { epoch: u64 },
}

/// A manager of locks of the library's own.
pub(crate) struct Native {
    backing: Backing,
    view: View,
    process: &'static Process,
    storage: Arc<PathBuf>,
    ownership: OwnershipCell,
}

impl Native {
    /// Creates a segment and opens it.
    pub(super) fn create(name: &SegmentName, num_locks: u32, max_locks: u32, mode: u32) -> Result<Self> {
        let geometry = Geometry::for_locks(num_locks, max_locks).map_err(|reason| name.error(reason))?;
        // Whoever uses it opens it for both, its creator first; what that one could not open it could not remove.
        if mode & 0o600 != 0o600 && effective_user() != 0 {
            let what = "the mode does not let the owner read and write, which the native layout needs";
            return Err(name.error(Reason::BadArgument(what)));
        }
        let space = Space::create(name, geometry, mode)?;
        let inode = space.segment.metadata.inode;
        let made = Self::new(name, space, None).inspect_err(|error| {
            // What cannot be used, for want of a descriptor to attach with, is not left behind.
            if !matches!(error.reason(), Reason::Removed) {
                let is_it = |_: &Candidate, start: &[u8]| is_ours(start) && format::inode(start) == Some(inode);
                let _gone_already = super::remove_if(name, is_it);
            }
        })?;
        // From here on it has somebody living in it.
        made.pool().segment.allow_removal();
        Ok(made)
    }

    /// Opens what `candidate` found, whose first bytes are `start`. `ESTALE` where the name is to be looked up again.
    pub(super) fn open(candidate: Candidate, start: &[u8], num_locks: u32) -> Result<Self> {
        let name = candidate.name.clone();
        let refuse = |reason| name.error(reason);
        let geometry = Geometry::read(start).map_err(refuse)?;
        // The boot first: after one, a device may have another number, and what was copied then is as old.
        check_boot(&candidate, start, geometry).map_err(refuse)?;
        format::check_file(start, candidate.metadata.device, candidate.metadata.inode).map_err(refuse)?;
        let there = geometry.check_count(format::num_locks(start).unwrap_or(0)).map_err(refuse)?;
        // After the number was read: whoever grows the file makes it longer before saying so.
        let space = Space::open(candidate, geometry, there)?;
        if num_locks != 0 {
            let asked = format::rounded(num_locks);
            if asked < geometry.first_locks() || asked > there {
                return Err(refuse(Reason::WrongCount { there, asked }));
            }
        }
        if format::is_removed(start) && space.access == Access::ReadWrite {
            return Err(refuse(Reason::Removed));
        }
        Self::new(&name, space, format::identity(start))
    }

    /// `read`: the segment's id as it was read from the file, if it was.
    fn new(name: &SegmentName, space: Space, read: Option<[u8; 16]>) -> Result<Self> {
        let no_memory = |errno: Errno| name.error(Reason::System { doing: "reserving memory", errno });
        let process = Process::current().map_err(no_memory)?;
        let pool = Pool::of(process, name, space, read)?;
        let number = note::managers().claim().ok_or_else(|| name.error(Reason::TooManyManagers))?;
        let view = View::new(pool, number.into()).map_err(|errno| {
            note::managers().release(number);
            no_memory(errno)
        })?;
        let (storage, ownership) = (Arc::clone(name.shown()), OwnershipCell::default());
        let native = Self { backing: Backing::Segment, view, process, storage, ownership };
        if native.pool().access == Access::ReadWrite {
            native.pool().attached().map_err(|reason| native.error(reason))?;
            // A remover that came before is not to leave anybody behind in what it removed.
            if native.pool().is_retired() {
                return Err(native.error(Reason::Removed));
            }
        }
        Ok(native)
    }

    /// Makes just as many locks in memory of this process's own.
    pub(crate) fn in_memory(storage: &Arc<PathBuf>, num_locks: u32) -> Result<Self> {
        let refuse = |reason| Error::new(storage, reason);
        let no_memory = |errno: Errno| refuse(Reason::System { doing: "reserving memory", errno });
        let process = Process::current().map_err(no_memory)?;
        let geometry = Geometry::for_locks(num_locks, MAX_LOCKS).map_err(refuse)?;
        let space = Space::create_nameless(geometry, num_locks).map_err(refuse)?;
        let pool = Pool::of_nameless(process, space).map_err(refuse)?;
        let number = note::managers().claim().ok_or_else(|| refuse(Reason::TooManyManagers))?;
        let view = View::new(pool, number.into()).map_err(|errno| {
            note::managers().release(number);
            no_memory(errno)
        })?;
        let (backing, ownership) = (Backing::Memory { epoch: process.epoch() }, OwnershipCell::default());
        let native = Self { backing, view, process, storage: Arc::clone(storage), ownership };
        native.pool().attached().map_err(refuse)?;
        Ok(native)
    }

    #[inline(always)]
    fn pool(&self) -> &Pool {
        &self.view.pool
    }
}

impl fmt::Debug for Native {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Native")
            .field("storage", &self.storage)
            .field("num_locks", &self.pool().num_locks())
            .field("access", &self.pool().access)
            .finish_non_exhaustive()
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // A child may close what it inherited as its first call.
        self.process.begin_epoch();
        // What is held stays held as long as the process lives, and a child that shares its parent's memory takes
        // nothing of the parent's down.
        if !self.process.is_caller() || self.check_idle().is_err() {
            self.view.pool.keep_forever();
        } else {
            note::managers().release(self.view.manager as u32);
        }
    }
}
