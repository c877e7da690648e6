// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The bytes of a native segment. `docs/segment-format.md` specifies them for whoever implements them again.
//!
//! ```text
//!        0  header, 4096 bytes; what never changes after creation:
//!           0  u64  magic, "lock-mgr" in ASCII      64  u64  offset of the summary
//!           8  u32  version of this format, 2       72  u64  offset of the bitmap
//!          12  u32  0x01020304                      80  u64  offset of the entries
//!          16  u32  bytes of the header             88  u64  offset of the thread records
//!          20  u32  bytes of a slot                 96  u64  offset of the slots
//!          24  u32  bytes of an entry              104  u64  offset of the cell table
//!          28  u32  number of entries              112  u64  device of the file
//!          32  u32  bytes of a thread record       120  u64  inode of the file
//!          36  u32  number of thread records       128  16 bytes, the boot's id
//!          40  u32  locks at creation              144  16 bytes, the segment's own id
//!          44  u32  locks at most                  160  u64  creation, nanoseconds since 1970
//!          48  u64  features: none yet
//!          56  u32  bytes of a place in the table
//!          60  u32  number of places
//!           and what does, each on a cache line of its own:
//!         256  u32  retired, see `removal::mark`   512  u64  detector, a lock word
//!         320  u32  locks now                      576  4 × u64  ready pages, a bit each
//!         384  u32  rotor of the entries           640  u64  frees
//!     4096  entries: one for each attached process, 64 bytes each; entry 0 is nobody's
//!        …  thread records, 32 bytes each
//!        …  cell table, where readers stand that find no cell in their lock's slot: 8192 places of 16 bytes
//!        …  summary: a bit for each word of the bitmap, set: the word may be skipped
//!        …  bitmap: a bit for each lock, set: allocated
//!        …  slots: one for each lock, 64 bytes each
//! ```
//!
//! All numbers in the machine's byte order. Each part begins on a page. Of the summary, the bitmap and the slots as much
//! is reserved as the present number of locks needs; of entries, records and
//! the table, the pages whose bit is set. The file ends
//! with the slot of the last lock.
//!
//! A segment of version 1 has no readers: no features, no cell table, and what stands from 112 on stands 8 bytes before.

use crate::Reason;

use super::super::removal::mark;

/// What a segment begins with.
pub(super) const MAGIC: u64 = u64::from_ne_bytes(*b"lock-mgr");
pub(in crate::shm) const VERSION: u32 = 2;
/// The version that knows no readers.
pub(super) const VERSION_WITHOUT_READERS: u32 = 1;
/// The bits of features that this version knows; whoever does not know one refuses the segment.
pub(super) const FEATURES: u64 = 0;
pub(super) const BYTE_ORDER: u32 = 0x0102_0304;

pub(super) const PAGE: u64 = 4096;
/// Locks come in multiples of that: a word of the bitmap.
pub(super) const GROUP: u32 = u64::BITS;
/// How far a segment may grow if nobody says.
pub(super) const DEFAULT_MAX_LOCKS: u32 = 1_048_576;

pub(super) const ENTRIES: u32 = 8192;
pub(super) const RECORDS: u32 = 8192;
/// Places of the cell table.
pub(super) const PLACES: usize = 8192;
/// Cells in a slot.
pub(super) const CELLS: usize = 4;

/// Pages that are reserved when they are first needed: those of the entries, behind them those of the records, and then
/// those of the cell table.
pub(super) const ENTRY_PAGES: u32 = ENTRIES * size::ENTRY as u32 / PAGE as u32;
const RECORD_PAGES: u32 = RECORDS * size::RECORD as u32 / PAGE as u32;
pub(super) const TABLE_PAGES: u32 = (PLACES * size::PLACE) as u32 / PAGE as u32;
/// The first page of the cell table: a whole number of them, so that all have their bits in one word.
pub(super) const FIRST_TABLE_PAGE: u32 = ENTRY_PAGES + RECORD_PAGES;
pub(super) const LAZY_PAGES: u32 = FIRST_TABLE_PAGE + TABLE_PAGES;
pub(super) const READY_WORDS: usize = LAZY_PAGES.div_ceil(u64::BITS) as usize;

/// Sizes in bytes.
pub(super) mod size {
    pub(crate) const HEADER: usize = 4096;
    pub(crate) const SLOT: usize = 64;
    pub(crate) const ENTRY: usize = 64;
    pub(crate) const RECORD: usize = 32;
    pub(crate) const PLACE: usize = 16;
}

/// Byte offsets within the header.
pub(super) mod header {
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const VERSION: usize = 8;
    pub(crate) const BYTE_ORDER: usize = 12;
    pub(crate) const HEADER_SIZE: usize = 16;
    pub(crate) const SLOT_SIZE: usize = 20;
    pub(crate) const ENTRY_SIZE: usize = 24;
    pub(crate) const ENTRIES: usize = 28;
    pub(crate) const RECORD_SIZE: usize = 32;
    pub(crate) const RECORDS: usize = 36;
    pub(crate) const FIRST_LOCKS: usize = 40;
    pub(crate) const MAX_LOCKS: usize = 44;
    pub(crate) const FEATURES: usize = 48;
    pub(crate) const PLACE_SIZE: usize = 56;
    pub(crate) const PLACES: usize = 60;
    pub(crate) const SUMMARY: usize = 64;
    pub(crate) const BITMAP: usize = 72;
    pub(crate) const ENTRY_TABLE: usize = 80;
    pub(crate) const RECORD_TABLE: usize = 88;
    pub(crate) const SLOTS: usize = 96;
    pub(crate) const TABLE: usize = 104;
    pub(crate) const DEVICE: usize = 112;
    pub(crate) const INODE: usize = 120;
    pub(crate) const BOOT: usize = 128;
    pub(crate) const IDENTITY: usize = 144;
    pub(crate) const CREATED: usize = 160;
    /// By how much the last five stand earlier where there is no table.
    pub(crate) const WITHOUT_TABLE: usize = 8;

    pub(crate) const RETIRED: usize = 256;
    pub(crate) const NUM_LOCKS: usize = 320;
    pub(crate) const ROTOR: usize = 384;
    pub(crate) const DETECTOR: usize = 512;
    pub(crate) const READY: usize = 576;
    pub(crate) const FREES: usize = 640;
}

/// Byte offsets within a slot.
pub(super) mod slot {
    pub(crate) const WORD: usize = 0;
    /// What a holder notes: by which manager it took the lock, and how often that has happened. One word, because each
    /// store before an unlock is waited for.
    pub(crate) const NOTE: usize = 8;
    /// When a waiter last had a thorough look at the holder.
    pub(crate) const LOOKED: usize = 16;
    /// Where readers stand.
    pub(crate) const CELLS: usize = 24;
    /// How much of the table a writer has to look through as well.
    pub(crate) const LEVEL: usize = 56;
}

/// Byte offsets within an entry.
pub(super) mod entry {
    /// Generation and whether somebody lives in it, always read and written whole.
    pub(crate) const STATE: usize = 0;
    pub(crate) const PID: usize = 8;
    pub(crate) const FLAGS: usize = 12;
    /// Of the process, in clock ticks since boot.
    pub(crate) const STARTED_BY: usize = 16;
    pub(crate) const PID_NAMESPACE: usize = 24;
    pub(crate) const TIME_NAMESPACE: usize = 32;
    pub(crate) const COMMAND: usize = 40;
}

/// Byte offsets within a thread record.
pub(super) mod record {
    pub(crate) const KEY: usize = 0;
    pub(crate) const THREAD: usize = 8;
    pub(crate) const WANTS: usize = 16;
    pub(crate) const SINCE: usize = 24;
}

const _: () = assert!(ENTRIES == super::word::MAX_ENTRY + 1);
const _: () = assert!(FIRST_TABLE_PAGE.is_multiple_of(u64::BITS) && TABLE_PAGES <= u64::BITS);
const _: () = assert!(header::FREES + 64 <= size::HEADER && header::READY + 8 * READY_WORDS <= header::FREES);

/// Whether a file that starts with these bytes carries the native magic number.
pub(in crate::shm) fn is_ours(start: &[u8]) -> bool {
    word64(start, header::MAGIC) == Some(MAGIC)
}

/// Whether a segment that starts with these bytes was removed for good, as its remover has said.
pub(super) fn is_removed(start: &[u8]) -> bool {
    !matches!(word32(start, header::RETIRED), None | Some(mark::IN_USE | mark::REMOVING))
}

/// Where a field that stands behind the table's offset stands in a segment that starts with these bytes.
fn place_in(start: &[u8], offset: usize) -> usize {
    let has_table = word32(start, header::VERSION) != Some(VERSION_WITHOUT_READERS);
    if has_table { offset } else { offset - header::WITHOUT_TABLE }
}

/// The id of the boot in which a segment that starts with these bytes was made.
pub(super) fn boot(start: &[u8]) -> Option<[u8; 16]> {
    start.get(place_in(start, header::BOOT)..)?.first_chunk().copied()
}

/// The id that no other segment has.
pub(super) fn identity(start: &[u8]) -> Option<[u8; 16]> {
    start.get(place_in(start, header::IDENTITY)..)?.first_chunk().copied()
}

/// Whether a segment that starts with these bytes was made in that file, and is no copy.
pub(super) fn check_file(start: &[u8], device: u64, inode: u64) -> Result<(), Reason> {
    for (what, offset, expected) in [
        ("the inode of the file that it was made in", header::INODE, inode),
        ("the device of the file that it was made in", header::DEVICE, device),
    ] {
        check(what, word64(start, place_in(start, offset)).ok_or_else(|| too_short(start))?, expected)?;
    }
    Ok(())
}

/// The inode of the file that a segment that starts with these bytes was made in.
pub(super) fn inode(start: &[u8]) -> Option<u64> {
    word64(start, place_in(start, header::INODE))
}

/// How many locks a segment that starts with these bytes says that it has.
pub(super) fn num_locks(start: &[u8]) -> Option<u32> {
    word32(start, header::NUM_LOCKS)
}

/// That many locks, rounded up to whole words of the bitmap.
pub(super) const fn rounded(num_locks: u32) -> u32 {
    num_locks.div_ceil(GROUP) * GROUP
}

/// Words of the bitmap of that many locks.
pub(super) const fn bitmap_words(num_locks: u32) -> usize {
    num_locks.div_ceil(GROUP) as usize
}

/// Words of the summary of that many locks.
pub(super) const fn summary_words(num_locks: u32) -> usize {
    bitmap_words(num_locks).div_ceil(u64::BITS as usize)
}

/// The page that an entry lies on, among those that are reserved when needed.
pub(super) const fn page_of_entry(index: u32) -> u32 {
    index / (PAGE as u32 / size::ENTRY as u32)
}

/// The page that a thread record lies on.
pub(super) const fn page_of_record(index: u32) -> u32 {
    ENTRY_PAGES + index / (PAGE as u32 / size::RECORD as u32)
}

/// The page that a place of the cell table lies on, among those of the table.
pub(super) const fn table_page_of(place: usize) -> u32 {
    (place * size::PLACE) as u32 / PAGE as u32
}

pub(super) const fn page(bytes: usize) -> usize {
    bytes.next_multiple_of(PAGE as usize)
}

pub(super) fn check(what: &'static str, found: u64, expected: u64) -> Result<(), Reason> {
    if found == expected { Ok(()) } else { Err(damaged(what, found, expected)) }
}

pub(super) fn too_short(start: &[u8]) -> Reason {
    damaged("the size of the file", start.len() as u64, PAGE)
}

pub(super) fn damaged(what: &'static str, found: u64, expected: u64) -> Reason {
    Reason::Damaged { what, found, expected }
}

pub(super) fn word32(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}

pub(super) fn word64(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u64::from_ne_bytes(*chunk))
}
