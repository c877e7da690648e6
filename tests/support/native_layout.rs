// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bytes of a native segment, written down a second time on purpose: a test that asked the library where things
//! stand would agree with any mistake of it. Of a segment that may grow as far as those do for which nobody said more.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::Segment;

/// 0: in use.
pub const AT_RETIRED: u64 = 256;
/// A remover is at work, or died.
pub const REMOVING: u32 = 1;
pub const REMOVED: u32 = 2;
pub const AT_ROTOR: u64 = 384;
pub const AT_DETECTOR: u64 = 512;
/// A bit for each page of the entries, then of the thread records, and then of the cells, that somebody has needed.
pub const AT_READY: u64 = 576;

pub const ENTRIES: u32 = 8192;
pub const RECORDS: u32 = 8192;
/// Places of the table that readers stand in.
pub const CELLS: u32 = 8192;
const MAX_LOCKS: u64 = 1_048_576;
const PAGE: u64 = 4096;

const AT_ENTRIES: u64 = PAGE;
const AT_RECORDS: u64 = AT_ENTRIES + ENTRIES as u64 * 64;
const AT_CELLS: u64 = AT_RECORDS + RECORDS as u64 * 32;
const AT_SUMMARY: u64 = AT_CELLS + CELLS as u64 * 16;
const AT_BITMAP: u64 = AT_SUMMARY + (MAX_LOCKS / 64 / 64 * 8).next_multiple_of(PAGE);
const AT_SLOTS: u64 = AT_BITMAP + MAX_LOCKS / 8;

/// Bits of a lock word that say no owner.
pub const OWNER_DIED: u64 = 1 << 28;
pub const RESERVED: u64 = 1 << 29;
pub const STARVING: u64 = 1 << 30;
pub const WAITERS: u64 = 1 << 31;

/// How many generations a lock word can tell apart.
pub const GENERATIONS: u64 = 1 << 25;

/// Where the word of a lock stands.
pub const fn word(id: u32) -> u64 {
    AT_SLOTS + id as u64 * 64
}

/// Where one of the four cells of a lock stands.
pub const fn cell(id: u32, index: u32) -> u64 {
    word(id) + 24 + index as u64 * 8
}

/// Where it stands how much of the table a writer of a lock looks through.
pub const fn level(id: u32) -> u64 {
    word(id) + 56
}

/// Where a place of the table stands: the cell, and the lock's number behind it.
pub const fn place(index: u32) -> u64 {
    AT_CELLS + index as u64 * 16
}

/// Where it stands when a waiter last had a thorough look at the holder of a lock.
pub const fn looked(id: u32) -> u64 {
    word(id) + 16
}

/// Where the bits stand that say which of these 64 locks are allocated.
pub const fn bitmap(first: u32) -> u64 {
    AT_BITMAP + first as u64 / 64 * 8
}

/// Where an entry stands, which is also the byte that its process locks; it begins with generation << 1 | live.
pub const fn entry(index: u32) -> u64 {
    AT_ENTRIES + index as u64 * 64
}

/// Where a thread record stands: its owner's word, then the thread's number and start, wish, and since when.
pub const fn record(index: u32) -> u64 {
    AT_RECORDS + index as u64 * 32
}

/// The word of a holder.
pub const fn owner(entry: u32, generation: u64, serial: u32) -> u64 {
    entry as u64 | (generation & 0x7fff) << 13 | (serial as u64) << 32 | (generation >> 15 & 0x3ff) << 54
}

/// The entry that a word names; 0: nobody holds the lock.
pub const fn entry_of(word: u64) -> u32 {
    (word & 0x1fff) as u32
}

/// A word without the bits that say no owner.
pub const fn owner_of(word: u64) -> u64 {
    word & !(OWNER_DIED | RESERVED | STARVING | WAITERS)
}

/// The same without the thread's serial.
pub const fn process_of(word: u64) -> u64 {
    owner_of(word) & !(0x3f_ffff << 32)
}

impl Segment {
    /// A 64-bit number of the file, as it is now.
    pub fn number_at(&self, offset: u64) -> u64 {
        let mut bytes = [0; 8];
        File::open(self.file()).unwrap().read_exact_at(&mut bytes, offset).unwrap();
        u64::from_ne_bytes(bytes)
    }

    pub fn write_number_at(&self, offset: u64, number: u64) {
        let file = File::options().write(true).open(self.file()).unwrap();
        file.write_all_at(&number.to_ne_bytes(), offset).unwrap();
    }

    /// Says that the pages of the first entries are in use, as many as these fill.
    pub fn make_entries_ready(&self, entries: u32) {
        const ON_A_PAGE: u32 = (PAGE / 64) as u32;
        for word in 0..2 {
            let pages = entries.div_ceil(ON_A_PAGE).saturating_sub(word * 64).min(64);
            let bits = if pages == 64 { u64::MAX } else { (1 << pages) - 1 };
            let offset = AT_READY + u64::from(word) * 8;
            self.write_number_at(offset, self.number_at(offset) | bits);
        }
    }
}
