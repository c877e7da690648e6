// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stands for tests/contract/etcd.rs in a package without the crate of the locks in etcd: their tests are skipped.

use std::ffi::{c_char, c_void};

use lock_manager::Manager;

pub const IS_BUILT: bool = false;

pub fn open(_address: &str, _num_locks: u32) -> Result<Box<dyn Manager>, i32> {
    Err(libc::ENOSYS)
}

/// # Safety
/// None is needed.
pub unsafe fn open_through_c(_address: *const c_char, _num_locks: u32, _out: *mut *mut c_void) -> i32 {
    -libc::ENOSYS
}

pub fn remove(_address: &str) -> Result<(), i32> {
    Ok(())
}
