// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bitmaps of 32 ids, 1288 bytes apart, under one robust mutex, always searched from the first: libpod's shape.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::contenders::{Contender, Fresh, Lock};
use crate::processes::{shared_memory, unmap};

const GROUP_SIZE: usize = 1288;
const GROUP_IDS: usize = 32;

pub struct LinearPool {
    guard: Lock,
    _mutex: Fresh,
    base: NonNull<u8>,
    groups: usize,
}

impl LinearPool {
    pub fn new(num_locks: u32) -> Self {
        let groups = num_locks as usize / GROUP_IDS;
        let mutex = Contender::raw().fresh();
        Self { guard: mutex.attach(), _mutex: mutex, base: shared_memory(groups * GROUP_SIZE), groups }
    }

    /// Allocates so many, from the first one on.
    pub fn fill(&self, count: u32) {
        for id in 0..count as usize {
            self.bitmap(id / GROUP_IDS).fetch_or(1 << (id % GROUP_IDS), Ordering::Relaxed);
        }
    }

    fn bitmap(&self, group: usize) -> &AtomicU32 {
        assert!(group < self.groups);
        // SAFETY: within the mapping, aligned, and mapped for as long as the value lives.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(group * GROUP_SIZE).cast()) }
    }

    pub fn allocate(&self) -> Option<usize> {
        self.guard.lock();
        let free = (0..self.groups).find(|&group| self.bitmap(group).load(Ordering::Relaxed) != u32::MAX);
        let id = free.map(|group| {
            let bits = self.bitmap(group).load(Ordering::Relaxed);
            let bit = bits.trailing_ones();
            self.bitmap(group).store(bits | 1 << bit, Ordering::Relaxed);
            group * GROUP_IDS + bit as usize
        });
        self.guard.unlock();
        id
    }

    pub fn free(&self, id: usize) {
        self.guard.lock();
        self.bitmap(id / GROUP_IDS).fetch_and(!(1 << (id % GROUP_IDS)), Ordering::Relaxed);
        self.guard.unlock();
    }
}

impl Drop for LinearPool {
    fn drop(&mut self) {
        unmap(self.base, self.groups * GROUP_SIZE);
    }
}
