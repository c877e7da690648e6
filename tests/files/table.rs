// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file `.lock_manager`, and what becomes of it.

use std::ffi::CString;
use std::fs::{self, File};
use std::hint;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::sync::atomic::Ordering;
use std::time::Duration;

use lock_manager::{Acquired, FileManager, Layout, MAX_LOCKS, Manager, ShmManager};

use super::place::{Place, TABLE};
use super::support::alone::alone;
use super::support::disk::Disk;
use super::support::timing;
use super::support::{Child, board, errno_of, fork, taken_once};

const LONG: Duration = timing::scaled(Duration::from_secs(20));

/// Where the parts of a table stand that a test damages: as in any native segment, see docs/segment-format.md.
const AT_VERSION: u64 = 8;
const AT_SLOT_SIZE: u64 = 20;
const AT_BOOT: u64 = 128;

fn write_at(place: &Place, bytes: &[u8], offset: u64) {
    File::options().write(true).open(place.table()).unwrap().write_all_at(bytes, offset).unwrap();
}

#[test]
fn a_table_of_another_version_or_of_somebody_else_or_damaged_is_refused() {
    for (offset, bytes) in [(0, b"somebody".as_slice()), (AT_VERSION, &[9]), (AT_SLOT_SIZE, &[65])] {
        let place = Place::fresh();
        place.open().allocate_lock().unwrap();
        write_at(&place, bytes, offset);
        for refused in [FileManager::open(&place.path), FileManager::open_or_create(&place.path)] {
            let error = refused.unwrap_err();
            assert_eq!(error.errno(), libc::EPROTO);
            assert!(error.to_string().contains(place.path.to_str().unwrap()), "{error}");
        }
        // Whatever is in it: it goes with its directory.
        FileManager::remove(&place.path).unwrap();
        assert!(!place.path.exists());
    }
}

#[test]
fn a_table_is_a_native_segment_that_others_can_open() {
    let place = Place::fresh();
    let manager = place.open();
    let _ = manager.lock(70).unwrap();
    let segment = ShmManager::open_read_only(place.table()).unwrap();
    assert_eq!(segment.info().unwrap().layout, Some(Layout::Native));
    assert_eq!(segment.info().unwrap().max_locks, MAX_LOCKS);
    assert_eq!(segment.locks_held().unwrap(), [70]);
    // Which ids are allocated, the files say, and nothing in the table.
    manager.allocate_and_retrieve_lock(5).unwrap();
    assert_eq!(segment.available_locks().unwrap(), segment.num_locks().unwrap());
    manager.unlock(70).unwrap();
    assert_eq!(segment.locks_held().unwrap(), []);
}

#[test]
fn a_table_of_another_boot_is_replaced() {
    alone!({
        // In memory nothing outlives the boot.
        let Some(disk) = Disk::directory_or_skip("another-boot") else { return };
        let path = disk.join("locks");
        fork(|| {
            let manager = FileManager::create(&path).unwrap();
            manager.allocate_lock().unwrap();
            let _ = manager.lock(0).unwrap();
        })
        .succeeds();
        let table = path.join(TABLE);
        let file = File::options().read(true).write(true).open(&table).unwrap();
        let mut boot = [0; 16];
        file.read_exact_at(&mut boot, AT_BOOT).unwrap();
        file.write_all_at(&[7; 16], AT_BOOT).unwrap();
        let manager = FileManager::open(&path).unwrap();
        let mut made_in = [0; 16];
        File::open(&table).unwrap().read_exact_at(&mut made_in, AT_BOOT).unwrap();
        assert_eq!(made_in, boot);
        assert_eq!(file.metadata().unwrap().nlink(), 0, "it was not replaced but changed");
        // The ids are as they were, and nobody who died before the boot is told of.
        assert!(manager.lock_info(0).unwrap().allocated);
        assert_eq!(taken_once(&manager, 0), Acquired::Clean);
    });
}

#[test]
fn a_table_that_is_no_regular_file_is_refused_without_being_followed_or_waited_for() {
    alone!({
        let elsewhere = Place::unused();
        fs::write(&elsewhere.path, "a letter").unwrap();
        for kind in ["link", "directory", "fifo"] {
            let place = Place::unused();
            fs::create_dir(&place.path).unwrap();
            let expected = match kind {
                "link" => {
                    symlink(&elsewhere.path, place.table()).unwrap();
                    libc::EACCES
                }
                "directory" => {
                    fs::create_dir(place.table()).unwrap();
                    libc::EPROTO
                }
                _ => {
                    let path = CString::new(place.table().into_os_string().into_vec()).unwrap();
                    // SAFETY: mkfifo(3) reads the path, a string that lives past the call.
                    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
                    libc::EPROTO
                }
            };
            assert_eq!(errno_of(FileManager::open(&place.path)), expected, "{kind}");
            assert_eq!(errno_of(FileManager::open_or_create(&place.path)), expected, "{kind}");
            assert_eq!(errno_of(FileManager::create(&place.path)), libc::EEXIST, "{kind}");
        }
        assert_eq!(fs::read(&elsewhere.path).unwrap(), b"a letter");
    });
}

#[test]
fn a_table_that_is_cut_off_is_refused() {
    for kept in [0, 9, 100] {
        let place = Place::fresh();
        let whole = fs::read(place.table()).unwrap();
        fs::write(place.table(), &whole[..kept]).unwrap();
        assert_eq!(errno_of(FileManager::open(&place.path)), libc::EPROTO, "{kept} bytes");
        FileManager::remove(&place.path).unwrap();
    }
}

#[test]
fn a_table_that_comes_in_the_place_of_ours_and_is_not_ours_stops_locking_and_no_unlock() {
    let place = Place::fresh();
    let manager = place.open();
    let _ = manager.lock(0).unwrap();
    fs::remove_file(place.table()).unwrap();
    fs::write(place.table(), "a letter to somebody, of 32 bytes").unwrap();
    assert_eq!(errno_of(manager.try_lock(1)), libc::EPROTO);
    assert_eq!(errno_of(manager.locks_held()), libc::EPROTO);
    manager.unlock(0).unwrap();
    assert_eq!(fs::read(place.table()).unwrap(), b"a letter to somebody, of 32 bytes");
    fs::remove_file(place.table()).unwrap();
    assert_eq!(taken_once(&manager, 1), Acquired::Clean);
}

#[test]
fn an_unlock_works_without_the_table_its_descriptor_and_the_directory() {
    alone!({
        let place = Place::fresh();
        fork(|| {
            let manager = place.open();
            let _ = manager.lock(0).unwrap();
            FileManager::remove(&place.path).unwrap();
            // SAFETY: close_range(2) touches no memory; nothing else in this child uses a descriptor.
            assert_eq!(unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) }, 0);
            manager.unlock(0).unwrap();
            assert_eq!(errno_of(manager.unlock(0)), libc::EPERM);
            assert_eq!(errno_of(manager.allocate_lock()), libc::ESTALE);
        })
        .succeeds();
    });
}

#[test]
fn what_was_removed_by_name_says_so_to_every_call_that_changes_something() {
    alone!({
        let place = Place::fresh();
        let manager = place.open();
        let id = manager.allocate_lock().unwrap();
        let _ = manager.lock(id).unwrap();
        FileManager::remove(&place.path).unwrap();
        // Even if one of the same name is there by now.
        let next = FileManager::create(&place.path).unwrap();
        // Looks go on, and at what was removed.
        assert_eq!(manager.locks_held().unwrap(), [id]);
        assert!(manager.lock_info(id).unwrap().held && !next.lock_info(id).unwrap().held);
        assert_eq!(errno_of(manager.repair_lock(id)), libc::EBUSY);
        let codes = [
            errno_of(manager.try_lock(3)),
            errno_of(manager.timed_lock(3, LONG)),
            errno_of(manager.allocate_lock()),
            errno_of(manager.allocate_and_retrieve_lock(9)),
            errno_of(manager.free_lock(id)),
            errno_of(manager.free_all_locks()),
        ];
        assert_eq!(codes, [libc::ESTALE; 6]);
        manager.unlock(id).unwrap();
        assert!(manager.info().unwrap().retired && !next.info().unwrap().retired);
        assert_eq!(taken_once(&next, id), Acquired::Clean);
        assert_eq!(place.names(), Place::names_of(&[]));
    });
}

/// Moved away, with nobody told: the words of the one are not used with the files of the other.
#[test]
fn a_directory_in_the_place_of_ours_is_another() {
    alone!({
        let (place, elsewhere) = (Place::fresh(), Place::unused());
        let manager = place.open();
        let id = manager.allocate_lock().unwrap();
        let _ = manager.lock(id).unwrap();
        fs::rename(&place.path, &elsewhere.path).unwrap();
        let next = FileManager::create(&place.path).unwrap();
        assert_eq!(next.allocate_lock().unwrap(), id);
        assert_eq!(taken_once(&next, id), Acquired::Clean);
        // What would have another table be looked for.
        fs::remove_file(elsewhere.path.join(".lock_manager")).unwrap();
        assert_eq!(manager.locks_held().unwrap(), [id]);
        assert_eq!(errno_of(manager.lock(id + 1)), libc::ESTALE);
        manager.unlock(id).unwrap();
        assert_eq!(next.lock_info(id).unwrap().acquisitions, 1);
    });
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
fn while_libpod_frees_all_the_time_no_call_fails() {
    // An emulated machine needs minutes for these.
    const ROUNDS: u32 = if timing::FACTOR == 1 { 300 } else { 30 };
    alone!({
        let place = Place::fresh();
        let words = board(2);
        let [turns, over] = [&words[0], &words[1]];
        let users = [(); 3].map(|()| {
            fork(|| {
                let manager = place.open();
                for round in 0..ROUNDS {
                    let id = round % 4;
                    let _ = manager.timed_lock(id, LONG).unwrap();
                    (0..100).for_each(|_| hint::spin_loop());
                    manager.unlock(id).unwrap();
                    let own = manager.allocate_lock().unwrap();
                    // libpod may have freed it.
                    assert!([0, libc::ENOENT].contains(&errno_of(manager.free_lock(own))));
                    let _ = manager.locks_held().unwrap();
                    let _ = manager.lock_info(id).unwrap();
                    turns.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let libpod = fork(|| {
            while over.load(Ordering::Acquire) == 0 {
                place.free_all_as_libpod();
            }
        });
        users.into_iter().for_each(Child::succeeds);
        over.store(1, Ordering::Release);
        libpod.succeeds();
        assert_eq!(turns.load(Ordering::Relaxed), 3 * ROUNDS);
        let manager = place.open();
        for id in 0..4 {
            let _ = taken_once(&manager, id);
            assert_eq!(taken_once(&manager, id), Acquired::Clean);
        }
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
