// SPDX-License-Identifier: MIT OR Apache-2.0
//! Killed after any instruction of lock and unlock, a process loses neither the word nor the record lock beside it, and the
//! next holder is told exactly when it died with the word.

use std::sync::atomic::{AtomicU32, Ordering};

use lock_manager::{Acquired, FileManager, Manager};

use super::place::Place;
use super::record_locks::record_holder;
use super::support::alone::alone;
use super::support::board;
use super::support::step::{Stepped, at_every_instruction};

/// Where the stepped child is, as it says itself.
const OUTSIDE: u32 = 0;
const INSIDE: u32 = 1;

/// A lock that has a file, and one that has none.
const WITH_FILE: u32 = 0;
const WITHOUT: u32 = 1;

/// Opens the directory and uses both locks, so that what follows is no first call.
fn opened_and_used(place: &Place) -> FileManager {
    let manager = place.open();
    for id in [WITH_FILE, WITHOUT] {
        let _ = manager.lock(id).unwrap();
        manager.unlock(id).unwrap();
    }
    manager
}

fn lock_and_unlock(manager: &FileManager, id: u32, inside: &AtomicU32) {
    let _ = manager.lock(id).unwrap();
    inside.store(INSIDE, Ordering::Relaxed);
    inside.store(OUTSIDE, Ordering::Relaxed);
    manager.unlock(id).unwrap();
}

fn kill_and_take(place: &Place, manager: &FileManager, id: u32, stepped: Stepped, inside: &AtomicU32, count: u64) {
    let info = manager.lock_info(id).unwrap();
    let was_inside = inside.swap(OUTSIDE, Ordering::Relaxed) == INSIDE;
    assert!(info.held || !was_inside, "the word was lost while it was held, after {count} instructions");
    // The record lock is held only while the word is, and by the same process.
    if id == WITH_FILE {
        let holder = record_holder(place, id);
        assert!(holder.is_none() || (info.tid != 0 && holder == Some(info.pid)), "{holder:?}, {info:?} after {count}");
        assert!(holder.is_some() || !was_inside, "libpod could get in, after {count} instructions");
    }
    stepped.kill();
    let acquired = manager.try_lock(id);
    let due = if info.held { Acquired::OwnerDied } else { Acquired::Clean };
    assert_eq!(acquired.as_ref().ok(), Some(&due), "after {count} instructions: {acquired:?}");
    manager.unlock(id).unwrap();
    assert_eq!(manager.try_lock(id).unwrap(), Acquired::Clean, "told twice, after {count} instructions");
    manager.unlock(id).unwrap();
    assert_eq!(manager.locks_held().unwrap(), [0; 0], "after {count} instructions");
}

#[test]
fn of_lock_and_unlock_no_lock_is_lost_and_the_death_is_told_exactly_when_it_is_due() {
    alone!({
        for id in [WITH_FILE, WITHOUT] {
            let (place, inside) = (Place::fresh(), &board(1)[0]);
            let manager = place.open();
            assert_eq!(manager.allocate_lock().unwrap(), WITH_FILE);
            at_every_instruction(
                || Stepped::start(|| opened_and_used(&place), |manager| lock_and_unlock(manager, id, inside)),
                |stepped, count| kill_and_take(&place, &manager, id, stepped, inside, count),
            );
        }
    });
}
