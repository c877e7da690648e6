// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Which versions this library has of itself, its C interface and what it stores, for tools to tell.

use crate::shm;

/// The library's version, as `lock_manager_version()` gives it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The name by which the dynamic linker knows the C interface; programs linked with it go on working while it stays.
pub const SONAME: &str = env!("LOCK_MANAGER_SONAME");

/// Each kind of storage that this library reads and writes, and which version of it.
#[must_use]
pub fn formats() -> Vec<(&'static str, String)> {
    shm::formats()
}
