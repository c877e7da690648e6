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

use std::ffi::c_char;
use std::path::Path;

use crate::Result;
use crate::backend::{AnyBackend, Backend, Mode, on_backend};
use crate::cancel::Cancel;
use crate::file::FileManager;
use crate::manager::Wait;
use crate::memory::InMemoryManager;
use crate::shm::ShmManager;

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

/// This thread's last failure in words: the storage, the lock, the numbers that disagree, the way out. Never NULL;
/// empty before the first failure. Valid until this thread's next failing call.
#[unsafe(no_mangle)]
pub extern "C" fn lock_manager_last_error() -> *const c_char {
    last_error::text()
}

/// The version of the library that runs, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn lock_manager_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Creates a shared memory segment and opens it. Nobody ever sees it half made.
///
/// path: a POSIX shm name ("/name": one slash, first) or the absolute path of a file.
/// num_locks: 1 to 16777216, rounded up to a multiple of 64; in the libpod layout of 32.
/// options: NULL for the defaults: the native layout, which may grow to 1048576 locks.
///
/// -EEXIST: the name is taken. -ENOSPC: the file system is full; nothing is left behind. -EINVAL, -EACCES,
/// -EOPNOTSUPP (a network file system).
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

/// Opens a segment that exists.
///
/// num_locks: how many it must have, rounded as at creation; 0 takes what is there. One that has grown may be asked for by
/// any number between its first and its present one.
///
/// -ENOENT: there is none. -ERANGE: it has another number of locks. -EPROTO: none of ours, damaged, or made for
/// another libc, architecture or version. -ESTALE: it was made before this boot (native). -EUSERS: 8191 processes use it
/// (native). -EACCES: permissions, a symbolic link, or an owner that is neither the caller nor root.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_open_shm(
    path: *const c_char,
    num_locks: u32,
    out: *mut *mut lock_manager_t,
) -> i32 {
    // SAFETY: the module's contract.
    unsafe { open(path, out, |path| ShmManager::open(path, num_locks).map(shm_handle)) }
}

/// Opens the segment if it exists, else creates it. Of two first users at once, one creates it and both succeed.
///
/// 0 locks open what is there and are -EINVAL where nothing is; mode and max_locks count at creation only; a layout that
/// is named must be the one that is there (-EPROTO). A native segment from before this boot is replaced by a new one.
/// Otherwise as lock_manager_open_shm and lock_manager_new_shm.
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

/// Opens a segment to look at it, whoever owns it if permissions allow. What changes something is -EACCES then.
///
/// Fails as lock_manager_open_shm does, but for the owner.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_open_shm_read_only(path: *const c_char, out: *mut *mut lock_manager_t) -> i32 {
    // SAFETY: the module's contract.
    unsafe { open(path, out, |path| ShmManager::open_read_only(path).map(shm_handle)) }
}

/// Removes a segment's name. Who has it open is told -ESTALE: in the native layout at each allocation and lock call from
/// then on, in the libpod layout by allocation and waits within 100 ms. Unlocking and looking work.
///
/// -ENOENT: there is none. -EPROTO: it carries no magic number of ours; it stays. A damaged segment of ours goes.
/// -EBUSY: somebody has kept a record lock on it for 2 s. -EACCES, -EPERM: the directory does not let the caller take
/// the name away; the segment stays in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_remove_shm(path: *const c_char) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe { ShmManager::remove(input_path(path)?).map(|()| 0) })
}

/// Makes a directory for locks, and opens it: one file for each allocated lock, named by its decimal id, as libpod's
/// file manager has it. An empty directory that is there already will do. Ids go from 0 to 16777215. Companion libpod, a lock
/// is also the record lock that libpod takes on that file, and shows as such in lslocks(8).
///
/// -EEXIST: there is something in it. -ENOENT: the directory above it is missing. -EACCES, -EOPNOTSUPP (a network file
/// system).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_new_file(directory: *const c_char, out: *mut *mut lock_manager_t) -> i32 {
    // SAFETY: the module's contract.
    unsafe { open(directory, out, |path| FileManager::create(path).map(file_handle)) }
}

/// Opens a directory of locks that exists, be it libpod's or this library's. A table (.lock_manager) that is not there, or
/// from before this boot, is made anew.
///
/// -ENOENT: there is none. -EACCES: permissions, a symbolic link, or an owner that is neither the caller nor root.
/// -EPROTO: its file .lock_manager is of another version, or none of ours.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_open_file(directory: *const c_char, out: *mut *mut lock_manager_t) -> i32 {
    // SAFETY: the module's contract.
    unsafe { open(directory, out, |path| FileManager::open(path).map(file_handle)) }
}

/// Opens the directory if it exists, else makes it. Of two first users at once, one makes it and both succeed.
///
/// Fails as lock_manager_open_file and lock_manager_new_file do.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_open_or_new_file(directory: *const c_char, out: *mut *mut lock_manager_t) -> i32 {
    // SAFETY: the module's contract.
    unsafe { open(directory, out, |path| FileManager::open_or_create(path).map(file_handle)) }
}

/// Removes a directory with its locks. Who has it open is told -ESTALE at the next call that allocates or locks.
///
/// -ENOENT: there is none. -EPROTO: nothing in it is ours; it stays. -ENOTEMPTY: other files were in it as well.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_remove_file(directory: *const c_char) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe { FileManager::remove(input_path(directory)?).map(|()| 0) })
}

/// Makes a manager whose locks are of this process only: between its threads they are what those of a native segment are. In
/// a forked child its calls are -EOPNOTSUPP.
///
/// num_locks: 1 to 16777216, not rounded.
///
/// -EINVAL: 0 locks, or too many.
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

/// Closes a manager; the storage stays. NULL is 0.
///
/// -EBUSY: this process holds a lock through it, or another thread waits in a call on it; it stays open then. A call
/// that merely runs beside this one is the caller's error, as with free(3).
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
/// -ENOLCK: all are allocated. -ESTALE: the segment was removed. -ENOTRECOVERABLE: the guard of the bitmaps stays
/// taken (libpod layout).
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

/// Checks that an id is within range; whether it is allocated does not matter.
///
/// -EINVAL: it is not.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_retrieve_lock(manager: *mut lock_manager_t, id: u32) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe { self::manager(manager)?.retrieve_lock(id).map(|()| 0) })
}

/// Allocates the lock of that id.
///
/// -EEXIST: it is allocated. -EINVAL: out of range. Otherwise as lock_manager_allocate_lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_allocate_and_retrieve_lock(manager: *mut lock_manager_t, id: u32) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe { self::manager(manager)?.allocate_and_retrieve_lock(id).map(|()| 0) })
}

/// Gives an id back. A lock that is held stays held, and can still be used.
///
/// -ENOENT: it is not allocated. -EINVAL: out of range. Otherwise as lock_manager_allocate_lock.
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

/// Frees every id. For tests and renumbering, when no other process is allocating.
///
/// Fails as lock_manager_allocate_lock does, but for -ENOLCK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_free_all_locks(manager: *mut lock_manager_t) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe { self::manager(manager)?.free_all_locks().map(|()| 0) })
}

/// How many locks are free to be allocated, or LOCK_MANAGER_UNLIMITED.
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

/// How many locks there are, or LOCK_MANAGER_UNLIMITED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_num_locks(manager: *mut lock_manager_t, count: *mut u32) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe {
        let (opened, count) = (self::manager(manager)?, output(count, "count")?);
        *count = opened.num_locks()?;
        Ok(0)
    })
}

/// Makes room for num_locks, rounded as at creation, while others work: every process that has the segment open can use
/// the new locks, and nothing moves. In memory, too.
///
/// -EINVAL: fewer than there are, or more than max_locks. -ENOSPC: the file system is full; -ENOMEM, -EAGAIN: this process
/// has no addresses for max_locks, or may not lock so much memory (mlockall). Nothing has changed then.
/// -EOPNOTSUPP: the layout is fixed, as libpod's is, or there is no number, as with files.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_grow(manager: *mut lock_manager_t, num_locks: u32) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe { self::manager(manager)?.grow(num_locks).map(|()| 0) })
}

/// Waits for a lock without end. 0 or LOCK_MANAGER_OWNER_DIED: the calling thread holds it now.
///
/// -EDEADLK: this thread holds it, or (not in the libpod layout) the wait would close a cycle of threads that wait for each
/// other's locks, which the last error names with their processes. -ESTALE: the storage was removed. In the libpod layout also
/// -ENOLCK: this thread holds 2000 locks already. -ENOTRECOVERABLE: the lock's state is lost. -EOPNOTSUPP: a child cloned
/// behind the libc's back.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_lock(manager: *mut lock_manager_t, id: u32) -> i32 {
    // SAFETY: the module's contract.
    unsafe { locking::acquire(manager, id, Mode::Exclusive, Wait::Forever) }
}

/// Takes a lock if it is free. -EBUSY: it is held, by whomever. Otherwise as lock_manager_lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_try_lock(manager: *mut lock_manager_t, id: u32) -> i32 {
    // SAFETY: the module's contract.
    unsafe { locking::acquire(manager, id, Mode::Exclusive, Wait::Try) }
}

/// Waits for a lock for at most timeout_ns nanoseconds of CLOCK_MONOTONIC; UINT64_MAX: without end; 0 takes a free
/// lock and waits for no other.
///
/// -ETIMEDOUT: it was held all the time. Otherwise as lock_manager_lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_timed_lock(manager: *mut lock_manager_t, id: u32, timeout_ns: u64) -> i32 {
    // SAFETY: the module's contract.
    unsafe { locking::acquire(manager, id, Mode::Exclusive, Wait::Nanoseconds(timeout_ns)) }
}

/// Unlocks what the calling thread, or by process ownership this process, holds through this manager. -EPERM: it does
/// not hold it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_unlock(manager: *mut lock_manager_t, id: u32) -> i32 {
    // SAFETY: the module's contract.
    unsafe { locking::release(manager, id, Mode::Exclusive) }
}

/// Says who owns the locks taken through a manager: LOCK_MANAGER_OWNED_BY_THREAD, as it is by itself, or
/// LOCK_MANAGER_OWNED_BY_PROCESS, so that any thread of the process may unlock. A lock that the process holds is waited for
/// then, even by the thread that took it.
///
/// -EBUSY: the manager has taken a lock already. -EOPNOTSUPP: the libpod layout's locks belong to threads. -EINVAL: no
/// such ownership.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_set_ownership(manager: *mut lock_manager_t, ownership: u32) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe { self::manager(manager)?.set_ownership(types::ownership(ownership)?).map(|()| 0) })
}

/// Makes a cancel object, which ends waits from another thread. Free it with lock_manager_cancel_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_cancel_new(out: *mut *mut lock_manager_cancel_t) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe {
        let out = output(out, "cancel")?;
        *out = Box::into_raw(Box::new(Cancel::new()));
        Ok(0)
    })
}

/// Ends every wait with that object within 10 ms, and each later one at once; it stays triggered. Async-signal-safe.
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

/// Frees a cancel object. NULL is 0. -EBUSY: a wait still uses it.
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

/// lock_manager_timed_lock that another thread can end through the cancel object. NULL: nobody can.
///
/// -ECANCELED: it was triggered, even if the lock was free. Otherwise as lock_manager_timed_lock.
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

/// Waits without end until a lock can be held shared: beside any number of others that hold it shared, and nobody that
/// holds it exclusively. 0 or LOCK_MANAGER_OWNER_DIED: the calling thread holds it shared now.
///
/// LOCK_MANAGER_OWNER_DIED: a writer died holding it. Each reader is told, until a writer has taken the lock and was told
/// itself: only a writer can mend what the lock protects. That a reader died is told to nobody, since it changed nothing.
///
/// A writer that waits keeps later readers out, so as not to starve; give writers deadlines, for a reader that is stopped
/// keeps its hold. A reader cannot become a writer: unlock, and lock exclusively.
///
/// -EDEADLK: this thread holds the lock already, either way, or the wait would close a cycle. -EAGAIN: there is no room for
/// one more reader: 4 for each lock and 8192 more in a segment. -EOPNOTSUPP: the libpod layout, or a segment of format
/// version 1. Otherwise as lock_manager_lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_lock_shared(manager: *mut lock_manager_t, id: u32) -> i32 {
    // SAFETY: the module's contract.
    unsafe { locking::acquire(manager, id, Mode::Shared, Wait::Forever) }
}

/// Takes a lock shared if no writer has it or is next. -EBUSY: one is, or this thread holds it. Otherwise as
/// lock_manager_lock_shared.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_try_lock_shared(manager: *mut lock_manager_t, id: u32) -> i32 {
    // SAFETY: the module's contract.
    unsafe { locking::acquire(manager, id, Mode::Shared, Wait::Try) }
}

/// lock_manager_lock_shared for at most timeout_ns nanoseconds of CLOCK_MONOTONIC; UINT64_MAX: without end; 0: takes what
/// no writer has, and waits for none.
///
/// -ETIMEDOUT: writers had it all the time. Otherwise as lock_manager_lock_shared.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_timed_lock_shared(manager: *mut lock_manager_t, id: u32, timeout_ns: u64) -> i32 {
    // SAFETY: the module's contract.
    unsafe { locking::acquire(manager, id, Mode::Shared, Wait::Nanoseconds(timeout_ns)) }
}

/// lock_manager_timed_lock_shared that another thread can end through the cancel object. NULL: nobody can.
///
/// -ECANCELED: it was triggered, even if the lock was free. Otherwise as lock_manager_timed_lock_shared.
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

/// Gives back what the calling thread, or by process ownership this process, holds shared, through whichever manager of
/// that ownership on the storage. -EPERM: it does not hold it shared. -EOPNOTSUPP: as for lock_manager_lock_shared.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_unlock_shared(manager: *mut lock_manager_t, id: u32) -> i32 {
    // SAFETY: the module's contract.
    unsafe { locking::release(manager, id, Mode::Shared) }
}

/// Makes what the caller holds exclusively a shared hold, without a gap in which somebody else could have it exclusively.
/// Readers that wait get in.
///
/// -EPERM: the caller does not hold it exclusively through this manager. -EAGAIN: there is no room for one more reader;
/// it is still held exclusively. -EOPNOTSUPP: as for lock_manager_lock_shared.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_downgrade_lock(manager: *mut lock_manager_t, id: u32) -> i32 {
    // SAFETY: the module's contract.
    unsafe { locking::downgrade(manager, id) }
}

/// The locks that somebody holds, either way. Touches no lock.
///
/// count: how many there are. ids: the first of them, ascending, as many as `capacity` allows; NULL if that is 0.
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
            return Err(refuse("ids is NULL, but capacity is not 0"));
        }
        let held = opened.locks_held()?;
        if capacity > 0 {
            ids.copy_from_nonoverlapping(held.as_ptr(), held.len().min(capacity));
        }
        *count = held.len();
        Ok(0)
    })
}

/// What is known of one lock. Touches no lock. info->size must be set.
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

/// Who holds a lock, either way, as far as nobody knows that they are dead. Touches no lock.
///
/// count: how many there are. holders: the first of them, as many as `capacity` allows; NULL if that is 0. The size of the
/// first must be set: it is the size of each.
///
/// -EOPNOTSUPP: the libpod layout; lock_manager_lock_info says there who holds a lock.
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

/// What is known of the storage. Touches no lock. info->size must be set.
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

/// Marks a lock whose holder is provably dead, so that the next to take it is told LOCK_MANAGER_OWNER_DIED. 0 also
/// where there was nothing to do.
///
/// -EBUSY: the holder lives, or cannot be judged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_repair_lock(manager: *mut lock_manager_t, id: u32) -> i32 {
    // SAFETY: the module's contract.
    call(|| unsafe { self::manager(manager)?.repair_lock(id).map(|()| 0) })
}
