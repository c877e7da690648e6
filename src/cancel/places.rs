// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Where the waits of a cancel object sleep: the addresses of futexes, each with the number of waits that sleep there.
//!
//! A wait enters its futex before it sleeps, and its undo record takes it back (see `waits`), also if a handler left the
//! wait. So an address stays as long as a wait may sleep there, and its memory stays mapped as long. There
//! are no locks here: a signal handler may trigger the object in the midst of anything.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::syscall::futex;

/// How many futexes an object can know. The waits on others look at the object by the clock.
const PLACES: usize = 64;

/// A place has an address, without its lowest bits, above this bit and the number of waits below. Without waits, the place is
/// free.
const NAME_SHIFT: u32 = 16;
const COUNT_MASK: u64 = (1 << NAME_SHIFT) - 1;

/// A futex is aligned to 4 bytes.
const ALIGNMENT_SHIFT: u32 = 2;

/// The futexes on which the waits of a cancel object sleep.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Places([AtomicU64; PLACES]);

impl Default for Places {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; PLACES])
    }
}

impl Places {
    /// Enters the futex at `address`. The place, in which one wait more is counted. `None`: there is no room.
    ///
    /// Sequentially consistent, as the look at the object that follows, and as the store of a trigger and its look at the
    /// places: of a wait and a trigger that come at once, at least one sees the other.
    pub(crate) fn enter(&self, address: usize) -> Option<&AtomicU64> {
        let name = address as u64 >> ALIGNMENT_SHIFT;
        if name >> (u64::BITS - NAME_SHIFT) != 0 {
            return None;
        }
        let one_more = |now: u64| match now & COUNT_MASK {
            COUNT_MASK => None,
            0 => Some(name << NAME_SHIFT | 1),
            _ => (now >> NAME_SHIFT == name).then_some(now + 1),
        };
        self.0.iter().find(|place| place.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).is_ok())
    }

    /// How many waits sleep in all places, or are about to.
    pub(super) fn waits(&self) -> u64 {
        self.0.iter().map(|place| place.load(Ordering::SeqCst) & COUNT_MASK).sum()
    }

    /// Wakes all waits of a class, in all places. How many were woken.
    pub(super) fn wake(&self, class: u32) -> u64 {
        let wake = |seen: u64| match seen & COUNT_MASK {
            0 => 0,
            _ => futex::wake_all_at((seen >> NAME_SHIFT << ALIGNMENT_SHIFT) as usize, class),
        };
        self.0.iter().map(|place| wake(place.load(Ordering::SeqCst))).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leave(place: &AtomicU64) {
        place.fetch_sub(1, Ordering::Release);
    }

    #[test]
    fn a_place_is_kept_as_long_as_a_wait_sleeps_there() {
        let places = Places::default();
        let first = places.enter(0x7FFF_0000_1000).unwrap();
        assert!(std::ptr::eq(places.enter(0x7FFF_0000_1000).unwrap(), first));
        let others: Vec<_> = (1..PLACES).map(|other| places.enter(other * 8).unwrap()).collect();
        assert!(places.enter(0x1004).is_none(), "all places are taken");
        assert_eq!(places.waits(), PLACES as u64 + 1);
        leave(first);
        assert!(places.enter(0x1004).is_none(), "one wait still sleeps there");
        leave(first);
        assert!(std::ptr::eq(places.enter(0x1004).unwrap(), first));
        others.into_iter().for_each(leave);
        assert_eq!(places.waits(), 1);
    }
}
