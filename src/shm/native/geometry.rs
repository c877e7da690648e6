// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Where the parts of a native segment stand.

use crate::Reason;

use super::super::MAX_LOCKS;
use super::format::*;

/// Numbers by their offsets.
type Numbers<T, const COUNT: usize> = [(usize, T); COUNT];

/// How far a segment may grow, and so where everything stands. Private to the process: made at creation or checked at
/// opening, never read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    first_locks: u32,
    max_locks: u32,
    readers: Readers,
}

/// Whether a segment has cells for readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readers {
    /// It has none: its format version knows no shared locks.
    Unknown,
    InCells,
}

impl Geometry {
    /// The geometry of a new segment with `num_locks` locks that may grow to `max_locks`; 0: the usual maximum.
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
        Ok(Self { first_locks, max_locks, readers: Readers::InCells })
    }

    /// The geometry of the segment that starts with the bytes `start`, if its numbers are those of this format.
    pub(super) fn read(start: &[u8]) -> Result<Self, Reason> {
        let short = || too_short(start);
        let number = |offset| word32(start, offset).ok_or_else(short);
        // The byte order first: it says what the other numbers mean.
        check("the mark of the byte order", number(header::BYTE_ORDER)?.into(), BYTE_ORDER.into())?;
        let readers = match number(header::VERSION)? {
            VERSION_WITHOUT_READERS => Readers::Unknown,
            version => {
                check("the version of the format", version.into(), VERSION.into())?;
                let features = word64(start, header::FEATURES).ok_or_else(short)?;
                check("the word of the features that it needs", features, FEATURES)?;
                check("the size of a place in the cell table", number(header::PLACE_SIZE)?.into(), size::PLACE as u64)?;
                check("the number of places in the cell table", number(header::PLACES)?.into(), PLACES as u64)?;
                Readers::InCells
            }
        };
        for (what, offset, expected) in [
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
        let geometry = Self { first_locks, max_locks, readers };
        if readers == Readers::InCells {
            let offset = word64(start, header::TABLE).ok_or_else(short)?;
            check("the offset of the cell table", offset, geometry.table() as u64)?;
        }
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

    /// Whether the segment has cells for readers.
    pub(super) const fn readers(self) -> Readers {
        self.readers
    }

    /// Where the segment's own id stands.
    pub(super) const fn identity(self) -> usize {
        match self.readers {
            Readers::Unknown => header::IDENTITY - header::WITHOUT_TABLE,
            Readers::InCells => header::IDENTITY,
        }
    }

    /// The numbers of a new header that never change, with their offsets. The magic number is not among them.
    pub(super) fn numbers(self) -> (Numbers<u32, 12>, Numbers<u64, 7>) {
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
                (header::PLACE_SIZE, size::PLACE as u32),
                (header::PLACES, PLACES as u32),
            ],
            [
                (header::FEATURES, FEATURES),
                (header::TABLE, self.table() as u64),
                (header::SUMMARY, self.summary() as u64),
                (header::BITMAP, self.bitmap() as u64),
                (header::ENTRY_TABLE, self.entries() as u64),
                (header::RECORD_TABLE, self.records() as u64),
                (header::SLOTS, self.slots() as u64),
            ],
        )
    }

    /// Checks the present number of locks, as `found` in the segment.
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

    /// Where the attach table stands: right behind the header. A process that attaches touches both, and the kernel maps
    /// neighbouring pages together.
    pub(super) const fn entries(self) -> usize {
        size::HEADER
    }

    pub(super) const fn records(self) -> usize {
        self.entries() + ENTRIES as usize * size::ENTRY
    }

    /// Where the cell table stands. If there is none, it is where the next part stands.
    pub(super) const fn table(self) -> usize {
        self.records() + RECORDS as usize * size::RECORD
    }

    pub(super) const fn summary(self) -> usize {
        self.table()
            + match self.readers {
                Readers::Unknown => 0,
                Readers::InCells => PLACES * size::PLACE,
            }
    }

    pub(super) const fn bitmap(self) -> usize {
        page(self.summary() + summary_words(self.max_locks) * size_of::<u64>())
    }

    pub(super) const fn slots(self) -> usize {
        page(self.bitmap() + bitmap_words(self.max_locks) * size_of::<u64>())
    }

    /// Where the summary of that many locks ends.
    pub(super) const fn summary_end(self, num_locks: u32) -> u64 {
        (self.summary() + summary_words(num_locks) * size_of::<u64>()) as u64
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

    /// Which place of the cell table has its cell at that byte of the file.
    pub(super) fn place_at(self, offset: u64) -> Option<usize> {
        let distance = usize::try_from(offset.checked_sub(self.table() as u64)?).ok()?;
        let index = distance / size::PLACE;
        let is_cell = distance % size::PLACE < size_of::<u64>();
        (self.readers() == Readers::InCells && index < PLACES && is_cell).then_some(index)
    }

    /// In which lock's word, or cells, that byte of the file is: a thread that sleeps there waits for the lock.
    pub(super) fn lock_at(self, offset: u64, num_locks: u32) -> Option<u32> {
        const WORD_END: usize = slot::WORD + size_of::<u64>();
        const CELLS_END: usize = slot::CELLS + CELLS * size_of::<u64>();
        let distance = offset.checked_sub(self.slots() as u64)?;
        let id = u32::try_from(distance / size::SLOT as u64).ok()?;
        let is_slept_on = match (distance % size::SLOT as u64) as usize {
            slot::WORD..WORD_END => true,
            slot::CELLS..CELLS_END => self.readers() == Readers::InCells,
            _ => false,
        };
        (id < num_locks && is_slept_on).then_some(id)
    }
}
