// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lock and unlock at the boundary. A free lock of a native segment is taken and given back without anything around it:
//! that path cannot fail or panic. Every other one ends in a call by the C convention, out of which nothing unwinds, so
//! that the short path keeps nothing and needs no way out.
//!
//! Each function asks of its caller what the parent module asks of C.

use std::hint::cold_path;

use crate::manager::{Acquired, Wait};
use crate::shm::{AtOnce, ByLayout, Libpod, Native, Release};

use super::boundary::{call, manager as opened};
use super::{LOCK_MANAGER_OWNER_DIED, lock_manager_t};

/// How long a call waits, as a type: what is the same in each call of a function need not be kept in it.
pub(super) trait Patience: Copy {
    fn wait(self) -> Wait;
}

#[derive(Clone, Copy)]
pub(super) struct Endless;

#[derive(Clone, Copy)]
pub(super) struct NoPatience;

/// Nanoseconds.
#[derive(Clone, Copy)]
pub(super) struct AtMost(pub(super) u64);

impl Patience for Endless {
    fn wait(self) -> Wait {
        Wait::Forever
    }
}

impl Patience for NoPatience {
    fn wait(self) -> Wait {
        Wait::Try
    }
}

impl Patience for AtMost {
    fn wait(self) -> Wait {
        Wait::Nanoseconds(self.0)
    }
}

/// Takes a lock.
///
/// # Safety
/// The module's contract.
#[inline(always)]
pub(super) unsafe fn acquire(manager: *mut lock_manager_t, id: u32, patience: impl Patience) -> i32 {
    // SAFETY: the module's contract.
    unsafe {
        let Some(lock_manager_t::Shm(shm)) = manager.as_ref() else { return acquire_slowly(manager, id, patience) };
        match shm.by_layout() {
            ByLayout::Libpod(libpod) => {
                // Not rare: only out of the native way, for which a jump taken in each of lock and unlock is a cycle in 20.
                cold_path();
                acquire_mutex(libpod, manager, id, patience)
            }
            ByLayout::Native(native) => match native.acquire_at_once(id) {
                AtOnce::Acquired(acquired) => code(acquired),
                AtOnce::Undecided => acquire_slowly(manager, id, patience),
                AtOnce::Retired => acquire_retired(native, manager, id, patience),
            },
        }
    }
}

/// Gives a lock back.
///
/// # Safety
/// The module's contract.
#[inline(always)]
pub(super) unsafe fn release(manager: *mut lock_manager_t, id: u32) -> i32 {
    // SAFETY: the module's contract.
    unsafe {
        let Some(lock_manager_t::Shm(shm)) = manager.as_ref() else { return unlock_slowly(manager, id) };
        match shm.by_layout() {
            ByLayout::Libpod(libpod) => {
                // As in acquire().
                cold_path();
                unlock_mutex(libpod, id)
            }
            ByLayout::Native(native) => match native.release_at_once(id) {
                Release::Done => 0,
                _ => unlock_slowly(manager, id),
            },
        }
    }
}

/// A free lock of a libpod segment is taken with as little around it as the libc allows.
///
/// # Safety
/// The module's contract.
#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "called from here alone: the convention says that nothing unwinds")]
unsafe extern "C" fn acquire_mutex(
    libpod: &Libpod,
    manager: *mut lock_manager_t,
    id: u32,
    patience: impl Patience,
) -> i32 {
    match libpod.acquire_at_once(id) {
        Some(acquired) => code(acquired),
        // SAFETY: the module's contract.
        None => unsafe { acquire_slowly(manager, id, patience) },
    }
}

/// # Safety
/// The module's contract.
#[cold]
#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "called from here alone: the convention says that nothing unwinds")]
unsafe extern "C" fn acquire_retired(
    native: &Native,
    manager: *mut lock_manager_t,
    id: u32,
    patience: impl Patience,
) -> i32 {
    native.hand_back(id);
    // SAFETY: the module's contract.
    unsafe { acquire_slowly(manager, id, patience) }
}

/// # Safety
/// The module's contract.
#[cold]
#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "called from here alone: the convention says that nothing unwinds")]
unsafe extern "C" fn acquire_slowly(manager: *mut lock_manager_t, id: u32, patience: impl Patience) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe { opened(manager)?.acquire(id, patience.wait(), None).map(code) })
}

#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "called from here alone: the convention says that nothing unwinds")]
extern "C" fn unlock_mutex(libpod: &Libpod, id: u32) -> i32 {
    match libpod.release_at_once(id) {
        Release::Done => 0,
        release => unlock_refused(libpod, id, release),
    }
}

#[cold]
#[inline(never)]
fn unlock_refused(libpod: &Libpod, id: u32, release: Release) -> i32 {
    call(|| libpod.release_slowly(id, release).map(|()| 0))
}

/// # Safety
/// The module's contract.
#[inline(never)]
unsafe extern "C" fn unlock_slowly(manager: *mut lock_manager_t, id: u32) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe { opened(manager)?.unlock(id).map(|()| 0) })
}

#[inline(always)]
pub(super) fn code(acquired: Acquired) -> i32 {
    match acquired {
        Acquired::Clean => 0,
        Acquired::OwnerDied => LOCK_MANAGER_OWNER_DIED,
    }
}
