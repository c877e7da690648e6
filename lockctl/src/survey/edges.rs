// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Who waits for whom.

use std::collections::BTreeSet;

use lock_manager::Ownership;

use super::abroad::Host;
use super::holding::{Holding, Mode};
use super::waiting::Waiting;
use super::{Row, Survey};

/// How many readers that wait for nothing a waiter is shown to wait for. Those that do wait are never left out: they may
/// be part of a deadlock.
const MOST_READERS: usize = 8;

/// A thread; with no thread number, some thread of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Thread {
    pub host: Host,
    pub pid: i32,
    pub tid: i32,
}

impl Thread {
    /// What names its process.
    pub fn process(self) -> (Host, i32) {
        (self.host, self.pid)
    }

    /// Whether both may be the same. Where a number is missing, as in libpod's file locks, the process decides: a thread
    /// of libpod that waits is the one that holds.
    pub fn may_be(self, other: Self) -> bool {
        self.pid != 0 && self.process() == other.process() && (self.tid == other.tid || self.tid == 0 || other.tid == 0)
    }
}

/// What a thread that others wait for is to a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    HoldsExclusively,
    Reads,
    /// It is next, waits for the readers to leave, and keeps everybody else out.
    IsNext,
}

/// A thread that waits for a lock that another holds, or is next to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    pub waiter: Thread,
    pub lock: u32,
    pub holder: Thread,
    pub part: Part,
    /// Whether only this thread can unlock it. Any thread of a process that owns the lock could.
    pub bound: bool,
}

impl From<&Waiting> for Thread {
    fn from(wait: &Waiting) -> Self {
        Self { host: wait.host, pid: wait.pid, tid: wait.tid }
    }
}

/// Everybody who waits, and for whom. Whoever is next waits for every reader, since one that stays keeps it out, and all the
/// others wait for it; they all wait for the readers where it is not known.
pub fn edges(survey: &Survey) -> Vec<Edge> {
    let waiting = survey.rows.iter().flat_map(|row| row.waiting.iter().map(|wait| (wait.host, wait.pid))).collect();
    let mut edges = Vec::new();
    for row in &survey.rows {
        let lock = row.lock.id;
        let next = row.next().map(Thread::from).filter(|next| next.pid != 0);
        let held = held(row, &waiting);
        for waiter in row.waiting.iter().filter(|wait| wait.pid != 0).map(Thread::from) {
            match next {
                Some(holder) if holder != waiter => {
                    edges.push(Edge { waiter, lock, holder, part: Part::IsNext, bound: true });
                }
                // Who reads a lock does not wait for it, but may be looking whether it may read.
                _ => edges.extend(
                    held.iter()
                        .filter(|held| held.part != Part::Reads || held.holder != waiter)
                        .map(|&Held { holder, part, bound }| Edge { waiter, lock, holder, part, bound }),
                ),
            }
        }
    }
    edges
}

/// One for whom a waiter waits.
struct Held {
    holder: Thread,
    part: Part,
    bound: bool,
}

/// Those who hold the lock of a row, and may keep waiters waiting.
fn held(row: &Row, waiting: &BTreeSet<(Host, i32)>) -> Vec<Held> {
    let (waits, others): (Vec<&Holding>, Vec<&Holding>) =
        row.holders.iter().partition(|holder| waiting.contains(&(holder.host, holder.pid)));
    let held = |holder: &Holding| Held {
        holder: Thread { host: holder.host, pid: holder.pid, tid: holder.tid },
        part: match holder.mode {
            Mode::Exclusive => Part::HoldsExclusively,
            Mode::Shared => Part::Reads,
        },
        bound: holder.ownership == Ownership::Thread,
    };
    waits.into_iter().chain(others.into_iter().take(MOST_READERS)).map(held).collect()
}

#[cfg(test)]
mod tests {
    use lock_manager::{InMemoryManager, LockInfo, Manager};

    use super::*;
    use crate::survey::Blind;
    use crate::survey::abroad::Abroad;
    use crate::survey::deadlock::deadlocks;
    use crate::survey::waiting::Seen;

    fn thread(number: i32) -> Thread {
        Thread { host: Host::HERE, pid: number, tid: number }
    }

    fn reader(number: i32) -> Holding {
        Holding {
            host: Host::HERE,
            host_name: None,
            pid: number,
            tid: number,
            pid_namespace: 0,
            mode: Mode::Shared,
            ownership: Ownership::Thread,
            command: None,
            note: None,
        }
    }

    fn row(id: u32, holders: Vec<Holding>, waiting: &[i32], next: Option<i32>) -> Row {
        let wait = |&pid: &i32| Waiting {
            id,
            host: Host::HERE,
            pid,
            tid: pid,
            pid_namespace: 0,
            waited_ns: None,
            seen: Seen::Storage,
            draining: next == Some(pid),
        };
        let mut lock = LockInfo::default();
        (lock.id, lock.held, lock.draining) = (id, !holders.is_empty(), next.is_some());
        Row { lock, holders, waiting: waiting.iter().map(wait).collect(), notes: Vec::new() }
    }

    fn edges_of(rows: Vec<Row>) -> Vec<Edge> {
        let info = InMemoryManager::new(1).unwrap().info().unwrap();
        let (users, elsewhere) = (Vec::new(), Vec::new());
        edges(&Survey {
            info,
            allocated: 0,
            rows,
            users,
            elsewhere,
            abroad: Abroad::default(),
            blind: Blind::default(),
        })
    }

    /// Waiter, lock, and for whom it waits.
    fn waits(edges: &[Edge]) -> Vec<(i32, u32, i32, Part)> {
        edges.iter().map(|edge| (edge.waiter.pid, edge.lock, edge.holder.pid, edge.part)).collect()
    }

    #[test]
    fn who_is_next_waits_for_each_reader_and_the_others_for_it() {
        let edges = edges_of(vec![row(0, vec![reader(1), reader(2)], &[3, 4], Some(3))]);
        let expected = [(3, 0, 1, Part::Reads), (3, 0, 2, Part::Reads), (4, 0, 3, Part::IsNext)];
        assert_eq!(waits(&edges), expected);
        // It may be about to hold what nobody reads any more.
        assert_eq!(waits(&edges_of(vec![row(0, Vec::new(), &[3, 4], Some(3))])), [(4, 0, 3, Part::IsNext)]);
    }

    #[test]
    fn where_nobody_is_known_to_be_next_all_wait_for_each_reader() {
        let edges = edges_of(vec![row(0, vec![reader(1), reader(2)], &[3, 2], None)]);
        // 2 stands in its cell and looks whether it may read.
        let expected = [(3, 0, 2, Part::Reads), (3, 0, 1, Part::Reads), (2, 0, 1, Part::Reads)];
        assert_eq!(waits(&edges), expected);
    }

    #[test]
    fn a_deadlock_through_any_of_the_readers_is_found() {
        // 3 has lock 1 and waits for all who read lock 0; one of them waits for lock 1, and 4 waits behind 3.
        for closing in [1, 2, 99] {
            let readers: Vec<Holding> = (1..100).filter(|&pid| pid != 3 && pid != 4).map(reader).collect();
            let alone = Holding { mode: Mode::Exclusive, ..reader(3) };
            let rows = vec![row(0, readers.clone(), &[3, 4], Some(3)), row(1, vec![alone.clone()], &[closing], None)];
            let found = deadlocks(&edges_of(rows));
            assert_eq!(found.len(), 1, "{found:?}");
            let expected = BTreeSet::from([(3, 0, closing, Part::Reads), (closing, 1, 3, Part::HoldsExclusively)]);
            assert_eq!(waits(&found[0]).into_iter().collect::<BTreeSet<_>>(), expected);
            // Any thread of the process could give it back.
            let mut of_process = readers;
            of_process.iter_mut().for_each(|reader| reader.ownership = Ownership::Process);
            let rows = vec![row(0, of_process, &[3, 4], Some(3)), row(1, vec![alone], &[closing], None)];
            assert_eq!(deadlocks(&edges_of(rows)).len(), 0);
        }
    }

    #[test]
    fn one_that_waits_behind_who_is_next_closes_a_circle_too() {
        // 1 reads lock 0 and waits for lock 1, which 4 has, which waits behind 3.
        let alone = Holding { mode: Mode::Exclusive, ..reader(4) };
        let rows = vec![row(0, vec![reader(1)], &[3, 4], Some(3)), row(1, vec![alone], &[1], None)];
        let found = deadlocks(&edges_of(rows));
        let circle: BTreeSet<i32> = found[0].iter().map(|edge| edge.waiter.pid).collect();
        assert_eq!((found.len(), circle), (1, BTreeSet::from([1, 3, 4])));
        assert_eq!(thread(4), found[0].iter().find(|edge| edge.part == Part::IsNext).unwrap().waiter);
    }

    #[test]
    fn of_a_crowd_only_some_are_shown_to_be_waited_for() {
        let crowd: Vec<Holding> = (10..1000).map(reader).collect();
        assert_eq!(edges_of(vec![row(0, crowd, &[3], Some(3))]).len(), MOST_READERS);
    }
}
