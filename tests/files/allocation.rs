// SPDX-License-Identifier: MIT OR Apache-2.0
//! Allocation among many ids, and by many.

use std::collections::BTreeSet;
use std::fs::File;

use lock_manager::Manager;

use super::place::Place;
use super::support::alone::alone;
use super::support::fork;

const MANY: u32 = 10_000;

/// A directory in which ids from 0 to `MANY` are allocated, as libpod would have done it.
fn crowded() -> Place {
    let place = Place::fresh();
    for id in 0..MANY {
        File::create_new(place.file(id)).unwrap();
    }
    place
}

#[test]
fn among_many_ids_the_gaps_are_found_and_then_the_end() {
    alone!({
        let place = crowded();
        for id in [17, 4711, MANY - 1] {
            std::fs::remove_file(place.file(id)).unwrap();
        }
        let manager = place.open();
        let ids: Vec<u32> = (0..5).map(|_| manager.allocate_lock().unwrap()).collect();
        assert_eq!(ids, [17, 4711, MANY - 1, MANY, MANY + 1]);
    });
}

#[test]
fn what_others_allocate_is_not_allocated_again() {
    alone!({
        let place = Place::fresh();
        let manager = place.open();
        assert_eq!(manager.allocate_lock().unwrap(), 0);
        // More than are tried before the directory is read again.
        fork(|| {
            let other = place.open();
            (1..100).for_each(|id| assert_eq!(other.allocate_lock().unwrap(), id));
        })
        .succeeds();
        assert_eq!(manager.allocate_lock().unwrap(), 100);
        manager.free_lock(50).unwrap();
        assert_eq!(manager.allocate_lock().unwrap(), 50);
    });
}

#[test]
fn several_processes_never_get_the_same_id() {
    const EACH: usize = 400;
    alone!({
        let place = Place::fresh();
        let children = [(); 4].map(|()| {
            fork(|| {
                let manager = place.open();
                let ids: BTreeSet<u32> = (0..EACH).map(|_| manager.allocate_lock().unwrap()).collect();
                assert_eq!(ids.len(), EACH);
                // Every other one is given back, and none of somebody else's.
                ids.iter().step_by(2).for_each(|&id| manager.free_lock(id).unwrap());
            })
        });
        children.into_iter().for_each(super::support::Child::succeeds);
        assert_eq!(place.names().len(), 4 * EACH / 2 + 1);
    });
}

#[test]
fn free_all_frees_the_ids_and_nothing_else() {
    alone!({
        let place = crowded();
        let manager = place.open();
        let other = place.path.join("somebody's");
        File::create_new(&other).unwrap();
        let _ = manager.lock(5).unwrap();
        manager.free_all_locks().unwrap();
        assert_eq!(place.names(), BTreeSet::from([".lock_manager".to_owned(), "somebody's".to_owned()]));
        assert_eq!(manager.locks_held().unwrap(), [5]);
        assert_eq!(manager.allocate_lock().unwrap(), 0);
        manager.unlock(5).unwrap();
    });
}
