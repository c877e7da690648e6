// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Who waits for whom: from a lock to its holder, from the holder to the lock it wants, and on. A waiter wants one lock
//! and a lock has one holder, so the way has no forks: it ends, or it comes around.

/// The most steps of one walk; a longer way is no cycle that can be told.
const MOST_STEPS: usize = 8192;

/// One step: a lock, who holds it, and what the holder waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    pub lock: u32,
    pub holder: u64,
    /// The holder's wish with its sequence number, so that one that was withdrawn and made again is another.
    pub wish: u64,
}

/// What is walked through, while others change it.
pub trait Graph {
    /// The thread that holds a lock; `None`: nobody, a process, or somebody who is dead.
    fn holder(&self, lock: u32) -> Option<u64>;

    /// What a thread waits for: the lock, and its wish with its sequence number.
    fn wish(&self, holder: u64) -> Option<(u32, u64)>;
}

/// The next step from a lock that is wanted.
fn next(graph: &impl Graph, lock: u32, me: u64) -> Option<(Link, Option<u32>)> {
    let holder = graph.holder(lock)?;
    if holder == me {
        return Some((Link { lock, holder, wish: 0 }, None));
    }
    let (wanted, wish) = graph.wish(holder)?;
    Some((Link { lock, holder, wish }, Some(wanted)))
}

/// Whether the way from `wanted` comes back to `me`. Looks at each step only once, so what it finds may have been true
/// at no one instant.
pub fn comes_back(graph: &impl Graph, me: u64, wanted: u32) -> bool {
    // Brent: a ring that I am not part of meets its own waypoint.
    let (mut lock, mut waypoint, mut lap, mut length) = (wanted, None, 1usize, 0usize);
    for _ in 0..MOST_STEPS {
        match next(graph, lock, me) {
            None => return false,
            Some((_, None)) => return true,
            Some((_, Some(wanted))) => lock = wanted,
        }
        if waypoint == Some(lock) {
            return false;
        }
        length += 1;
        if length == lap {
            (waypoint, lap, length) = (Some(lock), lap * 2, 0);
        }
    }
    false
}

/// The links from `wanted` back to `me`, if they are there.
pub fn collect(graph: &impl Graph, me: u64, wanted: u32) -> Option<Vec<Link>> {
    let mut links = Vec::new();
    let mut lock = wanted;
    while links.len() < MOST_STEPS {
        let (link, wanted) = next(graph, lock, me)?;
        if links.iter().any(|seen: &Link| seen.lock == link.lock) {
            return None;
        }
        links.push(link);
        match wanted {
            None => return Some(links),
            Some(wanted) => lock = wanted,
        }
    }
    None
}

/// The cycle through `wanted` and `me`, if it stands at both of two looks: then there was an instant between them at
/// which all of it was true. The caller keeps every other victim from deciding meanwhile.
pub fn confirm(graph: &impl Graph, me: u64, wanted: u32) -> Option<Vec<Link>> {
    let first = collect(graph, me, wanted)?;
    let second = collect(graph, me, wanted)?;
    (first == second).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed<'f>(&'f [(u32, u64)], &'f [(u64, u32)]);

    impl Graph for Fixed<'_> {
        fn holder(&self, lock: u32) -> Option<u64> {
            self.0.iter().find(|&&(held, _)| held == lock).map(|&(_, holder)| holder)
        }

        fn wish(&self, holder: u64) -> Option<(u32, u64)> {
            self.1.iter().find(|&&(who, _)| who == holder).map(|&(_, wanted)| (wanted, u64::from(wanted) + 1))
        }
    }

    #[test]
    fn a_ring_through_me_is_a_deadlock_for_me() {
        let graph = Fixed(&[(1, 10), (2, 20), (3, 30)], &[(20, 3), (30, 1)]);
        assert!(comes_back(&graph, 10, 2));
        let locks: Vec<u32> = confirm(&graph, 10, 2).unwrap().iter().map(|link| link.lock).collect();
        assert_eq!(locks, [2, 3, 1]);
    }

    #[test]
    fn a_ring_that_i_wait_for_is_not_mine() {
        let graph = Fixed(&[(1, 10), (2, 20), (3, 30)], &[(10, 3), (20, 3), (30, 2)]);
        assert!(!comes_back(&graph, 10, 2));
        assert_eq!(collect(&graph, 10, 2), None);
    }

    #[test]
    fn a_way_that_ends_is_none() {
        let graph = Fixed(&[(1, 10), (2, 20)], &[]);
        assert!(!comes_back(&graph, 10, 2) && confirm(&graph, 10, 2).is_none());
    }
}
