// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lock and unlock at the boundary. A free lock of a native segment is taken and given back without anything around it:
//! that path cannot fail or panic. Every other one ends in a call by the C convention, out of which nothing unwinds, so
//! that the short path keeps nothing and needs no way out. A signal handler that ends the thread, wherever it comes, finds
//! nothing to be undone on its way through these functions.
//!
//! Each function asks of its caller what the parent module asks of C.

use std::hint::cold_path;

use crate::Cancel;
use crate::file::FileManager;
use crate::manager::Wait;
use crate::shm::{FastAcquire, Libpod, Mode, Native, Release};
use crate::sys::thread::undisturbed::with_errno_kept;

use super::boundary::{self, call, code, manager as opened};
use super::lock_manager_t;

/// How long a call waits, as a type: what is the same in each call of a function need not be kept in it.
pub(super) trait Patience: Copy {
    fn wait(self) -> Wait;
}

#[derive(Clone, Copy)]
pub(super) struct Endless;

#[derive(Clone, Copy)]
pub(super) struct NoPatience;

/// Nanoseconds.
#[derive(Clone, Copy)]
pub(super) struct AtMost(pub(super) u64);

impl Patience for Endless {
    fn wait(self) -> Wait {
        Wait::Forever
    }
}

impl Patience for NoPatience {
    fn wait(self) -> Wait {
        Wait::Try
    }
}

impl Patience for AtMost {
    fn wait(self) -> Wait {
        Wait::Nanoseconds(self.0)
    }
}

/// Takes a lock.
///
/// # Safety
/// The module's contract.
#[inline(always)]
pub(super) unsafe fn acquire(manager: *mut lock_manager_t, id: u32, patience: impl Patience) -> i32 {
    // SAFETY: the module's contract.
    unsafe {
        match manager.as_ref() {
            Some(lock_manager_t::Native(native)) => match native.acquire_fast(id) {
                FastAcquire::Acquired(acquired) => code(acquired),
                FastAcquire::GoSlow => acquire_held(native, id, patience),
                FastAcquire::BackOut => acquire_anew(native, id, patience),
            },
            Some(lock_manager_t::Libpod(libpod)) => {
                // Not rare: only out of the native way, for which a jump taken in each of lock and unlock is a cycle in 20.
                cold_path();
                acquire_mutex(libpod, id, patience)
            }
            Some(lock_manager_t::File(file)) => {
                cold_path();
                acquire_file(file, id, patience)
            }
            None => call(|| opened(manager).map(|_| 0)),
        }
    }
}

/// Takes a lock, either way, without a short way: what may be cancelled, or is not native and shared.
///
/// # Safety
/// The module's contract.
#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "called in the library alone: the convention says that nothing unwinds")]
pub(super) unsafe extern "C" fn acquire_slow(
    manager: *mut lock_manager_t,
    id: u32,
    mode: Mode,
    wait: Wait,
    cancel: Option<&Cancel>,
) -> i32 {
    // SAFETY: the module's contract.
    unsafe {
        match manager.as_ref() {
            Some(lock_manager_t::Native(native)) => {
                boundary::acquire(&mut native.slow_path(id, mode, wait, cancel), native.storage())
            }
            Some(lock_manager_t::File(file)) => {
                boundary::acquire(&mut file.two_steps(id, mode, wait, cancel), file.storage())
            }
            Some(lock_manager_t::Libpod(libpod)) if mode == Mode::Exclusive => {
                boundary::acquire(&mut libpod.slow_path(id, wait, cancel), libpod.storage())
            }
            // Nobody shares there, or it is NULL.
            _ => call(|| opened(manager)?.acquire_shared(id, wait, cancel).map(code)),
        }
    }
}

/// Gives a lock back.
///
/// # Safety
/// The module's contract.
#[inline(always)]
pub(super) unsafe fn release(manager: *mut lock_manager_t, id: u32) -> i32 {
    // SAFETY: the module's contract.
    unsafe {
        match manager.as_ref() {
            Some(lock_manager_t::Native(native)) => match native.release_fast(id) {
                Release::Done => 0,
                _ => unlock_waited_for(native, id),
            },
            Some(lock_manager_t::Libpod(libpod)) => {
                // As in acquire().
                cold_path();
                unlock_mutex(libpod, id)
            }
            Some(lock_manager_t::File(file)) => {
                cold_path();
                unlock_file(file, id)
            }
            None => call(|| opened(manager).map(|_| 0)),
        }
    }
}

/// A free lock of a libpod segment is taken with as little around it as the libc allows.
#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "called from here alone: the convention says that nothing unwinds")]
extern "C" fn acquire_mutex(libpod: &Libpod, id: u32, patience: impl Patience) -> i32 {
    match libpod.acquire_fast(id) {
        Some(acquired) => code(acquired),
        None => acquire_held_mutex(libpod, id, patience),
    }
}

#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "as above")]
extern "C" fn acquire_held_mutex(libpod: &Libpod, id: u32, patience: impl Patience) -> i32 {
    let wait = patience.wait();
    if !wait.is_try()
        && let Some(acquired) = libpod.acquire_mid(id)
    {
        return code(acquired);
    }
    boundary::acquire(&mut libpod.slow_path(id, wait, None), libpod.storage())
}

#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "as above")]
extern "C" fn acquire_held(native: &Native, id: u32, patience: impl Patience) -> i32 {
    let wait = patience.wait();
    if !wait.is_try() {
        match native.acquire_mid(id) {
            FastAcquire::Acquired(acquired) => return code(acquired),
            FastAcquire::BackOut => return acquire_anew(native, id, patience),
            FastAcquire::GoSlow => {}
        }
    }
    boundary::acquire(&mut native.slow_path(id, Mode::Exclusive, wait, None), native.storage())
}

#[cold]
#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "as above")]
extern "C" fn acquire_anew(native: &Native, id: u32, patience: impl Patience) -> i32 {
    boundary::release(native.storage(), || {
        native.back_out(id);
        Ok(())
    });
    boundary::acquire(&mut native.slow_path(id, Mode::Exclusive, patience.wait(), None), native.storage())
}

#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "as above")]
extern "C" fn acquire_file(file: &FileManager, id: u32, patience: impl Patience) -> i32 {
    match with_errno_kept(|| file.acquire_fast(id)) {
        FastAcquire::Acquired(acquired) => return code(acquired),
        FastAcquire::GoSlow => {}
        FastAcquire::BackOut => {
            _ = boundary::release(file.storage(), || {
                file.back_out(id);
                Ok(())
            })
        }
    }
    boundary::acquire(&mut file.two_steps(id, Mode::Exclusive, patience.wait(), None), file.storage())
}

#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "as above")]
extern "C" fn unlock_mutex(libpod: &Libpod, id: u32) -> i32 {
    match libpod.release_fast(id) {
        Release::Done => 0,
        release => boundary::release(libpod.storage(), || libpod.release_slow(id, release)),
    }
}

#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "as above")]
extern "C" fn unlock_waited_for(native: &Native, id: u32) -> i32 {
    match native.release_mid(id) {
        Release::Done => 0,
        _ => boundary::release(native.storage(), || native.release_slow(id)),
    }
}

#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "as above")]
extern "C" fn unlock_file(file: &FileManager, id: u32) -> i32 {
    if with_errno_kept(|| file.release_fast(id)) {
        return 0;
    }
    boundary::release(file.storage(), || file.release(id))
}
