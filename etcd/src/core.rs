// SPDX-License-Identifier: MIT OR Apache-2.0
//! The functions of the core, called as any C program calls them: from liblock_manager.so, or from its crate.

#![allow(unsafe_code, reason = "functions of another library")]
#![allow(non_camel_case_types, reason = "C's names")]

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;

use crate::failure::{Failure, Outcome};
use crate::table::lock_manager_backend_t;

// So that the functions are linked in.
#[cfg(feature = "rust")]
use lock_manager as _;

#[repr(C)]
pub struct lock_manager_t([u8; 0]);

/// As the header of the core has it.
#[repr(C)]
#[derive(Default)]
struct lock_manager_lock_info_t {
    size: usize,
    id: u32,
    allocated: u32,
    held: u32,
    owner_died: u32,
    pid: i32,
    tid: i32,
    waiters: u32,
    ownership: u32,
    acquisitions: u64,
    pid_namespace: u64,
    waited_ns: u64,
    readers: u32,
    draining: u32,
}

unsafe extern "C" {
    fn lock_manager_open_or_new_shm(
        path: *const c_char,
        locks: u32,
        o: *const c_void,
        out: *mut *mut lock_manager_t,
    ) -> i32;
    fn lock_manager_remove_shm(path: *const c_char) -> i32;
    fn lock_manager_set_ownership(manager: *mut lock_manager_t, ownership: u32) -> i32;
    fn lock_manager_try_lock(manager: *mut lock_manager_t, id: u32) -> i32;
    fn lock_manager_unlock(manager: *mut lock_manager_t, id: u32) -> i32;
    fn lock_manager_lock_info(manager: *mut lock_manager_t, id: u32, info: *mut lock_manager_lock_info_t) -> i32;
    fn lock_manager_close(manager: *mut lock_manager_t) -> i32;
    fn lock_manager_last_error() -> *const c_char;
    fn lock_manager_open_backend(
        table: *const lock_manager_backend_t,
        state: *mut c_void,
        name: *const c_char,
        host: *const c_char,
        out: *mut *mut lock_manager_t,
    ) -> i32;
    fn lock_manager_backend_failed(name: *const c_char, error: i32, text: *const c_char) -> i32;
    fn lock_manager_backend_state(
        manager: *mut lock_manager_t,
        table: *const lock_manager_backend_t,
        holds: u32,
        state: *mut *mut c_void,
    ) -> i32;
}

fn failure(code: i32) -> Failure {
    // SAFETY: never NULL, and valid until this thread's next failing call.
    let text = unsafe { CStr::from_ptr(lock_manager_last_error()) }.to_string_lossy().into_owned();
    Failure::new(code.saturating_neg(), text)
}

fn c_string(text: &str) -> Outcome<CString> {
    CString::new(text).map_err(|_| Failure::bad("a name has a NUL byte in it"))
}

/// The native locks of this host, as the keeper takes them: for the process.
#[derive(Debug)]
pub(crate) struct HostLocks(*mut lock_manager_t);

// SAFETY: the header: any thread may use a manager.
unsafe impl Send for HostLocks {}
// SAFETY: as above.
unsafe impl Sync for HostLocks {}

/// What a try of a native lock found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tried {
    Taken,
    /// Taken; its last holder died.
    OwnerDied,
    Busy,
}

impl HostLocks {
    pub(crate) fn open(segment: &str, num_locks: u32) -> Outcome<Self> {
        let (path, mut manager) = (c_string(segment)?, ptr::null_mut());
        // SAFETY: as the header says; all pointers are to locals.
        let code = unsafe {
            match lock_manager_open_or_new_shm(path.as_ptr(), num_locks, ptr::null(), &raw mut manager) {
                0 => lock_manager_set_ownership(manager, 1),
                code => code,
            }
        };
        if code == 0 { Ok(Self(manager)) } else { Err(failure(code)) }
    }

    pub(crate) fn try_lock(&self, id: u32) -> Tried {
        // SAFETY: the manager is open.
        match unsafe { lock_manager_try_lock(self.0, id) } {
            0 => Tried::Taken,
            1 => Tried::OwnerDied,
            _ => Tried::Busy,
        }
    }

    /// The thread of this process that holds a native lock.
    pub(crate) fn holder(&self, id: u32) -> Option<i32> {
        let mut info = lock_manager_lock_info_t { size: size_of::<lock_manager_lock_info_t>(), ..Default::default() };
        // SAFETY: the manager is open, and the struct is a local.
        let code = unsafe { lock_manager_lock_info(self.0, id, &raw mut info) };
        let is_here = code == 0 && info.held != 0 && info.pid == std::process::id() as i32;
        is_here.then_some(info.tid)
    }

    pub(crate) fn unlock(&self, id: u32) {
        // SAFETY: the manager is open.
        let _never_fails_for_its_holder = unsafe { lock_manager_unlock(self.0, id) };
    }
}

impl Drop for HostLocks {
    fn drop(&mut self) {
        // SAFETY: nobody uses it any more.
        let _nothing_is_held = unsafe { lock_manager_close(self.0) };
    }
}

/// Removes the native locks of a host, if they are there.
pub(crate) fn remove_host_locks(segment: &str) {
    if let Ok(path) = c_string(segment) {
        // SAFETY: the path is alive.
        let _was_not_there = unsafe { lock_manager_remove_shm(path.as_ptr()) };
    }
}

/// Opens a manager of the core on a table. After an error, the state is still the caller's.
pub(crate) fn open_backend(
    table: &'static lock_manager_backend_t,
    state: *mut c_void,
    name: &str,
    host: &str,
) -> Outcome<*mut lock_manager_t> {
    let (name, host, mut manager) = (c_string(name)?, c_string(host)?, ptr::null_mut());
    // SAFETY: as the header says.
    let code = unsafe { lock_manager_open_backend(table, state, name.as_ptr(), host.as_ptr(), &raw mut manager) };
    if code == 0 { Ok(manager) } else { Err(failure(code)) }
}

/// The state of a manager of this library, if the caller holds that lock, or none is asked for.
///
/// # Safety
/// `manager` is NULL or open.
pub(crate) unsafe fn state_of(
    manager: *mut lock_manager_t,
    table: &'static lock_manager_backend_t,
    holds: Option<u32>,
) -> Outcome<*mut c_void> {
    let mut state = ptr::null_mut();
    // SAFETY: as the header says; this function's own contract.
    let code = unsafe { lock_manager_backend_state(manager, table, holds.unwrap_or(u32::MAX), &raw mut state) };
    if code == 0 { Ok(state) } else { Err(failure(code)) }
}

/// Makes a failure the thread's last failure in the core, and a code.
pub(crate) fn failed(failure: &Failure) -> i32 {
    let text: String = failure.text.chars().filter(|c| *c != '\0').collect();
    let text = CString::new(text).unwrap_or_default();
    // SAFETY: the text is alive.
    unsafe { lock_manager_backend_failed(ptr::null(), failure.errno, text.as_ptr()) }
}
