// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Which locks may be taken through a manager, and where their slots are. Growth may map the slots anew, with room for more,
//! and threads learn of it one by one, each at a time of its own. The fast path reads both with one load each. So the address
//! always has room for the count: it comes first, and never goes back to a mapping that was there before.

use super::atomic::{AtomicPtr, AtomicU32, Ordering};

/// The lockable locks of a manager.
pub struct Lockable {
    /// The slot of lock 0. Those of all lockable locks follow it.
    slots: AtomicPtr<u8>,
    count: AtomicU32,
}

impl Lockable {
    pub fn none() -> Self {
        Self { slots: AtomicPtr::new(std::ptr::null_mut()), count: AtomicU32::new(0) }
    }

    /// How many there are. Their ids are the lowest.
    #[inline(always)]
    pub fn count(&self) -> u32 {
        // Acquire: the address was stored before the count.
        self.count.load(Ordering::Acquire)
    }

    /// The address of the slots: those of every lock below a count that the caller has read before are there.
    #[inline(always)]
    pub fn slots(&self) -> *mut u8 {
        self.slots.load(Ordering::Relaxed)
    }

    /// Makes the first `count` locks lockable. `slots` gives the address of the slots as they are mapped by now, with room for
    /// that many at least. What it gave once is mapped for good, and what it gives later has no less room.
    pub fn learn_of(&self, count: u32, slots: impl Fn() -> *mut u8) {
        loop {
            // Ask for the address after this load: so it has at least the room of the one that it replaces.
            let before = self.slots.load(Ordering::Acquire);
            let now = slots();
            // A thread that came to a swap in between has an address that may have more room, and did not see this one.
            if now == before || self.slots.compare_exchange(before, now, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                break;
            }
        }
        self.count.fetch_max(count, Ordering::Release);
    }
}
