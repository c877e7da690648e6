// SPDX-License-Identifier: MIT OR Apache-2.0
//! The C interface: every exported function, in the order of the header. Each does three things: take the arguments
//! in, call the manager, hand the result out. What NULL, a panic or a failure becomes is in `boundary`.
//!
//! The contract that the `unsafe` functions ask of C, and that their unsafe blocks argue from: a pointer is NULL or
//! points to what the header says, alive during the call; a manager came from this library and was not closed; a
//! struct has as many bytes as its `size` says. The comments are the header's, written for its readers.

#![allow(unsafe_code, reason = "pointers from C; each function states what it asks of them")]
#![allow(non_camel_case_types, reason = "C's names, which cbindgen takes over")]

mod boundary;
mod constants;
mod last_error;
mod locking;
#[cfg(test)]
mod readback;
mod types;

use std::ffi::{c_char, c_void};
use std::path::Path;
use std::sync::Arc;

use crate::backend::{AnyBackend, Backend, Mode, on_backend};
use crate::cancel::Cancel;
use crate::file::FileManager;
use crate::manager::Wait;
use crate::memory::InMemoryManager;
use crate::plugged::PluggedManager;
pub use crate::plugged::table::*;
use crate::shm::ShmManager;
use crate::{Errno, Error, Reason, Result};

use boundary::{call, cancel, input_path, manager, output, refuse, silence_panics};
pub use constants::*;
pub use types::*;

/// What a handle points to. The header declares it without its inside.
pub struct lock_manager_t(AnyBackend);

/// Ends waits from another thread.
pub type lock_manager_cancel_t = Cancel;

fn handle(backend: AnyBackend) -> *mut lock_manager_t {
    Box::into_raw(Box::new(lock_manager_t(backend)))
}

fn shm_handle(manager: ShmManager) -> *mut lock_manager_t {
    handle(manager.backend)
}

fn file_handle(manager: FileManager) -> *mut lock_manager_t {
    handle(AnyBackend::File(manager))
}

/// Hands out the handle of what `by` opens at that path.
///
/// # Safety
/// The module's contract.
unsafe fn open(
    path: *const c_char,
    out: *mut *mut lock_manager_t,
    by: impl FnOnce(&Path) -> Result<*mut lock_manager_t>,
) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe {
        let (path, out) = (input_path(path)?, output(out, "out")?);
        *out = by(path)?;
        Ok(0)
    })
}

/// Describes this thread's last failure in one line: the storage, the lock, the numbers that disagree, and what to
/// do. Never NULL; empty before the first failure. The string is valid until this thread's next failing call.
#[unsafe(no_mangle)]
pub extern "C" fn lock_manager_last_error() -> *const c_char {
    last_error::text()
}

/// Returns the version of the library that runs, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn lock_manager_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Creates a shared memory segment and opens it. No other process ever sees a segment that is half made.
///
/// path: a POSIX shm name ("/name": one slash, first) or the absolute path of a file.
/// num_locks: 1 to 16777216, rounded up to a multiple of 64 (libpod layout: 32).
/// options: NULL for the defaults: the native layout, which may grow to 1048576 locks or to num_locks if that is
/// more.
///
/// -EEXIST: the name is taken. -ENOSPC: the file system is full; nothing is left behind. -EINVAL: path is not a
/// valid name, or num_locks or an option is out of range. -EACCES: permissions. -EOPNOTSUPP: a network file system,
/// or one that cannot reserve space.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_new_shm(
    path: *const c_char,
    num_locks: u32,
    options: *const lock_manager_shm_options_t,
    out: *mut *mut lock_manager_t,
) -> i32 {
    // SAFETY: the module's contract.
    unsafe {
        open(path, out, |path| {
            let options = types::segment_options(options)?;
            ShmManager::create(path, num_locks, &options).map(shm_handle)
        })
    }
}

/// Opens an existing segment.
///
/// num_locks: the number of locks that it must have, rounded up as at creation; 0 accepts any number. If the
/// segment has grown, any number from its first to its present one is accepted.
///
/// -ENOENT: there is no such segment. -ERANGE: it has another number of locks. -EPROTO: it is not a segment of this
/// library, is damaged, or was made for another libc, architecture or format version. -ESTALE: it was made before
/// this boot (native layout). -EUSERS: 8191 processes already use it (native layout). -EACCES: permissions, a
/// symbolic link, or an owner that is neither the caller nor root.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_open_shm(
    path: *const c_char,
    num_locks: u32,
    out: *mut *mut lock_manager_t,
) -> i32 {
    // SAFETY: the module's contract.
    unsafe { open(path, out, |path| ShmManager::open(path, num_locks).map(shm_handle)) }
}

/// Opens the segment if it exists, and creates it otherwise. If two processes call it at once, one creates the
/// segment and both succeed.
///
/// The options mode and max_locks count at creation only. A native segment from before this boot is replaced by a
/// new one.
///
/// num_locks: as for lock_manager_open_shm and lock_manager_new_shm; 0 opens an existing segment and never creates
/// one.
/// options: NULL for the defaults. If options name a layout, an existing segment must have it.
///
/// -EINVAL: num_locks is 0 and there is no segment. -EPROTO: the segment has another layout. Otherwise as
/// lock_manager_open_shm and lock_manager_new_shm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_open_or_new_shm(
    path: *const c_char,
    num_locks: u32,
    options: *const lock_manager_shm_options_t,
    out: *mut *mut lock_manager_t,
) -> i32 {
    // SAFETY: the module's contract.
    unsafe {
        open(path, out, |path| {
            let options = types::segment_options(options)?;
            ShmManager::open_or_create(path, num_locks, &options).map(shm_handle)
        })
    }
}

/// Opens a segment read only, whoever owns it, if permissions allow. Calls that would change something then return
/// -EACCES.
///
/// Fails as lock_manager_open_shm does, except that any owner is accepted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_open_shm_read_only(path: *const c_char, out: *mut *mut lock_manager_t) -> i32 {
    // SAFETY: the module's contract.
    unsafe { open(path, out, |path| ShmManager::open_read_only(path).map(shm_handle)) }
}

/// Removes a segment. Processes that still have it open get -ESTALE: in the native layout from each allocation and
/// lock call at once, in the libpod layout from allocation and waits within 100 ms. They can still unlock, and read
/// information.
///
/// -ENOENT: there is no such segment. -EPROTO: it does not carry this library's magic number, so it stays; a
/// damaged segment of this library is removed. -EBUSY: another process has held a record lock on it for 2 s.
/// -EACCES, -EPERM: the directory does not let the caller remove the name; the segment stays in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_remove_shm(path: *const c_char) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe { ShmManager::remove(input_path(path)?).map(|()| 0) })
}

/// Creates a lock directory and opens it. The directory has one file for each allocated lock, named by its decimal
/// id, as libpod's file manager has it. An existing directory is accepted if it is empty. Ids go from 0 to
/// 16777215. For libpod, a held lock that is allocated is also a record lock on its file, and lslocks(8) shows it.
///
/// directory: the path of the directory.
///
/// -EEXIST: the directory is not empty. -ENOENT: its parent directory does not exist. -EACCES: permissions.
/// -EOPNOTSUPP: a network file system.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_new_file(directory: *const c_char, out: *mut *mut lock_manager_t) -> i32 {
    // SAFETY: the module's contract.
    unsafe { open(directory, out, |path| FileManager::create(path).map(file_handle)) }
}

/// Opens an existing lock directory, made by this library or by libpod. If its table (.lock_manager) is missing or
/// is from before this boot, a new table is made.
///
/// directory: the path of the directory.
///
/// -ENOENT: there is no such directory. -EACCES: permissions, a symbolic link, or an owner that is neither the
/// caller nor root. -EPROTO: the file .lock_manager has another version or was not made by this library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_open_file(directory: *const c_char, out: *mut *mut lock_manager_t) -> i32 {
    // SAFETY: the module's contract.
    unsafe { open(directory, out, |path| FileManager::open(path).map(file_handle)) }
}

/// Opens the lock directory if it exists, and creates it otherwise. If two processes call it at once, one creates
/// the directory and both succeed.
///
/// directory: the path of the directory.
///
/// Fails as lock_manager_open_file and lock_manager_new_file do.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_open_or_new_file(directory: *const c_char, out: *mut *mut lock_manager_t) -> i32 {
    // SAFETY: the module's contract.
    unsafe { open(directory, out, |path| FileManager::open_or_create(path).map(file_handle)) }
}

/// Removes a lock directory with its locks. Processes that still have it open get -ESTALE from their next call that
/// allocates or locks.
///
/// directory: the path of the directory.
///
/// -ENOENT: there is no such directory. -EPROTO: it has no files of this library, so it stays. -ENOTEMPTY: it also
/// has other files.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_remove_file(directory: *const c_char) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe { FileManager::remove(input_path(directory)?).map(|()| 0) })
}

/// Creates a manager whose locks belong to this process alone. Between its threads they behave as the locks of a
/// native segment do. In a forked child, every call on the manager except lock_manager_close() returns -EOPNOTSUPP.
///
/// num_locks: 1 to 16777216, not rounded.
///
/// -EINVAL: num_locks is out of range.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_new_in_memory(num_locks: u32, out: *mut *mut lock_manager_t) -> i32 {
    silence_panics();
    // SAFETY: the module's contract.
    call(|| unsafe {
        let out = output(out, "out")?;
        *out = handle(AnyBackend::Native(InMemoryManager::new(num_locks)?.native));
        Ok(0)
    })
}

/// Closes a manager; the storage stays. If manager is NULL, it does nothing and returns 0. The caller must make
/// sure that no other call on the manager runs at the same time, as with free(3).
///
/// -EBUSY: this process holds a lock through the manager, or another thread waits in a call on it; the manager
/// stays open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_close(manager: *mut lock_manager_t) -> i32 {
    // SAFETY: the module's contract; after a successful check nobody else uses the manager.
    call(|| unsafe {
        if !manager.is_null() {
            self::manager(manager)?.check_idle()?;
            drop(Box::from_raw(manager));
        }
        Ok(0)
    })
}

/// Allocates a lock: an id that nobody else gets until it is freed.
///
/// id: receives the id of the lock.
///
/// -ENOLCK: all locks are allocated. -ESTALE: the segment was removed. -ENOTRECOVERABLE: the mutex that guards the
/// bitmaps stays held (libpod layout).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_allocate_lock(manager: *mut lock_manager_t, id: *mut u32) -> i32 {
    // SAFETY: the module's contract.
    unsafe {
        if let (Some(opened), Some(id)) = (manager.as_ref(), id.as_mut())
            && let Some(allocated) = on_backend!(opened.0, backend => backend.allocate_fast())
        {
            *id = allocated;
            return 0;
        }
    }
    // SAFETY: the module's contract.
    call(|| unsafe {
        let (opened, id) = (self::manager(manager)?, output(id, "id")?);
        *id = opened.allocate_lock()?;
        Ok(0)
    })
}

/// Checks that an id is in range. It does not matter whether the lock is allocated.
///
/// -EINVAL: id is out of range.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_retrieve_lock(manager: *mut lock_manager_t, id: u32) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe { self::manager(manager)?.retrieve_lock(id).map(|()| 0) })
}

/// Allocates the lock with this id.
///
/// -EEXIST: it is already allocated. -EINVAL: id is out of range. Otherwise as lock_manager_allocate_lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_allocate_and_retrieve_lock(manager: *mut lock_manager_t, id: u32) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe { self::manager(manager)?.allocate_and_retrieve_lock(id).map(|()| 0) })
}

/// Frees an id, so that it can be allocated again. A held lock stays held, and the lock can still be used.
///
/// -ENOENT: the lock is not allocated. -EINVAL: id is out of range. Otherwise as lock_manager_allocate_lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_free_lock(manager: *mut lock_manager_t, id: u32) -> i32 {
    // SAFETY: the module's contract.
    unsafe {
        if let Some(opened) = manager.as_ref()
            && on_backend!(opened.0, backend => backend.free_fast(id)).is_some()
        {
            return 0;
        }
    }
    // SAFETY: the module's contract.
    call(|| unsafe { self::manager(manager)?.free_lock(id).map(|()| 0) })
}

/// Frees every id, for tests and renumbering. Call it only while no other process allocates. Held locks stay held.
///
/// Fails as lock_manager_allocate_lock does, except that -ENOLCK cannot happen.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_free_all_locks(manager: *mut lock_manager_t) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe { self::manager(manager)?.free_all_locks().map(|()| 0) })
}

/// Counts the locks that are free to be allocated.
///
/// count: receives the number, or LOCK_MANAGER_UNLIMITED if there is no maximum.
///
/// -EINVAL: count is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_available_locks(manager: *mut lock_manager_t, count: *mut u32) -> i32 {
    // SAFETY: the module's contract.
    unsafe {
        if let (Some(opened), Some(count)) = (manager.as_ref(), count.as_mut())
            && let Some(available) = on_backend!(opened.0, backend => backend.available_fast())
        {
            *count = available;
            return 0;
        }
    }
    // SAFETY: the module's contract.
    call(|| unsafe {
        let (opened, count) = (self::manager(manager)?, output(count, "count")?);
        *count = opened.available_locks()?;
        Ok(0)
    })
}

/// Counts all locks, allocated or not.
///
/// count: receives the number, or LOCK_MANAGER_UNLIMITED if there is no maximum.
///
/// -EINVAL: count is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_num_locks(manager: *mut lock_manager_t, count: *mut u32) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe {
        let (opened, count) = (self::manager(manager)?, output(count, "count")?);
        *count = opened.num_locks()?;
        Ok(0)
    })
}

/// Adds locks while other processes use the storage. Every process that has a segment open can use the new locks,
/// and nothing moves. In-memory managers can grow as well. If it fails, nothing has changed.
///
/// num_locks: the new total, rounded up as at creation.
///
/// -EINVAL: num_locks is less than the present number or more than max_locks. -ENOSPC: the file system is full.
/// -ENOMEM, -EAGAIN: this process has no address space for them (on 64 bits: for max_locks), or may not lock that much
/// memory (mlockall).
/// -EOPNOTSUPP: the number is fixed (libpod layout), or there is none (lock directory).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_grow(manager: *mut lock_manager_t, num_locks: u32) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe { self::manager(manager)?.grow(num_locks).map(|()| 0) })
}

/// Waits for a lock without limit.
///
/// 0 or LOCK_MANAGER_OWNER_DIED: the calling thread holds the lock now.
///
/// -EDEADLK: this thread already holds the lock, or (except in the libpod layout) the wait would close a cycle of
/// threads that wait for each other's locks; the last error names the cycle. -ESTALE: the storage was removed.
/// -ENOLCK: this thread already holds 2000 locks (libpod layout). -ENOTRECOVERABLE: the state of the lock is lost
/// (libpod layout). -EOPNOTSUPP: a child that was cloned behind the libc's back (libpod layout).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_lock(manager: *mut lock_manager_t, id: u32) -> i32 {
    // SAFETY: the module's contract.
    unsafe { locking::acquire(manager, id, Mode::Exclusive, Wait::Forever) }
}

/// Takes a lock if it is free, and does not wait.
///
/// -EBUSY: the lock is held, by the caller or by anybody else. Otherwise as lock_manager_lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_try_lock(manager: *mut lock_manager_t, id: u32) -> i32 {
    // SAFETY: the module's contract.
    unsafe { locking::acquire(manager, id, Mode::Exclusive, Wait::Try) }
}

/// Waits for a lock for at most timeout_ns.
///
/// timeout_ns: nanoseconds of CLOCK_MONOTONIC. UINT64_MAX waits without limit; 0 takes a free lock and does not
/// wait.
///
/// -ETIMEDOUT: the lock did not become free in time. Otherwise as lock_manager_lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_timed_lock(manager: *mut lock_manager_t, id: u32, timeout_ns: u64) -> i32 {
    // SAFETY: the module's contract.
    unsafe { locking::acquire(manager, id, Mode::Exclusive, Wait::Nanoseconds(timeout_ns)) }
}

/// Unlocks a lock that the calling thread (or, with ownership by process, this process) holds through this manager.
///
/// -EPERM: the caller does not hold it through this manager.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_unlock(manager: *mut lock_manager_t, id: u32) -> i32 {
    // SAFETY: the module's contract.
    unsafe { locking::release(manager, id, Mode::Exclusive) }
}

/// Sets who owns the locks that are taken through a manager. Call it before the manager's first lock call. With
/// ownership by process, any thread of the process can unlock a lock, and a thread that asks for a lock that its
/// own process holds waits for it.
///
/// ownership: LOCK_MANAGER_OWNED_BY_THREAD, the default, or LOCK_MANAGER_OWNED_BY_PROCESS.
///
/// -EBUSY: the manager has already taken a lock, or tried to. -EOPNOTSUPP: ownership by process in the libpod
/// layout. -EINVAL: ownership is unknown.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_set_ownership(manager: *mut lock_manager_t, ownership: u32) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe { self::manager(manager)?.set_ownership(types::ownership(ownership)?).map(|()| 0) })
}

/// Creates a cancel object, with which one thread can end the waits of others. Free it with
/// lock_manager_cancel_free().
///
/// -EINVAL: out is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_cancel_new(out: *mut *mut lock_manager_cancel_t) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe {
        let out = output(out, "cancel")?;
        *out = Box::into_raw(Box::new(Cancel::new()));
        Ok(0)
    })
}

/// Ends every wait that uses this cancel object, normally within 10 ms, and every later one at once. The object stays
/// triggered. This call is async-signal-safe. It wakes the waits, which takes some microseconds, and on a busy machine
/// some milliseconds.
///
/// -EINVAL: cancel is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_cancel_trigger(cancel: *mut lock_manager_cancel_t) -> i32 {
    // SAFETY: the module's contract. Outside of call() where it succeeds: a signal handler may be here.
    match unsafe { cancel.as_ref() } {
        Some(cancel) => {
            cancel.trigger();
            0
        }
        // SAFETY: NULL is what cancel() is asked about.
        None => call(|| unsafe { self::cancel(cancel).map(|_| 0) }),
    }
}

/// Frees a cancel object. If cancel is NULL, it does nothing and returns 0. A thread whose wait was cancelled may free
/// the object although the call that triggered it has not returned yet.
///
/// -EBUSY: a wait, or after 100 ms a trigger, still uses the object.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_cancel_free(cancel: *mut lock_manager_cancel_t) -> i32 {
    // SAFETY: the module's contract; after a successful check nobody else uses the object.
    call(|| unsafe {
        if !cancel.is_null() {
            self::cancel(cancel)?.check_unused()?;
            drop(Box::from_raw(cancel));
        }
        Ok(0)
    })
}

/// Waits for a lock as lock_manager_timed_lock does, until a cancel object is triggered.
///
/// timeout_ns: nanoseconds of CLOCK_MONOTONIC. UINT64_MAX waits without limit.
/// cancel: the cancel object; NULL if nobody is to end the wait.
///
/// -ECANCELED: the object was triggered, even if the lock was free. Otherwise as lock_manager_timed_lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_cancellable_lock(
    manager: *mut lock_manager_t,
    id: u32,
    timeout_ns: u64,
    cancel: *mut lock_manager_cancel_t,
) -> i32 {
    // SAFETY: the module's contract.
    unsafe {
        locking::acquire_cancellable(manager, id, Mode::Exclusive, Wait::Nanoseconds(timeout_ns), cancel.as_ref())
    }
}

/// Waits without limit until the caller can hold a lock shared. Any number of readers hold a lock shared at the
/// same time, and nobody holds it exclusively meanwhile.
///
/// 0 or LOCK_MANAGER_OWNER_DIED: the calling thread holds the lock shared now.
///
/// LOCK_MANAGER_OWNER_DIED: a writer died holding the lock. Every reader is told, until a writer has taken the lock
/// and was told itself, because only a writer can repair what the lock protects. If a reader dies, nobody is told,
/// because it changed nothing.
///
/// A waiting writer keeps later readers out, or it would starve. Give writers a timeout: a reader that is stopped
/// keeps its hold. A reader cannot become a writer; it must unlock and then lock exclusively.
///
/// -EDEADLK: this thread already holds the lock, shared or exclusively, or the wait would close a cycle. -EAGAIN:
/// there is no room for one more reader; each lock has room for 4, and the locks of a segment share room for 8192
/// more. -EOPNOTSUPP: the libpod layout, or a segment of format version 1. Otherwise as lock_manager_lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_lock_shared(manager: *mut lock_manager_t, id: u32) -> i32 {
    // SAFETY: the module's contract.
    unsafe { locking::acquire(manager, id, Mode::Shared, Wait::Forever) }
}

/// Takes a lock shared if no writer holds it or is next, and does not wait.
///
/// -EBUSY: a writer holds the lock or is next, or this thread holds it. Otherwise as lock_manager_lock_shared.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_try_lock_shared(manager: *mut lock_manager_t, id: u32) -> i32 {
    // SAFETY: the module's contract.
    unsafe { locking::acquire(manager, id, Mode::Shared, Wait::Try) }
}

/// Waits for at most timeout_ns until the caller can hold a lock shared.
///
/// timeout_ns: nanoseconds of CLOCK_MONOTONIC. UINT64_MAX waits without limit; 0 takes the lock if no writer has it
/// and does not wait.
///
/// -ETIMEDOUT: writers had the lock all the time. Otherwise as lock_manager_lock_shared.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_timed_lock_shared(manager: *mut lock_manager_t, id: u32, timeout_ns: u64) -> i32 {
    // SAFETY: the module's contract.
    unsafe { locking::acquire(manager, id, Mode::Shared, Wait::Nanoseconds(timeout_ns)) }
}

/// Waits for a shared hold as lock_manager_timed_lock_shared does, until a cancel object is triggered.
///
/// timeout_ns: nanoseconds of CLOCK_MONOTONIC. UINT64_MAX waits without limit.
/// cancel: the cancel object; NULL if nobody is to end the wait.
///
/// -ECANCELED: the object was triggered, even if the lock was free. Otherwise as lock_manager_timed_lock_shared.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_cancellable_lock_shared(
    manager: *mut lock_manager_t,
    id: u32,
    timeout_ns: u64,
    cancel: *mut lock_manager_cancel_t,
) -> i32 {
    // SAFETY: the module's contract.
    unsafe { locking::acquire_cancellable(manager, id, Mode::Shared, Wait::Nanoseconds(timeout_ns), cancel.as_ref()) }
}

/// Unlocks a lock that the calling thread (or, with ownership by process, this process) holds shared. Any manager
/// of the same ownership on the same storage will do.
///
/// -EPERM: the caller does not hold it shared. -EOPNOTSUPP: the libpod layout, or a segment of format version 1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_unlock_shared(manager: *mut lock_manager_t, id: u32) -> i32 {
    // SAFETY: the module's contract.
    unsafe { locking::release(manager, id, Mode::Shared) }
}

/// Turns an exclusive hold into a shared one. Nobody else can hold the lock exclusively in between. Waiting readers
/// get in.
///
/// -EPERM: the caller does not hold the lock exclusively through this manager. -EAGAIN: there is no room for one
/// more reader; the lock is still held exclusively. -EOPNOTSUPP: the libpod layout, or a segment of format version
/// 1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_downgrade_lock(manager: *mut lock_manager_t, id: u32) -> i32 {
    // SAFETY: the module's contract.
    unsafe { locking::downgrade(manager, id) }
}

/// Lists the locks that somebody holds, shared or exclusively. It touches no lock.
///
/// count: receives the number of held locks, which may exceed capacity.
/// ids: receives the lowest ids, ascending, capacity at most; NULL if capacity is 0.
///
/// -EINVAL: ids is NULL although capacity is not 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_locks_held(
    manager: *mut lock_manager_t,
    ids: *mut u32,
    capacity: usize,
    count: *mut usize,
) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe {
        let (opened, count) = (self::manager(manager)?, output(count, "count")?);
        if ids.is_null() && capacity > 0 {
            return Err(refuse("ids is NULL although capacity is not 0; give an array of that many ids"));
        }
        let held = opened.locks_held()?;
        if capacity > 0 {
            ids.copy_from_nonoverlapping(held.as_ptr(), held.len().min(capacity));
        }
        *count = held.len();
        Ok(0)
    })
}

/// Reads what is known of one lock. It touches no lock.
///
/// info: receives the information. Set info->size before the call.
///
/// -EINVAL: info->size is not the size of this struct in any version, or id is out of range.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_lock_info(
    manager: *mut lock_manager_t,
    id: u32,
    info: *mut lock_manager_lock_info_t,
) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe {
        let opened = self::manager(manager)?;
        let size = types::struct_size(info)?;
        types::hand_out(info, size, &opened.lock_info(id)?.into());
        Ok(0)
    })
}

/// Lists the holders of a lock, shared or exclusive. It touches no lock. Holders that are known to be dead are left
/// out.
///
/// count: receives the number of holders, which may exceed capacity.
/// holders: receives the first holders, capacity at most; NULL if capacity is 0. Set the size of the first before
/// the call: it counts for all.
///
/// -EOPNOTSUPP: the libpod layout; use lock_manager_lock_info there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_lock_holders(
    manager: *mut lock_manager_t,
    id: u32,
    holders: *mut lock_manager_holder_t,
    capacity: usize,
    count: *mut usize,
) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe {
        let (opened, count) = (self::manager(manager)?, output(count, "count")?);
        let found: Vec<_> = opened.lock_holders(id)?.iter().map(lock_manager_holder_t::from).collect();
        types::hand_out_all(holders, capacity, &found)?;
        *count = found.len();
        Ok(0)
    })
}

/// Reads what is known of the storage. It touches no lock.
///
/// info: receives the information. Set info->size before the call.
///
/// -EINVAL: info->size is not the size of this struct in any version.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_info(manager: *mut lock_manager_t, info: *mut lock_manager_info_t) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe {
        let opened = self::manager(manager)?;
        let size = types::struct_size(info)?;
        types::hand_out(info, size, &opened.info()?.into());
        Ok(0)
    })
}

/// Marks a lock whose holder is provably dead, so that the next holder is told LOCK_MANAGER_OWNER_DIED. Returns 0
/// also if there was nothing to do.
///
/// -EBUSY: the holder is alive, or cannot be judged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_repair_lock(manager: *mut lock_manager_t, id: u32) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe { self::manager(manager)?.repair_lock(id).map(|()| 0) })
}

/// Reads the fencing token of a lock that the caller holds: a number that grows with each host that takes the lock, for
/// ever. Hand it to the resource with each request; a resource that refuses a lower token than it has seen is safe from
/// a holder that was paused for too long.
///
/// token: receives the token.
///
/// -EPERM: the caller does not hold the lock. LOCK_MANAGER_LOST: the lock may be another's by now. -EOPNOTSUPP: the
/// locks are those of one host, where a paused holder keeps its lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_fencing_token(manager: *mut lock_manager_t, id: u32, token: *mut u64) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe {
        let (opened, token) = (self::manager(manager)?, output(token, "token")?);
        *token = opened.fencing_token(id)?;
        Ok(0)
    })
}

/// Gives a descriptor that is readable while a lock that this manager holds may be lost. Wait for it with poll(2), beside
/// the work that the lock protects. Do not read from it or close it: it belongs to the manager.
///
/// A lock counts as lost when its lease may be over, by this host's own clock and before the storage could give the lock
/// to anybody else. Unlocking it returns LOCK_MANAGER_LOST.
///
/// descriptor: receives the descriptor.
///
/// -EOPNOTSUPP: the locks are those of one host, where no lock is lost.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_lost_fd(manager: *mut lock_manager_t, descriptor: *mut i32) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe {
        let (opened, descriptor) = (self::manager(manager)?, output(descriptor, "descriptor")?);
        *descriptor = opened.lost_fd()?;
        Ok(0)
    })
}

/// Opens a manager on a backend in another library, which keeps locks for several hosts. Such a library calls it; its
/// users call that library.
///
/// table: the backend's functions. They are copied.
/// state: what the functions get. lock_manager_close() hands it to the function close; after an error of this call, it is
/// still the caller's.
/// name: what errors call the storage.
/// host: the name of the native segment with the first locks of this host, made if it is missing; NULL: the first locks
/// are those of this process alone.
///
/// -EINVAL: the table's size is not one of any version, or its number of locks is out of range. Otherwise as
/// lock_manager_open_or_new_shm() of host.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_open_backend(
    table: *const lock_manager_backend_t,
    state: *mut c_void,
    name: *const c_char,
    host: *const c_char,
    out: *mut *mut lock_manager_t,
) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe {
        let (name, out) = (input_path(name)?.to_string_lossy(), output(out, "out")?);
        let host = if host.is_null() { None } else { Some(input_path(host)?) };
        *out = handle(AnyBackend::Plugged(PluggedManager::open(table.cast(), state, &name, host)?));
        Ok(0)
    })
}

/// Finds the state of a backend's manager, for functions of the backend's own library.
///
/// table: the backend's table. The manager must have been opened with the same function close.
/// holds: an id that the caller must hold; UINT32_MAX: none.
/// state: receives the state.
///
/// -EINVAL: the manager is not one of that backend. -EPERM: the caller does not hold the lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_backend_state(
    manager: *mut lock_manager_t,
    table: *const lock_manager_backend_t,
    holds: u32,
    state: *mut *mut c_void,
) -> i32 {
    const OTHER: &str = "the manager is not one of this backend; open one with the backend's own library";
    // SAFETY: the module's contract.
    call(|| unsafe {
        self::manager(manager)?;
        let (opened, state) = (manager.as_ref(), output(state, "state")?);
        let close = table.as_ref().and_then(|table| table.close).map(|close| close as *const c_void);
        let plugged = opened.and_then(|opened| if let AnyBackend::Plugged(it) = &opened.0 { Some(it) } else { None });
        let (Some(plugged), Some(close)) = (plugged, close) else { return Err(refuse(OTHER)) };
        let found = plugged.state_if_of(close).ok_or_else(|| refuse(OTHER))?;
        if holds != u32::MAX {
            plugged.check_holds(holds)?;
        }
        *state = found;
        Ok(0)
    })
}

/// Makes a failure of a backend's own library this thread's last failure, so that lock_manager_last_error() describes it.
/// Returns -error.
///
/// name: what errors call the storage; NULL: none.
/// error: the errno, positive.
/// text: the failure in one line, with the way out.
///
/// -EINVAL: text is NULL, or error is not positive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_backend_failed(name: *const c_char, error: i32, text: *const c_char) -> i32 {
    const NOT_POSITIVE: &str = "the error of the backend is not positive; give an errno";
    // SAFETY: the module's contract.
    call(|| unsafe {
        let text = input_path(text)?.to_string_lossy().into_owned();
        let name = if name.is_null() { Path::new("") } else { input_path(name)? };
        if error <= 0 {
            return Err(refuse(NOT_POSITIVE));
        }
        Err(Error::new(&Arc::new(name.to_owned()), Reason::OfBackend { errno: Errno(error), text }))
    })
}
