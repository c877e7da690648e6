// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Who waits for what: as the storage says, as futex(2) calls in /proc show it, and as /proc/locks does. Whoever is
//! known in two ways is counted once.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use lock_manager::Waiter;

use super::abroad::Host;
use crate::exit::Failure;
use crate::proc::file_locks::{self, Blocked};
use crate::proc::futex::Sleeper;
use crate::proc::identity::FileId;
use crate::proc::process;
use crate::proc::users::Users;
use crate::storage::{Opened, Place, Storage};

/// How a waiter is known. In the order in which one is to be believed over the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// The storage tells.
    Storage,
    /// It sleeps in futex(2) on the lock's word.
    Futex,
    /// /proc/locks shows it.
    FileLock,
}

impl Seen {
    pub fn text(self) -> &'static str {
        match self {
            Self::Storage => "storage",
            Self::Futex => "futex",
            Self::FileLock => "file lock",
        }
    }
}

/// One who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// For which lock.
    pub id: u32,
    pub host: Host,
    /// 0: it is not seen from here.
    pub pid: i32,
    /// 0: some thread of the process.
    pub tid: i32,
    pub pid_namespace: u64,
    /// `None`: nobody knows since when.
    pub waited_ns: Option<u64>,
    pub seen: Seen,
    /// Whether it is next, and waits for the readers to leave. The others wait for it.
    pub draining: bool,
}

/// What was found of waiters.
#[derive(Debug, Default)]
pub struct Waits {
    pub for_locks: Vec<Waiting>,
    /// Processes with a thread that sleeps on the segment, but on the word of no lock.
    pub elsewhere: Vec<i32>,
}

/// Every waiter of a storage.
pub fn collect(storage: &Storage, opened: &Opened, users: &Users) -> Result<Waits, Failure> {
    let told = opened.manager().waiters()?.into_iter().map(from_storage).collect();
    let mut waits = Waits::default();
    let mut seen = Vec::new();
    match (&storage.place, opened) {
        (Place::Segment(_), Opened::Shm(manager)) => {
            for sleeper in &users.sleepers {
                match manager.lock_at(sleeper.offset) {
                    Some(id) => seen.push(from_sleeper(id, sleeper)),
                    None => waits.elsewhere.push(sleeper.pid),
                }
            }
        }
        (Place::Directory(path), _) => seen = blocked_on_files(path)?,
        (Place::Segment(_), _) | (Place::Etcd(_), _) => {}
    }
    waits.for_locks = joined(told, seen);
    Ok(waits)
}

pub fn from_storage(waiter: Waiter) -> Waiting {
    Waiting {
        id: waiter.id,
        host: Host::HERE,
        pid: waiter.pid,
        tid: waiter.tid,
        pid_namespace: waiter.pid_namespace,
        waited_ns: Some(waiter.waited_ns),
        seen: Seen::Storage,
        draining: waiter.draining,
    }
}

fn from_sleeper(id: u32, sleeper: &Sleeper) -> Waiting {
    let pid_namespace = process::pid_namespace(sleeper.pid);
    Waiting {
        id,
        host: Host::HERE,
        pid: sleeper.pid,
        tid: sleeper.tid,
        pid_namespace,
        waited_ns: None,
        seen: Seen::Futex,
        draining: false,
    }
}

/// Those who wait for the file of an id, as libpod does.
fn blocked_on_files(directory: &Path) -> Result<Vec<Waiting>, Failure> {
    let blocked = file_locks::blocked();
    if blocked.is_empty() {
        return Ok(Vec::new());
    }
    let Some(place) = FileId::of(directory) else { return Ok(Vec::new()) };
    let mut ids = BTreeMap::new();
    for id in super::ids_in(directory)? {
        let file = std::fs::symlink_metadata(directory.join(id.to_string()));
        ids.extend(file.ok().map(|file| (FileId { inode: file.ino(), ..place }, id)));
    }
    let wait = |blocked: Blocked| {
        let id = *ids.get(&blocked.file)?;
        let pid_namespace = process::pid_namespace(blocked.pid);
        Some(Waiting {
            id,
            host: Host::HERE,
            pid: blocked.pid,
            tid: 0,
            pid_namespace,
            waited_ns: None,
            seen: Seen::FileLock,
            draining: false,
        })
    };
    Ok(blocked.into_iter().filter_map(wait).collect())
}

/// Both together. A thread that the storage names and that /proc shows is one; so is one that the storage knows without
/// a number, for each that /proc shows of that PID namespace at that lock.
fn joined(told: Vec<Waiting>, seen: Vec<Waiting>) -> Vec<Waiting> {
    let named: BTreeSet<(u32, i32)> =
        told.iter().filter(|wait| wait.pid != 0).map(|wait| (wait.id, wait.tid)).collect();
    let fresh: Vec<Waiting> = seen.into_iter().filter(|wait| !named.contains(&(wait.id, wait.tid))).collect();
    let mut shown: BTreeMap<(u32, u64), usize> = BTreeMap::new();
    for wait in &fresh {
        *shown.entry((wait.id, wait.pid_namespace)).or_default() += 1;
    }
    let is_news = |wait: &Waiting| {
        if wait.pid != 0 {
            return true;
        }
        match shown.get_mut(&(wait.id, wait.pid_namespace)) {
            Some(left) if *left > 0 => {
                *left -= 1;
                false
            }
            _ => true,
        }
    };
    let mut all: Vec<Waiting> = told.into_iter().filter(is_news).chain(fresh).collect();
    // Whoever has waited longest first.
    all.sort_by_key(|wait| (wait.id, std::cmp::Reverse(wait.waited_ns), wait.pid, wait.tid));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(pid: i32, pid_namespace: u64, seen: Seen) -> Waiting {
        let waited_ns = (seen == Seen::Storage).then_some(7);
        Waiting { id: 3, host: Host::HERE, pid, tid: pid, pid_namespace, waited_ns, seen, draining: false }
    }

    #[test]
    fn a_waiter_that_is_known_both_ways_is_counted_once_with_its_time() {
        let told = wait(10, 1, Seen::Storage);
        let other = wait(11, 1, Seen::Futex);
        assert_eq!(joined(vec![told], vec![wait(10, 1, Seen::Futex), other]), [told, other]);
    }

    #[test]
    fn the_same_thread_at_another_lock_is_another_wait() {
        let elsewhere = Waiting { id: 4, ..wait(10, 1, Seen::Futex) };
        assert_eq!(joined(vec![wait(10, 1, Seen::Storage)], vec![elsewhere]).len(), 2);
    }

    #[test]
    fn one_without_a_number_is_the_one_that_proc_shows_of_its_namespace() {
        let told = vec![wait(0, 9, Seen::Storage), wait(0, 9, Seen::Storage), wait(0, 8, Seen::Storage)];
        let all = joined(told, vec![wait(70, 9, Seen::Futex)]);
        let numbers: Vec<(i32, u64)> = all.iter().map(|wait| (wait.pid, wait.pid_namespace)).collect();
        assert_eq!(numbers, [(0, 9), (0, 8), (70, 9)]);
    }
}
