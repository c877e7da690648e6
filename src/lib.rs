// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbered locks that several processes share, each named by an id: allocated, locked, freed, and recovered when
//! their holder dies. Shared memory has two layouts: the library's own, which grows and finds deadlocks, and Podman's,
//! byte for byte, so that a process with this library and a real Podman work on one segment, live.
//!
//! Start with [`ShmManager`] and [`Lock`]. C programs include `lock_manager.h`; what cannot be promised is in
//! `docs/caveats.md`.

#[cfg(not(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64")))]
compile_error!(
    "lock-manager needs 64-bit Linux and glibc: its locks are glibc's robust mutexes, waited for by futex(2)"
);

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
pub use lock::{Guard, Held, HeldShared, Lock, SharedGuard};
pub use manager::{Acquired, Holder, Info, Kind, Layout, LockInfo, Manager, Ownership, UNLIMITED, Wait, Waiter};
pub use memory::InMemoryManager;
pub use shm::{MAX_LOCKS, SegmentOptions, ShmManager, formats};
pub use sys::Errno;

/// The library's version, as `lock_manager_version()` gives it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The name by which the dynamic linker knows the C interface; programs linked with it go on working while it stays.
pub const SONAME: &str = env!("LOCK_MANAGER_SONAME");
