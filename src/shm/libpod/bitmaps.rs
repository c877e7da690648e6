// SPDX-License-Identifier: MIT OR Apache-2.0
#![allow(
    unsafe_code,
    reason = "allocation is a fast path: a signal handler may end the thread in it, so nothing panics"
)]
//! The allocated ids: a bit each, changed with the segment's one mutex held, as Podman does. Each change is one store of
//! one word, so a death leaves no bitmap half written.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::Reason;

use super::super::Outcome;
use super::format::{GROUP, Geometry};
use super::pool::Pool;

/// Counting needs no guard; every change does.
impl Pool {
    /// The bitmap of a group.
    fn bitmap(&self, group: u32) -> &AtomicU32 {
        debug_assert!(group < self.geometry.groups);
        // SAFETY: the pool has checked that the mapping is as large as its geometry says; callers stay below the number of
        // groups.
        unsafe { self.segment.map.u32_at_unchecked(Geometry::bitmap_offset(group)) }
    }

    fn place(&self, id: u32) -> (&AtomicU32, u32) {
        (self.bitmap(id / GROUP), 1 << (id % GROUP))
    }

    /// Allocates the lowest free id of the first group that has one, beginning with the group of the last allocation.
    pub(super) fn allocate(&self) -> Outcome<u32> {
        let groups = self.geometry.groups;
        let first = self.next_group.load(Ordering::Relaxed).min(groups);
        for group in (first..groups).chain(0..first) {
            let word = self.bitmap(group);
            let bits = word.load(Ordering::Relaxed);
            if bits != u32::MAX {
                let bit = bits.trailing_ones();
                word.store(bits | 1 << bit, Ordering::Release);
                self.next_group.store(group, Ordering::Relaxed);
                return Ok(group * GROUP + bit);
            }
        }
        Err(Reason::Exhausted { num_locks: self.geometry.num_locks() })
    }

    pub(super) fn allocate_given(&self, id: u32) -> Outcome<()> {
        let (word, bit) = self.place(id);
        let bits = word.load(Ordering::Relaxed);
        if bits & bit != 0 {
            return Err(Reason::Allocated { id });
        }
        word.store(bits | bit, Ordering::Release);
        Ok(())
    }

    pub(super) fn free(&self, id: u32) -> Outcome<()> {
        let (word, bit) = self.place(id);
        let bits = word.load(Ordering::Relaxed);
        if bits & bit == 0 {
            return Err(Reason::NotAllocated { id });
        }
        word.store(bits & !bit, Ordering::Release);
        Ok(())
    }

    pub(super) fn free_all(&self) {
        for group in 0..self.geometry.groups {
            self.bitmap(group).store(0, Ordering::Release);
        }
        self.next_group.store(0, Ordering::Relaxed);
    }

    pub(super) fn is_allocated(&self, id: u32) -> bool {
        let (word, bit) = self.place(id);
        word.load(Ordering::Acquire) & bit != 0
    }

    pub(super) fn count_free(&self) -> u32 {
        (0..self.geometry.groups).map(|group| self.bitmap(group).load(Ordering::Acquire).count_zeros()).sum()
    }
}
