// SPDX-License-Identifier: MIT OR Apache-2.0
//! One segment, two allocators: whoever made it, both work on it, and no id has two owners.

use std::collections::BTreeSet;
use std::fs;

use lock_manager::{Layout, Manager, Reason, SegmentOptions, ShmManager};

use crate::child::make_in;
use crate::real::{DEFAULT_LOCKS, GUARD_OFFSET, allocated, mutex_offset};
use crate::sandbox::{SEGMENT, skip, within};

fn make(num_locks: u32) -> ShmManager {
    ShmManager::create(SEGMENT, num_locks, &SegmentOptions::default().layout(Layout::Libpod)).unwrap()
}

fn bytes() -> Vec<u8> {
    fs::read("/dev/shm/libpod_lock").unwrap()
}

/// What glibc, where it has lock elision, adds to the kind of a mutex that is asked to be normal by name.
const NO_ELISION: u32 = 0x200;

/// Where a mutex has its kind.
const KIND: u64 = 16;

/// Podman has asked for normal mutexes by name since then.
const ASKING_BY_NAME: (u32, u32) = (4, 6);

/// The segment's bytes, with the flag taken out of every mutex.
fn without_flag(mut bytes: Vec<u8>) -> Vec<u8> {
    for mutex in [GUARD_OFFSET].into_iter().chain((0..DEFAULT_LOCKS).map(mutex_offset)) {
        let kind = &mut bytes[(mutex + KIND) as usize..][..4];
        let plain = u32::from_ne_bytes(kind.try_into().unwrap()) & !NO_ELISION;
        kind.copy_from_slice(&plain.to_ne_bytes());
    }
    bytes
}

#[test]
fn new_segments_from_here_and_from_podman_are_the_same_bytes() {
    within(|podman| {
        drop(make(DEFAULT_LOCKS));
        let ours = bytes();
        assert_eq!(ours.len(), 82_488);
        ShmManager::remove(SEGMENT).unwrap();
        podman.run(&["volume", "ls"]);
        // With another libc, or before it asked, Podman's may have the flag and ours not, or the other way round.
        assert!(without_flag(bytes()) == without_flag(ours), "the bytes differ");
    });
}

#[test]
fn new_segments_from_here_and_from_podman_with_one_libc_are_the_same_to_the_last_bit() {
    within(|podman| {
        if !make_in(podman.generation()) {
            return skip("its libc", "this binary does not run there");
        }
        let ours = bytes();
        ShmManager::remove(SEGMENT).unwrap();
        podman.run(&["volume", "ls"]);
        let ours = if podman.version() < ASKING_BY_NAME { without_flag(ours) } else { ours };
        assert!(bytes() == ours, "the bytes differ");
    });
}

#[test]
fn a_segment_that_podman_made_is_opened_and_counted_here() {
    within(|podman| {
        podman.run(&["volume", "ls"]);
        let manager = ShmManager::open(SEGMENT, DEFAULT_LOCKS).unwrap();
        assert_eq!(manager.layout(), Layout::Libpod);
        assert_eq!(manager.num_locks().unwrap(), DEFAULT_LOCKS);
        assert_eq!(manager.available_locks().unwrap(), DEFAULT_LOCKS);

        let data = podman.create_volume(&manager, "data");
        let logs = podman.create_volume(&manager, "logs");
        let shop = podman.create_pod(&manager, "shop");
        assert_eq!(allocated(&manager), BTreeSet::from([data, logs, shop]));
        assert_eq!(manager.available_locks().unwrap(), DEFAULT_LOCKS - 3);
        assert_eq!(manager.locks_held().unwrap(), [0; 0]);

        podman.run(&["volume", "rm", "data"]);
        podman.run(&["pod", "rm", "shop"]);
        assert_eq!(allocated(&manager), BTreeSet::from([logs]));
        assert_eq!(manager.available_locks().unwrap(), DEFAULT_LOCKS - 1);
    });
}

#[test]
fn podman_works_on_a_segment_that_was_made_here() {
    within(|podman| {
        let manager = make(DEFAULT_LOCKS);
        let made = bytes().len();
        let data = podman.create_volume(&manager, "data");
        let shop = podman.create_pod(&manager, "shop");
        assert_eq!(allocated(&manager), BTreeSet::from([data, shop]));
        podman.run(&["volume", "rm", "data"]);
        podman.run(&["pod", "rm", "shop"]);
        assert_eq!(manager.available_locks().unwrap(), DEFAULT_LOCKS);
        assert_eq!(bytes().len(), made, "podman was to take the segment as it is");
        assert!(!manager.info().unwrap().retired, "podman was to take the segment as it is");
    });
}

#[test]
fn what_one_side_allocated_the_other_passes_over_and_what_it_freed_the_other_gets() {
    within(|podman| {
        let manager = make(DEFAULT_LOCKS);
        let ours: Vec<u32> = (0..3).map(|_| manager.allocate_lock().unwrap()).collect();
        let data = podman.create_volume(&manager, "data");
        assert!(!ours.contains(&data));
        assert_eq!(manager.allocate_and_retrieve_lock(data).unwrap_err().errno(), libc::EEXIST);

        // Podman takes the lowest that is free.
        manager.free_lock(ours[1]).unwrap();
        assert_eq!(podman.create_volume(&manager, "logs"), ours[1]);
        assert_eq!(allocated(&manager), BTreeSet::from([ours[0], ours[1], ours[2], data]));

        podman.run(&["volume", "rm", "logs"]);
        manager.allocate_and_retrieve_lock(ours[1]).unwrap();
        manager.free_lock(data).unwrap();
        assert_eq!(manager.free_lock(data).unwrap_err().errno(), libc::ENOENT);
    });
}

#[test]
fn allocating_at_the_same_time_never_gives_an_id_to_both() {
    const VOLUMES: usize = 24;
    const KEPT: usize = 200;
    within(|podman| {
        let manager = make(DEFAULT_LOCKS);
        let names: Vec<String> = (0..VOLUMES).map(|number| format!("volume{number}")).collect();
        let mut creators: Vec<_> = names.iter().map(|name| podman.start(&["volume", "create", name])).collect();
        // All the while, until the last Podman is through, and for as many as are kept.
        let mut ours = Vec::new();
        while ours.len() < KEPT || creators.iter_mut().any(|creator| !creator.has_ended()) {
            let id = manager.allocate_lock().unwrap();
            if ours.len() < KEPT { ours.push(id) } else { manager.free_lock(id).unwrap() }
        }
        for creator in creators {
            creator.succeed();
        }
        // An id that both were given counts once.
        assert_eq!(allocated(&manager).len(), KEPT + VOLUMES);
        assert_eq!(manager.available_locks().unwrap(), DEFAULT_LOCKS - (KEPT + VOLUMES) as u32);

        podman.run(&["volume", "rm", "--all", "--force"]);
        assert_eq!(allocated(&manager), ours.into_iter().collect());
    });
}

#[test]
fn after_a_boot_podman_takes_its_ids_back_in_a_segment_that_was_made_here() {
    within(|podman| {
        podman.run(&["volume", "ls"]);
        let before = ShmManager::open(SEGMENT, 0).unwrap();
        before.allocate_and_retrieve_lock(0).unwrap();
        let data = podman.create_volume(&before, "data");
        let shop = podman.create_pod(&before, "shop");
        ShmManager::remove(SEGMENT).unwrap();
        podman.forget_boot();

        let after = make(DEFAULT_LOCKS);
        assert_eq!(allocated(&after), BTreeSet::new());
        podman.run(&["volume", "ls"]);
        assert_eq!(allocated(&after), BTreeSet::from([data, shop]));
    });
}

#[test]
fn a_renumbering_by_podman_is_seen_by_a_manager_that_was_open() {
    within(|podman| {
        let manager = make(DEFAULT_LOCKS);
        let ours = manager.allocate_lock().unwrap();
        podman.create_volume(&manager, "data");
        podman.create_volume(&manager, "logs");
        podman.run(&["system", "renumber"]);
        // Podman frees all, those of strangers too, and begins from 0.
        assert_eq!(ours, 0);
        assert_eq!(allocated(&manager), BTreeSet::from([0, 1]));
        assert_eq!(podman.create_volume(&manager, "web"), 2);
    });
}

#[test]
fn a_segment_with_another_number_of_locks_is_refused_by_both_and_stays_as_it_is() {
    within(|podman| {
        let small = make(64);
        let kept = small.allocate_lock().unwrap();
        let complaint = podman.fail(&["volume", "create", "data"]);
        assert!(complaint.contains("/libpod_lock: numerical result out of range"), "{complaint}");
        assert_eq!(allocated(&small), BTreeSet::from([kept]));

        podman.set_num_locks(64);
        let data = podman.create_volume(&small, "data");
        let error = ShmManager::open(SEGMENT, DEFAULT_LOCKS).unwrap_err();
        assert_eq!(error.errno(), libc::ERANGE);
        assert_eq!(*error.reason(), Reason::WrongCount { there: 64, asked: DEFAULT_LOCKS });
        assert_eq!(allocated(&small), BTreeSet::from([kept, data]));
    });
}

#[test]
fn a_full_segment_is_full_for_both() {
    within(|podman| {
        podman.set_num_locks(32);
        podman.run(&["volume", "ls"]);
        let manager = ShmManager::open(SEGMENT, 32).unwrap();
        let data = podman.create_volume(&manager, "data");
        for _ in 1..32 {
            let _ = manager.allocate_lock().unwrap();
        }
        assert_eq!(manager.allocate_lock().unwrap_err().errno(), libc::ENOLCK);
        let complaint = podman.fail(&["volume", "create", "logs"]);
        assert!(complaint.contains("allocating lock for new volume"), "{complaint}");

        podman.run(&["volume", "rm", "data"]);
        assert_eq!(manager.allocate_lock().unwrap(), data);
    });
}

#[test]
fn a_segment_that_was_removed_is_stale_here_and_podman_makes_another() {
    within(|podman| {
        let old = make(DEFAULT_LOCKS);
        ShmManager::remove(SEGMENT).unwrap();
        podman.run(&["volume", "ls"]);
        let new = ShmManager::open(SEGMENT, DEFAULT_LOCKS).unwrap();
        let data = podman.create_volume(&new, "data");
        assert_eq!(old.allocate_lock().unwrap_err().errno(), libc::ESTALE);
        assert_eq!(allocated(&old), BTreeSet::new());
        assert_eq!(allocated(&new), BTreeSet::from([data]));
    });
}
