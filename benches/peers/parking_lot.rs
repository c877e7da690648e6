// SPDX-License-Identifier: MIT OR Apache-2.0
//! parking_lot's mutex, which threads of one process share.

use std::ffi::{c_char, c_int, c_void};

use ::parking_lot::RawMutex;
use ::parking_lot::lock_api::{GuardNoSend, RawMutex as _};

use super::{PARKING_LOT, Peer};
use crate::contenders::Scope;

pub fn peer() -> Peer {
    Peer::linked(PARKING_LOT, Scope::Threads, make, attach, [lock, unlock])
}

unsafe extern "C" fn make(_memory: *mut c_void, _path: *const c_char) {}

unsafe extern "C" fn attach(_memory: *mut c_void, _path: *const c_char) -> *mut c_void {
    Box::into_raw(Box::new(RawMutex::INIT)).cast()
}

unsafe extern "C" fn lock(mutex: *mut c_void, _id: u32) -> c_int {
    // SAFETY: attach() made it, and it is never freed.
    unsafe { (*mutex.cast::<RawMutex>()).lock() };
    0
}

unsafe extern "C" fn unlock(mutex: *mut c_void, _id: u32) -> c_int {
    // SAFETY: as above; the caller holds it.
    unsafe { (*mutex.cast::<RawMutex>()).unlock(GuardNoSend::new()) };
    0
}
