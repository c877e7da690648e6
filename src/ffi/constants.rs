// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
#![allow(dead_code, reason = "the macros of the header; most of them are read only by C programs")]
//! The numbers of the C interface.

/// The lock is held now, but its last holder died holding it, so what the lock protects may be half written. The next
/// exclusive holder is told once; until then, each reader is told.
pub const LOCK_MANAGER_OWNER_DIED: i32 = 1;

/// The count that `lock_manager_available_locks` and `lock_manager_num_locks` write if there is no maximum.
pub const LOCK_MANAGER_UNLIMITED: u32 = u32::MAX;
const _: () = assert!(LOCK_MANAGER_UNLIMITED == crate::UNLIMITED);

/// The native layout for a new segment; any layout for an existing one.
pub const LOCK_MANAGER_LAYOUT_DEFAULT: u32 = 0;
/// The libpod layout, which Podman uses: POSIX robust mutexes, and a fixed number of locks.
pub const LOCK_MANAGER_LAYOUT_LIBPOD: u32 = 1;
/// The native layout, the library's own: it grows, reports deadlocks, and does not depend on the kernel's robust lists.
pub const LOCK_MANAGER_LAYOUT_NATIVE: u32 = 2;

/// The locks are in a shared memory segment.
pub const LOCK_MANAGER_KIND_SHM: u32 = 0;
/// The locks are in a lock directory.
pub const LOCK_MANAGER_KIND_FILE: u32 = 1;
/// The locks belong to this process alone.
pub const LOCK_MANAGER_KIND_IN_MEMORY: u32 = 2;
/// A backend in another library keeps the locks.
pub const LOCK_MANAGER_KIND_BACKEND: u32 = 3;

/// A lock belongs to the thread that took it.
pub const LOCK_MANAGER_OWNED_BY_THREAD: u32 = 0;
/// A lock belongs to the process that took it.
pub const LOCK_MANAGER_OWNED_BY_PROCESS: u32 = 1;

/// The major version that this header belongs to. The macro LOCK_MANAGER_VERSION has the whole version as a string.
pub const LOCK_MANAGER_VERSION_MAJOR: u32 = 0;
/// The minor version that this header belongs to.
pub const LOCK_MANAGER_VERSION_MINOR: u32 = 1;
/// The patch version that this header belongs to.
pub const LOCK_MANAGER_VERSION_PATCH: u32 = 0;
