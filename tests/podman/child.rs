// SPDX-License-Identifier: MIT OR Apache-2.0
//! Processes of ours beside the test's: one that holds a lock, and one that has nothing to do with it.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{self, Command, Stdio};

use lock_manager::{FileManager, Layout, Manager, SegmentOptions, ShmManager};

use crate::generation::Generation;
use crate::real::DEFAULT_LOCKS;
use crate::sandbox::{SEGMENT, again, again_in, again_in_a_container, segment};

/// Tells a child of [`Child::holding_file`] where.
const DIRECTORY: &str = "LOCK_MANAGER_TEST_DIRECTORY";

const HOLD: &str = "hold";
const HOLD_FILE: &str = "hold-file";
const MAP: &str = "map";
const MAKE: &str = "make";
const READY: &str = "ready";

/// A child that stays as it is until it is killed or dropped.
pub struct Child {
    process: process::Child,
}

impl Child {
    /// One that holds lock `id`.
    pub fn holding(id: u32) -> Self {
        Self::start(&mut again(&format!("{HOLD} {id}")))
    }

    /// One that holds lock `id` of that directory.
    pub fn holding_file(directory: &Path, id: u32) -> Self {
        Self::start(again(&format!("{HOLD_FILE} {id}")).env(DIRECTORY, directory))
    }

    /// One in a container of its own, which maps another segment: the file of the same inode number in another /dev/shm.
    pub fn mapping_elsewhere(inode: u64) -> Self {
        Self::start(&mut again_in_a_container(&format!("{MAP} {inode}")))
    }

    fn start(command: &mut Command) -> Self {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        // The test harness begins the line.
        let ready = lines.map_while(Result::ok).any(|line| line.ends_with(READY));
        assert!(ready, "the child ended before it was ready");
        Self { process }
    }

    pub fn pid(&self) -> i32 {
        self.process.id().cast_signed()
    }

    /// Ends it by SIGKILL, with whatever it holds.
    pub fn kill(self) {}
}

impl Drop for Child {
    fn drop(&mut self) {
        // Fails where it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Has a child on the libc of that generation make a segment for Podman. False where this binary does not run there.
pub fn make_in(generation: &Generation) -> bool {
    let role = format!("{MAKE} {DEFAULT_LOCKS}");
    // It does not where the libraries are older than it wants, or not there.
    let runs = again_in(generation, &role).arg("--list").output().unwrap().status.success();
    assert!(!runs || again_in(generation, &role).status().unwrap().success(), "no segment was made");
    runs
}

/// What the child does.
pub fn play(role: &str) {
    let (what, number) = role.split_once(' ').unwrap();
    match what {
        HOLD => hold(number.parse().unwrap()),
        HOLD_FILE => hold_file(number.parse().unwrap()),
        MAP => map(number.parse().unwrap()),
        MAKE => make(number.parse().unwrap()),
        _ => unreachable!("{role} is no role"),
    }
}

fn hold(id: u32) {
    let manager = ShmManager::open(segment(), 0).unwrap();
    let _ = manager.lock(id).unwrap();
    stay();
    manager.unlock(id).unwrap();
}

fn hold_file(id: u32) {
    let manager = FileManager::open(env::var_os(DIRECTORY).unwrap()).unwrap();
    let _ = manager.lock(id).unwrap();
    stay();
    manager.unlock(id).unwrap();
}

fn make(num_locks: u32) {
    drop(ShmManager::create(SEGMENT, num_locks, &SegmentOptions::default().layout(Layout::Libpod)).unwrap());
}

fn map(inode: u64) {
    // A tmpfs numbers its files upwards.
    let mut managers = Vec::new();
    for number in 0..=inode {
        let name = format!("/file{number}");
        managers.push(ShmManager::create(&name, 32, &SegmentOptions::default().layout(Layout::Libpod)).unwrap());
        if fs::metadata(format!("/dev/shm{name}")).unwrap().ino() == inode {
            return stay();
        }
    }
    unreachable!("no file came to be number {inode}");
}

/// Returns when the parent is gone.
fn stay() {
    println!("{READY}");
    io::copy(&mut io::stdin(), &mut io::sink()).unwrap();
}
