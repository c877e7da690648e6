// SPDX-License-Identifier: MIT OR Apache-2.0
//! A child in its parent's memory, with the thread-local storage of another thread.

use std::ptr;

use lock_manager::{Acquired, FileManager, Manager};

use super::place::Place;
use super::support::alone::alone;
use super::support::made::{InSharedMemory, lent_tls, stack};
use super::support::{Child, taken_once};

#[test]
fn a_child_that_shares_the_memory_but_has_tls_of_its_own_is_refused() {
    alone!({
        let place = Place::fresh();
        let manager = place.open();
        let _ = manager.lock(3).unwrap();
        let (_, tls) = lent_tls();
        let shared = InSharedMemory::leak(manager);
        let flags = libc::CLONE_VM | libc::CLONE_SETTLS | libc::SIGCHLD;
        // SAFETY: a stack that nobody else uses, the TLS of a thread that sleeps, and a value that lives for ever.
        let pid = unsafe {
            let given = (&raw mut *shared).cast();
            libc::clone(InSharedMemory::<FileManager>::try_all, stack(), flags, given, ptr::null_mut::<i32>(), tls)
        };
        Child::adopt(pid).succeeds();
        shared.assert_refused();
        assert_eq!(shared.manager.locks_held().unwrap(), [3]);
        shared.manager.unlock(3).unwrap();
        assert_eq!(taken_once(&shared.manager, 4), Acquired::Clean);
    });
}
