// SPDX-License-Identifier: MIT OR Apache-2.0
#![deny(unsafe_code)]
//! Backends that live in other libraries: called by a table of functions, beneath the native locks of one host.
//!
//! The native lock comes first. It settles what has to do with threads, processes, and forked children, and finds the deaths
//! and the deadlocks of one host. The backend sees one caller of a lock at a time, and excludes hosts from each other.

mod acquiring;
mod calls;
pub(crate) mod table;

use std::ffi::c_void;
use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backend::{self, Mode};
use crate::manager::sealed::Sealed;
use crate::manager::{Holder, Info, Kind, LockInfo, Manager, Ownership, Waiter};
use crate::shm::{self, Native, Outcome, SegmentName};
use crate::{Error, Reason, Result};
use calls::Calls;
use table::lock_manager_backend_t;

/// A manager whose locks a backend in another library keeps for several hosts.
///
/// That library makes it; see `lock_manager_backend_t` in `lock_manager.h`.
pub struct PluggedManager(Box<Plugged>);

/// What it is made of. Apart, so that a handle to any manager stays as small, and as quick to tell apart, as it was.
pub struct Plugged {
    host: Native,
    calls: Calls,
    num_locks: u32,
    storage: Arc<PathBuf>,
}

impl Deref for PluggedManager {
    type Target = Plugged;

    #[inline]
    fn deref(&self) -> &Plugged {
        &self.0
    }
}

impl PluggedManager {
    /// Opens a manager on a backend's table. `host` is the name of a native segment, which is made if it is missing; `None`:
    /// the first locks are those of this process alone. `name` is what errors call the storage.
    ///
    /// After an error, the state is still the caller's.
    ///
    /// # Errors
    /// `EINVAL` for a table that is null or too small; what the table's `num_locks` returns; those of opening the segment.
    ///
    /// # Safety
    /// `table` is null or points to a `lock_manager_backend_t`, and `state` is what its functions want.
    #[allow(unsafe_code, reason = "the table is another library's")]
    pub unsafe fn open(table: *const c_void, state: *mut c_void, name: &str, host: Option<&Path>) -> Result<Self> {
        let storage = Arc::new(PathBuf::from(name));
        let named = |reason| Error::new(&storage, reason);
        // SAFETY: this function's own contract.
        let calls = unsafe { Calls::new(table.cast::<lock_manager_backend_t>(), state) }.map_err(named)?;
        // Until all is well, the state stays the caller's.
        let calls = std::mem::ManuallyDrop::new(calls);
        let num_locks = calls.num_locks().map_err(named)?;
        if num_locks == 0 || num_locks > shm::MAX_LOCKS {
            return Err(named(Reason::TooManyLocks { asked: num_locks, most: shm::MAX_LOCKS }));
        }
        let first = match host {
            None => Native::in_memory(&storage, num_locks)?,
            Some(path) => shm::open_host(&SegmentName::parse(path)?, num_locks)?,
        };
        let calls = std::mem::ManuallyDrop::into_inner(calls);
        Ok(Self(Box::new(Plugged { host: first, calls, num_locks, storage })))
    }

    /// The backend's state, if `close` is the function of its table by that name.
    #[must_use]
    pub fn state_if_of(&self, close: *const c_void) -> Option<*mut c_void> {
        self.calls.state_if_of(close)
    }

    /// Checks that the calling thread, or this process where it owns the lock, holds it through this manager.
    ///
    /// # Errors
    /// `EPERM` if it does not; `EINVAL` for an id out of range.
    pub fn check_holds(&self, id: u32) -> Result<()> {
        self.told(self.is_in_range(id))?;
        if self.host.holds(id) { Ok(()) } else { Err(self.error(Reason::NotHolder { id })) }
    }

    #[cold]
    fn error(&self, reason: Reason) -> Error {
        Error::new(&self.storage, reason)
    }

    fn is_in_range(&self, id: u32) -> Outcome<()> {
        if id < self.num_locks { Ok(()) } else { Err(Reason::OutOfRange { id, num_locks: self.num_locks }) }
    }

    fn is_exclusive(&self, mode: Mode) -> Outcome<()> {
        match mode {
            Mode::Exclusive => Ok(()),
            Mode::Shared => Err(Reason::Unsupported("these locks have no shared mode; lock exclusively")),
        }
    }

    fn told<T>(&self, found: Outcome<T>) -> Result<T> {
        found.map_err(|reason| self.error(reason))
    }

    /// What this call asks of the backend, for an id that exists.
    fn ask<T>(&self, id: u32, ask: impl FnOnce(&Calls) -> Outcome<T>) -> Result<T> {
        self.told(self.is_in_range(id).and_then(|()| ask(&self.calls)))
    }
}

fn number_of(ownership: Ownership) -> u32 {
    match ownership {
        Ownership::Thread => 0,
        Ownership::Process => 1,
    }
}

impl Drop for PluggedManager {
    fn drop(&mut self) {
        // The locks stay held, as the caller never gave them back; the process's end is what frees them.
        if self.host.check_idle().is_err() {
            self.calls.stay_open();
        }
    }
}

impl fmt::Debug for PluggedManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluggedManager").field("storage", &self.storage).finish_non_exhaustive()
    }
}

impl Sealed for PluggedManager {}

impl Manager for PluggedManager {
    fn allocate_lock(&self) -> Result<u32> {
        self.told(self.calls.allocate_lock())
    }

    fn retrieve_lock(&self, id: u32) -> Result<()> {
        self.told(self.is_in_range(id))
    }

    fn allocate_and_retrieve_lock(&self, id: u32) -> Result<()> {
        self.ask(id, |calls| calls.allocate_given(id))
    }

    fn free_lock(&self, id: u32) -> Result<()> {
        self.ask(id, |calls| calls.free_lock(id))
    }

    fn free_all_locks(&self) -> Result<()> {
        self.told(self.calls.free_all_locks())
    }

    fn available_locks(&self) -> Result<u32> {
        self.told(self.calls.available_locks())
    }

    fn num_locks(&self) -> Result<u32> {
        Ok(self.num_locks)
    }

    backend::lock_by_paths!();

    fn lock_holders(&self, id: u32) -> Result<Vec<Holder>> {
        self.told(self.is_in_range(id))?;
        Err(self.error(Reason::Unsupported("these locks have one holder; use lock_info")))
    }

    fn set_ownership(&self, ownership: Ownership) -> Result<()> {
        self.host.set_ownership(ownership)
    }

    fn locks_held(&self) -> Result<Vec<u32>> {
        let mut held = self.told(self.calls.locks_held())?;
        // Not those that this host keeps though nobody on it holds them.
        held.retain(|&id| {
            let is_held_here = self.host.lock_info(id).is_ok_and(|info| info.held);
            is_held_here || self.calls.lock_info(id).is_ok_and(|known| known.here == 0 && known.held != 0)
        });
        Ok(held)
    }

    fn lock_info(&self, id: u32) -> Result<LockInfo> {
        let known = self.ask(id, |calls| calls.lock_info(id))?;
        let here = self.host.lock_info(id)?;
        let is_here = known.here != 0 && here.held;
        // What this host keeps though nobody on it holds it, or what only this host knows of yet: a death.
        let is_left_here = known.here != 0 && !here.held;
        Ok(LockInfo {
            id,
            allocated: known.allocated != 0,
            held: known.held != 0 && !is_left_here,
            owner_died: known.owner_died != 0 || (is_left_here && here.owner_died),
            pid: if is_here { here.pid } else { 0 },
            tid: if is_here { here.tid } else { 0 },
            pid_namespace: if is_here { here.pid_namespace } else { 0 },
            waiters: known.waiters.saturating_add(here.waiters),
            ownership: match known.ownership {
                0 => Ownership::Thread,
                _ => Ownership::Process,
            },
            waited_ns: known.waited_ns.max(here.waited_ns),
            ..LockInfo::default()
        })
    }

    /// Those of this host.
    fn waiters(&self) -> Result<Vec<Waiter>> {
        self.host.waiters()
    }

    fn info(&self) -> Result<Info> {
        let Info { attached, retired, .. } = self.host.info()?;
        let num_locks = self.num_locks;
        Ok(Info { kind: Kind::Backend, layout: None, num_locks, max_locks: num_locks, attached, retired })
    }

    fn repair_lock(&self, id: u32) -> Result<()> {
        self.told(self.is_in_range(id))?;
        self.host.repair_lock(id)?;
        let known = self.told(self.calls.lock_info(id))?;
        if known.held != 0 && known.here == 0 {
            let why = "another host holds it, and only its lease says whether that host lives";
            return Err(self.error(Reason::CannotJudge { id, holder: 0, why }));
        }
        Ok(())
    }

    fn check_idle(&self) -> Result<()> {
        self.host.check_idle()
    }

    fn grow(&self, _num_locks: u32) -> Result<()> {
        Err(self.error(Reason::Unsupported("the number of these locks is fixed when they are created")))
    }

    fn fencing_token(&self, id: u32) -> Result<u64> {
        self.check_holds(id)?;
        self.told(self.calls.fencing_token(id))
    }

    fn lost_fd(&self) -> Result<i32> {
        self.told(self.calls.lost_fd())
    }
}
