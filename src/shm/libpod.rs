// SPDX-License-Identifier: MIT OR Apache-2.0
#![deny(unsafe_code)]
//! The libpod layout: Podman's own segments, byte for byte, with POSIX robust mutexes that a real Podman understands.
//!
//! A *pool* is one segment as this process has it mapped; a [`Libpod`] is a manager on it. What a thread holds is
//! remembered in the pool, in memory that no child inherits, and never read off a mutex, whose thread id may be that
//! of a stranger in another PID namespace.

mod allocation;
mod bitmaps;
mod format;
mod inspection;
mod judgement;
mod locking;
mod pool;
mod view;
mod waiting;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::manager::{Acquired, Holder, Info, LockInfo, Manager, Ownership, Wait};
use crate::sys::arena::Line;
use crate::sys::file::Access;
use crate::sys::process::Process;
use crate::sys::registry::Shared;
use crate::sys::{Errno, thread};
use crate::{Cancel, Error, Reason, Result};

use super::Release;
use super::name::SegmentName;
use super::segment::Candidate;
use format::Geometry;
pub(super) use format::{MAGIC, is_ours};
use pool::Pool;
use view::View;

/// A manager on a segment in the libpod layout.
pub(crate) struct Libpod {
    view: View,
    process: &'static Process,
    storage: Arc<PathBuf>,
    access: Access,
    token: u64,
    /// One word: how many threads wait in calls on this manager.
    waiting: Line,
}

impl Libpod {
    /// Creates a segment and opens it.
    pub(super) fn create(name: &SegmentName, num_locks: u32, mode: u32) -> Result<Self> {
        Self::new(name, Access::Use, |process| Pool::create(process, name, num_locks, mode))
    }

    /// Opens what `candidate` found, whose first bytes are `start`.
    pub(super) fn open(candidate: Candidate, start: &[u8], num_locks: u32) -> Result<Self> {
        let geometry = Geometry::read(start, candidate.facts.size).map_err(|reason| candidate.name.error(reason))?;
        if num_locks != 0 {
            let asked = Geometry::for_locks(num_locks).num_locks();
            if asked != geometry.num_locks() {
                let reason = Reason::WrongCount { there: geometry.num_locks(), asked };
                return Err(candidate.name.error(reason));
            }
        }
        let (name, access) = (candidate.name.clone(), candidate.access);
        Self::new(&name, access, |process| Pool::open(process, candidate, geometry))
    }

    fn new(
        name: &SegmentName,
        access: Access,
        pool: impl FnOnce(&'static Process) -> Result<Shared<Pool>>,
    ) -> Result<Self> {
        static NEXT_TOKEN: AtomicU64 = AtomicU64::new(1);
        let no_memory = |errno: Errno| name.error(Reason::System { doing: "reserving memory", errno });
        let process = Process::current().map_err(no_memory)?;
        let waiting = Line::claim().map_err(no_memory)?;
        let pool = pool(process)?;
        let token = NEXT_TOKEN.fetch_add(1, Ordering::Relaxed) << thread::SERIAL_BITS;
        let view = View::new(pool, process, token, access);
        Ok(Self { view, process, storage: Arc::clone(name.shown()), access, token, waiting })
    }

    #[inline(always)]
    fn pool(&self) -> &Pool {
        &self.view.pool
    }

    /// See [`View::acquire_at_once`].
    #[inline(always)]
    pub(crate) fn acquire_at_once(&self, id: u32) -> Option<Acquired> {
        self.view.acquire_at_once(id)
    }

    /// Allocates a lock if nothing stands in the way.
    #[inline]
    pub(crate) fn allocate_at_once(&self) -> Option<u32> {
        self.with_bitmaps_at_once(|bitmaps| bitmaps.allocate())
    }

    /// How many locks are free: nothing ever stands in the way.
    #[inline]
    pub(crate) fn available_at_once(&self) -> u32 {
        self.view.bitmaps().count_free()
    }

    /// Frees a lock if nothing stands in the way.
    #[inline]
    pub(crate) fn free_at_once(&self, id: u32) -> Option<()> {
        if id >= self.pool().geometry.num_locks() {
            return None;
        }
        self.with_bitmaps_at_once(|bitmaps| bitmaps.free(id))
    }

    /// See [`View::release`].
    #[inline(always)]
    pub(crate) fn release_at_once(&self, id: u32) -> Release {
        self.view.release(id)
    }

    #[cold]
    fn error(&self, reason: Reason) -> Error {
        Error::new(&self.storage, reason)
    }

    fn check_range(&self, id: u32) -> Result<()> {
        self.is_in_range(id).map_err(|reason| self.error(reason))
    }

    fn check_writable(&self) -> Result<()> {
        self.is_writable().map_err(|reason| self.error(reason))
    }

    fn is_in_range(&self, id: u32) -> std::result::Result<(), Reason> {
        let num_locks = self.pool().geometry.num_locks();
        if id < num_locks { Ok(()) } else { Err(Reason::OutOfRange { id, num_locks }) }
    }

    fn is_writable(&self) -> std::result::Result<(), Reason> {
        if self.access == Access::Use { Ok(()) } else { Err(Reason::ReadOnly) }
    }

    /// Whether a lock may be taken, or given back, through the manager.
    fn may_lock(&self, id: u32) -> std::result::Result<(), Reason> {
        self.is_in_range(id)?;
        self.is_writable()
    }

    /// What errors call the segment.
    pub(crate) fn storage(&self) -> &Arc<PathBuf> {
        &self.storage
    }
}

impl fmt::Debug for Libpod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Libpod")
            .field("storage", &self.storage)
            .field("num_locks", &self.pool().geometry.num_locks())
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

const NO_READERS: Reason = Reason::Unsupported(
    "the libpod layout's mutexes have one holder; lock exclusively, or use a segment of the native layout",
);

impl Manager for Libpod {
    fn allocate_lock(&self) -> Result<u32> {
        self.with_bitmaps(|bitmaps| bitmaps.allocate())
    }

    fn retrieve_lock(&self, id: u32) -> Result<()> {
        self.check_range(id)
    }

    fn allocate_and_retrieve_lock(&self, id: u32) -> Result<()> {
        self.check_range(id)?;
        self.with_bitmaps(|bitmaps| bitmaps.allocate_given(id))
    }

    fn free_lock(&self, id: u32) -> Result<()> {
        self.check_range(id)?;
        self.with_bitmaps(|bitmaps| bitmaps.free(id))
    }

    fn free_all_locks(&self) -> Result<()> {
        self.with_bitmaps(|bitmaps| {
            bitmaps.free_all();
            Ok(())
        })
    }

    fn available_locks(&self) -> Result<u32> {
        Ok(self.pool().bitmaps().count_free())
    }

    fn num_locks(&self) -> Result<u32> {
        Ok(self.pool().geometry.num_locks())
    }

    #[inline(always)]
    fn acquire(&self, id: u32, wait: Wait, cancel: Option<&Cancel>) -> Result<Acquired> {
        // A triggered cancel object wins over a free lock.
        if cancel.is_none() {
            if let Some(acquired) = self.view.acquire_at_once(id) {
                return Ok(acquired);
            }
            if !wait.is_try()
                && let Some(acquired) = self.acquire_soon(id)
            {
                return Ok(acquired);
            }
        }
        self.acquire_slowly(id, wait, cancel)
    }

    fn acquire_shared(&self, _id: u32, _wait: Wait, _cancel: Option<&Cancel>) -> Result<Acquired> {
        Err(self.error(NO_READERS))
    }

    fn unlock_shared(&self, _id: u32) -> Result<()> {
        Err(self.error(NO_READERS))
    }

    fn downgrade_lock(&self, _id: u32) -> Result<()> {
        Err(self.error(NO_READERS))
    }

    fn lock_holders(&self, _id: u32) -> Result<Vec<Holder>> {
        Err(self.error(NO_READERS))
    }

    fn set_ownership(&self, ownership: Ownership) -> Result<()> {
        match ownership {
            Ownership::Thread => Ok(()),
            Ownership::Process => Err(self.error(Reason::Unsupported(
                "the libpod layout's mutexes belong to threads; unlock in the thread that locked",
            ))),
        }
    }

    #[inline(always)]
    fn unlock(&self, id: u32) -> Result<()> {
        match self.view.release(id) {
            Release::Done => Ok(()),
            release => self.release_slowly(id, release).map_err(|reason| self.error(reason)),
        }
    }

    fn locks_held(&self) -> Result<Vec<u32>> {
        Ok(self.held_ids())
    }

    fn lock_info(&self, id: u32) -> Result<LockInfo> {
        self.check_range(id)?;
        Ok(self.inspect(id))
    }

    fn info(&self) -> Result<Info> {
        Ok(self.describe())
    }

    fn repair_lock(&self, id: u32) -> Result<()> {
        self.check_range(id)?;
        self.check_writable()?;
        self.repair(id)
    }

    fn check_idle(&self) -> Result<()> {
        self.check_nobody_inside()?;
        self.check_nothing_held()
    }

    fn grow(&self, _num_locks: u32) -> Result<()> {
        self.check_writable()?;
        Err(self.error(Reason::Unsupported(
            "a segment in the libpod layout has a fixed number of locks; create another with more",
        )))
    }
}

impl Drop for Libpod {
    fn drop(&mut self) {
        // The registry drops the pool with its last manager. What a robust list may still point into must stay
        // mapped, so a manager that is dropped busy gives its part up for good.
        if self.check_idle().is_err() || self.pool().is_pinned() {
            self.view.pool.keep_for_ever();
        }
    }
}
