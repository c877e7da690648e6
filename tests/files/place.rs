// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory of a test's own, which goes away with it.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use lock_manager::{FileManager, Manager};

use super::support::process::sleep_until_killed;
use super::support::{Child, Segment, board, eventually, fork};

/// The table file's name.
pub const TABLE: &str = ".lock_manager";

/// A path that no other test has. What is there is removed when the value is dropped, by the process that made it.
pub struct Place {
    pub path: PathBuf,
    _kept: Segment,
}

impl Place {
    /// A path with nothing behind it.
    pub fn unused() -> Self {
        let kept = Segment::unused();
        Self { path: kept.file(), _kept: kept }
    }

    /// A fresh directory of locks.
    pub fn fresh() -> Self {
        let place = Self::unused();
        drop(FileManager::create(&place.path).unwrap());
        place
    }

    pub fn open(&self) -> FileManager {
        FileManager::open(&self.path).unwrap()
    }

    pub fn table(&self) -> PathBuf {
        self.path.join(TABLE)
    }

    pub fn file(&self, id: u32) -> PathBuf {
        self.path.join(id.to_string())
    }

    /// The names in the directory.
    pub fn names(&self) -> BTreeSet<String> {
        fs::read_dir(&self.path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// The names of the directory when these ids are allocated.
    pub fn names_of(ids: &[u32]) -> BTreeSet<String> {
        ids.iter().map(u32::to_string).chain([TABLE.to_owned()]).collect()
    }

    /// Removes everything, as libpod does to free all locks: it knows nothing of the table.
    pub fn free_all_as_libpod(&self) {
        for name in self.names() {
            // Another may have been first.
            let _ = fs::remove_file(self.path.join(name));
        }
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
}
