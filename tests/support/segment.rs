// SPDX-License-Identifier: MIT OR Apache-2.0
//! Segments of a test's own, which go away with it, and their bytes seen from outside.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use lock_manager::{Layout, Manager, SegmentOptions, ShmManager};

use super::process::{Child, fork, sleep_until_killed};
use super::wait::eventually;
use super::{alone, board};

/// A name under /dev/shm that no other test has. What it names is removed when the value is dropped, by the process
/// that made it.
#[derive(Debug)]
pub struct Segment {
    pub name: String,
    maker: u32,
}

impl Segment {
    /// A name with nothing behind it.
    pub fn unused() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let maker = std::process::id();
        // With the process's number: forked siblings count alike.
        Self { name: format!("/{}-{maker}-{count}", alone::prefix()), maker }
    }

    /// A name with a fresh segment in the libpod layout behind it.
    pub fn of(num_locks: u32) -> Self {
        Self::made(num_locks, &SegmentOptions::default().layout(Layout::Libpod))
    }

    /// A name with a fresh segment in the native layout behind it.
    pub fn native(num_locks: u32) -> Self {
        Self::made(num_locks, &SegmentOptions::default().layout(Layout::Native))
    }

    /// A name with a fresh segment of that kind behind it.
    pub fn made(num_locks: u32, options: &SegmentOptions) -> Self {
        let segment = Self::unused();
        drop(ShmManager::create(&segment.name, num_locks, options).unwrap());
        segment
    }

    /// A name with an empty directory behind it.
    pub fn directory() -> Self {
        let directory = Self::unused();
        fs::create_dir(directory.file()).unwrap();
        directory
    }

    /// The file that the name means.
    pub fn file(&self) -> PathBuf {
        PathBuf::from(format!("/dev/shm{}", self.name))
    }

    /// The lines about it in /proc/self/maps.
    pub fn maps(&self) -> Vec<String> {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains(&self.name)).map(str::to_owned).collect()
    }

    /// The numbers of this process's descriptors of it.
    pub fn descriptors(&self) -> Vec<i32> {
        let numbers = fs::read_dir("/proc/self/fd").unwrap().map(|number| number.unwrap());
        let is_of_it = |path: PathBuf| fs::read_link(path).is_ok_and(|of| of.to_str().unwrap().contains(&self.name));
        let of_it = numbers.filter(|number| is_of_it(number.path()));
        of_it.map(|number| number.file_name().to_str().unwrap().parse().unwrap()).collect()
    }

    pub fn open(&self) -> ShmManager {
        ShmManager::open(&self.name, 0).unwrap()
    }

    /// A child that holds these locks until it is killed.
    pub fn holder_of(&self, ids: &[u32]) -> Child {
        let ready = &board(1)[0];
        let child = fork(|| {
            let manager = self.open();
            for &id in ids {
                let _ = manager.lock(id).unwrap();
            }
            ready.store(1, Ordering::Release);
            sleep_until_killed();
        });
        eventually("the child holds its locks", || ready.load(Ordering::Acquire) == 1);
        child
    }

    pub fn word_at(&self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        File::open(self.file()).unwrap().read_exact_at(&mut bytes, offset).unwrap();
        u32::from_ne_bytes(bytes)
    }

    pub fn write_word_at(&self, offset: u64, word: u32) {
        let file = File::options().write(true).open(self.file()).unwrap();
        file.write_all_at(&word.to_ne_bytes(), offset).unwrap();
    }

    pub fn bytes(&self) -> Vec<u8> {
        fs::read(self.file()).unwrap()
    }

    pub fn write(&self, bytes: &[u8]) {
        fs::write(self.file(), bytes).unwrap();
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if self.maker == std::process::id() {
            let _ = fs::remove_file(self.file());
            let _ = fs::remove_dir_all(self.file());
        }
    }
}
