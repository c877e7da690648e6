// SPDX-License-Identifier: MIT OR Apache-2.0
//! A Podman with `lock_type = "file"`, and this library's file manager on its directory.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use lock_manager::{Acquired, FileManager, Manager};

use crate::child::Child;
use crate::real::{Podman, Running};
use crate::sandbox::{LONG, until, waited_for, within};

/// The ids that are allocated, by the names in the directory.
fn allocated(directory: &Path) -> BTreeSet<u32> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.parse().ok()).collect()
}

/// A manager on the directory that Podman made, and the lock of a volume of Podman's named data.
fn with_volume(podman: &Podman) -> (FileManager, u32) {
    let directory = podman.use_file_locks();
    podman.run(&["volume", "create", "first"]);
    let before = allocated(&directory);
    podman.run(&["volume", "create", "data"]);
    let taken: Vec<u32> = allocated(&directory).difference(&before).copied().collect();
    assert_eq!(taken.len(), 1, "a volume takes one lock");
    (FileManager::open(&directory).unwrap(), taken[0])
}

fn waiting_removal(podman: &Podman) -> Running {
    let mut removal = podman.start(&["volume", "rm", "data"]);
    removal.until_it_waits_for_a_file();
    removal
}

#[test]
fn both_allocate_in_the_directory_that_podman_made() {
    within(|podman| {
        let (manager, id) = with_volume(podman);
        let directory = podman.use_file_locks();
        assert_eq!(manager.allocate_and_retrieve_lock(id).unwrap_err().errno(), libc::EEXIST);
        let ours: BTreeSet<u32> = (0..3).map(|_| manager.allocate_lock().unwrap()).collect();
        assert!(!ours.contains(&id));
        let before = allocated(&directory);
        podman.run(&["volume", "create", "logs"]);
        podman.run(&["pod", "create", "--infra=false", "web"]);
        assert_eq!(allocated(&directory).len(), before.len() + 2);
        assert!(allocated(&directory).is_superset(&before));
        podman.run(&["volume", "rm", "data"]);
        assert!(!manager.lock_info(id).unwrap().allocated);
        ours.iter().for_each(|&id| manager.free_lock(id).unwrap());
    });
}

#[test]
fn podman_works_in_a_directory_that_we_made() {
    within(|podman| {
        let directory = podman.use_file_locks();
        fs::create_dir_all(directory.parent().unwrap()).unwrap();
        let manager = FileManager::create(&directory).unwrap();
        let ours = manager.allocate_lock().unwrap();
        podman.run(&["volume", "create", "data"]);
        podman.run(&["volume", "create", "logs"]);
        assert_eq!(allocated(&directory).len(), 3);
        assert_ne!(manager.allocate_lock().unwrap(), ours);
        podman.run(&["volume", "rm", "data", "logs"]);
        assert_eq!(allocated(&directory).len(), 2);
    });
}

#[test]
fn podman_waits_while_we_hold_and_goes_on_when_we_let_go() {
    within(|podman| {
        let (manager, id) = with_volume(podman);
        let _ = manager.lock(id).unwrap();
        let mut removal = waiting_removal(podman);
        assert!(!removal.has_ended());
        manager.unlock(id).unwrap();
        removal.succeed();
        assert!(!manager.lock_info(id).unwrap().allocated);
    });
}

#[test]
fn podman_goes_on_when_our_holder_is_killed_and_we_are_told() {
    within(|podman| {
        let (manager, id) = with_volume(podman);
        let holder = Child::holding_file(&podman.use_file_locks(), id);
        let info = manager.lock_info(id).unwrap();
        assert_eq!((info.held, info.pid), (true, holder.pid()));
        let removal = waiting_removal(podman);
        holder.kill();
        removal.succeed();
        // Podman knows nothing of records, and has taken none away.
        assert_eq!(manager.timed_lock(id, LONG).unwrap(), Acquired::OwnerDied);
        manager.unlock(id).unwrap();
    });
}

#[test]
fn we_wait_while_podman_holds_and_see_it() {
    within(|podman| {
        let directory = podman.use_file_locks();
        podman.run(&["volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "data"]);
        let manager = FileManager::open(&directory).unwrap();
        let mut mounting = podman.hold_mounting("data");
        until("podman holds the lock of its volume", || {
            assert!(!mounting.has_ended(), "podman was to hold the lock, and ended");
            !manager.locks_held().unwrap().is_empty()
        });
        let id = manager.locks_held().unwrap()[0];
        assert_eq!(manager.lock_info(id).unwrap().pid, mounting.pid());
        assert_eq!(manager.try_lock(id).unwrap_err().errno(), libc::EBUSY);
        assert_eq!(waited_for(&manager, id, || podman.end_mounting()), Acquired::Clean);
        let _ = mounting.end();
    });
}

#[test]
fn after_a_renumbering_both_go_on() {
    within(|podman| {
        let (manager, _) = with_volume(podman);
        let directory = podman.use_file_locks();
        podman.run(&["system", "renumber"]);
        assert_eq!(allocated(&directory).len(), 2);
        let ours = manager.allocate_lock().unwrap();
        assert_eq!(manager.timed_lock(ours, LONG).unwrap(), Acquired::Clean);
        manager.unlock(ours).unwrap();
        podman.run(&["volume", "create", "logs"]);
        assert_eq!(allocated(&directory).len(), 4);
        podman.run(&["volume", "rm", "data", "first", "logs"]);
        assert_eq!(allocated(&directory), BTreeSet::from([ours]));
    });
}
