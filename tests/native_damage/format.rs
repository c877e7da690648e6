// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bytes of a native segment as docs/segment-format.md has them, written down a second time on purpose: a test that
//! asked the library where things stand would agree with any mistake of it.

#![allow(dead_code, reason = "each test uses its own part")]

pub const MAGIC: u64 = u64::from_ne_bytes(*b"lock-mgr");

/// Of the header, by their names in the document.
pub const AT_MAGIC: u64 = 0;
pub const AT_VERSION: u64 = 8;
pub const AT_BYTE_ORDER: u64 = 12;
pub const AT_HEADER_SIZE: u64 = 16;
pub const AT_SLOT_SIZE: u64 = 20;
pub const AT_ENTRY_SIZE: u64 = 24;
pub const AT_ENTRIES: u64 = 28;
pub const AT_RECORD_SIZE: u64 = 32;
pub const AT_RECORDS: u64 = 36;
pub const AT_FIRST_LOCKS: u64 = 40;
pub const AT_MAX_LOCKS: u64 = 44;
pub const AT_FEATURES: u64 = 48;
pub const AT_CELL_SIZE: u64 = 56;
pub const AT_CELLS: u64 = 60;
pub const AT_SUMMARY: u64 = 64;
pub const AT_BITMAP: u64 = 72;
pub const AT_ENTRY_TABLE: u64 = 80;
pub const AT_RECORD_TABLE: u64 = 88;
pub const AT_SLOTS: u64 = 96;
pub const AT_CELL_TABLE: u64 = 104;
pub const AT_DEVICE: u64 = 112;
pub const AT_INODE: u64 = 120;
pub const AT_BOOT: u64 = 128;
pub const AT_IDENTITY: u64 = 144;
pub const AT_CREATED: u64 = 160;
pub const AT_RETIRED: u64 = 256;
pub const AT_NUM_LOCKS: u64 = 320;
pub const AT_ROTOR: u64 = 384;
pub const AT_DETECTOR: u64 = 512;
pub const AT_READY: u64 = 576;
pub const AT_FREES: u64 = 640;

pub const HEADER: u64 = 4096;
pub const ENTRY: u64 = 64;
pub const ENTRIES: u64 = 8192;
pub const RECORD: u64 = 32;
pub const RECORDS: u64 = 8192;
pub const CELL: u64 = 16;
pub const CELLS: u64 = 8192;
pub const SLOT: u64 = 64;

/// Bits of a lock word.
pub const OWNER_DIED: u64 = 1 << 28;
pub const RESERVED: u64 = 1 << 29;
pub const STARVING: u64 = 1 << 30;
/// Without an owner.
pub const SHARED: u64 = STARVING;
pub const WAITERS: u64 = 1 << 31;

/// The word of a thread.
pub fn owner(entry: u64, generation: u64, serial: u64) -> u64 {
    entry | (generation & 0x7fff) << 13 | serial << 32 | generation >> 15 << 54
}

/// Where the parts of a segment stand that may have so many locks.
#[derive(Debug, Clone, Copy)]
pub struct Parts {
    pub summary: u64,
    pub bitmap: u64,
    pub entries: u64,
    pub records: u64,
    pub cells: u64,
    pub slots: u64,
}

pub fn parts(max_locks: u64) -> Parts {
    let page = |bytes: u64| bytes.div_ceil(4096) * 4096;
    let words = max_locks / 64;
    let entries = HEADER;
    let records = entries + ENTRIES * ENTRY;
    let cells = records + RECORDS * RECORD;
    let summary = cells + CELLS * CELL;
    let bitmap = page(summary + words.div_ceil(64) * 8);
    Parts { summary, bitmap, entries, records, cells, slots: page(bitmap + words * 8) }
}

/// How long the file is with so many locks.
pub fn size(max_locks: u64, num_locks: u64) -> u64 {
    parts(max_locks).slots + num_locks * SLOT
}
