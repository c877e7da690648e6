// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one hook for the end of a thread. It runs after the program's own destructors, which may still unlock.
//!
//! A pthread key's destructor calls it, and not `thread_local!`, whose destructors run before those of keys. The libc
//! calls the destructors of keys in up to four rounds, as long as a destructor sets a value again. This key's destructor
//! sets its value again until the last round, so that it runs after every destructor of the program that stops earlier.
//!
//! The value is a constant and is never followed. A thread that ends by the raw `exit` system call runs no destructor, and
//! the libc may give its stack, with the value in it, to the next thread.

use std::ffi::c_void;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::sys::Errno;
use crate::sys::platform::{KEYS_IN_THE_THREAD, MOST_KEYS};
use crate::sys::thread::{self, Thread};

/// Rounds in which the libc calls destructors as long as there are values (PTHREAD_DESTRUCTOR_ITERATIONS of glibc and musl).
const ROUNDS: u64 = 4;

/// The key, plus one; 0: there is none yet.
static KEY: AtomicU64 = AtomicU64::new(0);

/// Whether destructors of the program run after the hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destructors {
    /// None: all have run.
    Done,
    /// At least one: it has set its value again in every round. It may unlock what the thread holds.
    Pending,
}

/// A function that is called when a thread ends.
pub(crate) type OnThreadExit = fn(Thread, Destructors);

/// The parts of the library that are called, in the order of the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitHook {
    /// The managers: what the thread holds, and what its waits have counted.
    Locks = 0,
    /// The thread's last error.
    LastError = 1,
}

static HOOKS: [AtomicPtr<c_void>; 2] = [const { AtomicPtr::new(std::ptr::null_mut()) }; 2];

fn register(hook: ExitHook, function: OnThreadExit) {
    HOOKS[hook as usize].store(function as *mut c_void, Ordering::Release);
}

/// Has `function` called when the calling thread ends. Every call for one hook passes the same function.
pub(crate) fn arm(thread: Thread, hook: ExitHook, function: OnThreadExit) -> Result<(), Errno> {
    register(hook, function);
    if thread.exit_round() != 0 {
        return Ok(());
    }
    set_value(key()?)?;
    thread.set_exit_round(1);
    Ok(())
}

/// The same for a caller that must not allocate, such as a signal handler. If there is no key yet, or the libc would allocate
/// room for the key's value, it does nothing, and a later call arms the thread.
pub(crate) fn arm_without_allocation(thread: Thread, hook: ExitHook, function: OnThreadExit) {
    register(hook, function);
    let known = KEY.load(Ordering::Acquire);
    if thread.exit_round() != 0 || known == 0 || known > KEYS_IN_THE_THREAD {
        return;
    }
    if set_value((known - 1) as libc::pthread_key_t).is_ok() {
        thread.set_exit_round(1);
    }
}

fn key() -> Result<libc::pthread_key_t, Errno> {
    let known = KEY.load(Ordering::Acquire);
    if known != 0 {
        return Ok((known - 1) as libc::pthread_key_t);
    }
    thread::stay_loaded();
    let mut fresh: libc::pthread_key_t = 0;
    // SAFETY: pthread_key_create(3) writes the key; the destructor is a function that stays loaded (see stay_loaded).
    match unsafe { libc::pthread_key_create(&raw mut fresh, Some(run_hooks)) } {
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
extern "C" fn run_hooks(_value: *mut c_void) {
    let thread = Thread::calling();
    let round = thread.exit_round();
    if round == 0 {
        // An earlier thread on this stack ended without destructors and left its value.
        return;
    }
    if round < ROUNDS
        && let Ok(key) = key()
        && set_value(key).is_ok()
    {
        thread.set_exit_round(round + 1);
        return;
    }
    let destructors = destructors();
    for function in &HOOKS {
        let function = function.load(Ordering::Acquire);
        if !function.is_null() {
            // SAFETY: stored by register() from an OnThreadExit.
            let function: OnThreadExit = unsafe { std::mem::transmute(function) };
            function(thread, destructors);
        }
    }
}

/// Whether the libc still calls destructors after this one. In each round it goes through the keys upwards, and clears a key's
/// value before it calls the key's destructor. So in the last round, a value at a higher key means that the libc will call
/// that key's destructor once more.
fn destructors() -> Destructors {
    let own = KEY.load(Ordering::Acquire) as libc::pthread_key_t;
    // SAFETY: pthread_getspecific(3) of a number below MOST_KEYS that is no key's is NULL in glibc and musl.
    let is_set = |key| unsafe { !libc::pthread_getspecific(key).is_null() };
    if (own..MOST_KEYS).any(is_set) { Destructors::Pending } else { Destructors::Done }
}
