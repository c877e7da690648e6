// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is kept of an id's file from one lock call to the next, and when it no longer holds.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, SystemTime};

use lock_manager::{Acquired, Manager};

use super::place::Place;
use super::posix::PosixHolder;
use super::support::alone::alone;
use super::support::{errno_of, taken_once};

/// Until the directory changed so long ago that the time of its last change vouches for there having been no other.
fn wait_until_its_time_tells(place: &Place) {
    let facts = fs::metadata(&place.path).unwrap();
    let changed = Duration::new(facts.ctime() as u64, facts.ctime_nsec() as u32);
    let tells = SystemTime::UNIX_EPOCH + changed + Duration::from_millis(3100);
    thread::sleep(tells.duration_since(SystemTime::now()).unwrap_or_default());
}

#[test]
fn a_file_that_libpod_makes_is_found_by_who_has_seen_none() {
    alone!({
        let place = Place::fresh();
        let manager = place.open();
        assert_eq!(taken_once(&manager, 3), Acquired::Clean);
        wait_until_its_time_tells(&place);
        for _ in 0..3 {
            assert_eq!(taken_once(&manager, 3), Acquired::Clean);
        }
        // As libpod does, it makes the file and locks it.
        let holder = PosixHolder::start(&place, 3);
        assert_eq!(errno_of(manager.try_lock(3)), libc::EBUSY);
        holder.let_go();
        assert_eq!(manager.lock(3).unwrap(), Acquired::Clean);
    });
}

#[test]
fn a_file_that_was_made_anew_is_locked_and_not_the_one_that_is_kept() {
    alone!({
        let place = Place::fresh();
        let manager = place.open();
        let id = manager.allocate_lock().unwrap();
        for _ in 0..3 {
            assert_eq!(taken_once(&manager, id), Acquired::Clean);
        }
        fs::remove_file(place.file(id)).unwrap();
        let holder = PosixHolder::start(&place, id);
        assert_eq!(errno_of(manager.try_lock(id)), libc::EBUSY);
        holder.let_go();
        assert_eq!(manager.lock(id).unwrap(), Acquired::Clean);
    });
}

#[test]
fn a_table_that_libpod_removes_is_missed_by_who_has_seen_no_file() {
    alone!({
        let place = Place::fresh();
        let manager = place.open();
        assert_eq!(taken_once(&manager, 3), Acquired::Clean);
        wait_until_its_time_tells(&place);
        assert_eq!(taken_once(&manager, 3), Acquired::Clean);
        fs::remove_file(place.table()).unwrap();
        // It makes another table, and has the lock there.
        let holder = place.holder_of(&[3]);
        assert_eq!(errno_of(manager.try_lock(3)), libc::EBUSY);
        holder.kill();
        assert_eq!(taken_once(&manager, 3), Acquired::OwnerDied);
    });
}
