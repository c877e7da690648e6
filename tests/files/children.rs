// SPDX-License-Identifier: MIT OR Apache-2.0
//! Children that were made behind the libc's back. Record locks belong to no thread, so that they may lock here, unless
//! they share their parent's memory.

use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use lock_manager::{Acquired, FileManager, Manager};

use super::place::Place;
use super::support::alone::alone;
use super::support::process::{self, sleep_until_killed};
use super::support::{Child, errno_of, eventually, taken_once};

/// A child made by the system call itself, of which the libc knows nothing.
fn raw_clone(body: impl FnOnce()) -> Child {
    // SAFETY: clone(2) without flags is fork(2), on a copy of this stack; the libc's heap is idle in other threads.
    match unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } {
        0 => process::run(body),
        pid => Child::adopt(pid as i32),
    }
}

#[test]
fn a_child_cloned_behind_the_libcs_back_holds_nothing_and_may_lock() {
    alone!({
        let place = Place::fresh();
        let manager = place.open();
        let _ = manager.lock(3).unwrap();
        let pid = raw_clone(|| {
            assert_eq!(errno_of(manager.unlock(3)), libc::EPERM);
            assert_eq!(errno_of(manager.try_lock(3)), libc::EBUSY);
            // It would wait for its parent, not for itself.
            assert_eq!(errno_of(manager.timed_lock(3, Duration::from_millis(20))), libc::ETIMEDOUT);
            manager.check_idle().unwrap();
            assert_eq!(taken_once(&manager, 4), Acquired::Clean);
            assert_eq!(manager.allocate_lock().unwrap(), 0);
            let _ = manager.lock(5).unwrap();
            assert_eq!(manager.lock_info(5).unwrap().pid, std::process::id() as i32);
            // Not by fork(3), which in such a child may wait for a lock of the libc's that a thread of the parent held.
            raw_clone(|| assert_eq!(errno_of(place.open().try_lock(5)), libc::EBUSY)).succeeds();
        });
        pid.succeeds();
        assert_eq!(manager.locks_held().unwrap(), [3]);
        assert_eq!(taken_once(&manager, 5), Acquired::OwnerDied);
        manager.unlock(3).unwrap();
        assert_eq!(taken_once(&manager, 3), Acquired::Clean);
    });
}

/// What a child that shares its parent's memory is given, and what it leaves.
struct InSharedMemory {
    manager: FileManager,
    codes: [AtomicI32; 4],
}

#[test]
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
fn a_child_that_shares_the_memory_but_has_tls_of_its_own_is_refused() {
    const STACK_BYTES: usize = 1 << 20;
    /// The TLS that the child is lent: on x86-64 the libc's handle of a thread is its thread pointer.
    static LENT: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn try_all(shared: *mut libc::c_void) -> libc::c_int {
        // SAFETY: the address is that of the parent's leaked value.
        let InSharedMemory { manager, codes } = unsafe { &*shared.cast::<InSharedMemory>() };
        let found = [
            errno_of(manager.lock(4)),
            errno_of(manager.try_lock(4)),
            errno_of(manager.timed_lock(4, Duration::from_secs(20))),
            errno_of(manager.unlock(3)),
        ];
        codes.iter().zip(found).for_each(|(code, found)| code.store(found, Ordering::Release));
        0
    }
    alone!({
        let place = Place::fresh();
        let manager = place.open();
        let _ = manager.lock(3).unwrap();
        thread::spawn(|| {
            // SAFETY: pthread_self(3) takes nothing.
            LENT.store(unsafe { libc::pthread_self() } as usize, Ordering::Release);
            sleep_until_killed();
        });
        eventually("the lender sleeps", || LENT.load(Ordering::Acquire) != 0);
        let shared = Box::leak(Box::new(InSharedMemory { manager, codes: Default::default() }));
        let stack: &'static mut [u128] = vec![0; STACK_BYTES / size_of::<u128>()].leak();
        let flags = libc::CLONE_VM | libc::CLONE_SETTLS | libc::SIGCHLD;
        // SAFETY: a stack that nobody else uses, the TLS of a thread that sleeps, and a value that lives for ever.
        let pid = unsafe {
            let top = stack.as_mut_ptr_range().end.cast();
            let tls = LENT.load(Ordering::Acquire);
            libc::clone(try_all, top, flags, (&raw mut *shared).cast(), ptr::null_mut::<i32>(), tls)
        };
        Child::adopt(pid).succeeds();
        let codes = shared.codes.each_ref().map(|code| code.load(Ordering::Acquire));
        assert_eq!(codes, [libc::EOPNOTSUPP, libc::EOPNOTSUPP, libc::EOPNOTSUPP, libc::EPERM]);
        assert_eq!(shared.manager.locks_held().unwrap(), [3]);
        shared.manager.unlock(3).unwrap();
        assert_eq!(taken_once(&shared.manager, 4), Acquired::Clean);
    });
}
