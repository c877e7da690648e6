// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Deadlocks: threads that hold what others wait for, round in a circle.

use std::collections::BTreeSet;

use lock_manager::Ownership;

use super::Survey;

/// A thread; with no thread number, some thread of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Thread {
    pub pid: i32,
    pub tid: i32,
}

impl Thread {
    /// Whether both may be the same. Where a number is missing, as in libpod's file locks, the process decides: a thread
    /// of libpod that waits is the one that holds.
    pub fn may_be(self, other: Self) -> bool {
        self.pid != 0 && self.pid == other.pid && (self.tid == other.tid || self.tid == 0 || other.tid == 0)
    }
}

/// A thread that waits for a lock that another holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    pub waiter: Thread,
    pub lock: u32,
    pub holder: Thread,
    /// Whether only this thread can unlock it. Any thread of a process that owns the lock could.
    pub bound: bool,
}

/// Everybody who waits, and for whom.
pub fn edges(survey: &Survey) -> Vec<Edge> {
    let mut edges = Vec::new();
    for row in survey.rows.iter().filter(|row| row.lock.held) {
        let holder = Thread { pid: row.lock.pid, tid: row.lock.tid };
        let bound = row.lock.ownership == Ownership::Thread;
        for wait in row.waiting.iter().filter(|wait| wait.pid != 0) {
            edges.push(Edge { waiter: Thread { pid: wait.pid, tid: wait.tid }, lock: row.lock.id, holder, bound });
        }
    }
    edges
}

/// Every circle, each once and beginning with its lowest edge.
pub fn cycles(edges: &[Edge]) -> BTreeSet<Vec<Edge>> {
    let mut found = BTreeSet::new();
    for &start in edges {
        let mut path = vec![start];
        follow(edges, &mut path, &mut found);
    }
    found
}

/// Goes on from the end of the path, through waits that come after its first: each circle is found from its lowest.
fn follow(edges: &[Edge], path: &mut Vec<Edge>, found: &mut BTreeSet<Vec<Edge>>) {
    let (Some(&first), Some(&last)) = (path.first(), path.last()) else { return };
    if !last.bound {
        return;
    }
    if last.holder.may_be(first.waiter) {
        found.insert(path.clone());
        return;
    }
    for &next in edges.iter().filter(|next| last.holder.may_be(next.waiter) && **next > first) {
        if !path.contains(&next) {
            path.push(next);
            follow(edges, path, found);
            path.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(waiter: i32, lock: u32, holder: i32) -> Edge {
        let thread = |number| Thread { pid: number, tid: number };
        Edge { waiter: thread(waiter), lock, holder: thread(holder), bound: true }
    }

    fn found(edges: &[Edge]) -> Vec<Vec<u32>> {
        cycles(edges).into_iter().map(|cycle| cycle.iter().map(|edge| edge.lock).collect()).collect()
    }

    #[test]
    fn a_chain_is_no_circle() {
        assert_eq!(found(&[edge(1, 10, 2), edge(2, 11, 3), edge(4, 10, 2)]), [[0_u32; 0]; 0]);
    }

    #[test]
    fn circles_of_any_length_are_found_once() {
        assert_eq!(found(&[edge(1, 10, 1)]), [[10]]);
        assert_eq!(found(&[edge(1, 10, 2), edge(2, 11, 1)]), [[10, 11]]);
        assert_eq!(found(&[edge(3, 12, 1), edge(1, 10, 2), edge(2, 11, 3)]), [[10, 11, 12]]);
        let two = [edge(1, 10, 2), edge(2, 11, 1), edge(3, 12, 4), edge(4, 13, 3), edge(5, 10, 2)];
        assert_eq!(found(&two), [[10, 11], [12, 13]]);
    }

    #[test]
    fn another_thread_of_the_process_is_another() {
        let holder = Thread { pid: 2, tid: 3 };
        assert_eq!(found(&[Edge { holder, ..edge(1, 10, 2) }, edge(2, 11, 1)]), [[0_u32; 0]; 0]);
    }

    #[test]
    fn where_threads_are_not_told_the_process_decides() {
        let some = |pid| Thread { pid, tid: 0 };
        let first = Edge { waiter: some(1), holder: some(2), ..edge(1, 10, 2) };
        let second = Edge { waiter: some(2), holder: some(1), ..edge(2, 11, 1) };
        assert_eq!(found(&[first, second]), [[10, 11]]);
    }

    #[test]
    fn a_lock_that_a_process_owns_ends_the_circle() {
        assert_eq!(found(&[Edge { bound: false, ..edge(1, 10, 2) }, edge(2, 11, 1)]), [[0_u32; 0]; 0]);
    }
}
