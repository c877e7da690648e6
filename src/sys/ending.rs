// SPDX-License-Identifier: MIT OR Apache-2.0
//! Being called when a thread ends, after the program's own destructors: they may still unlock.
//!
//! By a pthread key and not by `thread_local!`, whose destructors run before those of keys. The key's value is a
//! constant: a thread that ends by the raw system call leaves it to the next one that the libc puts on its stack.

use std::ffi::c_void;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use super::Errno;
use super::thread::Thread;

/// Rounds in which the libc calls destructors as long as there are values (PTHREAD_DESTRUCTOR_ITERATIONS of glibc).
const ROUNDS: u64 = 4;

/// The key, plus one; 0: there is none yet.
static KEY: AtomicU64 = AtomicU64::new(0);

/// What is called.
static HEIR: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// Has `heir` called when the calling thread ends. One and the same function in all calls.
pub(crate) fn arm(thread: Thread, heir: fn(Thread)) -> Result<(), Errno> {
    if thread.ending() != 0 {
        return Ok(());
    }
    HEIR.store(heir as *mut c_void, Ordering::Release);
    set_value(key()?)?;
    thread.set_ending(1);
    Ok(())
}

fn key() -> Result<libc::pthread_key_t, Errno> {
    let known = KEY.load(Ordering::Acquire);
    if known != 0 {
        return Ok((known - 1) as libc::pthread_key_t);
    }
    let mut fresh: libc::pthread_key_t = 0;
    // SAFETY: pthread_key_create(3) writes the key; the destructor is a function of a library that is never unloaded.
    match unsafe { libc::pthread_key_create(&raw mut fresh, Some(ended)) } {
        0 => {}
        error => return Err(Errno(error)),
    }
    match KEY.compare_exchange(0, u64::from(fresh) + 1, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Ok(fresh),
        Err(winner) => {
            // SAFETY: made above, and no thread has a value for it.
            unsafe { libc::pthread_key_delete(fresh) };
            Ok((winner - 1) as libc::pthread_key_t)
        }
    }
}

fn set_value(key: libc::pthread_key_t) -> Result<(), Errno> {
    // SAFETY: pthread_setspecific(3) with a live key; the value is never followed.
    match unsafe { libc::pthread_setspecific(key, std::ptr::without_provenance(1)) } {
        0 => Ok(()),
        error => Err(Errno(error)),
    }
}

/// The key's destructor. Until the libc's last round it only asks to be called again.
extern "C" fn ended(_value: *mut c_void) {
    let thread = Thread::calling();
    let round = thread.ending();
    if round == 0 {
        // The value of a thread that ended without destructors, on whose stack this one runs.
        return;
    }
    if round < ROUNDS
        && let Ok(key) = key()
        && set_value(key).is_ok()
    {
        thread.set_ending(round + 1);
        return;
    }
    let heir = HEIR.load(Ordering::Acquire);
    if !heir.is_null() {
        // SAFETY: stored by arm() from a `fn(Thread)`.
        let heir: fn(Thread) = unsafe { std::mem::transmute(heir) };
        heir(thread);
    }
    thread.forget_words();
}
