// SPDX-License-Identifier: MIT OR Apache-2.0
//! A child in its parent's memory, with the thread-local storage of another thread.

use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use lock_manager::{Acquired, FileManager, Manager};

use super::place::Place;
use super::support::alone::alone;
use super::support::made::stack;
use super::support::process::sleep_until_killed;
use super::support::{Child, errno_of, eventually, taken_once};

/// What a child that shares its parent's memory is given, and what it leaves.
struct InSharedMemory {
    manager: FileManager,
    codes: [AtomicI32; 4],
}

#[test]
fn a_child_that_shares_the_memory_but_has_tls_of_its_own_is_refused() {
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
        let flags = libc::CLONE_VM | libc::CLONE_SETTLS | libc::SIGCHLD;
        // SAFETY: a stack that nobody else uses, the TLS of a thread that sleeps, and a value that lives for ever.
        let pid = unsafe {
            let tls = LENT.load(Ordering::Acquire);
            libc::clone(try_all, stack(), flags, (&raw mut *shared).cast(), ptr::null_mut::<i32>(), tls)
        };
        Child::adopt(pid).succeeds();
        let codes = shared.codes.each_ref().map(|code| code.load(Ordering::Acquire));
        assert_eq!(codes, [libc::EOPNOTSUPP, libc::EOPNOTSUPP, libc::EOPNOTSUPP, libc::EPERM]);
        assert_eq!(shared.manager.locks_held().unwrap(), [3]);
        shared.manager.unlock(3).unwrap();
        assert_eq!(taken_once(&shared.manager, 4), Acquired::Clean);
    });
}
