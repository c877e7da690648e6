// SPDX-License-Identifier: MIT OR Apache-2.0
//! What directories are made, opened, refused and removed, and what may be in them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use lock_manager::{Acquired, FileManager, Manager};

use super::place::Place;
use super::posix::PosixHolder;
use super::support::alone::alone;
use super::support::process::become_user;
use super::support::{Child, Exit, errno_of, fork, is_root_or_skip, taken_once};

#[test]
fn a_new_directory_is_private_and_an_empty_one_will_do() {
    let place = Place::unused();
    drop(FileManager::create(&place.path).unwrap());
    assert_eq!(place.path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(errno_of(FileManager::create(&place.path)), libc::EEXIST);
    let empty = Place::unused();
    fs::DirBuilder::new().mode(0o755).create(&empty.path).unwrap();
    drop(FileManager::create(&empty.path).unwrap());
    let used = Place::unused();
    fs::create_dir(&used.path).unwrap();
    File::create_new(used.file(0)).unwrap();
    assert_eq!(errno_of(FileManager::create(&used.path)), libc::EEXIST);
    // libpod's: without a table, with an id.
    assert_eq!(FileManager::open(&used.path).unwrap().allocate_lock().unwrap(), 1);
}

#[test]
fn what_can_be_no_directory_of_locks_is_refused() {
    let place = Place::unused();
    assert_eq!(errno_of(FileManager::open(&place.path)), libc::ENOENT);
    assert_eq!(errno_of(FileManager::remove(&place.path)), libc::ENOENT);
    assert_eq!(errno_of(FileManager::create(place.path.join("deeper"))), libc::ENOENT);
    assert_eq!(errno_of(FileManager::open("")), libc::EINVAL);
    File::create_new(&place.path).unwrap();
    assert_eq!(errno_of(FileManager::open(&place.path)), libc::ENOTDIR);
    assert_eq!(errno_of(FileManager::create(&place.path)), libc::EEXIST);
    let link = Place::unused();
    let target = Place::fresh();
    symlink(&target.path, &link.path).unwrap();
    for path in [link.path.clone(), link.path.join("")] {
        assert_eq!(errno_of(FileManager::open(&path)), libc::EACCES, "{}", path.display());
        assert_eq!(errno_of(FileManager::create(&path)), libc::EACCES, "{}", path.display());
        assert_eq!(errno_of(FileManager::remove(&path)), libc::EACCES, "{}", path.display());
    }
    assert_eq!(target.names(), Place::names_of(&[]));
}

#[test]
fn who_only_looks_makes_nothing_changes_nothing_and_sees_what_is_there() {
    let place = Place::unused();
    fs::create_dir(&place.path).unwrap();
    File::create_new(place.file(3)).unwrap();
    let looker = FileManager::open_read_only(&place.path).unwrap();
    let info = looker.lock_info(3).unwrap();
    assert_eq!((info.allocated, info.held, info.owner_died), (true, false, false));
    assert_eq!(looker.locks_held().unwrap(), [0; 0]);
    let only_the_id = BTreeSet::from(["3".to_owned()]);
    assert_eq!(place.names(), only_the_id, "looking made a file");
    let refusals = [
        errno_of(looker.allocate_lock()),
        errno_of(looker.allocate_and_retrieve_lock(4)),
        errno_of(looker.free_lock(3)),
        errno_of(looker.free_all_locks()),
        errno_of(looker.try_lock(3)),
        errno_of(looker.repair_lock(3)),
    ];
    assert_eq!(refusals, [libc::EACCES; 6]);
    assert_eq!(place.names(), only_the_id);
    // The table is made by whoever uses the directory first, and seen from then on.
    let user = FileManager::open(&place.path).unwrap();
    let _ = user.lock(3).unwrap();
    let info = looker.lock_info(3).unwrap();
    assert_eq!((info.held, info.pid, info.acquisitions), (true, std::process::id().cast_signed(), 1));
    assert_eq!(looker.locks_held().unwrap(), [3]);
    user.unlock(3).unwrap();
    assert_eq!(errno_of(FileManager::open_read_only(place.path.join("deeper"))), libc::ENOENT);
}

#[test]
fn root_may_look_into_a_directory_of_somebody_else() {
    if !is_root_or_skip() {
        return;
    }
    let place = Place::fresh();
    chown(&place.path, Some(1234), None).unwrap();
    assert!(!FileManager::open_read_only(&place.path).unwrap().lock_info(0).unwrap().held);
}

#[test]
fn who_gave_up_the_rights_looks_on() {
    if !is_root_or_skip() {
        return;
    }
    let place = Place::fresh();
    let manager = place.open();
    let [id, other] = [(); 2].map(|()| manager.allocate_lock().unwrap());
    let _ = manager.lock(id).unwrap();
    let libpod = PosixHolder::start(&place, other);
    fork(|| {
        manager.retrieve_lock(id).unwrap();
        become_user(1234);
        let info = manager.lock_info(id).unwrap();
        assert_eq!((info.allocated, info.held), (false, true), "of files it knows nothing");
        assert_eq!(manager.lock_holders(id).unwrap().len(), 1);
        // What libpod has it cannot know.
        assert_eq!(manager.locks_held().unwrap(), [id]);
        assert_eq!(errno_of(manager.allocate_lock()), libc::EACCES);
    })
    .succeeds();
    libpod.child.kill();
    manager.unlock(id).unwrap();
}

#[test]
fn a_directory_of_somebody_else_is_not_trusted() {
    if !is_root_or_skip() {
        return;
    }
    let place = Place::fresh();
    chown(&place.path, Some(1234), None).unwrap();
    let error = FileManager::open(&place.path).unwrap_err();
    assert_eq!(error.errno(), libc::EACCES);
    assert!(error.to_string().contains("1234"), "{error}");
}

#[test]
fn of_many_first_users_one_makes_it_and_all_have_it() {
    alone!({
        for _ in 0..100 {
            let place = Place::unused();
            let users = [(); 4].map(|()| {
                fork(|| {
                    let manager = FileManager::open_or_create(&place.path).unwrap();
                    manager.allocate_lock().unwrap();
                })
            });
            users.into_iter().for_each(Child::succeeds);
            assert_eq!(place.names(), Place::names_of(&[0, 1, 2, 3]));
        }
    });
}

#[test]
fn of_many_creators_at_once_exactly_one_succeeds() {
    const CREATED: i32 = 100;
    alone!({
        for round in 0..100 {
            let place = Place::unused();
            let is_there = round % 2 == 0;
            if is_there {
                fs::create_dir(&place.path).unwrap();
            }
            let creators = [(); 4].map(|()| {
                fork(|| {
                    let code = errno_of(FileManager::create(&place.path));
                    // SAFETY: _exit(2) does not return.
                    unsafe { libc::_exit(if code == 0 { CREATED } else { code }) }
                })
            });
            let mut exits = creators.map(Child::wait);
            exits.sort_by_key(|exit| *exit != Exit::Code(CREATED));
            assert_eq!(exits, [CREATED, libc::EEXIST, libc::EEXIST, libc::EEXIST].map(Exit::Code));
            assert_eq!(place.open().allocate_lock().unwrap(), 0);
        }
    });
}

#[test]
fn names_that_are_no_ids_are_left_alone() {
    alone!({
        let place = Place::fresh();
        let strange = ["007", "-1", "+1", "4294967296", "1.tmp", ".x", "locks"];
        for name in strange {
            File::create_new(place.path.join(name)).unwrap();
        }
        let manager = place.open();
        assert_eq!(manager.allocate_lock().unwrap(), 0);
        assert_eq!(manager.locks_held().unwrap(), []);
        manager.free_all_locks().unwrap();
        let there: BTreeSet<String> =
            strange.iter().map(|&name| name.to_owned()).chain([".lock_manager".into()]).collect();
        assert_eq!(place.names(), there);
        assert_eq!(errno_of(FileManager::remove(&place.path)), libc::ENOTEMPTY);
        assert_eq!(place.names().len(), strange.len());
    });
}

#[test]
fn what_has_an_id_for_a_name_and_is_no_file_is_refused_and_not_followed() {
    alone!({
        let place = Place::fresh();
        let manager = place.open();
        let elsewhere = Place::unused();
        File::create_new(&elsewhere.path).unwrap();
        fs::create_dir(place.file(5)).unwrap();
        symlink(&elsewhere.path, place.file(6)).unwrap();
        symlink(Path::new("/nowhere/at/all"), place.file(7)).unwrap();
        let fifo = std::ffi::CString::new(place.file(8).to_str().unwrap()).unwrap();
        // SAFETY: mkfifo(3) reads the path, a string that lives past the call.
        assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
        for (id, errno) in [(5, libc::EPROTO), (6, libc::EACCES), (7, libc::EACCES), (8, libc::EPROTO)] {
            assert_eq!(errno_of(manager.try_lock(id)), errno, "{id}");
            assert_eq!(errno_of(manager.allocate_and_retrieve_lock(id)), libc::EEXIST, "{id}");
        }
        assert_eq!(elsewhere.path.metadata().unwrap().size(), 0);
        assert_eq!(manager.locks_held().unwrap(), []);
        assert_eq!(errno_of(manager.free_lock(5)), libc::ENOENT);
        // They stop nobody else.
        let _ = manager.lock(1).unwrap();
        assert_eq!(manager.locks_held().unwrap(), [1]);
        manager.unlock(1).unwrap();
        let ids: Vec<u32> = (0..7).map(|_| manager.allocate_lock().unwrap()).collect();
        assert_eq!(ids, [0, 1, 2, 3, 4, 9, 10]);
        assert_eq!(taken_once(&manager, 9), Acquired::Clean);
        // A directory is no lock that could be freed; all else of such a name is taken away.
        assert_eq!(errno_of(manager.free_lock(5)), libc::ENOENT);
        manager.free_all_locks().unwrap();
        assert_eq!(place.names(), Place::names_of(&[5]));
        assert!(elsewhere.path.exists());
        assert_eq!(errno_of(FileManager::remove(&place.path)), libc::ENOTEMPTY);
        assert!(place.file(5).is_dir());
    });
}

#[test]
fn twenty_directories_in_the_place_of_ids_are_passed_over() {
    alone!({
        let place = Place::fresh();
        (0..20).for_each(|id| fs::create_dir(place.file(id)).unwrap());
        assert_eq!(place.open().allocate_lock().unwrap(), 20);
    });
}

#[test]
fn what_is_none_of_ours_is_not_removed() {
    let place = Place::unused();
    fs::create_dir(&place.path).unwrap();
    File::create_new(place.path.join("letter")).unwrap();
    assert_eq!(errno_of(FileManager::remove(&place.path)), libc::EPROTO);
    assert!(place.path.join("letter").exists());
    let ours = Place::fresh();
    ours.open().allocate_lock().unwrap();
    FileManager::remove(&ours.path).unwrap();
    assert!(!ours.path.exists());
}
