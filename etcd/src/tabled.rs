// SPDX-License-Identifier: MIT OR Apache-2.0
//! The engine as the core's table of functions.
//!
//! The contract that the unsafe blocks argue from is the table's, as `lock_manager.h` states it: the state is the one that
//! the manager was opened with, alive until `close`; a wait is one that `begin` wrote, and that was not left; all other
//! pointers are valid for what they are named for.

#![allow(unsafe_code, reason = "pointers from the core")]

use std::cell::RefCell;
use std::ffi::{CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};

use crate::engine::{Engine, Step, Wanted};
use crate::failure::{Failure, Outcome};
use crate::host::Record;
use crate::keys::Party;
use crate::owner::Ownership;
use crate::shared::{Told, Wait, WaitState};
use crate::table::{
    LOCK_MANAGER_REQUEST_TRY, LOCK_MANAGER_SLEEP, lock_manager_backend_lock_t, lock_manager_backend_t,
    lock_manager_request_t, lock_manager_sleep_t,
};

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

const OWNER_DIED: i32 = 1;
const BY_PROCESS: u32 = 1;

/// The table.
pub(crate) static TABLE: lock_manager_backend_t = lock_manager_backend_t {
    size: size_of::<lock_manager_backend_t>(),
    close: Some(close),
    last_error: Some(last_error),
    num_locks: Some(num_locks),
    available_locks: Some(available_locks),
    allocate_lock: Some(allocate_lock),
    allocate_given: Some(allocate_given),
    free_lock: Some(free_lock),
    free_all_locks: Some(free_all_locks),
    begin: Some(begin),
    step: Some(step),
    leave: Some(leave),
    release: Some(release),
    lock_info: Some(lock_info),
    locks_held: Some(locks_held),
    fencing_token: Some(fencing_token),
    lost_fd: Some(lost_fd),
    take_kept: Some(take_kept),
    keep: Some(keep),
};

/// Remembers a failure, and makes it a code.
fn failed(failure: &Failure) -> i32 {
    let text: String = failure.text.chars().filter(|c| *c != '\0').collect();
    LAST.with(|last| *last.borrow_mut() = CString::new(text).unwrap_or_default());
    -failure.errno
}

/// Runs a function of C's. No panic passes.
pub(crate) fn guarded(body: impl FnOnce() -> Outcome<i32>) -> Outcome<i32> {
    let panicked = |_| Err(Failure::new(libc::EIO, "a fault of this library's own; please report it"));
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(panicked)
}

/// The same of a function of the table's.
fn answer(body: impl FnOnce() -> Outcome<i32>) -> i32 {
    guarded(body).unwrap_or_else(|failure| failed(&failure))
}

/// The engine behind a state.
///
/// # Safety
/// The module's contract.
pub(crate) unsafe fn engine<'e>(state: *mut c_void) -> &'e Engine {
    // SAFETY: the module's contract.
    unsafe { &*state.cast::<Engine>() }
}

unsafe extern "C" fn close(state: *mut c_void) {
    // SAFETY: the module's contract: the last call, on what open made by Box.
    let engine = unsafe { Box::from_raw(state.cast::<Engine>()) };
    let _nothing_passes = catch_unwind(AssertUnwindSafe(|| drop(engine)));
}

unsafe extern "C" fn last_error(_state: *mut c_void) -> *const c_char {
    LAST.with(|last| last.borrow().as_ptr())
}

/// Writes what a function finds to where C wants it.
macro_rules! hand_out {
    ($state:ident, $out:ident, |$engine:ident| $found:expr) => {
        answer(|| {
            // SAFETY: the module's contract.
            let $engine = unsafe { engine($state) };
            let found = $found?;
            // SAFETY: the module's contract.
            unsafe { $out.write(found) };
            Ok(0)
        })
    };
}

unsafe extern "C" fn num_locks(state: *mut c_void, count: *mut u32) -> i32 {
    hand_out!(state, count, |engine| Ok::<_, Failure>(engine.num_locks()))
}

unsafe extern "C" fn available_locks(state: *mut c_void, count: *mut u32) -> i32 {
    hand_out!(state, count, |engine| engine.available())
}

unsafe extern "C" fn allocate_lock(state: *mut c_void, id: *mut u32) -> i32 {
    hand_out!(state, id, |engine| engine.allocate())
}

unsafe extern "C" fn allocate_given(state: *mut c_void, id: u32) -> i32 {
    // SAFETY: the module's contract.
    answer(|| unsafe { engine(state) }.allocate_given(id).map(|()| 0))
}

unsafe extern "C" fn free_lock(state: *mut c_void, id: u32) -> i32 {
    // SAFETY: the module's contract.
    answer(|| unsafe { engine(state) }.free(id).map(|()| 0))
}

unsafe extern "C" fn free_all_locks(state: *mut c_void) -> i32 {
    // SAFETY: the module's contract.
    answer(|| unsafe { engine(state) }.free_all().map(|()| 0))
}

unsafe extern "C" fn begin(state: *mut c_void, request: *const lock_manager_request_t, wait: *mut *mut c_void) -> i32 {
    answer(|| {
        // SAFETY: the module's contract.
        let (engine, request) = unsafe { (engine(state), &*request) };
        let begun = engine.begin(Wait {
            id: request.id,
            tid: request.tid,
            ownership: if request.ownership == BY_PROCESS { Ownership::ByProcess } else { Ownership::ByThread },
            is_try: request.flags & LOCK_MANAGER_REQUEST_TRY != 0,
            timeout_ns: request.timeout_ns,
            deadline_ns: request.deadline_ns,
            left: Record::NONE,
            word: AtomicU32::new(0),
            state: Mutex::new(WaitState::default()),
        })?;
        // SAFETY: the module's contract. The wait is an Arc's until it is left.
        unsafe { wait.write(Arc::into_raw(begun).cast_mut().cast()) };
        Ok(0)
    })
}

unsafe extern "C" fn step(state: *mut c_void, wait: *mut c_void, sleep: *mut lock_manager_sleep_t) -> i32 {
    answer(|| {
        // SAFETY: the module's contract.
        let (engine, wait) = unsafe { (engine(state), &*wait.cast::<Wait>()) };
        Ok(match engine.step(wait)? {
            Step::Acquired(Told::OwnerDied) => OWNER_DIED,
            Step::Acquired(Told::Clean) => 0,
            Step::SleepUntil(until_ns) => {
                // SAFETY: the module's contract; the word lives as long as the wait.
                unsafe { (*sleep).word = wait.word.as_ptr() };
                // SAFETY: as above.
                unsafe { ((*sleep).value, (*sleep).until_ns) = (0, until_ns) };
                LOCK_MANAGER_SLEEP
            }
        })
    })
}

unsafe extern "C" fn leave(state: *mut c_void, wait: *mut c_void) {
    // SAFETY: the module's contract; what begin made of an Arc is made one again, once.
    let (engine, wait) = unsafe { (engine(state), Arc::from_raw(wait.cast::<Wait>().cast_const())) };
    let _nothing_passes = catch_unwind(AssertUnwindSafe(|| engine.leave(&wait)));
}

unsafe extern "C" fn release(state: *mut c_void, id: u32, is_wanted_here: u32) -> i32 {
    let wanted = if is_wanted_here != 0 { Wanted::Here } else { Wanted::NotHere };
    // SAFETY: the module's contract.
    answer(|| unsafe { engine(state) }.release(id, wanted).map(|()| 0))
}

unsafe extern "C" fn lock_info(state: *mut c_void, id: u32, info: *mut lock_manager_backend_lock_t) -> i32 {
    answer(|| {
        // SAFETY: the module's contract.
        let engine = unsafe { engine(state) };
        let known = engine.look(id)?;
        let holder = known.holder.as_ref().map(|(party, _)| party);
        let found = lock_manager_backend_lock_t {
            size: size_of::<lock_manager_backend_lock_t>(),
            allocated: known.allocated.into(),
            held: holder.is_some().into(),
            owner_died: known.owner_died.into(),
            here: holder.is_some_and(|party| engine.is_here(party)).into(),
            waiters: u32::try_from(known.waiters.len()).unwrap_or(u32::MAX),
            ownership: holder.is_some_and(|party| party.by_process).into(),
            waited_ns: known.waiters.iter().map(Party::since_ns).max().unwrap_or(0),
        };
        // SAFETY: the module's contract.
        unsafe { info.write(found) };
        Ok(0)
    })
}

unsafe extern "C" fn locks_held(state: *mut c_void, ids: *mut u32, capacity: usize, count: *mut usize) -> i32 {
    answer(|| {
        // SAFETY: the module's contract.
        let held = unsafe { engine(state) }.locks_held()?;
        // SAFETY: the module's contract: as much room as the capacity says.
        unsafe {
            if capacity > 0 {
                ids.copy_from_nonoverlapping(held.as_ptr(), held.len().min(capacity));
            }
            count.write(held.len());
        }
        Ok(0)
    })
}

unsafe extern "C" fn fencing_token(state: *mut c_void, id: u32, token: *mut u64) -> i32 {
    hand_out!(state, token, |engine| engine.held(id).map(|record| record.revision as u64))
}

unsafe extern "C" fn lost_fd(state: *mut c_void, descriptor: *mut i32) -> i32 {
    hand_out!(state, descriptor, |engine| engine.alarm())
}

// Neither panics: there is nothing in them that can.
unsafe extern "C" fn take_kept(state: *mut c_void, id: u32) -> i32 {
    // SAFETY: the module's contract.
    unsafe { engine(state) }.take_kept(id).into()
}

unsafe extern "C" fn keep(state: *mut c_void, id: u32, _is_wanted_here: u32) -> i32 {
    // SAFETY: the module's contract.
    unsafe { engine(state) }.keep(id).into()
}
