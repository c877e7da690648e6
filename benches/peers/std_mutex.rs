// SPDX-License-Identifier: MIT OR Apache-2.0
//! std::sync::Mutex, which threads of one process share.

use std::cell::UnsafeCell;
use std::ffi::{c_char, c_int, c_void};
use std::sync::{Mutex, MutexGuard};

use super::{Peer, STD};
use crate::contenders::Scope;

struct Lock {
    mutex: Mutex<()>,
    /// The holder's.
    guard: UnsafeCell<Option<MutexGuard<'static, ()>>>,
}

pub fn peer() -> Peer {
    Peer::linked(STD, Scope::Threads, make, attach, [lock, unlock])
}

unsafe extern "C" fn make(_memory: *mut c_void, _path: *const c_char) {}

unsafe extern "C" fn attach(_memory: *mut c_void, _path: *const c_char) -> *mut c_void {
    Box::into_raw(Box::new(Lock { mutex: Mutex::new(()), guard: UnsafeCell::new(None) })).cast()
}

unsafe extern "C" fn lock(lock: *mut c_void, _id: u32) -> c_int {
    // SAFETY: attach() made it, and it is never freed.
    let lock: &'static Lock = unsafe { &*lock.cast() };
    let Ok(guard) = lock.mutex.lock() else { return -1 };
    // SAFETY: the holder alone uses the cell.
    unsafe { *lock.guard.get() = Some(guard) };
    0
}

unsafe extern "C" fn unlock(lock: *mut c_void, _id: u32) -> c_int {
    // SAFETY: attach() made it, and the caller, who holds it, alone uses the cell.
    drop(unsafe { (*(*lock.cast::<Lock>()).guard.get()).take() });
    0
}
