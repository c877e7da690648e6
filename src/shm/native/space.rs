// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! A segment's memory as this process has it mapped. Everything is reached through offsets of the private geometry, by
//! numbers that were compared with private counts.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::sys::Errno;
use crate::sys::liveness;
use crate::sys::popcount;
use crate::sys::process::once_box::OnceBox;
use crate::sys::syscall::file::{self, Access, FileSystem, Metadata};
use crate::sys::syscall::mapping::Mapping;
use crate::{Reason, Result};

use super::super::name::SegmentName;
use super::super::removal::{self, mark};
use super::super::segment::{self, Blueprint, Candidate, Segment};
use super::bitmap::Bitmap;
use super::entries::Entry;
use super::format::{self, header, size, slot};
use super::geometry::Geometry;

/// How long an answer about removal is good for. A slice later at most, and so within 100 ms, a waiter knows.
const REMOVAL_LOOK_INTERVAL_NS: u64 = 90_000_000;

/// How many locks are free, by the bitmap of just those. What is no lock in the last word counts as taken.
pub(super) fn free_of(bitmap: &Bitmap<'_>) -> u32 {
    let words = bitmap.words;
    words.len() as u32 * u64::BITS - popcount::count_ones(words) as u32
}

/// Why it cannot be told whether a segment is from before this boot.
pub(super) fn no_boot(errno: Errno) -> Reason {
    match errno.0 {
        libc::EOPNOTSUPP => Reason::Unsupported(
            "/proc does not show the id of this boot, without which nobody can tell whether a segment on a disk is from this \
             boot; mount /proc, or put the segment on a tmpfs, such as /run or /dev/shm",
        ),
        _ => Reason::System { doing: "reading the boot's id", errno },
    }
}

fn mapping_more(errno: Errno) -> Reason {
    Reason::System { doing: "mapping more locks", errno }
}

/// A segment, mapped.
pub(super) struct Space {
    /// Mapped as long as it was when this process came to it.
    pub(super) segment: Segment,
    /// Mapped once more with room for all that may come to be, if it has grown since, or was about to: the first mapping
    /// stays, since others are on their way into it. A segment that does not grow takes no room for it.
    grown: OnceBox<Mapping>,
    pub(super) geometry: Geometry,
    pub(super) access: Access,
    /// How many locks this process knows of; it may touch the slots of those.
    num_locks: AtomicU32,
    /// The pages reserved when needed that this process may touch.
    pub(super) usable: [AtomicU64; format::READY_WORDS],
    hint: AtomicU32,
}

impl Space {
    /// Makes a segment and maps it.
    pub(super) fn create(name: &SegmentName, geometry: Geometry, mode: u32) -> Result<Self> {
        let [bitmap, slots] = geometry.reserved_at_first();
        // The header and room for the first processes to attach: the creator is one of them, and it would be too late for
        // it to find none once the segment has its name.
        let head = (0, geometry.lazy_page(1));
        let blueprint =
            Blueprint { mode, reserved: &[head, bitmap, slots], look_interval_ns: REMOVAL_LOOK_INTERVAL_NS };
        let segment = segment::create(name, &blueprint, |map, file, metadata, file_system| {
            removal::keep_removers_away(file, file_system)?;
            let boot = match liveness::boot_id() {
                // In memory nobody asks for it.
                Err(_) if file_system == FileSystem::Memory => [0; 16],
                read => read.map_err(no_boot)?,
            };
            write_header(map, geometry, metadata, boot);
            Ok(())
        })?;
        Ok(Self::new(segment, geometry, Access::ReadWrite, geometry.first_locks()))
    }

    /// Makes a segment of this process's own, of just as many locks.
    pub(super) fn create_nameless(geometry: Geometry, num_locks: u32) -> std::result::Result<Self, Reason> {
        let [bitmap, slots] = geometry.reserved_beyond(0, num_locks);
        let reserved =
            [(0, geometry.lazy_page(1)), (geometry.summary() as u64, geometry.summary_end(num_locks)), bitmap, slots];
        let segment =
            segment::create_nameless(&reserved, |map, metadata| write_header(map, geometry, metadata, [0; 16]))?;
        let space = Self::new(segment, geometry, Access::ReadWrite, num_locks);
        space.bitmap().keep_tail(num_locks);
        Ok(space)
    }

    /// Whether it is this process's alone.
    pub(super) fn is_nameless(&self) -> bool {
        self.segment.file_system == FileSystem::Nameless
    }

    /// Makes room for just `num_locks`, which are more than there are, in a segment of this process's own. The caller
    /// excludes other threads.
    pub(super) fn grow_nameless(&self, num_locks: u32) -> std::result::Result<(), Reason> {
        let there = self.num_locks();
        if num_locks <= there {
            return Ok(());
        }
        let size = self.geometry.size(num_locks);
        self.room_for(self.geometry.size(there))?;
        let [bitmap, slots] = self.geometry.reserved_beyond(there, num_locks);
        let summary = (self.geometry.summary_end(there), self.geometry.summary_end(num_locks));
        for (start, end) in [slots, bitmap, summary] {
            let reserved = self.segment.file.with_file(|file| file::reserve(file, start, end));
            reserved.map_err(|errno| segment::unreserved("reserving memory for more locks", errno, end - start))?;
        }
        self.room_for(size)?.extend(size).map_err(mapping_more)?;
        // What is no lock in the new last word first, then what has become one in the old.
        self.bitmap_of(num_locks).keep_tail(num_locks);
        self.num_locks.fetch_max(num_locks, Ordering::AcqRel);
        self.bitmap().release_tail(there, num_locks);
        Ok(())
    }

    /// Maps the segment that `candidate` found with `num_locks` locks.
    pub(super) fn open(candidate: Candidate, geometry: Geometry, num_locks: u32) -> Result<Self> {
        let access = candidate.access;
        let segment = candidate.map(geometry.size(num_locks), REMOVAL_LOOK_INTERVAL_NS)?;
        Ok(Self::new(segment, geometry, access, num_locks))
    }

    fn new(segment: Segment, geometry: Geometry, access: Access, num_locks: u32) -> Self {
        let (num_locks, hint) = (AtomicU32::new(num_locks), AtomicU32::new(0));
        let usable: [AtomicU64; format::READY_WORDS] = Default::default();
        // The first page was reserved when the segment was made.
        usable[0].store(1, Ordering::Relaxed);
        Self { segment, grown: OnceBox::new(), geometry, access, num_locks, usable, hint }
    }

    fn u32(&self, offset: usize) -> &AtomicU32 {
        self.segment.map.u32_at(offset)
    }

    /// Whether it is the segment of that id.
    pub(super) fn is(&self, identity: &[u8; 16]) -> bool {
        self.segment.map.holds(self.geometry.identity(), identity)
    }

    /// A word of the slot of a lock that this process knows of.
    pub(super) fn slot(&self, id: u32, offset: usize) -> &AtomicU64 {
        self.mapped_slots().u64_at(self.geometry.slot(id) + offset)
    }

    /// The first `count` locks but for those whose slots nobody has touched yet, in ranges: reading the slots of a million
    /// locks takes some milliseconds, and brings them all into memory.
    pub(super) fn touched_ids(&self, count: u32) -> Vec<Range<u32>> {
        /// Of fewer locks, reading them is quicker than asking.
        const MANY: u32 = 16_384;
        /// So many ranges are asked for: behind them every lock counts as touched.
        const MOST_RANGES: usize = 64;
        if count < MANY {
            return vec![0..count];
        }
        let size = size::SLOT as u64;
        let first = self.geometry.slot(0) as u64;
        let mut ranges: Vec<Range<u32>> = Vec::new();
        let mut next = 0;
        while next < count && ranges.len() < MOST_RANGES {
            let from = first + u64::from(next) * size;
            let Ok(found) = self.segment.file.with_file(|file| file::next_touched(file, from)) else { break };
            let id_at =
                |offset: u64| u32::try_from(offset.saturating_sub(first) / size).map_or(count, |id| id.min(count));
            let Some(found) = found else { return ranges };
            let range = id_at(found.start).max(next)..id_at(found.end + size - 1);
            next = range.end.max(next + 1);
            ranges.push(range);
        }
        ranges.push(next.min(count)..count);
        ranges
    }

    pub(super) fn mapped_slots(&self) -> &Mapping {
        self.grown.get().unwrap_or(&self.segment.map)
    }

    /// The word of a lock that is in range.
    pub(super) fn word(&self, id: u32) -> &AtomicU64 {
        self.slot(id, slot::WORD)
    }

    /// What the holder of a lock has noted.
    pub(super) fn note(&self, id: u32) -> u64 {
        self.slot(id, slot::NOTE).load(Ordering::Relaxed)
    }

    /// When a waiter last had a thorough look at the holder of a lock.
    pub(super) fn looked(&self, id: u32) -> &AtomicU64 {
        self.slot(id, slot::LOOKED)
    }

    /// Where the slots of the first `count` locks are mapped, of which this process knows.
    pub(super) fn slots(&self, count: u32) -> *mut u8 {
        let bytes = count as usize * format::size::SLOT;
        self.mapped_slots().address(self.geometry.slots(), bytes, format::size::SLOT)
    }

    /// The word that says how many locks there are.
    pub(super) fn published(&self) -> &AtomicU32 {
        self.u32(header::NUM_LOCKS)
    }

    /// The word that says whether the segment was retired.
    pub(super) fn retired(&self) -> &AtomicU32 {
        self.u32(header::RETIRED)
    }

    /// The lock that a deadlock's victim has to have, so that there is one at a time.
    pub(super) fn detector(&self) -> &AtomicU64 {
        self.segment.map.u64_at(header::DETECTOR)
    }

    pub(super) fn rotor(&self) -> &AtomicU32 {
        self.u32(header::ROTOR)
    }

    /// Whether the segment was removed, as far as its remover has marked it.
    #[inline]
    pub(super) fn is_retired(&self) -> bool {
        self.retired().load(Ordering::Relaxed) != mark::IN_USE && self.segment.is_removed_for_good(header::RETIRED)
    }

    /// To be asked by a process that has just attached. `ESTALE`: it attached to what was being removed.
    pub(super) fn await_removal(&self) -> std::result::Result<(), Reason> {
        match self.retired().load(Ordering::SeqCst) {
            mark::IN_USE => Ok(()),
            _ => self.segment.await_removal(header::RETIRED),
        }
    }

    /// The segment is not to be begun with any more.
    #[inline]
    pub(super) fn check_not_retired(&self) -> std::result::Result<(), Reason> {
        if self.is_retired() { Err(Reason::Removed) } else { Ok(()) }
    }

    /// The same, asked as [`is_removed_lately`](Self::is_removed_lately).
    pub(super) fn check_not_removed_lately(&self) -> std::result::Result<(), Reason> {
        if self.is_removed_lately() { Err(Reason::Removed) } else { Ok(()) }
    }

    /// Whether it was removed, by its remover's word or, asked now and then, because its file has lost its name.
    pub(super) fn is_removed_lately(&self) -> bool {
        self.is_retired() || self.segment.is_removed_lately()
    }

    /// How many locks this process knows of.
    #[inline(always)]
    pub(super) fn num_locks(&self) -> u32 {
        self.num_locks.load(Ordering::Acquire)
    }

    /// How many locks there are now, as far as this process can use them.
    pub(super) fn num_locks_now(&self) -> u32 {
        self.keep_up().unwrap_or_else(|_| self.num_locks())
    }

    /// Lets this process use what others have grown, as far as the file reaches. How many locks there are now.
    fn keep_up(&self) -> std::result::Result<u32, Reason> {
        let known = self.num_locks();
        let published = self.published().load(Ordering::Acquire);
        if published <= known {
            return Ok(known);
        }
        self.geometry.check_count(published)?;
        self.reach(published)?;
        Ok(self.num_locks.fetch_max(published, Ordering::AcqRel).max(published))
    }

    /// Lets this process touch the slots of the first `num_locks`, if the file has them.
    fn reach(&self, num_locks: u32) -> std::result::Result<(), Reason> {
        let size = self.geometry.size(num_locks);
        let asked = self.segment.file.query(|_| Ok(()));
        let ((), metadata) =
            asked.map_err(|errno| Reason::System { doing: "checking the size of the segment", errno })?;
        let (found, expected) = (metadata.size, size as u64);
        if found < expected {
            return Err(Reason::Damaged { what: "the size of the file", found, expected });
        }
        self.room_for(size)?.extend(size).map_err(mapping_more)
    }

    /// Where there is room for all that may come to be. If that is mapped only now, with access to the first `size` bytes.
    fn room_for(&self, size: usize) -> std::result::Result<&Mapping, Reason> {
        let most = self.geometry.size(self.geometry.max_locks());
        self.grown.get_or_make(|| self.segment.map.once_more(size, most)).map_err(mapping_more)
    }

    /// Whether there is a lock of that id, be it that others have made it since this process looked last.
    #[inline]
    pub(super) fn has_lock(&self, id: u32) -> bool {
        id < self.num_locks() || id < self.num_locks_now()
    }

    /// Makes room for `num_locks`, a whole number of groups.
    pub(super) fn grow(&self, num_locks: u32) -> std::result::Result<(), Reason> {
        let there = self.keep_up()?;
        if num_locks <= there {
            // Somebody else has grown it meanwhile.
            return Ok(());
        }
        // What this process could not use itself it does not make, and what is refused has reserved nothing.
        self.room_for(self.geometry.size(there))?;
        let bytes = u64::from(num_locks - there) * format::size::SLOT as u64;
        // The most first, for the same reason.
        for (start, end) in self.geometry.reserved_beyond(there, num_locks).into_iter().rev() {
            // Nothing is taken back where it fails: somebody else may have grown over it already.
            let reserved = self.segment.file.with_file(|file| file::reserve(file, start, end));
            reserved.map_err(|errno| segment::unreserved("reserving space for more locks", errno, bytes))?;
        }
        self.reach(num_locks)?;
        self.published().fetch_max(num_locks, Ordering::AcqRel);
        self.num_locks.fetch_max(num_locks, Ordering::AcqRel);
        Ok(())
    }

    /// The bitmap of the locks that this process knows of.
    #[inline]
    pub(super) fn bitmap(&self) -> Bitmap<'_> {
        self.bitmap_of(self.num_locks())
    }

    /// The bitmap of the first `count` locks, which this process knows of.
    #[inline]
    fn bitmap_of(&self, count: u32) -> Bitmap<'_> {
        let map = &self.segment.map;
        Bitmap {
            words: map.u64s_at(self.geometry.bitmap(), format::bitmap_words(count)),
            summary: map.u64s_at(self.geometry.summary(), format::summary_words(count)),
            frees: map.u64_at(header::FREES),
            hint: self.hint(),
        }
    }

    /// The word of the bitmap in which this process looks first.
    #[inline]
    pub(super) fn hint(&self) -> &AtomicU32 {
        &self.hint
    }

    /// The bitmap of as many locks as there may come to be: its pages are reserved as far as there are locks.
    pub(super) fn whole_bitmap(&self) -> Bitmap<'_> {
        self.bitmap_of(self.geometry.max_locks())
    }

    pub(super) fn count_free(&self) -> u32 {
        // Of one number of locks: another thread may grow the segment in between, and what it added be taken at once.
        free_of(&self.bitmap_of(self.num_locks_now()))
    }

    /// Whether this process has reserved a page of those that are reserved when needed, and may touch it.
    pub(super) fn has_reserved(&self, page: u32) -> bool {
        let (index, bit) = place_of(page);
        self.usable[index].load(Ordering::Relaxed) & bit != 0
    }

    /// Whether a page that is reserved when needed can be touched. `None`: nobody has needed it yet.
    pub(super) fn page_is_usable(&self, page: u32) -> Option<bool> {
        if self.has_reserved(page) {
            return Some(true);
        }
        let (index, bit) = place_of(page);
        if self.segment.map.u64_at(header::READY + index * 8).load(Ordering::Acquire) & bit == 0 {
            return None;
        }
        // Whoever writes the bit may lie, and a page that is not reserved can be a SIGBUS on a full file system. Who
        // only looks cannot reserve, and has to believe it.
        Some(self.access == Access::ReadOnly || self.reserve_page(page).is_ok())
    }

    pub(super) fn note_usable(&self, page: u32) {
        let (index, bit) = place_of(page);
        self.usable[index].fetch_or(bit, Ordering::Relaxed);
    }

    /// Reserves a page that is needed now.
    pub(super) fn reserve_page(&self, page: u32) -> std::result::Result<(), Reason> {
        let start = self.geometry.lazy_page(page);
        let end = self.geometry.lazy_page(page + 1);
        let reserved = self.segment.file.with_file(|file| file::reserve(file, start, end));
        reserved.map_err(|errno| segment::unreserved("reserving a page of the segment", errno, end - start))?;
        self.note_usable(page);
        let (index, bit) = place_of(page);
        // Sequentially consistent, for a reader that is about to claim a cell there: a writer looks which pages are ready.
        self.segment.map.u64_at(header::READY + index * 8).fetch_or(bit, Ordering::SeqCst);
        Ok(())
    }

    /// An entry of the attach table. `None`: nobody was ever there. `Err`: it cannot be looked at.
    pub(super) fn entry(&self, index: u32) -> std::result::Result<Option<Entry<'_>>, ()> {
        match self.page_is_usable(format::page_of_entry(index)) {
            None => Ok(None),
            Some(false) => Err(()),
            Some(true) => Ok(Some(Entry::at(&self.segment.map, self.geometry.entry(index)))),
        }
    }
}

/// Writes all that a new segment has.
fn write_header(map: &Mapping, geometry: Geometry, metadata: &Metadata, boot: [u8; 16]) {
    let (small, large) = geometry.numbers();
    for (offset, number) in small {
        map.u32_at(offset).store(number, Ordering::Relaxed);
    }
    for (offset, number) in large.into_iter().chain([
        (header::DEVICE, metadata.device),
        (header::INODE, metadata.inode),
        (header::CREATED, crate::sys::syscall::clock::nanoseconds_since_1970()),
    ]) {
        map.u64_at(offset).store(number, Ordering::Relaxed);
    }
    for (offset, id) in [(header::BOOT, boot), (header::IDENTITY, crate::sys::syscall::random::id())] {
        for (part, half) in id.as_chunks::<8>().0.iter().enumerate() {
            map.u64_at(offset + part * 8).store(u64::from_ne_bytes(*half), Ordering::Relaxed);
        }
    }
    map.u32_at(header::NUM_LOCKS).store(geometry.first_locks(), Ordering::Relaxed);
    map.u64_at(header::READY).store(1, Ordering::Relaxed);
    // Last, though nobody sees the file before it is linked: linkat(2) orders all of it.
    map.u64_at(header::MAGIC).store(format::MAGIC, Ordering::Release);
}

/// Where a page that is reserved when needed has its bit: the word's index, and the bit.
pub(super) fn place_of(page: u32) -> (usize, u64) {
    ((page / u64::BITS) as usize, 1 << (page % u64::BITS))
}
