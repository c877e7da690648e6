// SPDX-License-Identifier: MIT OR Apache-2.0
//! The way to the locks in etcd, which are a crate of their own. Where that is not built, tools/platforms/without_etcd.rs stands
//! in this file's place.

use std::ffi::{c_char, c_void};
use std::ptr;

use lock_manager::Manager;
use lock_manager_etcd::{EtcdManager, Options};

pub const IS_BUILT: bool = true;

unsafe extern "C" {
    fn lock_manager_open_etcd(address: *const c_char, n: u32, options: *const c_void, out: *mut *mut c_void) -> i32;
}

/// Through Rust. `Err`: the errno value.
pub fn open(address: &str, num_locks: u32) -> Result<Box<dyn Manager>, i32> {
    let opened = Options::of_address(address).and_then(|options| EtcdManager::open(options, num_locks));
    opened.map(|manager| Box::new(manager.into_manager()) as _).map_err(|failure| failure.errno)
}

/// Through C.
///
/// # Safety
/// As for the C function, with no options.
pub unsafe fn open_through_c(address: *const c_char, num_locks: u32, out: *mut *mut c_void) -> i32 {
    // SAFETY: the caller's.
    unsafe { lock_manager_open_etcd(address, num_locks, ptr::null(), out) }
}

/// Removes what is stored under the address.
pub fn remove(address: &str) -> Result<(), i32> {
    let removed = Options::of_address(address).and_then(|options| lock_manager_etcd::remove(&options));
    removed.map(drop).map_err(|failure| failure.errno)
}
