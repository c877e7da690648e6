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

/// Acquiring a lock in steps and sleeps.
mod acquisition;
/// Ending waits.
mod cancel;
/// Failures: errno, sentence, numbers.
mod error;
/// The C interface: every `lock_manager_*` function.
mod ffi;
/// Locks that are files of a directory.
mod file;
/// One lock as a value, and its guards.
mod lock;
/// The trait of every manager, and its words.
mod manager;
/// Locks of this process only.
mod memory;
/// Who owns the locks of a manager.
mod ownership;
/// Locks in shared memory.
mod shm;
/// The only door to libc and the kernel.
mod sys;
/// Versions of the library, its interface and its formats.
mod version;

pub use cancel::Cancel;
pub use error::{Error, Reason, Result, Waits};
pub use file::FileManager;
pub use lock::{Guard, Held, HeldShared, Lock, SharedGuard};
pub use manager::{Acquired, Holder, Info, Kind, Layout, LockInfo, Manager, Ownership, UNLIMITED, Wait, Waiter};
pub use memory::InMemoryManager;
pub use shm::{MAX_LOCKS, SegmentOptions, ShmManager};
pub use sys::Errno;
pub use version::{SONAME, VERSION, formats};
