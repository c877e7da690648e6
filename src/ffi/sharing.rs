// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shared locks at the boundary, as `locking` has exclusive ones: the shortest way has nothing around it, and every other
//! one ends in a call out of which nothing unwinds.
//!
//! Each function asks of its caller what the parent module asks of C.

use std::hint::cold_path;

use crate::shm::{FastAcquire, Mode, Native, Release, Spin};

use super::boundary::{self, call, code, manager as opened};
use super::lock_manager_t;
use super::locking::{Patience, acquire_slow};

/// Takes a lock shared.
///
/// # Safety
/// The module's contract.
#[inline(always)]
pub(super) unsafe fn acquire(manager: *mut lock_manager_t, id: u32, patience: impl Patience) -> i32 {
    // SAFETY: the module's contract.
    unsafe {
        match manager.as_ref() {
            Some(lock_manager_t::Native(native)) => match native.share_fast(id) {
                FastAcquire::Acquired(acquired) => code(acquired),
                _ => acquire_mid(native, id, patience),
            },
            _ => {
                cold_path();
                acquire_slow(manager, id, Mode::Shared, patience.wait(), None)
            }
        }
    }
}

#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "called from here alone: the convention says that nothing unwinds")]
extern "C" fn acquire_mid(native: &Native, id: u32, patience: impl Patience) -> i32 {
    let wait = patience.wait();
    match native.share_mid(id, Spin::of(wait)) {
        FastAcquire::Acquired(acquired) => code(acquired),
        _ => boundary::acquire(&mut native.slow_path(id, Mode::Shared, wait, None), native.storage()),
    }
}

/// Gives back what is held shared.
///
/// # Safety
/// The module's contract.
#[inline(always)]
pub(super) unsafe fn release(manager: *mut lock_manager_t, id: u32) -> i32 {
    // SAFETY: the module's contract.
    unsafe {
        match manager.as_ref() {
            Some(lock_manager_t::Native(native)) => match native.unshare_fast(id) {
                Release::Done => 0,
                _ => release_mid(native, id),
            },
            _ => {
                cold_path();
                release_elsewhere(manager, id)
            }
        }
    }
}

#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "as above")]
extern "C" fn release_mid(native: &Native, id: u32) -> i32 {
    match native.unshare_mid(id) {
        Release::Done => 0,
        _ => boundary::release(native.storage(), || native.unshare_slow(id)),
    }
}

#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "as above")]
unsafe extern "C" fn release_elsewhere(manager: *mut lock_manager_t, id: u32) -> i32 {
    // SAFETY: the module's contract.
    unsafe {
        match manager.as_ref() {
            Some(lock_manager_t::File(file)) => boundary::release(file.storage(), || file.unshare(id)),
            _ => call(|| opened(manager)?.unlock_shared(id).map(|()| 0)),
        }
    }
}

/// Makes an exclusive hold a shared one.
///
/// # Safety
/// The module's contract.
pub(super) unsafe fn downgrade(manager: *mut lock_manager_t, id: u32) -> i32 {
    // SAFETY: the module's contract.
    unsafe {
        match manager.as_ref() {
            Some(lock_manager_t::Native(native)) => match native.downgrade_mid(id) {
                Release::Done => 0,
                _ => boundary::release(native.storage(), || native.downgrade_slow(id)),
            },
            Some(lock_manager_t::File(file)) => boundary::release(file.storage(), || file.downgrade(id)),
            _ => call(|| opened(manager)?.downgrade_lock(id).map(|()| 0)),
        }
    }
}
