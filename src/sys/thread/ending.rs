// SPDX-License-Identifier: MIT OR Apache-2.0
//! Being called when a thread ends, after the program's own destructors: they may still unlock.
//!
//! By a pthread key and not by `thread_local!`, whose destructors run before those of keys. The key's value is a
//! constant: a thread that ends by the raw system call leaves it to the next one that the libc puts on its stack.

use std::ffi::c_void;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::sys::Errno;
use crate::sys::thread::{self, Thread};

/// Rounds in which the libc calls destructors as long as there are values (PTHREAD_DESTRUCTOR_ITERATIONS of glibc).
const ROUNDS: u64 = 4;

/// The key, plus one; 0: there is none yet.
static KEY: AtomicU64 = AtomicU64::new(0);

/// As many keys as a process can have (PTHREAD_KEYS_MAX of glibc).
const MOST_KEYS: libc::pthread_key_t = 1024;

/// The keys, from the first, whose values have their place in the thread itself (PTHREAD_KEY_2NDLEVEL_SIZE of glibc).
const KEYS_IN_THE_THREAD: u64 = 32;

/// What still comes in a thread that ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Still {
    /// Nothing of the program's.
    Nothing,
    /// A destructor that the program has set anew in every round: it may unlock what the thread holds.
    Destructors,
}

/// What is called when a thread ends.
pub(crate) type Heir = fn(Thread, Still);

/// What a thread leaves, in the order in which it is looked after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    Locks = 0,
    LastError = 1,
}

static HEIRS: [AtomicPtr<c_void>; 2] = [const { AtomicPtr::new(std::ptr::null_mut()) }; 2];

/// Has `heir` called when the calling thread ends. One and the same function in all calls for the same.
pub(crate) fn arm(thread: Thread, left: Left, heir: Heir) -> Result<(), Errno> {
    HEIRS[left as usize].store(heir as *mut c_void, Ordering::Release);
    if thread.ending() != 0 {
        return Ok(());
    }
    set_value(key()?)?;
    thread.set_ending(1);
    Ok(())
}

/// The same for a caller that must not allocate, as a signal handler must not. It comes to nothing, until some other call
/// arms the thread, where there is no key yet or the libc would allocate for its value.
pub(crate) fn arm_without_allocation(thread: Thread, left: Left, heir: Heir) {
    HEIRS[left as usize].store(heir as *mut c_void, Ordering::Release);
    let known = KEY.load(Ordering::Acquire);
    if thread.ending() != 0 || known == 0 || known > KEYS_IN_THE_THREAD {
        return;
    }
    if set_value((known - 1) as libc::pthread_key_t).is_ok() {
        thread.set_ending(1);
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
    let still = still();
    for heir in &HEIRS {
        let heir = heir.load(Ordering::Acquire);
        if !heir.is_null() {
            // SAFETY: stored by arm() from a Heir.
            let heir: Heir = unsafe { std::mem::transmute(heir) };
            heir(thread, still);
        }
    }
}

/// The libc goes through its keys upwards, in each round, and takes a key's value before it calls its destructor. So a
/// value that stands behind this key in the last round was set by a destructor, which is called once more.
fn still() -> Still {
    let own = KEY.load(Ordering::Acquire) as libc::pthread_key_t;
    // SAFETY: pthread_getspecific(3) of a number that is no key's is NULL in glibc and musl.
    let is_set = |key| unsafe { !libc::pthread_getspecific(key).is_null() };
    if (own..MOST_KEYS).any(is_set) { Still::Destructors } else { Still::Nothing }
}
