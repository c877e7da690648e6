// SPDX-License-Identifier: MIT OR Apache-2.0
//! One lock, two kinds of holder: each waits for the other, is seen by the other, and outlives the other's death.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;
use std::time::Duration;

use lock_manager::{Acquired, Layout, LockInfo, Manager, SegmentOptions, ShmManager};

use crate::child::Child;
use crate::real::{DEFAULT_LOCKS, GUARD_OFFSET, Podman, Running, mutex_offset};
use crate::sandbox::{LONG, SEGMENT, until, waited_for, within, within_host_pids};

const SEGMENT_FILE: &str = "/dev/shm/libpod_lock";

/// A manager, and the lock of a volume of Podman's named data.
fn with_volume(podman: &Podman) -> (ShmManager, u32) {
    let manager =
        ShmManager::create(SEGMENT, DEFAULT_LOCKS, &SegmentOptions::default().layout(Layout::Libpod)).unwrap();
    let id = podman.create_volume(&manager, "data");
    (manager, id)
}

/// Starts the removal of that volume and waits until Podman sleeps on its lock.
fn waiting_removal(podman: &Podman, id: u32) -> Running {
    let mut removal = podman.start(&["volume", "rm", "data"]);
    removal.until_it_waits_at(mutex_offset(id));
    removal
}

fn assert_removed(manager: &ShmManager, id: u32) {
    let info = manager.lock_info(id).unwrap();
    assert_eq!((info.allocated, info.held, info.owner_died), (false, false, false));
    assert_eq!(manager.timed_lock(id, LONG).unwrap(), Acquired::Clean);
    manager.unlock(id).unwrap();
}

fn assert_held_by(info: &LockInfo, pid: i32) {
    assert_eq!((info.held, info.owner_died, info.pid), (true, false, pid));
}

/// A volume whose lock a Podman holds, mounting it without end.
fn held_by_podman(podman: &Podman) -> (ShmManager, u32, Running) {
    let manager =
        ShmManager::create(SEGMENT, DEFAULT_LOCKS, &SegmentOptions::default().layout(Layout::Libpod)).unwrap();
    let id = podman.create_mountable_volume(&manager, "data");
    let mut mounting = podman.hold_mounting("data");
    until("podman holds the lock of its volume", || {
        assert!(!mounting.has_ended(), "podman was to hold the lock, and ended");
        manager.lock_info(id).unwrap().held
    });
    (manager, id, mounting)
}

/// Writes into the mutex at `offset` the number of a thread that is gone, as where the kernel has missed its death: it
/// looks at no more than 2048 mutexes of a thread, and at none of one that calls exec beside its process's first.
fn forget_holder_at(offset: u64) {
    let mut process = Command::new("true").spawn().unwrap();
    let gone = process.id();
    process.wait().unwrap();
    let segment = File::options().write(true).open(SEGMENT_FILE).unwrap();
    segment.write_all_at(&gone.to_ne_bytes(), offset).unwrap();
}

#[test]
fn podman_waits_for_a_lock_that_is_held_here_until_it_is_unlocked() {
    within(|podman| {
        let (manager, id) = with_volume(podman);
        assert_eq!(manager.lock(id).unwrap(), Acquired::Clean);
        let mut removal = waiting_removal(podman, id);
        assert_held_by(&manager.lock_info(id).unwrap(), std::process::id().cast_signed());
        assert!(manager.lock_info(id).unwrap().allocated);
        assert!(!removal.has_ended());
        manager.unlock(id).unwrap();
        removal.succeed();
        assert_removed(&manager, id);
    });
}

#[test]
fn a_lock_that_is_held_here_stops_podman_from_nothing_else() {
    within(|podman| {
        let (manager, id) = with_volume(podman);
        assert_eq!(manager.lock(id).unwrap(), Acquired::Clean);
        let logs = podman.create_volume(&manager, "logs");
        podman.run(&["volume", "rm", "logs"]);
        assert!(!manager.lock_info(logs).unwrap().allocated);
        assert_eq!(manager.locks_held().unwrap(), [id]);
        manager.unlock(id).unwrap();
        podman.run(&["volume", "rm", "data"]);
        assert_removed(&manager, id);
    });
}

#[test]
fn podman_that_waits_goes_on_when_the_holder_is_killed() {
    within(|podman| {
        let (manager, id) = with_volume(podman);
        let holder = Child::holding(id);
        let removal = waiting_removal(podman, id);
        assert_eq!(manager.locks_held().unwrap(), [id]);
        assert_held_by(&manager.lock_info(id).unwrap(), holder.pid());
        assert_eq!(manager.repair_lock(id).unwrap_err().errno(), libc::EBUSY);
        holder.kill();
        removal.succeed();
        assert_removed(&manager, id);
    });
}

#[test]
fn podman_that_comes_after_a_holder_was_killed_goes_on_and_leaves_the_lock_clean() {
    within(|podman| {
        let (manager, id) = with_volume(podman);
        Child::holding(id).kill();
        let info = manager.lock_info(id).unwrap();
        assert_eq!((info.allocated, info.held, info.owner_died), (true, false, true));
        assert_eq!(manager.locks_held().unwrap(), [0; 0]);
        podman.run(&["volume", "rm", "data"]);
        assert_removed(&manager, id);
    });
}

#[test]
fn podman_takes_a_lock_whose_dead_owner_was_told_here() {
    within(|podman| {
        let (manager, id) = with_volume(podman);
        Child::holding(id).kill();
        assert_eq!(manager.timed_lock(id, LONG).unwrap(), Acquired::OwnerDied);
        let removal = waiting_removal(podman, id);
        manager.unlock(id).unwrap();
        removal.succeed();
        assert_removed(&manager, id);
    });
}

#[test]
fn what_podman_holds_is_seen_by_pid_and_waited_for_here() {
    within(|podman| {
        let (manager, id, mounting) = held_by_podman(podman);
        assert_eq!(manager.locks_held().unwrap(), [id]);
        assert_held_by(&manager.lock_info(id).unwrap(), mounting.pid());
        let looker = ShmManager::open_read_only(SEGMENT).unwrap();
        assert_held_by(&looker.lock_info(id).unwrap(), mounting.pid());
        assert_eq!(looker.try_lock(id).unwrap_err().errno(), libc::EACCES);

        assert_eq!(manager.try_lock(id).unwrap_err().errno(), libc::EBUSY);
        let waited = manager.timed_lock(id, Duration::from_millis(120));
        assert_eq!(waited.unwrap_err().errno(), libc::ETIMEDOUT);
        assert_eq!(manager.unlock(id).unwrap_err().errno(), libc::EPERM);
        assert_eq!(manager.repair_lock(id).unwrap_err().errno(), libc::EBUSY);
        assert_held_by(&manager.lock_info(id).unwrap(), mounting.pid());

        assert_eq!(waited_for(&manager, id, || podman.end_mounting()), Acquired::Clean);
        let (status, ..) = mounting.end();
        assert!(!status.success(), "the mount was to fail");
    });
}

#[test]
fn a_podman_that_is_killed_holding_a_lock_is_told_here_and_the_next_podman_goes_on() {
    within(|podman| {
        let (manager, id, mounting) = held_by_podman(podman);
        assert_eq!(waited_for(&manager, id, || mounting.kill()), Acquired::OwnerDied);
        podman.run(&["volume", "rm", "data"]);
        assert_removed(&manager, id);
    });
}

#[test]
fn a_lock_whose_death_the_kernel_missed_strands_podman_until_it_is_repaired_here() {
    within_host_pids(|podman| {
        let (manager, id) = with_volume(podman);
        forget_holder_at(mutex_offset(id));
        let mut removal = waiting_removal(podman, id);
        assert!(!removal.has_ended());
        manager.repair_lock(id).unwrap();
        removal.succeed();
        assert_removed(&manager, id);
    });
}

#[test]
fn bitmaps_whose_guard_the_kernel_missed_strand_podman_until_somebody_allocates_here() {
    within_host_pids(|podman| {
        let (manager, id) = with_volume(podman);
        forget_holder_at(GUARD_OFFSET);
        let mut creation = podman.start(&["volume", "create", "logs"]);
        creation.until_it_waits_at(GUARD_OFFSET);
        let ours = manager.allocate_lock().unwrap();
        creation.succeed();
        assert_ne!(ours, id);
        assert_eq!(manager.available_locks().unwrap(), DEFAULT_LOCKS - 3);
    });
}

#[test]
fn a_container_with_another_segment_of_the_same_inode_number_does_not_stop_a_repair() {
    within_host_pids(|podman| {
        let (manager, id) = with_volume(podman);
        let _container = Child::mapping_elsewhere(File::open(SEGMENT_FILE).unwrap().metadata().unwrap().ino());
        forget_holder_at(mutex_offset(id));
        manager.repair_lock(id).unwrap();
        assert_eq!(manager.timed_lock(id, LONG).unwrap(), Acquired::OwnerDied);
        manager.unlock(id).unwrap();
        podman.run(&["volume", "rm", "data"]);
        assert_removed(&manager, id);
    });
}
