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

mod acquisition;
mod backend;
mod cancel;
mod error;
mod ffi;
mod file;
mod lock;
mod manager;
mod memory;
mod ownership;
mod shm;
mod sys;

pub use cancel::Cancel;
pub use error::{Error, Reason, Result, Waits};
pub use file::FileManager;
pub use lock::{Guard, Held, HeldBy, HeldShared, Lock, SharedGuard};
pub use manager::{Acquired, Holder, Info, Kind, Layout, LockInfo, Manager, Ownership, UNLIMITED, Wait, Waiter};
pub use memory::InMemoryManager;
pub use shm::{MAX_LOCKS, SegmentOptions, ShmManager, formats};
pub use sys::Errno;

/// The version of the library, as `lock_manager_version()` returns it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The soname of the C interface. Programs that were linked with it keep working as long as it stays the same.
pub const SONAME: &str = env!("LOCK_MANAGER_SONAME");
