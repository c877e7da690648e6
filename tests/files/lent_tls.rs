// SPDX-License-Identifier: MIT OR Apache-2.0
//! A child in its parent's memory, with the thread-local storage of another thread.

use lock_manager::{Acquired, Manager};

use super::place::Place;
use super::support::alone::alone;
use super::support::made::{InSharedMemory, lent_tls};
use super::support::taken_once;

#[test]
fn a_child_that_shares_the_memory_but_has_tls_of_its_own_is_refused() {
    alone!({
        let place = Place::fresh();
        let manager = place.open();
        let _ = manager.lock(3).unwrap();
        let (_, tls) = lent_tls();
        let shared = InSharedMemory::leak(manager);
        shared.refuses_child_with(tls, None);
        assert_eq!(shared.manager.locks_held().unwrap(), [3]);
        shared.manager.unlock(3).unwrap();
        assert_eq!(taken_once(&shared.manager, 4), Acquired::Clean);
    });
}
