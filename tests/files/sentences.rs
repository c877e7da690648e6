// SPDX-License-Identifier: MIT OR Apache-2.0
//! What errors say: the directory, the lock, the file or process that is the matter, and the way out.

use std::fs;
use std::os::unix::fs::symlink;

use lock_manager::{Error, FileManager, InMemoryManager, Manager, Ownership};

use super::place::Place;
use super::posix::PosixHolder;
use super::support::alone::alone;
use super::support::fork;
use super::support::process::limit;

fn says(error: &Error, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "no {word:?} in {text:?}");
    }
}

fn says_not(error: &Error, word: &str) {
    assert!(!error.to_string().contains(word), "{error}");
}

#[test]
fn what_is_no_file_is_named_and_not_taken_for_the_directory() {
    let place = Place::fresh();
    let manager = place.open();
    fs::create_dir(place.file(5)).unwrap();
    symlink("/nowhere", place.file(6)).unwrap();
    let at = place.path.to_str().unwrap();
    says(&manager.try_lock(5).unwrap_err(), &[at, "file 5", "not a regular file", "remove"]);
    says(&manager.try_lock(6).unwrap_err(), &[at, "file 6", "symbolic link", "remove"]);
}

#[test]
fn an_empty_name_is_not_told_to_be_that_of_a_segment() {
    let error = FileManager::open("").unwrap_err();
    says(&error, &["directory", "empty"]);
    says_not(&error, "segment");
}

#[test]
fn an_error_of_the_system_names_the_lock_and_the_way_out() {
    alone!({
        let place = Place::fresh();
        fork(|| {
            let manager = place.open();
            let _ = manager.lock(0).unwrap();
            fs::write(place.file(7), "").unwrap();
            limit(libc::RLIMIT_NOFILE, 3);
            let at = place.path.to_str().unwrap();
            says(&manager.try_lock(7).unwrap_err(), &[at, "lock 7", "RLIMIT_NOFILE"]);
        })
        .succeeds();
        fork(|| {
            let manager = place.open();
            let _ = manager.lock(0).unwrap();
            limit(libc::RLIMIT_FSIZE, 4096);
            says(&manager.try_lock(100_000).unwrap_err(), &["lock 100000", "RLIMIT_FSIZE"]);
        })
        .succeeds();
    });
}

#[test]
fn a_holder_is_called_what_it_is() {
    alone!({
        let place = Place::fresh();
        let holder = place.holder_of(&[3]);
        let error = place.open().repair_lock(3).unwrap_err();
        says(&error, &["lock 3", &format!("thread {}", holder.pid()), "Wait"]);
        let posix = PosixHolder::start(&place, 4);
        let error = place.open().repair_lock(4).unwrap_err();
        says(&error, &["lock 4", &format!("process {}", posix.child.pid()), "Wait"]);
        says_not(&error, "thread");
        let manager = place.open();
        manager.set_ownership(Ownership::Process).unwrap();
        says(&manager.unlock(3).unwrap_err(), &["lock 3", "process"]);
    });
}

#[test]
fn where_there_is_no_segment_none_is_spoken_of() {
    let manager = InMemoryManager::new(1).unwrap();
    manager.allocate_lock().unwrap();
    let error = manager.allocate_lock().unwrap_err();
    says(&error, &["all 1 locks", "grow"]);
    says_not(&error, "segment");
    let place = Place::unused();
    fs::create_dir(&place.path).unwrap();
    fs::write(place.path.join("letter"), "").unwrap();
    let error = FileManager::remove(&place.path).unwrap_err();
    says(&error, &[".lock_manager", "nothing was changed"]);
    says_not(&error, "segment");
}
