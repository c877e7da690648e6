// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! A segment's memory as this process has it mapped. Every offset comes from the private geometry, and every index was
//! compared with a private count.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::sys::Errno;
use crate::sys::popcount;
use crate::sys::probe;
use crate::sys::process::namespaces;
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

/// How long an answer about removal is believed. A waiter notices a removal at most one slice later, so within 100 ms.
const REMOVAL_LOOK_INTERVAL_NS: u64 = 90_000_000;

/// The number of free locks, by the bitmap of exactly these locks. Bits of the last word that are no locks are set.
pub(super) fn free_of(bitmap: &Bitmap<'_>) -> u32 {
    let words = bitmap.words;
    words.len() as u32 * u64::BITS - popcount::count_ones(words) as u32
}

/// Why it is unknown whether a segment was made before this boot.
pub(super) fn no_boot(errno: Errno) -> Reason {
    match errno.0 {
        libc::EOPNOTSUPP => Reason::Unsupported(
            "/proc does not show the id of this boot, without which nobody can tell whether a segment on a disk is from this \
             boot; mount /proc, or put the segment on a tmpfs, such as /run or /dev/shm",
        ),
        _ => Reason::System { doing: "reading the boot's id", errno },
    }
}

/// How many larger mappings a segment comes to have as it grows: each has room for eight times as many locks as the one
/// before, and the last one for all. Where addresses are few, the largest number of locks would take a quarter of them at once.
const STEPS: usize = if cfg!(target_pointer_width = "64") { 1 } else { 4 };

fn mapping_more(errno: Errno) -> Reason {
    Reason::System { doing: "mapping more locks", errno }
}

/// A mapped segment.
pub(super) struct Space {
    /// Its file and its first mapping, as long as the file was when it was opened.
    pub(super) segment: Segment,
    /// Mappings with room for more locks, made when the segment grows, the largest first. Those before it stay, because
    /// other threads may be using them. A segment that never grows takes no address space for this.
    grown: [OnceBox<Mapping>; STEPS],
    pub(super) geometry: Geometry,
    pub(super) access: Access,
    /// How many locks this process knows. It may touch their slots.
    num_locks: AtomicU32,
    /// The pages reserved on demand that this process may touch, a bit each.
    pub(super) usable: [AtomicU64; format::READY_WORDS],
    hint: AtomicU32,
}

impl Space {
    /// Creates a segment and maps it.
    pub(super) fn create(name: &SegmentName, geometry: Geometry, mode: u32) -> Result<Self> {
        let [bitmap, slots] = geometry.reserved_at_first();
        // Reserve the header and the first entries at once: the creator attaches as well, and must find room before the
        // segment has its name.
        let head = (0, geometry.lazy_page(1));
        let blueprint =
            Blueprint { mode, reserved: &[head, bitmap, slots], look_interval_ns: REMOVAL_LOOK_INTERVAL_NS };
        let segment = segment::create(name, &blueprint, |map, file, metadata, file_system| {
            removal::keep_removers_away(file, file_system)?;
            let boot = match namespaces::boot_id() {
                // Nobody checks the boot id of a file in memory.
                Err(_) if file_system == FileSystem::Memory => [0; 16],
                read => read.map_err(no_boot)?,
            };
            write_header(map, geometry, metadata, boot);
            Ok(())
        })?;
        Ok(Self::new(segment, geometry, Access::ReadWrite, geometry.first_locks()))
    }

    /// Makes a segment without a name, for this process alone, with exactly `num_locks` locks.
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

    /// Whether the segment is this process's alone.
    pub(super) fn is_nameless(&self) -> bool {
        self.segment.file_system == FileSystem::Nameless
    }

    /// Grows a segment that is this process's alone to exactly `num_locks`. The caller excludes other threads.
    pub(super) fn grow_nameless(&self, num_locks: u32) -> std::result::Result<(), Reason> {
        let there = self.num_locks();
        if num_locks <= there {
            return Ok(());
        }
        let size = self.geometry.size(num_locks);
        self.room_for(num_locks, self.geometry.size(there))?;
        let [bitmap, slots] = self.geometry.reserved_beyond(there, num_locks);
        let summary = (self.geometry.summary_end(there), self.geometry.summary_end(num_locks));
        for (start, end) in [slots, bitmap, summary] {
            let reserved = self.segment.file.with_file(|file| file::reserve(file, start, end));
            reserved.map_err(|errno| segment::unreserved("reserving memory for more locks", errno, end - start))?;
        }
        self.room_for(num_locks, size)?.extend(size).map_err(mapping_more)?;
        // First set the bits of the new last word that are no locks, then clear those of the old one that are locks now.
        self.bitmap_of(num_locks).keep_tail(num_locks);
        self.use_more(num_locks);
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
        // The first page is reserved at creation.
        usable[0].store(1, Ordering::Relaxed);
        Self { segment, grown: [const { OnceBox::new() }; STEPS], geometry, access, num_locks, usable, hint }
    }

    fn u32(&self, offset: usize) -> &AtomicU32 {
        self.segment.map.u32_at(offset)
    }

    /// Whether the segment has that id.
    pub(super) fn is(&self, identity: &[u8; 16]) -> bool {
        self.segment.map.holds(self.geometry.identity(), identity)
    }

    /// A word in the slot of a lock that this process knows.
    pub(super) fn slot(&self, id: u32, offset: usize) -> &AtomicU64 {
        self.mapped_slots().u64_at(self.geometry.slot(id) + offset)
    }

    /// The first `count` locks, without those whose slots nobody has touched yet: reading the slots of a million
    /// locks takes some milliseconds, and brings them all into memory.
    ///
    /// Allocates nothing: the end of a thread comes here, also if a handler ends it in the midst of malloc(3).
    pub(super) fn touched_ids(&self, count: u32) -> impl Iterator<Item = u32> + '_ {
        /// With fewer locks than this, reading the slots is quicker than asking which were touched.
        const MANY: u32 = 16_384;
        /// How many ranges are asked for. Behind the last one every lock counts as touched.
        const MOST_RANGES: u32 = 64;
        let mut left = if count < MANY { 0 } else { MOST_RANGES };
        let mut range = 0..0u32;
        std::iter::from_fn(move || {
            while range.is_empty() && range.end < count {
                let rest = range.end..count;
                range = if left == 0 { rest } else { self.first_touched(rest) };
                left = left.saturating_sub(1);
            }
            range.next()
        })
    }

    /// The first of these locks that were touched, until one was not; empty, at their end, if none was. All of them if that
    /// cannot be said.
    fn first_touched(&self, ids: Range<u32>) -> Range<u32> {
        let (size, first) = (size::SLOT as u64, self.geometry.slot(0) as u64);
        let from = first + u64::from(ids.start) * size;
        let id_at = |offset: u64| {
            u32::try_from(offset.saturating_sub(first) / size).unwrap_or(ids.end).clamp(ids.start, ids.end)
        };
        match self.segment.file.with_file(|file| file::next_touched(file, from)) {
            Err(_) => ids,
            Ok(None) => ids.end..ids.end,
            Ok(Some(bytes)) => id_at(bytes.start)..id_at(bytes.end + size - 1),
        }
    }

    pub(super) fn mapped_slots(&self) -> &Mapping {
        self.grown.iter().find_map(OnceBox::get).unwrap_or(&self.segment.map)
    }

    /// The word of a lock that is in range.
    pub(super) fn word(&self, id: u32) -> &AtomicU64 {
        self.slot(id, slot::WORD)
    }

    /// The note of a lock.
    pub(super) fn note(&self, id: u32) -> u64 {
        self.slot(id, slot::NOTE).load(Ordering::Relaxed)
    }

    /// When a waiter last checked the holder of a lock thoroughly.
    pub(super) fn looked(&self, id: u32) -> &AtomicU64 {
        self.slot(id, slot::LOOKED)
    }

    /// The address of the slots of the first `count` locks, which this process knows.
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

    /// The lock word that the victim of a deadlock has to take, so that there is one victim at a time.
    pub(super) fn detector(&self) -> &AtomicU64 {
        self.segment.map.u64_at(header::DETECTOR)
    }

    pub(super) fn rotor(&self) -> &AtomicU32 {
        self.u32(header::ROTOR)
    }

    /// Whether a remover has removed the segment.
    #[inline]
    pub(super) fn is_retired(&self) -> bool {
        self.retired().load(Ordering::Relaxed) != mark::IN_USE && self.segment.is_removed_for_good(header::RETIRED)
    }

    /// A process that has just attached waits here for the end of a removal. `ESTALE`: the segment was removed.
    pub(super) fn await_removal(&self) -> std::result::Result<(), Reason> {
        match self.retired().load(Ordering::SeqCst) {
            mark::IN_USE => Ok(()),
            _ => self.segment.await_removal(header::RETIRED),
        }
    }

    /// Fails if the segment was removed by a remover.
    #[inline]
    pub(super) fn check_not_retired(&self) -> std::result::Result<(), Reason> {
        if self.is_retired() { Err(Reason::Removed) } else { Ok(()) }
    }

    /// Fails if [`is_removed_lately`](Self::is_removed_lately).
    pub(super) fn check_not_removed_lately(&self) -> std::result::Result<(), Reason> {
        if self.is_removed_lately() { Err(Reason::Removed) } else { Ok(()) }
    }

    /// Whether a remover has removed the segment, or its file has lost its name. The file is asked now and then only.
    pub(super) fn is_removed_lately(&self) -> bool {
        self.is_retired() || self.segment.is_removed_lately()
    }

    /// How many locks this process knows.
    #[inline(always)]
    pub(super) fn num_locks(&self) -> u32 {
        self.num_locks.load(Ordering::Acquire)
    }

    /// How many locks there are now that this process can use.
    pub(super) fn num_locks_now(&self) -> u32 {
        self.keep_up().unwrap_or_else(|_| self.num_locks())
    }

    /// Lets this process use the locks that others have added. Returns how many locks there are now.
    fn keep_up(&self) -> std::result::Result<u32, Reason> {
        let known = self.num_locks();
        let published = self.published().load(Ordering::Acquire);
        if published <= known {
            return Ok(known);
        }
        self.geometry.check_count(published)?;
        self.reach(published)?;
        Ok(self.use_more(published))
    }

    /// Counts locks that this process can use now. Returns how many there are then.
    fn use_more(&self, num_locks: u32) -> u32 {
        let before = self.num_locks.fetch_max(num_locks, Ordering::AcqRel);
        if before < num_locks {
            probe::grown(self.segment.metadata.inode, before.into(), num_locks.into());
        }
        before.max(num_locks)
    }

    /// Maps the slots of the first `num_locks`, if the file is long enough.
    fn reach(&self, num_locks: u32) -> std::result::Result<(), Reason> {
        let size = self.geometry.size(num_locks);
        let asked = self.segment.file.query(|_| Ok(()));
        let ((), metadata) =
            asked.map_err(|errno| Reason::System { doing: "checking the size of the segment", errno })?;
        let (found, expected) = (metadata.size, size as u64);
        if found < expected {
            return Err(Reason::Damaged { what: "the size of the file", found, expected });
        }
        self.room_for(num_locks, size)?.extend(size).map_err(mapping_more)
    }

    /// The mapping that has the slots from now on, with room for `num_locks`. If it is made now, its first `size` bytes are
    /// accessible, and if it is not the only one there may be, all for which a smaller one has room. Some of those may be
    /// beyond the end of the file: nobody touches them, but a program that scans its memory gets a SIGBUS there.
    fn room_for(&self, num_locks: u32, size: usize) -> std::result::Result<&Mapping, Reason> {
        let most = |step: usize| self.geometry.max_locks() >> (3 * step);
        let room = |step: usize| self.geometry.size(most(step));
        let smallest = (0..STEPS).rev().find(|&step| most(step) >= num_locks).unwrap_or(0);
        let largest_there = self.grown.iter().position(|grown| grown.get().is_some()).unwrap_or(smallest);
        let step = smallest.min(largest_there);
        // As far as a smaller one reaches: another thread may be extending that one, and using more locks, just now.
        let size = if step + 1 < STEPS { size.max(room(step + 1)) } else { size };
        self.grown[step].get_or_make(|| self.segment.map.once_more(size, room(step))).map_err(mapping_more)
    }

    /// Whether there is a lock `id`, even if another process has added it just now.
    #[inline]
    pub(super) fn has_lock(&self, id: u32) -> bool {
        id < self.num_locks() || id < self.num_locks_now()
    }

    /// Grows the segment to `num_locks`, a whole number of groups.
    pub(super) fn grow(&self, num_locks: u32) -> std::result::Result<(), Reason> {
        let there = self.keep_up()?;
        if num_locks <= there {
            // Another process has grown the segment meanwhile.
            return Ok(());
        }
        // Map first: a process must not make room that it could not use itself, and a refused call must have reserved
        // nothing.
        self.room_for(num_locks, self.geometry.size(there))?;
        let bytes = u64::from(num_locks - there) * format::size::SLOT as u64;
        // Reserve the largest part first, for the same reason.
        for (start, end) in self.geometry.reserved_beyond(there, num_locks).into_iter().rev() {
            // Take nothing back if this fails: another process may use it already.
            let reserved = self.segment.file.with_file(|file| file::reserve(file, start, end));
            reserved.map_err(|errno| segment::unreserved("reserving space for more locks", errno, bytes))?;
        }
        self.reach(num_locks)?;
        self.published().fetch_max(num_locks, Ordering::AcqRel);
        self.use_more(num_locks);
        Ok(())
    }

    /// The bitmap of the locks that this process knows.
    #[inline]
    pub(super) fn bitmap(&self) -> Bitmap<'_> {
        self.bitmap_of(self.num_locks())
    }

    /// The bitmap of the first `count` locks, which this process knows.
    #[inline]
    pub(super) fn bitmap_of(&self, count: u32) -> Bitmap<'_> {
        let map = &self.segment.map;
        Bitmap {
            words: map.u64s_at(self.geometry.bitmap(), format::bitmap_words(count)),
            summary: map.u64s_at(self.geometry.summary(), format::summary_words(count)),
            frees: map.u64_at(header::FREES),
            hint: self.hint(),
        }
    }

    /// The word of the bitmap at which this process starts to search.
    #[inline]
    pub(super) fn hint(&self) -> &AtomicU32 {
        &self.hint
    }

    /// The bitmap of the largest number of locks. Its pages are reserved only as far as there are locks.
    pub(super) fn whole_bitmap(&self) -> Bitmap<'_> {
        self.bitmap_of(self.geometry.max_locks())
    }

    pub(super) fn count_free(&self) -> u32 {
        // Use one number of locks: another thread may grow the segment meanwhile, and its new locks may be taken at once.
        free_of(&self.bitmap_of(self.num_locks_now()))
    }

    /// Whether this process has reserved a page on demand, and may touch it.
    pub(super) fn has_reserved(&self, page: u32) -> bool {
        let (index, bit) = place_of(page);
        self.usable[index].load(Ordering::Relaxed) & bit != 0
    }

    /// Whether a page that is reserved on demand can be touched. `None`: no process has needed it yet.
    pub(super) fn page_is_usable(&self, page: u32) -> Option<bool> {
        if self.has_reserved(page) {
            return Some(true);
        }
        let (index, bit) = place_of(page);
        if self.segment.map.u64_at(header::READY + index * 8).load(Ordering::Acquire) & bit == 0 {
            return None;
        }
        // Reserve the page again: a hostile writer may have set the bit, and touching a page that is not reserved raises
        // SIGBUS on a full file system. A read-only opener cannot reserve and has to believe the bit.
        Some(self.access == Access::ReadOnly || self.reserve_page(page).is_ok())
    }

    pub(super) fn note_usable(&self, page: u32) {
        let (index, bit) = place_of(page);
        self.usable[index].fetch_or(bit, Ordering::Relaxed);
    }

    /// Reserves a page on demand.
    pub(super) fn reserve_page(&self, page: u32) -> std::result::Result<(), Reason> {
        let start = self.geometry.lazy_page(page);
        let end = self.geometry.lazy_page(page + 1);
        let reserved = self.segment.file.with_file(|file| file::reserve(file, start, end));
        reserved.map_err(|errno| segment::unreserved("reserving a page of the segment", errno, end - start))?;
        self.note_usable(page);
        let (index, bit) = place_of(page);
        // Sequentially consistent, because a reader may claim a cell there next: a writer reads which pages are ready.
        self.segment.map.u64_at(header::READY + index * 8).fetch_or(bit, Ordering::SeqCst);
        Ok(())
    }

    /// An entry of the attach table. `None`: no process ever had it. `Err`: it cannot be read.
    pub(super) fn entry(&self, index: u32) -> std::result::Result<Option<Entry<'_>>, ()> {
        match self.page_is_usable(format::page_of_entry(index)) {
            None => Ok(None),
            Some(false) => Err(()),
            Some(true) => Ok(Some(Entry::at(&self.segment.map, self.geometry.entry(index)))),
        }
    }
}

/// Writes the header of a new segment.
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
    // Write the magic last. Nobody sees the file before it is linked, and linkat(2) orders all of this before.
    map.u64_at(header::MAGIC).store(format::MAGIC, Ordering::Release);
}

/// The bit of a page that is reserved on demand: the index of its word, and the bit in it.
pub(super) fn place_of(page: u32) -> (usize, u64) {
    ((page / u64::BITS) as usize, 1 << (page % u64::BITS))
}
