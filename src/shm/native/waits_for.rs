// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The graph of waits: from a thread to the lock that it waits for, from the lock to its holder, and on. A thread waits
//! for one lock. An exclusive lock has one holder. A writer that drains waits for every reader, so the path forks there. It
//! waits for all of them, so any path that comes back is a deadlock (S23).

use std::collections::{BTreeMap, VecDeque};

/// The most threads that a search visits. A longer cycle is not found.
const MOST_STEPS: usize = 8192;

/// One link: a lock that a thread waits for, a thread that keeps it from that lock, and what that other thread waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    pub lock: u32,
    pub holder: u64,
    /// The holder's published wait with its number, so a wait that was cleared and published again differs.
    pub wait: u64,
}

/// The graph that a search walks, while other threads change it.
pub trait Graph {
    /// Visits the threads that keep `waiter` from a lock: its owner or, if the waiter drains the lock, its readers.
    /// Processes that own a lock and dead threads are left out.
    fn blockers(&self, waiter: u64, lock: u32, visit: &mut dyn FnMut(u64));

    /// What a thread waits for: the lock, and the published wait with its number.
    fn waits_for(&self, holder: u64) -> Option<(u32, u64)>;
}

/// The links from `wanted` back to `me`, if there are any. Each link is read once, so the whole cycle may never have existed
/// at one instant.
pub fn search(graph: &impl Graph, me: u64, wanted: u32) -> Option<Vec<Link>> {
    // From which thread, and by which lock, each thread was found. A thread is followed once.
    let mut parents: BTreeMap<u64, (u64, u32, u64)> = BTreeMap::new();
    let mut next = VecDeque::from([(me, wanted)]);
    while let Some((waiter, lock)) = next.pop_front() {
        let mut found = None;
        graph.blockers(waiter, lock, &mut |holder| {
            if found.is_some() || parents.len() >= MOST_STEPS {
                return;
            }
            if holder == me {
                // A thread that waits for itself is no deadlock of two.
                found = (waiter != me).then_some(waiter);
            } else if !parents.contains_key(&holder)
                && let Some((wait, raw)) = graph.waits_for(holder)
            {
                parents.insert(holder, (waiter, lock, raw));
                next.push_back((holder, wait));
            }
        });
        if let Some(last) = found {
            let mut links = vec![Link { lock, holder: me, wait: 0 }];
            let mut holder = last;
            while let Some(&(waiter, lock, wait)) = parents.get(&holder) {
                links.push(Link { lock, holder, wait });
                holder = waiter;
            }
            links.reverse();
            return Some(links);
        }
    }
    None
}

/// Whether each link still stands: the thread before still waits for that lock by the same wait, and the holder still
/// keeps it from the lock.
fn stands(graph: &impl Graph, me: u64, links: &[Link]) -> bool {
    let mut waiter = me;
    links.iter().all(|link| {
        let mut blocks = false;
        graph.blockers(waiter, link.lock, &mut |holder| blocks |= holder == link.holder);
        waiter = link.holder;
        // The last holder is `me`, whose wait stands while it is here.
        blocks && (link.holder == me || graph.waits_for(link.holder).is_some_and(|(_, raw)| raw == link.wait))
    })
}

/// The cycle through `wanted` and `me`, if it is found twice: by a search, and by a second look at each link (S25). A
/// thread with one and the same wait neither takes nor releases a lock, so between the two there was an instant at which
/// the whole cycle existed. The caller keeps other victims from deciding meanwhile.
pub fn confirm(graph: &impl Graph, me: u64, wanted: u32) -> Option<Vec<Link>> {
    let links = search(graph, me, wanted)?;
    stands(graph, me, &links).then_some(links)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who holds which lock, and who waits for which.
    struct Fixed<'f>(&'f [(u32, u64)], &'f [(u64, u32)]);

    impl Graph for Fixed<'_> {
        fn blockers(&self, waiter: u64, lock: u32, visit: &mut dyn FnMut(u64)) {
            let holders = self.0.iter().filter(|&&(held, holder)| held == lock && holder != waiter);
            holders.for_each(|&(_, holder)| visit(holder));
        }

        fn waits_for(&self, holder: u64) -> Option<(u32, u64)> {
            self.1.iter().find(|&&(who, _)| who == holder).map(|&(_, wanted)| (wanted, u64::from(wanted) + 1))
        }
    }

    fn locks(graph: &Fixed<'_>, me: u64, wanted: u32) -> Option<Vec<u32>> {
        confirm(graph, me, wanted).map(|links| links.iter().map(|link| link.lock).collect())
    }

    #[test]
    fn a_ring_through_me_is_a_deadlock_for_me() {
        let graph = Fixed(&[(1, 10), (2, 20), (3, 30)], &[(20, 3), (30, 1)]);
        assert_eq!(locks(&graph, 10, 2), Some(vec![2, 3, 1]));
    }

    #[test]
    fn a_ring_that_i_wait_for_is_not_mine() {
        let graph = Fixed(&[(1, 10), (2, 20), (3, 30)], &[(10, 3), (20, 3), (30, 2)]);
        assert_eq!(locks(&graph, 10, 2), None);
    }

    #[test]
    fn a_way_that_ends_is_none() {
        let graph = Fixed(&[(1, 10), (2, 20)], &[]);
        assert_eq!(locks(&graph, 10, 2), None);
    }

    #[test]
    fn of_several_readers_any_may_close_the_ring() {
        let readers = [(1, 10), (2, 20), (2, 21), (2, 22), (3, 30)];
        assert_eq!(locks(&Fixed(&readers, &[(22, 1)]), 10, 2), Some(vec![2, 1]));
        assert_eq!(locks(&Fixed(&readers, &[(20, 3), (21, 3)]), 10, 2), None);
        assert_eq!(locks(&Fixed(&readers, &[(20, 3), (21, 3), (30, 1)]), 10, 2), Some(vec![2, 3, 1]));
    }
}
