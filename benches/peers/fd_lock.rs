// SPDX-License-Identifier: MIT OR Apache-2.0
//! The crate fd-lock: flock(2) behind a guard. Each process opens the file for itself.

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;

use ::fd_lock::{RwLock, RwLockWriteGuard};

use super::{FD_LOCK, Peer};
use crate::contenders::Scope;

struct Lock {
    file: RwLock<File>,
    guard: Option<RwLockWriteGuard<'static, File>>,
}

pub fn peer() -> Peer {
    Peer::linked(FD_LOCK, Scope::Processes, make, attach, [lock, unlock])
}

unsafe extern "C" fn make(_memory: *mut c_void, path: *const c_char) {
    // SAFETY: a string, as peer.h says.
    let path = unsafe { CStr::from_ptr(path) };
    drop(File::create(OsStr::from_bytes(path.to_bytes())).expect("the path is free"));
}

unsafe extern "C" fn attach(_memory: *mut c_void, path: *const c_char) -> *mut c_void {
    // SAFETY: a string, as peer.h says.
    let path = unsafe { CStr::from_ptr(path) };
    let file = File::options().read(true).write(true).open(OsStr::from_bytes(path.to_bytes())).expect("it was made");
    Box::into_raw(Box::new(Lock { file: RwLock::new(file), guard: None })).cast()
}

unsafe extern "C" fn lock(lock: *mut c_void, _id: u32) -> c_int {
    let lock = lock.cast::<Lock>();
    // SAFETY: attach() made it, it is never freed, and the process has one thread.
    match unsafe { (*lock).file.write() } {
        Ok(guard) => {
            // SAFETY: as above.
            unsafe { (*lock).guard = Some(guard) };
            0
        }
        Err(_) => -1,
    }
}

unsafe extern "C" fn unlock(lock: *mut c_void, _id: u32) -> c_int {
    // SAFETY: as above.
    drop(unsafe { (*lock.cast::<Lock>()).guard.take() });
    0
}
