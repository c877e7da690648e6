// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Who has a storage open: processes that map the segment, or have the directory open. One pass over /proc finds them
//! and those of their threads that sleep on the segment.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::futex::{self, Sleeper};
use super::identity::FileId;
use super::{Looked, process};
use crate::storage::{Place, Storage};

/// What one pass over /proc has found. The caller itself is in none of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Users {
    /// Processes that have the storage open, ascending.
    pub pids: Vec<i32>,
    /// Their threads that sleep on words of the segment.
    pub sleepers: Vec<Sleeper>,
    /// Processes that could not be looked at, ascending.
    pub hidden: Vec<i32>,
}

impl Users {
    /// Looks at every process.
    pub fn of(storage: &Storage) -> Self {
        match &storage.place {
            Place::Segment(file) => Self::of_segment(file),
            Place::Directory(path) => Self::of_directory(path),
            // They are on other machines as well, so none can be listed.
            Place::Etcd(_) => Self::default(),
        }
    }

    fn of_segment(file: &Path) -> Self {
        let Some(file) = FileId::of(file) else { return Self::default() };
        let mut users = Self::default();
        for pid in process::others() {
            if process::is_without_memory(pid) {
                continue;
            }
            match futex::mappings(pid, file) {
                Looked::Seen(mappings) if mappings.is_empty() => {}
                Looked::Seen(mappings) => {
                    users.pids.push(pid);
                    match futex::sleepers(pid, &mappings) {
                        Looked::Seen(sleepers) => users.sleepers.extend(sleepers),
                        Looked::Gone => {}
                        Looked::Hidden => users.hidden.push(pid),
                    }
                }
                Looked::Gone => {}
                Looked::Hidden => users.hidden.push(pid),
            }
        }
        users
    }

    fn of_directory(path: &Path) -> Self {
        let Ok(directory) = fs::metadata(path) else { return Self::default() };
        let mut users = Self::default();
        for pid in process::others() {
            if process::is_without_memory(pid) {
                continue;
            }
            match Looked::from_read(fs::read_dir(format!("/proc/{pid}/fd"))) {
                Looked::Seen(descriptors) => {
                    let is_it = descriptors.flatten().any(|descriptor| {
                        // By the name first: to ask a dead network file system for its facts may take for ever.
                        let named = fs::read_link(descriptor.path());
                        named.is_ok_and(|named| named.file_name() == path.file_name())
                            && fs::metadata(descriptor.path())
                                .is_ok_and(|file| (file.dev(), file.ino()) == (directory.dev(), directory.ino()))
                    });
                    if is_it {
                        users.pids.push(pid);
                    }
                }
                Looked::Gone => {}
                Looked::Hidden => users.hidden.push(pid),
            }
        }
        users
    }
}
