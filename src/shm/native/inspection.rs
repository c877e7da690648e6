// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Looking without touching.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use crate::manager::{Info, Kind, Layout, LockInfo, Ownership, Waiter};
use crate::sys::clock::Instant;

use super::format;
use super::judgement::Verdict;
use super::note;
use super::pool::Pool;
use super::word::{self, D, OWNER};

/// Holders that were judged already: each is asked about once in a look.
struct Judged<'p> {
    pool: &'p Pool,
    last: (u64, bool),
    /// Not hashed: that would take random numbers, and may take a descriptor that stays open.
    known: BTreeMap<u64, bool>,
}

impl<'p> Judged<'p> {
    fn new(pool: &'p Pool) -> Self {
        Self { pool, last: (0, false), known: BTreeMap::new() }
    }

    fn is_dead(&mut self, named: u64) -> bool {
        let owner = named & OWNER;
        if self.last.0 != owner {
            let pool = self.pool;
            let judge = || pool.judge_unmarked(owner) == Verdict::Dead;
            self.last = (owner, *self.known.entry(owner).or_insert_with(judge));
        }
        self.last.1
    }
}

fn add(info: &mut LockInfo, waiter: &Waiter) {
    info.waiters += 1;
    info.waited_ns = info.waited_ns.max(waiter.waited_ns);
}

impl Pool {
    /// The locks that somebody holds who is not known to be dead.
    pub(super) fn held_ids(&self) -> Vec<u32> {
        let mut judged = Judged::new(self);
        let is_held = |&id: &u32| {
            let seen = self.word(id).load(Ordering::Acquire);
            word::has_owner(seen) && !judged.is_dead(seen)
        };
        (0..self.num_locks_now()).filter(is_held).collect()
    }

    pub(super) fn inspect(&self, id: u32) -> LockInfo {
        let mut info = self.inspect_word(id, &mut Judged::new(self));
        for waiter in self.waiters().iter().filter(|waiter| waiter.id == id) {
            add(&mut info, waiter);
        }
        info
    }

    /// As [`inspect`](Self::inspect) of each. Every record is read once, however many locks there are: their product
    /// is minutes for the largest segments.
    pub(super) fn inspect_all(&self, ids: &[u32]) -> Vec<LockInfo> {
        let mut judged = Judged::new(self);
        let mut waiting: BTreeMap<u32, Vec<Waiter>> = BTreeMap::new();
        for waiter in self.waiters() {
            waiting.entry(waiter.id).or_default().push(waiter);
        }
        let inspect = |&id: &u32| {
            let mut info = self.inspect_word(id, &mut judged);
            waiting.get(&id).into_iter().flatten().for_each(|waiter| add(&mut info, waiter));
            info
        };
        ids.iter().map(inspect).collect()
    }

    /// All but who waits.
    fn inspect_word(&self, id: u32, judged: &mut Judged<'_>) -> LockInfo {
        let seen = self.word(id).load(Ordering::Acquire);
        let has_owner = word::has_owner(seen);
        let is_dead = has_owner && judged.is_dead(seen);
        let mut info = LockInfo {
            id,
            allocated: self.bitmap().is_allocated(id),
            held: has_owner && !is_dead,
            owner_died: is_dead || (!has_owner && seen & D != 0),
            acquisitions: note::acquisitions(self.note(id)),
            ..LockInfo::default()
        };
        if info.held {
            info.ownership = if word::serial(seen) == 0 { Ownership::Process } else { Ownership::Thread };
            (info.pid, info.tid) = self.named_thread(seen).unwrap_or_default();
            if let Ok(Some(entry)) = self.entry(word::entry(seen)) {
                info.pid_namespace = entry.tenant().pid_namespace;
            }
        }
        info
    }

    /// The threads that have waited for longer than a slice.
    pub(super) fn waiters(&self) -> Vec<Waiter> {
        let mut judged = Judged::new(self);
        let waiting = self.records().filter_map(|record| {
            let (wish, key) = (record.wish()?, record.key());
            if judged.is_dead(key) {
                return None;
            }
            let (pid, tid) = self.named_thread(key).unwrap_or_default();
            let entry = self.entry(word::entry(key)).ok().flatten();
            Some(Waiter {
                id: wish.lock,
                pid,
                tid,
                pid_namespace: entry.map_or(0, |entry| entry.tenant().pid_namespace),
                waited_ns: Instant::now().since(Instant::from_nanoseconds(record.since())),
            })
        });
        waiting.collect()
    }

    pub(super) fn describe(&self) -> Info {
        Info {
            kind: Kind::Shm,
            layout: Some(Layout::Native),
            num_locks: self.num_locks_now(),
            max_locks: self.geometry.max_locks(),
            attached: (1..format::ENTRIES).filter(|&index| self.is_attached(index)).count() as u32,
            retired: self.is_retired() || self.segment.is_removed(),
        }
    }

    fn is_attached(&self, index: u32) -> bool {
        let is_own = || self.attachment.peek().is_some_and(|own| own.entry == index);
        // Who cannot be asked may well be there.
        matches!(self.entry(index), Ok(Some(entry)) if entry.state().is_live())
            && (is_own() || self.is_inhabited(index).unwrap_or(true))
    }
}
