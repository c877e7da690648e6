// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! One look at a storage: what the storage says of its locks, joined with what /proc says of those who hold them and
//! wait for them. Takes, repairs and disturbs nothing.

/// Hosts beside this one.
pub mod abroad;
/// Threads that wait for each other.
pub mod deadlock;
/// Who waits for whom.
pub mod edges;
/// Who holds what.
pub mod holding;
/// What is remarkable.
pub mod notes;
/// Who waits for what.
pub mod waiting;

use std::collections::{BTreeMap, BTreeSet};

use lock_manager::{Info, LockInfo, UNLIMITED};

use crate::exit::Failure;
use crate::output::text::{count, shown};
use crate::proc::process;
use crate::proc::users::Users;
use crate::storage::{Opened, Place, Storage};
use abroad::Abroad;
use holding::{Holding, Mode};
use notes::Note;
use waiting::Waiting;

/// What a look has found.
#[derive(Debug, Clone)]
pub struct Survey {
    pub info: Info,
    /// How many locks are allocated.
    pub allocated: u32,
    /// The locks that are allocated, held, marked or waited for, or all if so asked; by id.
    pub rows: Vec<Row>,
    /// Processes that have the storage open.
    pub users: Vec<i32>,
    /// Threads that sleep on the segment, but on the word of no lock: on the guard of its bitmaps, say.
    pub elsewhere: Vec<i32>,
    /// What is known of other hosts.
    pub abroad: Abroad,
    pub blind: Blind,
}

/// One lock.
#[derive(Debug, Clone)]
pub struct Row {
    pub lock: LockInfo,
    /// The exclusive holder, or all readers; empty where nobody holds it.
    pub holders: Vec<Holding>,
    /// Those that are known by number.
    pub waiting: Vec<Waiting>,
    pub notes: Vec<Note>,
}

/// How many processes a sentence names by number.
const MOST_NUMBERS: usize = 5;

/// What a look could not see.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Blind {
    /// Processes that the caller may not look into.
    pub processes: Vec<i32>,
    /// Whether /proc leaves other users' processes out.
    pub proc_hides: bool,
    /// Whether there may be processes outside of this PID namespace.
    pub outside: bool,
}

impl Blind {
    /// What it means for the answer, a sentence each.
    pub fn sentences(&self) -> Vec<String> {
        let mut sentences = Vec::new();
        if !self.processes.is_empty() {
            let many = count(self.processes.len(), "process", "processes");
            let way_out = if rustix::process::geteuid().is_root() {
                let numbers: Vec<String> = self.processes.iter().take(MOST_NUMBERS).map(i32::to_string).collect();
                let more = if self.processes.len() > MOST_NUMBERS { ", …" } else { "" };
                format!("not even by root here ({}{more})", numbers.join(", "))
            } else {
                "run as root".to_owned()
            };
            sentences.push(format!("{many} could not be looked at, so waiters and users may be missing: {way_out}"));
        }
        if self.proc_hides {
            sentences.push(
                "/proc hides the processes of others, so holders, waiters and users may be missing: run as root"
                    .to_owned(),
            );
        }
        if self.outside {
            sentences
                .push("processes outside of this PID namespace cannot be seen: run on the host to see them".to_owned());
        }
        sentences
    }

    fn of(users: &Users) -> Self {
        Self {
            processes: users.hidden.clone(),
            proc_hides: process::are_some_left_out(),
            outside: process::are_some_outside(),
        }
    }
}

/// Which locks a look is to tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those that are allocated, held, marked or waited for.
    InUse,
    All,
}

impl Survey {
    pub fn take(storage: &Storage, opened: &Opened, which: Which) -> Result<Self, Failure> {
        let manager = opened.manager();
        let info = manager.info()?;
        let users = Users::of(storage);
        if let Opened::Etcd(manager) = opened {
            let (rows, abroad) = abroad::look(manager, &users, which)?;
            let allocated = rows.iter().map(|row| u32::from(row.lock.allocated)).sum();
            let blind = Blind::of(&users);
            return Ok(Self { info, allocated, rows, abroad, blind, users: users.pids, elsewhere: Vec::new() });
        }
        let waits = waiting::collect(storage, opened, &users)?;
        let mut by_lock: BTreeMap<u32, Vec<Waiting>> = BTreeMap::new();
        for wait in waits.for_locks {
            by_lock.entry(wait.id).or_default().push(wait);
        }
        let mut rows = Vec::new();
        let mut allocated = 0;
        // All at once: one by one, each would look at every waiter again.
        for lock in manager.lock_infos(&ids(storage, opened, &by_lock)?)? {
            allocated += u32::from(lock.allocated);
            let waiting = by_lock.remove(&lock.id).unwrap_or_default();
            let is_used = lock.allocated
                || lock.held
                || lock.owner_died
                || lock.stale > 0
                || lock.waiters > 0
                || !waiting.is_empty();
            if is_used || which == Which::All {
                let mut holders = Holding::all_of(manager, &lock)?;
                holders.iter_mut().for_each(|holder| holder.note = notes::of_holder(holder, &users));
                rows.push(Row { notes: notes::of(&lock, &holders), lock, holders, waiting });
            }
        }
        let (abroad, blind) = (Abroad::default(), Blind::of(&users));
        Ok(Self { info, allocated, rows, abroad, blind, users: users.pids, elsewhere: waits.elsewhere })
    }

    /// How many locks are held.
    pub fn held(&self) -> usize {
        self.rows.iter().filter(|row| row.lock.held).count()
    }

    /// How many of them are held shared.
    pub fn shared(&self) -> usize {
        self.rows.iter().filter(|row| row.readers() > 0).count()
    }

    /// How many threads wait.
    pub fn waiters(&self) -> usize {
        self.rows.iter().map(Row::waiters).sum()
    }

    /// What else is to be said of the storage as a whole, a sentence each.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.info.retired {
            remarks.push(
                "the storage was removed: processes that still have it open share no locks with those that open it now"
                    .to_owned(),
            );
        }
        if !self.elsewhere.is_empty() {
            let threads = count(self.elsewhere.len(), "thread waits", "threads wait");
            let who: Vec<String> = self.elsewhere.iter().map(|&pid| process::described(pid)).collect();
            remarks.push(format!(
                "{threads} on the segment but for no lock, as happens when an allocation is stuck: {}",
                who.join(", ")
            ));
        }
        remarks
    }
}

/// Every lock that there may be something to say of.
fn ids(storage: &Storage, opened: &Opened, waiting: &BTreeMap<u32, Vec<Waiting>>) -> Result<Vec<u32>, Failure> {
    let manager = opened.manager();
    if let Place::Directory(path) = &storage.place {
        let mut ids: BTreeSet<u32> = waiting.keys().copied().collect();
        ids.extend(ids_in(path)?);
        ids.extend(manager.locks_held()?);
        return Ok(ids.into_iter().collect());
    }
    let number = manager.num_locks()?;
    Ok((0..if number == UNLIMITED { 0 } else { number }).collect())
}

/// The ids whose files are in a directory of locks.
pub fn ids_in(directory: &std::path::Path) -> Result<Vec<u32>, Failure> {
    let listing = |error| Failure::system(format!("{}: reading the directory", shown(directory)), &error);
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(listing)? {
        let name = entry.map_err(listing)?.file_name();
        let Some(name) = name.to_str() else { continue };
        // Decimal, as libpod writes it, so without leading zeros or sign.
        ids.extend(name.parse::<u32>().ok().filter(|id| id.to_string() == name));
    }
    ids.sort_unstable();
    Ok(ids)
}

impl Row {
    /// The exclusive holder, or the first reader.
    pub fn holder(&self) -> Option<&Holding> {
        self.holders.first()
    }

    /// How many hold it shared.
    pub fn readers(&self) -> usize {
        self.holders.iter().filter(|holder| holder.mode == Mode::Shared).count()
    }

    /// The waiter that is next, and waits for the readers to leave, if there is one that is known by number.
    pub fn next(&self) -> Option<&Waiting> {
        self.waiting.iter().find(|wait| wait.draining)
    }

    /// How many threads are known to wait, by number or not.
    pub fn waiters(&self) -> usize {
        self.waiting.len().max(self.lock.waiters as usize)
    }

    /// How long it is held at least: as long as the longest present waiter has waited, where somebody knows.
    pub fn held_for_ns(&self) -> Option<u64> {
        let longest = self.waiting.iter().filter_map(|wait| wait.waited_ns).max().unwrap_or(0);
        let longest = longest.max(self.lock.waited_ns);
        (self.lock.held && longest > 0).then_some(longest)
    }
}
