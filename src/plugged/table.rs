// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
#![allow(non_camel_case_types, reason = "C's names, which cbindgen takes over")]
//! The table of functions by which a backend in another library is called, as C sees it. Uses nothing of this crate, so that
//! such a library can compile the same file.

use std::ffi::{c_char, c_void};

/// In lock_manager_request_t: do not wait for another holder. The call may still wait for the backend's own answer.
pub const LOCK_MANAGER_REQUEST_TRY: u32 = 1;
/// In lock_manager_request_t: the last holder on this host died holding the lock.
pub const LOCK_MANAGER_REQUEST_OWNER_DIED: u32 = 2;
/// What a backend's step returns if the caller is to sleep. No function of the library returns it.
pub const LOCK_MANAGER_SLEEP: i32 = 2;
/// A lock was lost while it was held: its lease may be over, so another may hold it now. The value is -EKEYEXPIRED.
pub const LOCK_MANAGER_LOST: i32 = -127;
const _: () = assert!(LOCK_MANAGER_LOST < 0);

/// What a lock call asks of a backend.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lock_manager_request_t {
    /// sizeof(lock_manager_request_t)
    pub size: usize,
    /// The id of the lock.
    pub id: u32,
    /// LOCK_MANAGER_REQUEST_…
    pub flags: u32,
    /// LOCK_MANAGER_OWNED_BY_…
    pub ownership: u32,
    /// The calling thread, as its own PID namespace sees it.
    pub tid: i32,
    /// How long the caller waits, in nanoseconds, as it said; UINT64_MAX: without limit.
    pub timeout_ns: u64,
    /// The instant of CLOCK_MONOTONIC at which the wait ends, in nanoseconds; UINT64_MAX: never.
    pub deadline_ns: u64,
}

/// How a caller is to sleep: as futex(2) says, on a word that is not private to the process.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lock_manager_sleep_t {
    /// sizeof(lock_manager_sleep_t)
    pub size: usize,
    /// The word. It stays where it is until leave() was called.
    pub word: *const u32,
    /// The caller sleeps only while the word has this value.
    pub value: u32,
    /// The instant of CLOCK_MONOTONIC at which the caller wakes up by itself, in nanoseconds.
    pub until_ns: u64,
}

/// What a backend knows of a lock.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct lock_manager_backend_lock_t {
    /// sizeof(lock_manager_backend_lock_t)
    pub size: usize,
    /// 1 if the lock is allocated, else 0.
    pub allocated: u32,
    /// 1 if some host holds the lock, else 0.
    pub held: u32,
    /// 1 if the last holder died and nobody has held the lock since, else 0.
    pub owner_died: u32,
    /// 1 if the holder is this host, else 0.
    pub here: u32,
    /// The number of hosts, or managers, that wait.
    pub waiters: u32,
    /// LOCK_MANAGER_OWNED_BY_…
    pub ownership: u32,
    /// For how long the longest of them has waited, in nanoseconds.
    pub waited_ns: u64,
}

/// A backend: functions that keep locks for all hosts, beneath the native locks of one host.
///
/// A lock call first takes the native lock of the same id, which all processes of the host share. That lock settles
/// threads, ownership, forked children, and the deaths and deadlocks of one host. So a backend sees at most one caller of
/// a lock at a time from each host. It is asked for the lock when the caller has the native one, and gets it back before.
///
/// Every function gets the state that lock_manager_open_backend() was given. Any thread may call it, and several at a
/// time. It returns 0, or a negative errno, and then last_error() describes the failure. No function blocks, except to
/// wait for the storage's own answer, within a time that the backend names. Signals are blocked meanwhile. None may be
/// NULL, except last_error, take_kept and keep.
///
/// A forked child has the table and the state, but no threads of the backend's. Functions return -EOPNOTSUPP there.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lock_manager_backend_t {
    /// sizeof(lock_manager_backend_t). Functions are only ever appended.
    pub size: usize,
    /// Frees the state. The last call; nothing is held.
    pub close: Option<unsafe extern "C" fn(state: *mut c_void)>,
    /// Describes the calling thread's last failure, in one line without the name of the storage.
    pub last_error: Option<unsafe extern "C" fn(state: *mut c_void) -> *const c_char>,
    /// Says how many locks there are: a constant.
    pub num_locks: Option<unsafe extern "C" fn(state: *mut c_void, count: *mut u32) -> i32>,
    /// As lock_manager_available_locks().
    pub available_locks: Option<unsafe extern "C" fn(state: *mut c_void, count: *mut u32) -> i32>,
    /// As lock_manager_allocate_lock().
    pub allocate_lock: Option<unsafe extern "C" fn(state: *mut c_void, id: *mut u32) -> i32>,
    /// As lock_manager_allocate_and_retrieve_lock(). The id is in range, here and below.
    pub allocate_given: Option<unsafe extern "C" fn(state: *mut c_void, id: u32) -> i32>,
    /// As lock_manager_free_lock().
    pub free_lock: Option<unsafe extern "C" fn(state: *mut c_void, id: u32) -> i32>,
    /// As lock_manager_free_all_locks().
    pub free_all_locks: Option<unsafe extern "C" fn(state: *mut c_void) -> i32>,
    /// Begins an acquisition, and writes what names it.
    pub begin: Option<
        unsafe extern "C" fn(state: *mut c_void, request: *const lock_manager_request_t, wait: *mut *mut c_void) -> i32,
    >,
    /// Goes on with it. 0 or LOCK_MANAGER_OWNER_DIED: the host has the lock. LOCK_MANAGER_SLEEP: the caller sleeps as was
    /// written to sleep, and steps again. Negative: it failed.
    pub step:
        Option<unsafe extern "C" fn(state: *mut c_void, wait: *mut c_void, sleep: *mut lock_manager_sleep_t) -> i32>,
    /// Ends an acquisition that was begun, whatever it came to; one without the lock is withdrawn. It cannot fail.
    pub leave: Option<unsafe extern "C" fn(state: *mut c_void, wait: *mut c_void)>,
    /// Gives the lock back. is_wanted_here: 1 if another process or thread of this host waits for it, so that the host may
    /// keep it for a while, else 0. LOCK_MANAGER_LOST: it may have been another's. The lock is not held any more,
    /// whatever it returns.
    pub release: Option<unsafe extern "C" fn(state: *mut c_void, id: u32, is_wanted_here: u32) -> i32>,
    /// Reads what is known of a lock.
    pub lock_info:
        Option<unsafe extern "C" fn(state: *mut c_void, id: u32, info: *mut lock_manager_backend_lock_t) -> i32>,
    /// As lock_manager_locks_held().
    pub locks_held:
        Option<unsafe extern "C" fn(state: *mut c_void, ids: *mut u32, capacity: usize, count: *mut usize) -> i32>,
    /// As lock_manager_fencing_token(), of a lock that the caller holds.
    pub fencing_token: Option<unsafe extern "C" fn(state: *mut c_void, id: u32, token: *mut u64) -> i32>,
    /// As lock_manager_lost_fd().
    pub lost_fd: Option<unsafe extern "C" fn(state: *mut c_void, descriptor: *mut i32) -> i32>,
    /// Takes a lock that the host has kept, for a caller with the native one. 1: it has the lock. 0: nothing was done, and
    /// begin() is asked. This function and keep() cannot fail, wait, allocate, or make a system call that sets errno, and
    /// signals are not blocked: so turns of one host take the time of the native lock. NULL, and so is keep: there are none.
    pub take_kept: Option<unsafe extern "C" fn(state: *mut c_void, id: u32) -> i32>,
    /// Keeps a lock on the host, for a caller that holds it and is about to give the native one back. is_wanted_here: as for
    /// release(). 1: it is kept, and not held any more. 0: nothing was done, and release() is asked.
    pub keep: Option<unsafe extern "C" fn(state: *mut c_void, id: u32, is_wanted_here: u32) -> i32>,
}
