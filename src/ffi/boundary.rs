// SPDX-License-Identifier: MIT OR Apache-2.0
//! The boundary between C and Rust: NULL and panics become codes; failures become codes and a last error.

use std::any::Any;
use std::ffi::{CStr, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::acquisition::Acquisition;
use crate::manager::Acquired;
use crate::sys::thread::Thread;
use crate::sys::thread::caller_state::CallerState;
use crate::{Cancel, Error, Manager, Reason, Result};

use super::{LOCK_MANAGER_OWNER_DIED, last_error, lock_manager_t};

/// Runs an exported function's body. No panic passes, and none is printed; the thread is not cancelled inside, no signal
/// handler comes, and errno is as it was.
///
/// The exported function itself has nothing to undo: a handler that comes before or after the body may end the thread.
#[inline(always)]
pub(super) fn call<B: FnOnce() -> Result<i32>>(body: B) -> i32 {
    let caller = CallerState::save_and_block();
    let code = guarded(body);
    caller.restore();
    code
}

#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "called from here alone: the convention says that nothing unwinds")]
extern "C" fn guarded<B: FnOnce() -> Result<i32>>(body: B) -> i32 {
    match outcome_of(body) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => failed(error),
        Err(panic) => failed(panicked(panic)),
    }
}

/// The result of a body that may panic.
#[inline(always)]
fn outcome_of<T>(body: impl FnOnce() -> T) -> std::thread::Result<T> {
    let thread = Thread::calling();
    thread.note_inside_library();
    // AssertUnwindSafe: a body may leave only shared memory half written. Every intermediate state there is valid,
    // because its writer may be killed at any point.
    let outcome = panic::catch_unwind(AssertUnwindSafe(body));
    thread.note_outside_library();
    outcome
}

/// The code of a step after which to sleep. No function returns it.
const SLEEP: i32 = i32::MIN;

/// Acquires a lock of `storage` by steps with sleeps between them.
#[cold]
#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "called in the library alone: the convention says that nothing unwinds")]
pub(super) extern "C" fn acquire<A: Acquisition>(acquisition: &mut A, storage: &Arc<PathBuf>) -> i32 {
    let caller = CallerState::save_and_block();
    let code = loop {
        match step(acquisition, storage) {
            SLEEP => caller.as_caller(|| acquisition.sleep()),
            code => break code,
        }
    };
    caller.restore();
    code
}

#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "as above")]
extern "C" fn step<A: Acquisition>(acquisition: &mut A, storage: &Arc<PathBuf>) -> i32 {
    match outcome_of(|| acquisition.step()) {
        Ok(Ok(None)) => SLEEP,
        Ok(Ok(Some(acquired))) => code(acquired),
        Ok(Err(reason)) => failed_at(storage, reason),
        Err(panic) => failed(panicked(panic)),
    }
}

/// Runs a body for a lock of `storage`. A signal handler may call it, too: a failure allocates nothing.
#[cold]
#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "as above")]
pub(super) extern "C" fn release<B>(storage: &Arc<PathBuf>, body: B) -> i32
where
    B: FnOnce() -> std::result::Result<(), Reason>,
{
    let caller = CallerState::save_and_block();
    let code = release_guarded(storage, body);
    caller.restore();
    code
}

#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "as above")]
extern "C" fn release_guarded<B>(storage: &Arc<PathBuf>, body: B) -> i32
where
    B: FnOnce() -> std::result::Result<(), Reason>,
{
    match outcome_of(body) {
        Ok(Ok(())) => 0,
        Ok(Err(reason)) => failed_at(storage, reason),
        Err(panic) => failed(panicked(panic)),
    }
}

#[inline(always)]
pub(super) fn code(acquired: Acquired) -> i32 {
    match acquired {
        Acquired::Clean => 0,
        Acquired::OwnerDied => LOCK_MANAGER_OWNER_DIED,
    }
}

#[cold]
fn failed(error: Error) -> i32 {
    let code = -error.errno();
    last_error::set(error);
    code
}

/// The same without an allocation, for calls that may fail in a signal handler.
#[cold]
fn failed_at(storage: &Arc<PathBuf>, reason: Reason) -> i32 {
    let code = -reason.errno();
    last_error::set_at(storage, reason);
    code
}

/// Refuses a try: the lock is held. If the thread has recorded a failure of this storage before, two stores record this
/// one, and no signal has to be blocked.
#[allow(improper_ctypes_definitions, reason = "as above")]
pub(super) extern "C" fn held(storage: &Arc<PathBuf>, id: u32, holder: u32) -> i32 {
    if last_error::set_held(storage, id, holder) {
        return -libc::EBUSY;
    }
    release(storage, || Err(Reason::Held { id, holder }))
}

#[cold]
fn panicked(panic: Box<dyn Any + Send>) -> Error {
    let message = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned());
    // A payload's own destructor may panic, too.
    let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(panic)));
    Error::without_storage(Reason::Panicked(message))
}

/// Keeps the panic hook from printing a panic that becomes a last error. All other panics of a Rust program go to the
/// hook that was there.
pub(super) fn silence_panics() {
    // Not a Once: a child that is forked while another thread is inside would wait for ever.
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    if INSTALLED.swap(true, Ordering::AcqRel) {
        return;
    }
    let others = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !Thread::calling().is_inside_library() {
            others(info);
        }
    }));
}

/// Refuses an argument that is invalid for every storage.
#[cold]
pub(super) fn refuse(what: &'static str) -> Error {
    Error::without_storage(Reason::BadArgument(what))
}

/// The manager behind a handle.
///
/// # Safety
/// `handle` is NULL or came from this library and was not closed, and stays open during `'a`.
#[inline(always)]
pub(super) unsafe fn manager<'a>(handle: *const lock_manager_t) -> Result<&'a dyn Manager> {
    // SAFETY: this function's own contract.
    unsafe { handle.as_ref() }
        .map(|handle| handle.0.manager())
        .ok_or_else(|| refuse("the manager is NULL; open or create one first"))
}

/// A path that C handed in.
///
/// # Safety
/// `path` is NULL or a NUL-terminated string that lives during `'a`.
pub(super) unsafe fn input_path<'a>(path: *const c_char) -> Result<&'a Path> {
    // Every manager in shared memory or files begins with a path, so this is early enough.
    silence_panics();
    if path.is_null() {
        return Err(refuse("the path is NULL; give the name of a segment or the path of a lock directory"));
    }
    // SAFETY: this function's own contract.
    Ok(Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes())))
}

/// The object behind a cancel handle.
///
/// # Safety
/// `handle` is NULL or came from this library and was not freed, and is not freed during `'a`.
pub(super) unsafe fn cancel<'a>(handle: *const Cancel) -> Result<&'a Cancel> {
    // SAFETY: this function's own contract.
    unsafe { handle.as_ref() }.ok_or_else(|| refuse("the cancel object is NULL; make one with lock_manager_cancel_new"))
}

/// A place for a result.
///
/// # Safety
/// `out` is NULL or valid for a write during `'a`, and aligned.
pub(super) unsafe fn output<'a, T>(out: *mut T, name: &'static str) -> Result<&'a mut T> {
    // SAFETY: this function's own contract; the pointee is a number or a pointer, for which any bytes are valid.
    unsafe { out.as_mut() }.ok_or_else(|| {
        refuse(match name {
            "id" => "id is NULL; give the address of a uint32_t",
            "count" => "count is NULL; give the address of a number",
            "token" => "token is NULL; give the address of a uint64_t",
            "descriptor" => "descriptor is NULL; give the address of an int32_t",
            "state" => "state is NULL; give the address of a pointer",
            "cancel" => "out is NULL; give the address of a lock_manager_cancel_t *",
            _ => "out is NULL; give the address of a lock_manager_t *",
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_eio_and_a_sentence() {
        silence_panics();
        let code = call(|| panic!("the numbers {} and {} disagree", 1, 2));
        assert_eq!(code, -libc::EIO);
        // SAFETY: last_error() is never NULL and stays valid until the next failure.
        let text = unsafe { CStr::from_ptr(last_error::text()) }.to_str().unwrap();
        assert!(text.contains("the numbers 1 and 2 disagree"), "{text}");
    }
}
