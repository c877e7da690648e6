// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The number of threads of this process that wait for the same lock. Many of them can share the checks of its holder.
//! Each lock has a counter of its own: otherwise a lock with few waiters would be checked as seldom as one with many.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many counters to try, for one that the lock has already, or a free one.
const PROBES: usize = 8;

/// A counter has the lock's key above this bit and the number of its waiters below. 0: the counter is free.
const KEY_SHIFT: u32 = u32::BITS;
const COUNT_MASK: u64 = (1 << KEY_SHIFT) - 1;

/// The calling thread, counted as a waiter. `waits` takes it off the counter when its wait ends.
#[derive(Clone, Copy)]
pub(super) struct LocalWaiters<'c> {
    /// `None`: there was no counter, so the thread checks as if it waited alone.
    counter: Option<&'c AtomicU64>,
    key: u32,
    /// How many threads waited before it.
    pub(super) place: u64,
}

impl<'c> LocalWaiters<'c> {
    /// Counts the calling thread as one that waits for the lock with that key.
    pub(super) fn join(counters: &'c [AtomicU64], key: u32) -> Self {
        let joined = (0..PROBES.min(counters.len())).find_map(|probe| {
            let counter = &counters[(key as usize).wrapping_add(probe) % counters.len()];
            let one_more = |now: u64| match now & COUNT_MASK {
                COUNT_MASK => None,
                0 => Some(u64::from(key) << KEY_SHIFT | 1),
                _ => (now >> KEY_SHIFT == u64::from(key)).then_some(now + 1),
            };
            let before = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
            Some((counter, before & COUNT_MASK))
        });
        let place = joined.map_or(0, |(_, place)| place);
        Self { counter: joined.map(|(counter, _)| counter), key, place }
    }

    /// The counter, and the key of the lock in it.
    pub(super) fn counter(&self) -> Option<(&'c AtomicU64, u32)> {
        self.counter.map(|counter| (counter, self.key))
    }

    /// How many threads wait now, with this one.
    pub(super) fn size(&self) -> u64 {
        self.counter.map_or(1, |counter| counter.load(Ordering::Relaxed) & COUNT_MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lock_is_counted_apart() {
        let counters = [const { AtomicU64::new(0) }; 4];
        let all = [1, 5, 1, 9, 1].map(|key| LocalWaiters::join(&counters, key));
        assert_eq!(all.each_ref().map(LocalWaiters::size), [3, 1, 3, 1, 3]);
        assert_eq!(all.each_ref().map(|waiters| waiters.place), [0, 0, 1, 0, 2]);
        let fourth = LocalWaiters::join(&counters, 13);
        let without_a_counter = LocalWaiters::join(&counters, 17);
        assert_eq!((fourth.size(), without_a_counter.size()), (1, 1));
    }
}
