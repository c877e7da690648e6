// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbered locks that several processes share. A program allocates a lock, locks it, unlocks it and frees it by its id. If
//! the holder of a lock dies, the next holder is told.
//!
//! A segment of shared memory has one of two layouts. The native layout, the default, is the library's own: it grows while it
//! is in use, and reports deadlocks. The libpod layout is Podman's, byte for byte, so a program with this library and a
//! running Podman can use one segment together.
//!
//! Start with [`ShmManager`] and [`Lock`]. C programs include `lock_manager.h`. `docs/caveats.md` says what cannot be
//! promised.
//!
//! The locks need Linux. Elsewhere the crate compiles, and each constructor answers `EOPNOTSUPP`.

#![cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, unused_macros, reason = "much of what errors say is said on Linux only")
)]

#[cfg(target_os = "linux")]
mod acquisition;
#[cfg(target_os = "linux")]
mod backend;
#[cfg(target_os = "linux")]
mod cancel;
#[cfg(not(target_os = "linux"))]
mod elsewhere;
mod error;
#[cfg(target_os = "linux")]
mod ffi;
#[cfg(target_os = "linux")]
mod file;
mod lock;
mod manager;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(target_os = "linux")]
mod ownership;
#[cfg(target_os = "linux")]
mod plugged;
#[cfg(target_os = "linux")]
mod shm;
mod sys;

#[cfg(target_os = "linux")]
pub use cancel::Cancel;
#[cfg(not(target_os = "linux"))]
pub use elsewhere::{Cancel, FileManager, InMemoryManager, MAX_LOCKS, SegmentOptions, ShmManager, formats};
pub use error::{Error, Reason, Result, Waits};
#[cfg(target_os = "linux")]
pub use file::FileManager;
pub use lock::{Guard, Held, HeldBy, HeldShared, Lock, SharedGuard};
pub use manager::{Acquired, Holder, Info, Kind, Layout, LockInfo, Manager, Ownership, UNLIMITED, Wait, Waiter};
#[cfg(target_os = "linux")]
pub use memory::InMemoryManager;
#[cfg(target_os = "linux")]
pub use plugged::PluggedManager;
#[cfg(target_os = "linux")]
pub use shm::{MAX_LOCKS, SegmentOptions, ShmManager, formats};
pub use sys::Errno;

/// The version of the library, as `lock_manager_version()` returns it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The soname of the C interface. Programs that were linked with it keep working as long as it stays the same.
pub const SONAME: &str = env!("LOCK_MANAGER_SONAME");
