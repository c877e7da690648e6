// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The bytes of a native segment. `docs/segment-format.md` specifies them for whoever implements them again.
//!
//! ```text
//!        0  header, 4096 bytes; what never changes after creation:
//!           0  u64  magic, "lock-mgr" in ASCII      64  u64  offset of the summary
//!           8  u32  version of this format, 1       72  u64  offset of the bitmap
//!          12  u32  0x01020304                      80  u64  offset of the entries
//!          16  u32  bytes of the header             88  u64  offset of the thread records
//!          20  u32  bytes of a slot                 96  u64  offset of the slots
//!          24  u32  bytes of an entry              104  u64  device of the file
//!          28  u32  number of entries              112  u64  inode of the file
//!          32  u32  bytes of a thread record       120  16 bytes, the boot's id
//!          36  u32  number of thread records       136  16 bytes, the segment's own id
//!          40  u32  locks at creation              152  u64  creation, nanoseconds since 1970
//!          44  u32  locks at most
//!           and what does, each on a cache line of its own:
//!         256  u32  retired, see `removal::mark`   512  u64  detector, a lock word
//!         320  u32  locks now                      576  3 × u64  ready pages, a bit each
//!         384  u32  rotor of the entries           640  u64  frees
//!     4096  entries: one for each attached process, 64 bytes each; entry 0 is nobody's
//!        …  thread records, 32 bytes each
//!        …  summary: a bit for each word of the bitmap, set: the word may be skipped
//!        …  bitmap: a bit for each lock, set: allocated
//!        …  slots: one for each lock, 64 bytes each
//! ```
//!
//! All numbers in the machine's byte order. Each part begins on a page. Of the summary, the bitmap and the slots as much
//! is reserved as the present number of locks needs; of entries and records, the pages whose bit is set. The file ends
//! with the slot of the last lock.

use crate::Reason;

use super::super::MAX_LOCKS;
use super::super::removal::mark;

/// What a segment begins with.
pub(super) const MAGIC: u64 = u64::from_ne_bytes(*b"lock-mgr");
pub(in crate::shm) const VERSION: u32 = 1;
const BYTE_ORDER: u32 = 0x0102_0304;

const PAGE: u64 = 4096;
/// Locks come in multiples of that: a word of the bitmap.
pub(super) const GROUP: u32 = u64::BITS;
/// How far a segment may grow if nobody says.
pub(super) const DEFAULT_MAX_LOCKS: u32 = 1_048_576;

pub(super) const ENTRIES: u32 = 8192;
pub(super) const RECORDS: u32 = 8192;

/// Pages that are reserved when they are first needed: those of the entries, and behind them those of the records.
pub(super) const ENTRY_PAGES: u32 = ENTRIES * size::ENTRY as u32 / PAGE as u32;
const RECORD_PAGES: u32 = RECORDS * size::RECORD as u32 / PAGE as u32;
pub(super) const LAZY_PAGES: u32 = ENTRY_PAGES + RECORD_PAGES;
pub(super) const READY_WORDS: usize = LAZY_PAGES.div_ceil(u64::BITS) as usize;

/// Sizes in bytes.
pub(super) mod size {
    pub(crate) const HEADER: usize = 4096;
    pub(crate) const SLOT: usize = 64;
    pub(crate) const ENTRY: usize = 64;
    pub(crate) const RECORD: usize = 32;
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
    pub(crate) const SUMMARY: usize = 64;
    pub(crate) const BITMAP: usize = 72;
    pub(crate) const ENTRY_TABLE: usize = 80;
    pub(crate) const RECORD_TABLE: usize = 88;
    pub(crate) const SLOTS: usize = 96;
    pub(crate) const DEVICE: usize = 104;
    pub(crate) const INODE: usize = 112;
    pub(crate) const BOOT: usize = 120;
    pub(crate) const IDENTITY: usize = 136;
    pub(crate) const CREATED: usize = 152;

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
}

/// Byte offsets within an entry.
pub(super) mod entry {
    /// Generation and whether somebody lives in it, always read and written whole.
    pub(crate) const STATE: usize = 0;
    pub(crate) const PID: usize = 8;
    pub(crate) const FLAGS: usize = 12;
    /// Of the process, in clock ticks since boot.
    pub(crate) const START: usize = 16;
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
const _: () = assert!(header::FREES + 64 <= size::HEADER && header::READY + 8 * READY_WORDS <= header::FREES);

/// Whether a file that starts with these bytes carries the native magic number.
pub(in crate::shm) fn is_ours(start: &[u8]) -> bool {
    word64(start, header::MAGIC) == Some(MAGIC)
}

/// Whether a segment that starts with these bytes was removed for good, as its remover has said.
pub(super) fn is_removed(start: &[u8]) -> bool {
    !matches!(word32(start, header::RETIRED), None | Some(mark::IN_USE | mark::REMOVING))
}

/// The id of the boot in which a segment that starts with these bytes was made.
pub(super) fn boot(start: &[u8]) -> Option<[u8; 16]> {
    start.get(header::BOOT..)?.first_chunk().copied()
}

/// The id that no other segment has.
pub(super) fn identity(start: &[u8]) -> Option<[u8; 16]> {
    start.get(header::IDENTITY..)?.first_chunk().copied()
}

/// Whether a segment that starts with these bytes was made in that file, and is no copy.
pub(super) fn check_file(start: &[u8], device: u64, inode: u64) -> Result<(), Reason> {
    for (what, offset, expected) in [
        ("the inode of the file that it was made in", header::INODE, inode),
        ("the device of the file that it was made in", header::DEVICE, device),
    ] {
        check(what, word64(start, offset).ok_or_else(|| too_short(start))?, expected)?;
    }
    Ok(())
}

/// The inode of the file that a segment that starts with these bytes was made in.
pub(super) fn inode(start: &[u8]) -> Option<u64> {
    word64(start, header::INODE)
}

/// How many locks a segment that starts with these bytes says that it has.
pub(super) fn num_locks(start: &[u8]) -> Option<u32> {
    word32(start, header::NUM_LOCKS)
}

/// Numbers by their offsets.
type Numbers<T, const COUNT: usize> = [(usize, T); COUNT];

/// How far a segment may grow, and so where everything stands. Private to the process: made at creation or checked at
/// opening, never read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    first_locks: u32,
    max_locks: u32,
}

impl Geometry {
    /// Of a segment that is made for `num_locks` and may grow to `max_locks`; 0: as far as usual.
    pub(super) fn for_locks(num_locks: u32, max_locks: u32) -> Result<Self, Reason> {
        let first_locks = rounded(num_locks);
        let max_locks = match max_locks {
            0 => first_locks.max(DEFAULT_MAX_LOCKS),
            given if given > MAX_LOCKS => return Err(Reason::TooManyLocks { asked: given, most: MAX_LOCKS }),
            given => rounded(given),
        };
        if first_locks > max_locks {
            return Err(Reason::TooManyLocks { asked: num_locks, most: max_locks });
        }
        Ok(Self { first_locks, max_locks })
    }

    /// Of the segment that starts with `start`, if its numbers are those of this format.
    pub(super) fn read(start: &[u8]) -> Result<Self, Reason> {
        let short = || too_short(start);
        let number = |offset| word32(start, offset).ok_or_else(short);
        // The byte order first: it says what the other numbers mean.
        for (what, offset, expected) in [
            ("the mark of the byte order", header::BYTE_ORDER, BYTE_ORDER),
            ("the version of the format", header::VERSION, VERSION),
            ("the size of the header", header::HEADER_SIZE, size::HEADER as u32),
            ("the size of a slot", header::SLOT_SIZE, size::SLOT as u32),
            ("the size of an entry", header::ENTRY_SIZE, size::ENTRY as u32),
            ("the number of entries", header::ENTRIES, ENTRIES),
            ("the size of a thread record", header::RECORD_SIZE, size::RECORD as u32),
            ("the number of thread records", header::RECORDS, RECORDS),
        ] {
            check(what, number(offset)?.into(), expected.into())?;
        }
        let (first_locks, max_locks) = (number(header::FIRST_LOCKS)?, number(header::MAX_LOCKS)?);
        if max_locks == 0 || max_locks > MAX_LOCKS || !max_locks.is_multiple_of(GROUP) {
            return Err(damaged("the most locks that it may have", max_locks.into(), DEFAULT_MAX_LOCKS.into()));
        }
        if first_locks == 0 || first_locks > max_locks || !first_locks.is_multiple_of(GROUP) {
            return Err(damaged("the number of locks at creation", first_locks.into(), max_locks.into()));
        }
        let geometry = Self { first_locks, max_locks };
        for (what, offset, expected) in [
            ("the offset of the summary", header::SUMMARY, geometry.summary() as u64),
            ("the offset of the bitmap", header::BITMAP, geometry.bitmap() as u64),
            ("the offset of the entries", header::ENTRY_TABLE, geometry.entries() as u64),
            ("the offset of the thread records", header::RECORD_TABLE, geometry.records() as u64),
            ("the offset of the slots", header::SLOTS, geometry.slots() as u64),
        ] {
            check(what, word64(start, offset).ok_or_else(short)?, expected)?;
        }
        Ok(geometry)
    }

    /// The numbers that a header has for good, by their offsets; the magic number is not among them.
    pub(super) fn numbers(self) -> (Numbers<u32, 10>, Numbers<u64, 5>) {
        (
            [
                (header::VERSION, VERSION),
                (header::BYTE_ORDER, BYTE_ORDER),
                (header::HEADER_SIZE, size::HEADER as u32),
                (header::SLOT_SIZE, size::SLOT as u32),
                (header::ENTRY_SIZE, size::ENTRY as u32),
                (header::ENTRIES, ENTRIES),
                (header::RECORD_SIZE, size::RECORD as u32),
                (header::RECORDS, RECORDS),
                (header::FIRST_LOCKS, self.first_locks),
                (header::MAX_LOCKS, self.max_locks),
            ],
            [
                (header::SUMMARY, self.summary() as u64),
                (header::BITMAP, self.bitmap() as u64),
                (header::ENTRY_TABLE, self.entries() as u64),
                (header::RECORD_TABLE, self.records() as u64),
                (header::SLOTS, self.slots() as u64),
            ],
        )
    }

    /// The present number of locks, as `found` in the segment, if it can be one.
    pub(super) fn check_count(self, found: u32) -> Result<u32, Reason> {
        if found < self.first_locks || found > self.max_locks || !found.is_multiple_of(GROUP) {
            return Err(damaged("the number of locks", found.into(), self.first_locks.into()));
        }
        Ok(found)
    }

    pub(super) const fn first_locks(self) -> u32 {
        self.first_locks
    }

    pub(super) const fn max_locks(self) -> u32 {
        self.max_locks
    }

    /// Right behind the header: who attaches touches both, and the kernel maps neighbouring pages together.
    pub(super) const fn entries(self) -> usize {
        size::HEADER
    }

    pub(super) const fn records(self) -> usize {
        self.entries() + ENTRIES as usize * size::ENTRY
    }

    pub(super) const fn summary(self) -> usize {
        self.records() + RECORDS as usize * size::RECORD
    }

    pub(super) const fn bitmap(self) -> usize {
        page(self.summary() + summary_words(self.max_locks) * size_of::<u64>())
    }

    pub(super) const fn slots(self) -> usize {
        page(self.bitmap() + bitmap_words(self.max_locks) * size_of::<u64>())
    }

    /// Where a lock's slot stands.
    #[inline(always)]
    pub(super) const fn slot(self, id: u32) -> usize {
        self.slots() + id as usize * size::SLOT
    }

    /// Where an entry stands. What keeps an entry taken is a record lock on its first byte.
    pub(super) const fn entry(self, index: u32) -> usize {
        self.entries() + index as usize * size::ENTRY
    }

    /// Where a thread record stands.
    pub(super) const fn record(self, index: u32) -> usize {
        self.records() + index as usize * size::RECORD
    }

    /// Where a page that is reserved when needed begins.
    pub(super) const fn lazy_page(self, index: u32) -> u64 {
        self.entries() as u64 + index as u64 * PAGE
    }

    /// The file's size with that many locks.
    pub(super) const fn size(self, num_locks: u32) -> usize {
        self.slots() + num_locks as usize * size::SLOT
    }

    /// What a new segment has to have reserved, from where to where, besides the header and the first page of entries. Of
    /// the summary that is all, which is a few pages.
    pub(super) fn reserved_at_first(self) -> [(u64, u64); 2] {
        let [bitmap, slots] = self.reserved_beyond(0, self.first_locks);
        [(self.summary() as u64, bitmap.1), slots]
    }

    /// What has to be reserved for `num_locks` where there are `there`.
    pub(super) fn reserved_beyond(self, there: u32, num_locks: u32) -> [(u64, u64); 2] {
        let word = |locks| (self.bitmap() + bitmap_words(locks) * size_of::<u64>()) as u64;
        [(word(there), word(num_locks)), (self.size(there) as u64, self.size(num_locks) as u64)]
    }

    /// Which lock the kernel is asked about for that byte of the file.
    pub(super) fn lock_at(self, offset: u64, num_locks: u32) -> Option<u32> {
        let distance = offset.checked_sub(self.slots() as u64)?;
        let id = u32::try_from(distance / size::SLOT as u64).ok()?;
        (id < num_locks && distance % (size::SLOT as u64) < size_of::<u64>() as u64).then_some(id)
    }
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

const fn page(bytes: usize) -> usize {
    bytes.next_multiple_of(PAGE as usize)
}

fn check(what: &'static str, found: u64, expected: u64) -> Result<(), Reason> {
    if found == expected { Ok(()) } else { Err(damaged(what, found, expected)) }
}

fn too_short(start: &[u8]) -> Reason {
    damaged("the size of the file", start.len() as u64, PAGE)
}

fn damaged(what: &'static str, found: u64, expected: u64) -> Reason {
    Reason::Damaged { what, found, expected }
}

fn word32(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}

fn word64(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u64::from_ne_bytes(*chunk))
}
