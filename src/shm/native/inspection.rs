// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Reading the state of locks without changing anything.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use crate::manager::{Holder, Info, Kind, Layout, LockInfo, Ownership, Waiter};
use crate::sys::syscall::clock::Instant;

use super::cells::Seen;
use super::format;
use super::judgement::Verdict;
use super::note;
use super::pool::Pool;
use super::word::{self, OWNER, OWNER_DIED, STARVING};

/// The holders that were judged so far: each is judged once in a call.
struct Judged<'p> {
    pool: &'p Pool,
    last: (u64, bool),
    /// A hash map would need random numbers, for which the standard library may keep a descriptor open.
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
    /// The locks with a holder that is not known to be dead.
    pub(super) fn held_ids(&self) -> Vec<u32> {
        let mut judged = Judged::new(self);
        let is_held = |&id: &u32| {
            let seen = self.word(id).load(Ordering::Acquire);
            if !word::has_owner(seen) && !word::is_shared(seen) {
                return false;
            }
            if word::has_owner(seen) && !word::is_draining(seen) {
                return !judged.is_dead(seen);
            }
            self.readers(id, seen).into_iter().any(|reader| !judged.is_dead(reader))
        };
        self.touched_ids(self.num_locks_now()).filter(is_held).collect()
    }

    pub(super) fn inspect(&self, id: u32) -> LockInfo {
        let mut info = self.inspect_word(id, &mut Judged::new(self));
        for waiter in self.waiters().iter().filter(|waiter| waiter.id == id) {
            add(&mut info, waiter);
        }
        info
    }

    /// [`inspect`](Self::inspect) for each lock, but with every record read once. Reading all records for each lock takes
    /// minutes in the largest segments.
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

    /// All but the waiters.
    fn inspect_word(&self, id: u32, judged: &mut Judged<'_>) -> LockInfo {
        let seen = self.word(id).load(Ordering::Acquire);
        let has_owner = word::has_owner(seen);
        let is_dead = has_owner && judged.is_dead(seen);
        let is_draining = word::is_draining(seen);
        let mut readers = self.readers(id, seen);
        let named = readers.len();
        readers.retain(|&reader| !judged.is_dead(reader));
        let stale = named - readers.len() + usize::from(is_dead && is_draining);
        let holder = if has_owner && !is_draining && !is_dead { Some(seen) } else { readers.first().copied() };
        let mut info = LockInfo {
            id,
            allocated: self.bitmap().is_allocated(id),
            held: holder.is_some(),
            // A writer that died while it drained did not hold the lock.
            owner_died: seen & OWNER_DIED != 0 || (is_dead && !is_draining),
            acquisitions: note::acquisitions(self.note(id)),
            readers: readers.len() as u32,
            draining: is_draining && !is_dead,
            stale: stale as u32,
            ..LockInfo::default()
        };
        if let Some(holder) = holder {
            let Holder { pid, tid, pid_namespace, ownership, .. } = self.describe_holder(holder);
            (info.pid, info.tid, info.pid_namespace, info.ownership) = (pid, tid, pid_namespace, ownership);
        }
        info
    }

    /// All holders of a lock, exclusive or shared, that are not known to be dead.
    pub(super) fn holders(&self, id: u32) -> Vec<Holder> {
        let (mut judged, seen) = (Judged::new(self), self.word(id).load(Ordering::Acquire));
        if word::has_owner(seen) && !word::is_draining(seen) {
            return if judged.is_dead(seen) { Vec::new() } else { vec![self.describe_holder(seen)] };
        }
        let living = self.readers(id, seen).into_iter().filter(|&reader| !judged.is_dead(reader));
        living.map(|reader| Holder { shared: true, ..self.describe_holder(reader) }).collect()
    }

    fn describe_holder(&self, named: u64) -> Holder {
        let (pid, tid) = self.named_thread(named).unwrap_or_default();
        let entry = self.entry(word::entry(named)).ok().flatten();
        Holder {
            pid,
            tid,
            pid_namespace: entry.map_or(0, |entry| entry.process_info().pid_namespace),
            shared: false,
            ownership: if word::serial(named) == 0 { Ownership::Process } else { Ownership::Thread },
        }
    }

    /// The readers in the cells of a lock whose word is `seen`, dead or alive. While a writer holds the lock, a cell is only a
    /// claim, and its reader steps back.
    fn readers(&self, id: u32, seen: u64) -> Vec<u64> {
        let may_be_read = word::is_shared(seen) || word::is_draining(seen);
        let Some(cells) = self.cells(id).filter(|_| may_be_read) else { return Vec::new() };
        let (extent, mut index, mut readers) = (cells.extent(), 0, Vec::new());
        loop {
            match cells.at(&extent, index) {
                Seen::Cell(_, seen) => {
                    if word::is_reader(seen) {
                        readers.push(seen & OWNER);
                    }
                    index += 1;
                }
                Seen::Nothing(next) => index = next,
                Seen::Unusable(page) if self.make_table_page_usable(page).is_ok() => {}
                Seen::Unusable(_) => index += 1,
                Seen::End => return readers,
            }
        }
    }

    /// A lock that a process reads.
    pub(super) fn read_by(&self, process_word: u64) -> Option<u32> {
        let is_its = |cell: &u64| *cell != 0 && cell & STARVING == 0 && word::process(*cell) == process_word;
        let in_slot = self.touched_ids(self.num_locks()).find(|&id| {
            let own = self.cells(id).into_iter().flat_map(|cells| cells.own);
            own.map(|cell| cell.load(Ordering::Acquire)).any(|cell| is_its(&cell))
        });
        in_slot.or_else(|| {
            let mut places = self.places();
            let place = places.find(|(cell, _)| is_its(&cell.load(Ordering::Acquire)));
            place.map(|(_, lock)| lock.load(Ordering::Relaxed) as u32)
        })
    }

    /// The threads that have waited for longer than their first slice.
    pub(super) fn waiters(&self) -> Vec<Waiter> {
        let mut judged = Judged::new(self);
        let waiting = self.records().filter_map(|record| {
            let (wait, key) = (record.waits_for()?, record.key());
            if judged.is_dead(key) {
                return None;
            }
            let (pid, tid) = self.named_thread(key).unwrap_or_default();
            let entry = self.entry(word::entry(key)).ok().flatten();
            Some(Waiter {
                id: wait.lock,
                pid,
                tid,
                pid_namespace: entry.map_or(0, |entry| entry.process_info().pid_namespace),
                waited_ns: Instant::now().since(Instant::from_nanoseconds(record.since())),
                draining: self.is_drained_by(wait.lock, key),
            })
        });
        waiting.collect()
    }

    /// Whether a thread drains a lock. This process need not know the lock yet.
    fn is_drained_by(&self, id: u32, thread: u64) -> bool {
        let seen = if id < self.num_locks_now() { self.word(id).load(Ordering::Acquire) } else { 0 };
        word::is_draining(seen) && seen & OWNER == thread & OWNER
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
        // A process that cannot be judged may be alive.
        matches!(self.entry(index), Ok(Some(entry)) if entry.state().is_live())
            && (is_own() || self.is_entry_locked(index).unwrap_or(true))
    }
}
