// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Deadlocks: threads that hold what others wait for, round in a circle.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::abroad::Host;
use super::edges::Edge;

/// Every deadlock, the lowest wait first: the waits that lead to each other, round in circles. One that is a single circle
/// is in the order of that circle, so that each wait is for what the next one's thread holds. Of one that is several
/// circles with waits in common, a shortest circle through the lowest wait comes first, and then the rest.
///
/// Circles themselves are not listed: there may be more of them than anybody could read. A wait is in a circle exactly if
/// it leads to itself, and all that lead to each other are found in one pass ([`components`]).
pub fn deadlocks(edges: &[Edge]) -> Vec<Vec<Edge>> {
    let next = Next::of(edges);
    let mut found: Vec<Vec<Edge>> = components(edges.len(), &next)
        .into_iter()
        .filter(|component| component.len() > 1 || next.contains(component[0], component[0]))
        .map(|component| in_order(edges, &component, &next))
        .collect();
    found.sort_unstable();
    found
}

/// Whether the waits are one circle, in its order.
pub fn is_one_circle(deadlock: &[Edge]) -> bool {
    let next = Next::of(deadlock);
    let follows = |index: usize| (index + 1) % deadlock.len();
    (0..deadlock.len()).all(|index| next.after(index).eq([follows(index)]))
}

/// Puts the circle first.
fn in_order(edges: &[Edge], component: &[usize], next: &Next<'_>) -> Vec<Edge> {
    let mut rest: Vec<usize> = component.to_vec();
    rest.sort_unstable_by_key(|&index| edges[index]);
    let circle = shortest_circle(rest[0], component, next);
    let is_in_circle: BTreeSet<usize> = circle.iter().copied().collect();
    rest.retain(|index| !is_in_circle.contains(index));
    circle.into_iter().chain(rest).map(|index| edges[index]).collect()
}

/// From a wait of a component back to it, breadth first.
fn shortest_circle(start: usize, component: &[usize], next: &Next<'_>) -> Vec<usize> {
    let component: BTreeSet<usize> = component.iter().copied().collect();
    let mut came_from: BTreeMap<usize, usize> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(from) = queue.pop_front() {
        for to in next.after(from).filter(|to| component.contains(to)) {
            if to == start {
                let mut circle: Vec<usize> =
                    std::iter::successors(Some(from), |at| came_from.get(at).copied()).collect();
                circle.reverse();
                return circle;
            }
            if let Entry::Vacant(unseen) = came_from.entry(to) {
                unseen.insert(from);
                queue.push_back(to);
            }
        }
    }
    // Of a component every wait leads back.
    vec![start]
}

/// Which waits come after a wait: those of its holder, who cannot unlock before they are over.
struct Next<'e> {
    edges: &'e [Edge],
    /// The waits of each process.
    of_process: BTreeMap<(Host, i32), Vec<usize>>,
}

impl<'e> Next<'e> {
    fn of(edges: &'e [Edge]) -> Self {
        let mut of_process: BTreeMap<(Host, i32), Vec<usize>> = BTreeMap::new();
        for (index, edge) in edges.iter().enumerate() {
            of_process.entry(edge.waiter.process()).or_default().push(index);
        }
        Self { edges, of_process }
    }

    fn after(&self, index: usize) -> impl Iterator<Item = usize> {
        let Edge { holder, bound, .. } = self.edges[index];
        let waits = if bound { self.of_process.get(&holder.process()) } else { None };
        waits.into_iter().flatten().copied().filter(move |&wait| holder.may_be(self.edges[wait].waiter))
    }

    fn contains(&self, from: usize, to: usize) -> bool {
        self.after(from).any(|wait| wait == to)
    }
}

/// The strongly connected components: sets of waits that all lead to each other, by Tarjan's algorithm. With a stack of
/// its own, since a chain of waits may be longer than a thread's stack is deep.
fn components(number: usize, next: &Next<'_>) -> Vec<Vec<usize>> {
    /// A wait that is being looked at: what is left of those after it.
    struct Visit<I> {
        wait: usize,
        rest: I,
    }
    let mut order = vec![None; number];
    let mut lowest = vec![0; number];
    let mut is_open = vec![false; number];
    let mut open = Vec::new();
    let mut found = Vec::new();
    let mut visited = 0;
    for root in 0..number {
        if order[root].is_some() {
            continue;
        }
        let mut visits = Vec::new();
        let mut entered = Some(root);
        loop {
            if let Some(wait) = entered.take() {
                order[wait] = Some(visited);
                lowest[wait] = visited;
                visited += 1;
                open.push(wait);
                is_open[wait] = true;
                visits.push(Visit { wait, rest: next.after(wait) });
            }
            let Some(Visit { wait, rest }) = visits.last_mut() else { break };
            let wait = *wait;
            match rest.next().map(|after| (after, order[after])) {
                Some((after, None)) => entered = Some(after),
                Some((after, Some(its))) if is_open[after] => lowest[wait] = lowest[wait].min(its),
                Some(_) => {}
                None => {
                    visits.pop();
                    if let Some(above) = visits.last() {
                        lowest[above.wait] = lowest[above.wait].min(lowest[wait]);
                    }
                    if order[wait] == Some(lowest[wait]) {
                        let start = open.iter().rposition(|&other| other == wait).unwrap_or(0);
                        let component = open.split_off(start);
                        for &member in &component {
                            is_open[member] = false;
                        }
                        found.push(component);
                    }
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::edges::{Part, Thread};

    fn edge(waiter: i32, lock: u32, holder: i32) -> Edge {
        let thread = |number| Thread { host: Host::HERE, pid: number, tid: number };
        Edge { waiter: thread(waiter), lock, holder: thread(holder), part: Part::HoldsExclusively, bound: true }
    }

    fn found(edges: &[Edge]) -> Vec<Vec<u32>> {
        deadlocks(edges).into_iter().map(|waits| waits.iter().map(|edge| edge.lock).collect()).collect()
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
    fn circles_with_waits_in_common_are_one_deadlock() {
        // 2 waits for 1 and for 3, which both wait for it; 4 waits for 3 and is waited for by nobody.
        let edges = [edge(1, 10, 2), edge(2, 11, 1), edge(2, 13, 3), edge(3, 10, 2), edge(4, 13, 3)];
        assert_eq!(found(&edges), [[10, 11, 13, 10]]);
        assert!(!is_one_circle(&deadlocks(&edges)[0]));
        assert!(is_one_circle(&deadlocks(&edges[..2])[0]));
        assert!(is_one_circle(&[edge(1, 10, 1)]));
    }

    /// Each of them waits for every one that `waits` says it does, with a thread for each.
    fn processes(number: i32, waits: impl Fn(i32, i32) -> bool) -> Vec<Edge> {
        let some = |pid| Thread { host: Host::HERE, pid, tid: 0 };
        let pairs = (1..=number).flat_map(|waiter| (1..=number).map(move |holder| (waiter, holder)));
        let pairs = pairs.filter(|&(waiter, holder)| waiter != holder && waits(waiter, holder));
        pairs
            .map(|(waiter, holder)| Edge {
                waiter: some(waiter),
                lock: holder.unsigned_abs(),
                holder: some(holder),
                part: Part::HoldsExclusively,
                bound: true,
            })
            .collect()
    }

    #[test]
    fn the_number_of_paths_does_not_matter() {
        // 2^98 paths, and none leads back.
        assert_eq!(found(&processes(100, |waiter, holder| waiter < holder)), [[0_u32; 0]; 0]);
        // More circles than there are atoms in the universe, and one deadlock.
        let every = processes(100, |_, _| true);
        let deadlock = deadlocks(&every);
        assert_eq!((deadlock.len(), deadlock[0].len()), (1, every.len()));
    }

    #[test]
    fn a_chain_may_be_longer_than_the_stack_is_deep() {
        let number = 100_000;
        let mut chain: Vec<Edge> = (1..number).map(|waiter| edge(waiter, 10, waiter + 1)).collect();
        assert_eq!(deadlocks(&chain).len(), 0);
        chain.push(edge(number, 10, 1));
        assert_eq!(deadlocks(&chain)[0], chain);
    }

    #[test]
    fn another_thread_of_the_process_is_another() {
        let holder = Thread { host: Host::HERE, pid: 2, tid: 3 };
        assert_eq!(found(&[Edge { holder, ..edge(1, 10, 2) }, edge(2, 11, 1)]), [[0_u32; 0]; 0]);
    }

    #[test]
    fn where_threads_are_not_told_the_process_decides() {
        let some = |pid| Thread { host: Host::HERE, pid, tid: 0 };
        let first = Edge { waiter: some(1), holder: some(2), ..edge(1, 10, 2) };
        let second = Edge { waiter: some(2), holder: some(1), ..edge(2, 11, 1) };
        assert_eq!(found(&[first, second]), [[10, 11]]);
    }

    #[test]
    fn a_lock_that_a_process_owns_ends_the_circle() {
        assert_eq!(found(&[Edge { bound: false, ..edge(1, 10, 2) }, edge(2, 11, 1)]), [[0_u32; 0]; 0]);
    }
}
