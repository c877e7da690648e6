// SPDX-License-Identifier: MIT OR Apache-2.0
//! Children that were made behind the libc's back. Record locks belong to no thread, so that they may lock here, unless
//! they share their parent's memory: see `lent_tls.rs`.

use std::time::Duration;

use lock_manager::{Acquired, Manager};

use super::place::Place;
use super::support::alone::alone;
use super::support::made::raw_clone;
use super::support::{errno_of, taken_once};

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
