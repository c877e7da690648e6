// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
#![allow(dead_code, reason = "the header's macros; C programs are who reads most of them")]
//! The numbers of the C interface.

/// The lock is held now; its last holder died holding it, so what it protects may be half written. Told once, to the
/// one who acquires next.
pub const LOCK_MANAGER_OWNER_DIED: i32 = 1;

/// What `lock_manager_available_locks` and `lock_manager_num_locks` say where there is no maximum.
pub const LOCK_MANAGER_UNLIMITED: u32 = u32::MAX;
const _: () = assert!(LOCK_MANAGER_UNLIMITED == crate::UNLIMITED);

/// The native layout for a new segment; any for one that exists.
pub const LOCK_MANAGER_LAYOUT_DEFAULT: u32 = 0;
/// Podman's own layout: POSIX robust mutexes, a fixed number of locks.
pub const LOCK_MANAGER_LAYOUT_LIBPOD: u32 = 1;
/// The library's own layout: it grows, finds deadlocks, and does not rest on the kernel's list of robust mutexes.
pub const LOCK_MANAGER_LAYOUT_NATIVE: u32 = 2;

/// The locks are in a shared memory segment.
pub const LOCK_MANAGER_KIND_SHM: u32 = 0;
/// The locks are files of a directory.
pub const LOCK_MANAGER_KIND_FILE: u32 = 1;
/// The locks are of this process only.
pub const LOCK_MANAGER_KIND_IN_MEMORY: u32 = 2;

/// A lock is owned by the thread that took it.
pub const LOCK_MANAGER_OWNED_BY_THREAD: u32 = 0;
/// A lock is owned by the process that took it.
pub const LOCK_MANAGER_OWNED_BY_PROCESS: u32 = 1;

/// The version that the header was made for, as the macro LOCK_MANAGER_VERSION gives it in one string.
pub const LOCK_MANAGER_VERSION_MAJOR: u32 = 0;
/// See LOCK_MANAGER_VERSION_MAJOR.
pub const LOCK_MANAGER_VERSION_MINOR: u32 = 1;
/// See LOCK_MANAGER_VERSION_MAJOR.
pub const LOCK_MANAGER_VERSION_PATCH: u32 = 0;
