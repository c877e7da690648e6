// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Podman of an ordinary user, which works in a user namespace of its own, by itself or in a child, and has a segment
//! of its user's own.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use lock_manager::{Acquired, Layout, Manager, SegmentOptions, ShmManager};

use crate::child::Child;
use crate::real::{DEFAULT_LOCKS, Podman, Running, allocated, mutex_offset};
use crate::sandbox::{LONG, segment, until, waited_for, within_as_user};

/// Our segment for Podman to find.
fn make() -> ShmManager {
    ShmManager::create(segment(), DEFAULT_LOCKS, &SegmentOptions::default().layout(Layout::Libpod)).unwrap()
}

/// That of a Podman's making.
fn made_by(podman: &Podman) -> ShmManager {
    podman.run(&["volume", "ls"]);
    let file = fs::metadata(format!("/dev/shm{}", segment())).unwrap();
    assert_ne!(file.uid(), 0, "the user's own");
    ShmManager::open(segment(), DEFAULT_LOCKS).unwrap()
}

fn user_namespace(process: &str) -> PathBuf {
    fs::read_link(format!("/proc/{process}/ns/user")).unwrap()
}

fn kill(pid: i32) {
    assert!(Command::new("sh").args(["-c", &format!("kill -s KILL {pid}")]).status().unwrap().success());
}

/// A Podman that holds the lock of its volume, and which process of it does.
fn holding(podman: &Podman, manager: &ShmManager, id: u32) -> (Running, i32) {
    let mut mounting = podman.hold_mounting("data");
    until("podman holds the lock of its volume", || {
        assert!(!mounting.has_ended(), "podman was to hold the lock, and ended");
        manager.lock_info(id).unwrap().pid != 0
    });
    (mounting, manager.lock_info(id).unwrap().pid)
}

#[test]
fn both_allocate_on_the_segment_of_either_s_making() {
    within_as_user(|podman| {
        let manager = made_by(podman);
        let ours: BTreeSet<u32> = (0..3).map(|_| manager.allocate_lock().unwrap()).collect();
        let theirs = BTreeSet::from([podman.create_volume(&manager, "data"), podman.create_pod(&manager, "shop")]);
        assert_eq!(allocated(&manager), &ours | &theirs);
        podman.run(&["volume", "rm", "data"]);
        podman.run(&["pod", "rm", "shop"]);
        assert_eq!(allocated(&manager), ours);
    });
}

#[test]
fn podman_waits_for_a_lock_that_is_held_here_on_a_segment_that_was_made_here() {
    within_as_user(|podman| {
        let manager = make();
        let id = podman.create_volume(&manager, "data");
        assert_eq!(manager.lock(id).unwrap(), Acquired::Clean);
        let mut removal = podman.start(&["volume", "rm", "data"]);
        let waiter = removal.until_it_waits_at(mutex_offset(id));
        assert_ne!(user_namespace(&waiter.to_string()), user_namespace("self"), "a rootless Podman has one of its own");
        manager.unlock(id).unwrap();
        removal.succeed();
        assert!(!manager.lock_info(id).unwrap().allocated);
    });
}

#[test]
fn podman_goes_on_when_our_holder_is_killed() {
    within_as_user(|podman| {
        let manager = made_by(podman);
        let id = podman.create_volume(&manager, "data");
        let holder = Child::holding(id);
        let mut removal = podman.start(&["volume", "rm", "data"]);
        removal.until_it_waits_at(mutex_offset(id));
        holder.kill();
        removal.succeed();
        assert!(!manager.lock_info(id).unwrap().allocated);
    });
}

#[test]
fn what_podman_holds_is_seen_by_pid_and_waited_for_here() {
    within_as_user(|podman| {
        let manager = made_by(podman);
        let id = podman.create_mountable_volume(&manager, "data");
        let (mounting, holder) = holding(podman, &manager, id);
        let command = fs::read(format!("/proc/{holder}/cmdline")).unwrap();
        assert!(String::from_utf8(command).unwrap().contains("volume\0mount\0data"));
        assert_eq!(manager.locks_held().unwrap(), [id]);
        assert_eq!(manager.try_lock(id).unwrap_err().errno(), libc::EBUSY);
        assert_eq!(waited_for(&manager, id, || podman.end_mounting()), Acquired::Clean);
        let _ = mounting.end();
    });
}

#[test]
fn a_podman_that_is_killed_holding_a_lock_is_told_here_and_the_next_podman_goes_on() {
    within_as_user(|podman| {
        let manager = make();
        let id = podman.create_mountable_volume(&manager, "data");
        let (_mounting, holder) = holding(podman, &manager, id);
        kill(holder);
        assert_eq!(manager.timed_lock(id, LONG).unwrap(), Acquired::OwnerDied);
        manager.unlock(id).unwrap();
        podman.run(&["volume", "rm", "data"]);
        assert!(!manager.lock_info(id).unwrap().allocated);
    });
}
