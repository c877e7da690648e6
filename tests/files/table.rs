// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file `.lock_manager`, and what becomes of it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use lock_manager::{Acquired, FileManager, Manager};

use super::place::Place;
use super::support::alone::alone;
use super::support::{errno_of, fork, taken_once};

#[test]
fn a_table_of_another_version_or_of_somebody_else_is_refused() {
    for (offset, bytes, says) in [(0, b"somebody".as_slice(), "magic"), (8, &[2], "version"), (12, &[64], "record")] {
        let place = Place::fresh();
        let table = File::options().write(true).open(place.table()).unwrap();
        table.write_all_at(bytes, offset).unwrap();
        for refused in [FileManager::open(&place.path), FileManager::open_or_create(&place.path)] {
            let error = refused.unwrap_err();
            assert_eq!(error.errno(), libc::EPROTO);
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}

#[test]
fn records_are_as_the_format_says() {
    let place = Place::fresh();
    let manager = place.open();
    let record = |id: u64| {
        let mut bytes = [0; 32];
        let _ = File::open(place.table()).unwrap().read_at(&mut bytes, 32 * (id + 1)).unwrap();
        bytes
    };
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
    assert_eq!(&fs::read(place.table()).unwrap()[..16], b"lockfile\x01\0\0\0\x20\0\0\0");
    let _ = manager.lock(2).unwrap();
    let held = record(2);
    assert_eq!(number(&held[..4]), std::process::id());
    assert_eq!((number(&held[24..28]), number(&held[20..24])), (1, 0));
    manager.unlock(2).unwrap();
    let mut free = [0; 32];
    free[24] = 1;
    assert_eq!(record(2), free);
    assert_eq!(taken_once(&manager, 2), Acquired::Clean);
    assert_eq!(manager.lock_info(2).unwrap().acquisitions, 2);
}

#[test]
fn after_libpod_has_freed_all_everybody_goes_on() {
    alone!({
        let place = Place::fresh();
        let [manager, other] = [place.open(), place.open()];
        assert_eq!(manager.allocate_lock().unwrap(), 0);
        let _ = manager.lock(0).unwrap();
        let holder = place.holder_of(&[1]);
        place.free_all_as_libpod();

        // Whoever comes now, with a manager of before or a new one, is in the new table.
        let _ = other.lock(3).unwrap();
        assert_eq!(place.names(), Place::names_of(&[]));
        fork(|| {
            let fresh = place.open();
            assert_eq!(errno_of(fresh.try_lock(3)), libc::EBUSY);
            assert_eq!(fresh.locks_held().unwrap(), [3]);
            assert_eq!(errno_of(manager.try_lock(3)), libc::EBUSY);
        })
        .succeeds();
        other.unlock(3).unwrap();
        let id = other.allocate_lock().unwrap();
        assert_eq!(place.names(), Place::names_of(&[id]));

        // A holder of before gives its lock back to the table that is gone, and nothing in the new one changes.
        let before = fs::read(place.table()).unwrap();
        manager.unlock(0).unwrap();
        assert_eq!(fs::read(place.table()).unwrap(), before);
        assert_eq!(taken_once(&manager, 0), Acquired::Clean);
        holder.kill();
        assert_eq!(taken_once(&manager, 1), Acquired::Clean);
    });
}

#[test]
fn the_table_may_vanish_again_and_again() {
    alone!({
        let place = Place::fresh();
        let manager = place.open();
        for id in 0..50 {
            place.free_all_as_libpod();
            assert_eq!(taken_once(&manager, id), Acquired::Clean);
            place.holder_of(&[id]).kill();
            assert_eq!(taken_once(&manager, id), Acquired::OwnerDied);
        }
    });
}
