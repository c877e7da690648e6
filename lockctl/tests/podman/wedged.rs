// SPDX-License-Identifier: MIT OR Apache-2.0
//! A Podman that waits, or that others wait for: `lockctl` names both sides.

#![allow(clippy::redundant_closure, reason = "the sandbox finds the test by where the closure stands")]

use std::path::Path;
use std::process::Command;

use lock_manager::{FileManager, Layout, Manager, SegmentOptions, ShmManager};

use crate::child::Child;
use crate::real::{DEFAULT_LOCKS, GUARD_OFFSET, Podman, mutex_offset};
use crate::sandbox::{PROGRAMS, SEGMENT, segment, until, within, within_as_user, within_host_pids};

/// What lockctl says, and its exit status.
fn lockctl(arguments: &[&str]) -> (String, i32) {
    let built = Path::new(env!("CARGO_BIN_EXE_lockctl"));
    // An ordinary user has a copy, if the scenario is one's.
    let copy = Path::new(PROGRAMS).join(built.file_name().unwrap());
    let program = if copy.exists() { &copy } else { built };
    let output = Command::new(program).args(arguments).output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code().unwrap())
}

/// The segment that Podman is to find.
fn make() -> ShmManager {
    let options = SegmentOptions::default().layout(Layout::Libpod);
    ShmManager::create(segment(), DEFAULT_LOCKS, &options).unwrap()
}

fn with_volume(podman: &Podman) -> (ShmManager, u32) {
    let manager = make();
    let id = podman.create_volume(&manager, "data");
    (manager, id)
}

fn names_a_waiting_podman(podman: &Podman) {
    let (_manager, id) = with_volume(podman);
    let holder = Child::holding(id);
    let mut removal = podman.start(&["volume", "rm", "data"]);
    let waiter = removal.until_it_waits_at(mutex_offset(id));
    let segment = &segment();

    let (row, _) = lockctl(&["list", "-n", "-o", "id,state,pid,waiters,waiting-pids", segment]);
    assert_eq!(row, format!("{id}  held  {}  1  {}\n", holder.pid(), waiter));
    let (graph, code) = lockctl(&["graph", segment]);
    assert_eq!(code, 0, "a wait is no deadlock");
    let lines: Vec<&str> = graph.lines().collect();
    assert!(lines[0].starts_with(&holder.pid().to_string()), "{graph}");
    let waits = format!("waits for lock {id}, held by {}", holder.pid());
    assert!(lines[1].contains(&waiter.to_string()) && lines[1].contains(&waits), "{graph}");
    assert!(lines[1].contains("volume rm data"), "{graph}");
    let (said, code) = lockctl(&["check", "--max-wait", "0.3", segment]);
    assert_eq!(code, 1);
    assert!(said.contains("volume rm data) has waited for 300ms or longer"), "{said}");

    holder.kill();
    removal.succeed();
    assert_eq!(lockctl(&["check", segment]).1, 0);
}

#[test]
fn a_podman_that_waits_for_our_lock_is_named_with_its_holder() {
    within_host_pids(|podman| names_a_waiting_podman(podman));
}

#[test]
fn so_it_is_from_within_a_container() {
    within(|podman| names_a_waiting_podman(podman));
}

#[test]
fn so_it_is_for_an_ordinary_user_s_podman() {
    within_as_user(|podman| names_a_waiting_podman(podman));
}

#[test]
fn an_ordinary_user_s_podman_that_holds_is_named() {
    within_as_user(|podman| {
        podman.run(&["volume", "ls"]);
        let manager = ShmManager::open(segment(), DEFAULT_LOCKS).unwrap();
        let id = podman.create_mountable_volume(&manager, "data");
        let mut mounting = podman.hold_mounting("data");
        until("podman holds the lock of its volume", || {
            assert!(!mounting.has_ended(), "podman was to hold the lock, and ended");
            manager.lock_info(id).unwrap().pid != 0
        });
        let (row, _) = lockctl(&["list", "-n", "-o", "id,state,pid,command", &segment()]);
        let holder = manager.lock_info(id).unwrap().pid;
        assert!(row.starts_with(&format!("{id}  held  {holder}  podman")) && row.contains("volume mount data"), "{row}");
        mounting.kill();
    });
}

#[test]
fn a_podman_that_holds_is_named_with_our_waiter() {
    within_host_pids(|podman| {
        let manager = make();
        let id = podman.create_mountable_volume(&manager, "data");
        let mut mounting = podman.hold_mounting("data");
        until("podman holds the lock of its volume", || {
            assert!(!mounting.has_ended(), "podman was to hold the lock, and ended");
            manager.lock_info(id).unwrap().held
        });
        let mut waiting = Command::new(env!("CARGO_BIN_EXE_lockctl"))
            .args(["run", SEGMENT, &id.to_string(), "--", "true"])
            .spawn()
            .unwrap();
        until("the waiter is seen", || {
            let (graph, _) = lockctl(&["graph", SEGMENT]);
            graph.contains("volume mount data") && graph.contains(&format!("  {} (lockctl run", waiting.id()))
        });
        podman.end_mounting();
        assert!(waiting.wait().unwrap().success());
    });
}

#[test]
fn a_podman_that_is_stuck_in_allocation_is_told_of_as_waiting_for_no_lock() {
    within_host_pids(|podman| {
        let (_manager, _) = with_volume(podman);
        let guard = std::fs::File::options().write(true).open("/dev/shm/libpod_lock").unwrap();
        // A holder that lives: this process's parent.
        let holder = std::os::unix::process::parent_id();
        std::os::unix::fs::FileExt::write_all_at(&guard, &holder.to_ne_bytes(), GUARD_OFFSET).unwrap();
        let mut creation = podman.start(&["volume", "create", "logs"]);
        creation.until_it_waits_at(GUARD_OFFSET);
        let output = Command::new(env!("CARGO_BIN_EXE_lockctl")).args(["list", SEGMENT]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("1 thread waits on the segment but for no lock"), "{said}");
        assert!(said.contains("volume create logs"), "{said}");
        creation.kill();
    });
}

#[test]
fn a_podman_that_sleeps_on_a_free_lock_is_told_of_as_stranded() {
    within_host_pids(|podman| {
        let (_manager, id) = with_volume(podman);
        let _holder = Child::holding(id);
        let mut removal = podman.start(&["volume", "rm", "data"]);
        removal.until_it_waits_at(mutex_offset(id));
        // As after an unlock whose wake-up went to a waiter that was killed.
        let segment = std::fs::File::options().write(true).open("/dev/shm/libpod_lock").unwrap();
        std::os::unix::fs::FileExt::write_all_at(&segment, &[0; 4], mutex_offset(id)).unwrap();
        let (said, code) = lockctl(&["check", "--max-wait", "0.3", SEGMENT]);
        assert_eq!(code, 1);
        assert!(said.contains("has waited for 300ms or longer though nobody holds it"), "{said}");
        removal.kill();
    });
}

#[test]
fn a_podman_that_waits_for_a_file_is_named_with_its_holder() {
    within_host_pids(|podman| {
        let directory = podman.use_file_locks();
        podman.run(&["volume", "create", "data"]);
        let manager = FileManager::open_read_only(&directory).unwrap();
        let id = (0..100).find(|&id| manager.lock_info(id).unwrap().allocated).unwrap();
        let holder = Child::holding_file(&directory, id);
        let mut removal = podman.start(&["volume", "rm", "data"]);
        removal.until_it_waits_for_a_file();
        let directory = directory.to_str().unwrap();
        let expected = format!("{id}  {}  1  {}\n", holder.pid(), removal.pid());
        until("both are named", || {
            lockctl(&["list", "-n", "-o", "id,pid,waiters,waiting-pids", directory]).0 == expected
        });
        holder.kill();
        removal.succeed();
    });
}
