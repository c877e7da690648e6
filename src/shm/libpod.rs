// SPDX-License-Identifier: MIT OR Apache-2.0
#![deny(unsafe_code)]
//! The libpod layout: Podman's own segments, byte for byte, with POSIX robust mutexes that a real Podman understands.
//!
//! A *pool* is a segment as this process has it mapped; a [`Libpod`] is a manager on it. The pool records which thread
//! holds what, in memory that no child inherits. A mutex is never asked for its holder: the thread id in it may be of
//! another PID namespace.

mod allocation;
mod bitmaps;
mod fast;
mod format;
mod inspection;
mod judgement;
mod locking;
mod pool;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::backend::{self, Backend, FastAcquire, Mode, Release, Request, Spin};
use crate::manager::sealed::Sealed;
use crate::manager::{Holder, Info, Kind, Layout, LockInfo, Manager, Ownership};
use crate::sys::mutex::MutexLayout;
use crate::sys::process::Process;
use crate::sys::process::arena::CacheLine;
use crate::sys::process::registry::Shared;
use crate::sys::syscall::file::Access;
use crate::sys::thread;
use crate::{Error, Reason, Result};

use super::Outcome;
use super::name::SegmentName;
use super::segment::{Candidate, Segment};
use format::Geometry;
pub(super) use format::{MAGIC, is_ours};
use locking::SlowPath;
use pool::Pool;

/// A manager on a segment in the libpod layout. All that lock and unlock need of the pool is one load away: between two
/// locked instructions the processor hides nothing, so every further load costs its full time.
pub(crate) struct Libpod {
    /// The mutex of lock 0.
    mutexes: *mut u8,
    /// The one that guards the bitmaps.
    guard: *mut u8,
    /// How many locks may be taken through the manager: all, or none if it was opened read only.
    lockable: u32,
    mutex_layout: MutexLayout,
    /// A word for each lock: which thread of this process holds it, as the manager's number and the thread's local id.
    holders: *const AtomicU64,
    /// The manager's number in this process, above the bits of a local id.
    manager: u64,
    process: &'static Process,
    /// Keeps all that the pointers above point to.
    pool: Shared<Pool>,
    storage: Arc<PathBuf>,
    /// One word: the number of threads that wait in calls on the manager.
    waiting: CacheLine,
}

impl Libpod {
    /// Creates a segment and opens it.
    pub(super) fn create(name: &SegmentName, num_locks: u32, mode: u32) -> Result<Self> {
        let geometry = Geometry::for_locks(num_locks);
        Self::new(name, geometry, || pool::create(name, geometry, mode))
    }

    /// Opens the file of `candidate`, whose first bytes are `start`.
    pub(super) fn open(candidate: Candidate, start: &[u8], num_locks: u32) -> Result<Self> {
        let geometry = format::check_libc(start).and_then(|()| Geometry::read(start, candidate.metadata.size));
        let geometry = geometry.map_err(|reason| candidate.name.error(reason))?;
        if num_locks != 0 {
            let asked = Geometry::for_locks(num_locks).num_locks();
            if asked != geometry.num_locks() {
                let reason = Reason::WrongCount { there: geometry.num_locks(), asked };
                return Err(candidate.name.error(reason));
            }
        }
        let name = candidate.name.clone();
        Self::new(&name, geometry, || candidate.map(geometry.size(), pool::REMOVAL_LOOK_INTERVAL_NS))
    }

    fn new(name: &SegmentName, geometry: Geometry, segment: impl FnOnce() -> Result<Segment>) -> Result<Self> {
        static NEXT_MANAGER: AtomicU64 = AtomicU64::new(1);
        let process = Process::current().map_err(|errno| name.error(Reason::of_reserving(errno)))?;
        let waiting = CacheLine::claim().map_err(name.failed("reserving memory"))?;
        let pool = Pool::of(process, name, segment()?, geometry)?;
        let manager = NEXT_MANAGER.fetch_add(1, Ordering::Relaxed) << thread::LOCAL_ID_BITS;
        let (mutexes, guard, holders) = pool.addresses();
        let lockable = if pool.segment.access == Access::ReadWrite { pool.geometry.num_locks() } else { 0 };
        let (mutex_layout, storage) = (pool.mutex_layout, Arc::clone(name.shown()));
        Ok(Self { mutexes, guard, lockable, mutex_layout, holders, manager, process, pool, storage, waiting })
    }

    #[cold]
    fn error(&self, reason: Reason) -> Error {
        Error::new(&self.storage, reason)
    }

    /// Adds the storage to a failure.
    fn told<T>(&self, found: Outcome<T>) -> Result<T> {
        found.map_err(|reason| self.error(reason))
    }

    fn is_in_range(&self, id: u32) -> Outcome<()> {
        let num_locks = self.pool.geometry.num_locks();
        if id < num_locks { Ok(()) } else { Err(Reason::OutOfRange { id, num_locks }) }
    }

    fn is_writable(&self) -> Outcome<()> {
        if self.pool.segment.access == Access::ReadWrite { Ok(()) } else { Err(Reason::ReadOnly) }
    }

    /// Checks that a lock may be changed through the manager.
    fn may_change(&self, id: u32) -> Outcome<()> {
        self.is_in_range(id)?;
        self.is_writable()
    }
}

impl fmt::Debug for Libpod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Libpod")
            .field("storage", &self.storage)
            .field("num_locks", &self.pool.geometry.num_locks())
            .field("access", &self.pool.segment.access)
            .finish_non_exhaustive()
    }
}

const NO_READERS: Reason = Reason::Unsupported(
    "a mutex of the libpod layout has one holder only; lock exclusively, or use a segment of the native layout",
);

impl Backend for Libpod {
    type Slow<'b> = SlowPath<'b>;

    fn storage(&self) -> &Arc<PathBuf> {
        &self.storage
    }

    #[inline(always)]
    fn acquire_fast(&self, id: u32, mode: Mode) -> FastAcquire {
        let acquired = if mode == Mode::Exclusive { self.try_mutex_of(id) } else { None };
        acquired.map_or(FastAcquire::GoSlow, FastAcquire::Acquired)
    }

    #[inline]
    fn acquire_mid(&self, id: u32, mode: Mode, spin: Spin) -> FastAcquire {
        let acquired = match (mode, spin) {
            (Mode::Exclusive, Spin::Briefly) => self.spin_for_mutex_of(id),
            _ => None,
        };
        acquired.map_or(FastAcquire::GoSlow, FastAcquire::Acquired)
    }

    #[inline]
    fn acquire_slow<'b>(&'b self, request: Request<'b>) -> SlowPath<'b> {
        SlowPath::new(self, request)
    }

    #[inline(always)]
    fn release_fast(&self, id: u32, mode: Mode) -> Release {
        match mode {
            Mode::Exclusive => self.unlock_mutex_of(id),
            Mode::Shared => Release::GoSlow,
        }
    }

    fn release_slow(&self, id: u32, mode: Mode, missed: Release) -> Outcome<()> {
        match mode {
            Mode::Exclusive => self.refuse_release(id, missed),
            Mode::Shared => Err(NO_READERS),
        }
    }

    fn downgrade_slow(&self, _id: u32) -> Outcome<()> {
        Err(NO_READERS)
    }

    #[inline]
    fn allocate_fast(&self) -> Option<u32> {
        self.with_bitmaps_fast(|pool| pool.allocate())
    }

    #[inline]
    fn free_fast(&self, id: u32) -> Option<()> {
        if id >= self.pool.geometry.num_locks() {
            return None;
        }
        self.with_bitmaps_fast(|pool| pool.free(id))
    }

    #[inline]
    fn available_fast(&self) -> Option<u32> {
        Some(self.pool.count_free())
    }

    /// Waiters sleep on the word of a lock's mutex, wherever the libc has it.
    fn lock_at(&self, offset: u64) -> Option<u32> {
        self.pool.geometry.lock_at(offset.checked_sub(self.mutex_layout.word as u64)?)
    }
}

impl Sealed for Libpod {}

impl Manager for Libpod {
    fn allocate_lock(&self) -> Result<u32> {
        self.told(self.with_bitmaps(|pool| pool.allocate()))
    }

    fn retrieve_lock(&self, id: u32) -> Result<()> {
        self.told(self.is_in_range(id))
    }

    fn allocate_and_retrieve_lock(&self, id: u32) -> Result<()> {
        self.told(self.is_in_range(id).and_then(|()| self.with_bitmaps(|pool| pool.allocate_given(id))))
    }

    fn free_lock(&self, id: u32) -> Result<()> {
        self.told(self.is_in_range(id).and_then(|()| self.with_bitmaps(|pool| pool.free(id))))
    }

    fn free_all_locks(&self) -> Result<()> {
        self.told(self.with_bitmaps(|pool| {
            pool.free_all();
            Ok(())
        }))
    }

    fn available_locks(&self) -> Result<u32> {
        Ok(self.pool.count_free())
    }

    fn num_locks(&self) -> Result<u32> {
        Ok(self.pool.geometry.num_locks())
    }

    backend::lock_by_paths!();

    fn lock_holders(&self, _id: u32) -> Result<Vec<Holder>> {
        Err(self.error(NO_READERS))
    }

    fn set_ownership(&self, ownership: Ownership) -> Result<()> {
        match ownership {
            Ownership::Thread => Ok(()),
            Ownership::Process => Err(self.error(Reason::Unsupported(
                "the mutexes of the libpod layout belong to threads; unlock in the thread that locked",
            ))),
        }
    }

    fn locks_held(&self) -> Result<Vec<u32>> {
        Ok((0..self.pool.geometry.num_locks()).filter(|&id| self.is_held(id)).collect())
    }

    fn lock_info(&self, id: u32) -> Result<LockInfo> {
        self.told(self.is_in_range(id).map(|()| self.inspect(id)))
    }

    fn info(&self) -> Result<Info> {
        let num_locks = self.pool.geometry.num_locks();
        let (layout, retired) = (Some(Layout::Libpod), self.pool.segment.is_removed());
        Ok(Info { kind: Kind::Shm, layout, num_locks, max_locks: num_locks, attached: 0, retired })
    }

    fn repair_lock(&self, id: u32) -> Result<()> {
        self.told(self.may_change(id).and_then(|()| self.repair(id)))
    }

    fn check_idle(&self) -> Result<()> {
        self.told(self.is_idle())
    }

    fn grow(&self, _num_locks: u32) -> Result<()> {
        let fixed = "a segment in the libpod layout has a fixed number of locks; create another with more";
        self.told(self.is_writable().and(Err(Reason::Unsupported(fixed))))
    }
}

impl Drop for Libpod {
    fn drop(&mut self) {
        // The registry drops the pool with its last manager. A robust list may still point into the segment of a busy
        // manager, so its part in the pool is never dropped.
        if self.is_idle().is_err() {
            self.pool.keep_forever();
        }
    }
}
