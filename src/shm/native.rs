// SPDX-License-Identifier: MIT OR Apache-2.0
#![deny(unsafe_code)]
//! The native engine. Its locks need no robust list of the kernel, and no thread id decides who holds them.
//!
//! A process that uses a segment has an entry in it, and a record lock on the entry's byte for as long as it lives. A lock
//! word names its holder completely: entry, generation of the entry, serial of the thread. One compare-and-swap takes a
//! lock, and one releases it. If the named holder is dead, a waiter swaps exactly the word that it judged. Nothing else
//! that is written decides who holds a lock.
//!
//! # The words of this engine
//!
//! | term | meaning |
//! | --- | --- |
//! | segment | a file of shared memory with locks in it, or the same in memory of one process |
//! | space, pool, view | a mapped segment; the segment as this process uses it; what a manager needs of the pool to lock |
//! | entry | the place of a process in the segment's attach table; a process *attaches* to get one |
//! | generation | how often an entry was used: with it, no two processes ever have the same name |
//! | serial | a thread's number in its process; 0 stands for the process itself |
//! | owner | entry, generation and serial: the name of a thread, or of a process, in words and cells |
//! | word | 64 bits for each lock: its owner and four flags (`word` has the table of states) |
//! | cell | a word in which one reader has its name |
//! | claim | a reader's name in a cell, before the reader has looked at the lock's word again |
//! | drain | what a writer does that has the word and waits for the readers to leave: it does not hold the lock yet |
//! | note | how often a lock was taken, and through which manager of the holder's process |
//! | slot | 64 bytes for each lock: word, note, four cells |
//! | table | the cells that all locks share, for readers that find no room in the slot |
//! | record | which thread a name means, and which lock it waits for |
//! | judge | decide whether a holder is dead; a holder that cannot be judged is not dead |
//! | take over | swap the word of a dead holder for one's own name |
//! | abandoned | of a lock: its last holder died, and nobody has taken it since |
//! | slice | one sleep of a wait, at most 5 ms unless many threads of the process wait |
//! | starve | have waited for 2 ms |
//! | companion | the record lock that a lock of a directory has beside its word |
//!
//! A lock call takes the *fast path* (`view`, `sharing`), the *mid path* (there, and in `converting`), the *slow path*
//! (`locking`, with `writing` and `reading`): `backend` says which function is which.

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
mod lockable;
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

/// The atomics of the bitmap, the cells and the lockable locks. The models replace this module.
mod atomic {
    pub(super) use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

    /// Orders the accesses before it and after it, which are all sequentially consistent, so nothing is to be done here.
    /// The models' atomics do not have that order, so theirs is a fence.
    #[inline(always)]
    pub(super) const fn in_sequence() {}
}

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::manager::Manager;
use crate::ownership::OwnershipCell;
use crate::sys::Errno;
use crate::sys::process::namespaces;
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

/// What a file that starts with these bytes is to a remover.
pub(super) fn recognise(start: &[u8]) -> Recognised {
    if is_ours(start) { Recognised::WithRetiredWord(format::header::RETIRED as u64) } else { Recognised::No }
}

/// Whether the native segment that starts with these bytes was removed. It may still have a second name.
pub(super) fn is_removed(_: &Candidate, start: &[u8]) -> bool {
    is_ours(start) && format::is_removed(start)
}

/// Whether the native segment that starts with these bytes was made before this boot.
pub(super) fn is_before_boot(candidate: &Candidate, start: &[u8]) -> bool {
    let check = |geometry| check_boot(candidate, start, geometry);
    is_ours(start) && matches!(Geometry::read(start).and_then(check), Err(Reason::BeforeBoot))
}

/// Checks that a segment was made since the boot. A segment that a living process uses was, even if its boot id differs: a
/// container may have an id of its own mounted over the kernel's.
fn check_boot(candidate: &Candidate, start: &[u8], geometry: Geometry) -> std::result::Result<(), Reason> {
    // A file in memory was made since the boot.
    if candidate.file_system == FileSystem::Memory {
        return Ok(());
    }
    let boot = namespaces::boot_id();
    if boot.is_ok_and(|boot| format::boot(start) == Some(boot))
        || removal::is_in_use(candidate, entries::bytes(geometry))?
    {
        return Ok(());
    }
    Err(boot.map_or_else(space::no_boot, |_| Reason::BeforeBoot))
}

/// Where the locks of a manager are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backing {
    /// In a segment with a name.
    Segment,
    /// In memory of the process with this epoch.
    Memory { epoch: u64 },
}

/// A manager of native locks.
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
        // Every user opens the segment for reading and writing. A creator that cannot open it could not remove it either.
        if mode & 0o600 != 0o600 && effective_user() != 0 {
            let what = "the mode does not let the owner read and write, which the native layout needs";
            return Err(name.error(Reason::BadArgument(what)));
        }
        let space = Space::create(name, geometry, mode)?;
        let inode = space.segment.metadata.inode;
        let made = Self::new(name, space, None).inspect_err(|error| {
            // Do not leave a segment behind that cannot be used, for example because there is no descriptor to attach
            // with.
            if !matches!(error.reason(), Reason::Removed) {
                let is_it = |_: &Candidate, start: &[u8]| is_ours(start) && format::inode(start) == Some(inode);
                let _gone_already = super::remove_if(name, is_it);
            }
        })?;
        // From here on a living process is attached.
        made.pool().segment.allow_removal();
        Ok(made)
    }

    /// Opens the file of `candidate`, whose first bytes are `start`. On `ESTALE` the caller looks the name up again.
    pub(super) fn open(candidate: Candidate, start: &[u8], num_locks: u32) -> Result<Self> {
        let name = candidate.name.clone();
        let refuse = |reason| name.error(reason);
        let geometry = Geometry::read(start).map_err(refuse)?;
        // Check the boot before the device: after a boot, a device may have another number.
        check_boot(&candidate, start, geometry).map_err(refuse)?;
        format::check_file(start, candidate.metadata.device, candidate.metadata.inode).map_err(refuse)?;
        let there = geometry.check_count(format::num_locks(start).unwrap_or(0)).map_err(refuse)?;
        // Map after the number of locks was read: a process that grows the file makes it longer before it raises the
        // number.
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

    /// `read`: the segment's id as it was read from the file, if it was read.
    fn new(name: &SegmentName, space: Space, read: Option<[u8; 16]>) -> Result<Self> {
        let no_memory = |errno: Errno| name.error(Reason::of_reserving(errno));
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
            // If a remover was faster, this process must not stay in what it removed.
            if native.pool().is_retired() {
                return Err(native.error(Reason::Removed));
            }
        }
        Ok(native)
    }

    /// Makes exactly `num_locks` locks in this process's memory.
    pub(crate) fn in_memory(storage: &Arc<PathBuf>, num_locks: u32) -> Result<Self> {
        let refuse = |reason| Error::new(storage, reason);
        let no_memory = |errno: Errno| refuse(Reason::of_reserving(errno));
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
        // A forked child may close an inherited manager in its first call.
        self.process.begin_epoch();
        // Held locks stay held while the process lives, and a child that shares its parent's memory must not unmap
        // anything of its parent.
        if !self.process.is_caller() || self.check_idle().is_err() {
            self.view.pool.keep_forever();
        } else {
            note::managers().release(self.view.manager as u32);
        }
    }
}
