// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Which ids are allocated, a bit each; the lowest free one goes first.

use crate::Reason;

/// The ids of an in-memory manager.
#[derive(Debug)]
pub(super) struct Ids {
    num_locks: u32,
    allocated: u32,
    words: Vec<u64>,
    /// All words before it are full.
    first_with_room: usize,
}

impl Ids {
    pub(super) fn new(num_locks: u32) -> Self {
        Self { num_locks, allocated: 0, words: vec![0; words_for(num_locks)], first_with_room: 0 }
    }

    pub(super) fn num_locks(&self) -> u32 {
        self.num_locks
    }

    pub(super) fn available(&self) -> u32 {
        self.num_locks - self.allocated
    }

    pub(super) fn check_range(&self, id: u32) -> Result<(), Reason> {
        if id < self.num_locks { Ok(()) } else { Err(Reason::OutOfRange { id, num_locks: self.num_locks }) }
    }

    pub(super) fn allocate(&mut self) -> Result<u32, Reason> {
        if self.available() == 0 {
            return Err(Reason::Exhausted { num_locks: self.num_locks });
        }
        while self.words[self.first_with_room] == u64::MAX {
            self.first_with_room += 1;
        }
        let bit = self.words[self.first_with_room].trailing_ones();
        self.words[self.first_with_room] |= 1 << bit;
        self.allocated += 1;
        Ok(self.first_with_room as u32 * u64::BITS + bit)
    }

    pub(super) fn allocate_given(&mut self, id: u32) -> Result<(), Reason> {
        self.check_range(id)?;
        if self.is_allocated(id) {
            return Err(Reason::Allocated { id });
        }
        self.words[word_of(id)] |= bit_of(id);
        self.allocated += 1;
        Ok(())
    }

    pub(super) fn free(&mut self, id: u32) -> Result<(), Reason> {
        self.check_range(id)?;
        if !self.is_allocated(id) {
            return Err(Reason::NotAllocated { id });
        }
        self.words[word_of(id)] &= !bit_of(id);
        self.allocated -= 1;
        self.first_with_room = self.first_with_room.min(word_of(id));
        Ok(())
    }

    pub(super) fn free_all(&mut self) {
        *self = Self::new(self.num_locks);
    }

    pub(super) fn is_allocated(&self, id: u32) -> bool {
        self.words.get(word_of(id)).is_some_and(|word| word & bit_of(id) != 0)
    }

    pub(super) fn grow(&mut self, num_locks: u32) -> Result<(), Reason> {
        if num_locks < self.num_locks {
            return Err(Reason::Shrinking { there: self.num_locks, asked: num_locks });
        }
        self.words.resize(words_for(num_locks), 0);
        self.num_locks = num_locks;
        Ok(())
    }
}

fn words_for(num_locks: u32) -> usize {
    num_locks.div_ceil(u64::BITS) as usize
}

fn word_of(id: u32) -> usize {
    (id / u64::BITS) as usize
}

fn bit_of(id: u32) -> u64 {
    1 << (id % u64::BITS)
}
