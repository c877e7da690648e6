// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Thread records: which thread a lock word means, and which lock the thread waits for. The table is hashed by the
//! owner's word. A thread that finds no room can lock all the same. But its death is not noticed while its process lives, and
//! its deadlocks are not found (T9).

use std::sync::atomic::{AtomicU64, Ordering};

use super::format::{self, record};
use super::space::Space;
use super::word;

/// How many places a thread tries for its record.
const PROBES: u32 = 16;
/// The distance between them. It is odd, so the places all differ; and large, because the threads of one process begin at
/// neighbouring places and should not collide.
const STRIDE: u32 = 509;

/// A key that is being written has this bit; no owner's word has it.
const UNFINISHED: u64 = word::WAITERS;

/// A published wait has the lock's id in these low bits, and its own number above them.
const WAIT_SHIFT: u32 = 32;

/// A place in the table, while it is one thread's record.
#[derive(Clone, Copy)]
pub(super) struct Record<'p> {
    space: &'p Space,
    index: u32,
}

/// How a record identifies its thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ThreadId {
    pub(super) tid: i32,
    /// The low half of a time by which it had started, in clock ticks since boot; 0: unknown.
    pub(super) started_by: u32,
}

/// What a thread waits for, as its record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WaitsFor {
    pub(super) lock: u32,
    /// As it stands in the record, with its number.
    pub(super) raw: u64,
}

impl<'p> Record<'p> {
    fn word(&self, offset: usize) -> &'p AtomicU64 {
        self.space.segment.map.u64_at(self.space.geometry.record(self.index) + offset)
    }

    /// The owner's word; 0 or unfinished: no thread's.
    pub(super) fn key(&self) -> u64 {
        self.word(record::KEY).load(Ordering::Acquire)
    }

    pub(super) fn thread(&self) -> ThreadId {
        let both = self.word(record::THREAD).load(Ordering::Relaxed);
        ThreadId { tid: both as u32 as i32, started_by: (both >> u32::BITS) as u32 }
    }

    pub(super) fn waits_for(&self) -> Option<WaitsFor> {
        let raw = self.word(record::WANTS).load(Ordering::Acquire);
        // The record has the lock's id plus one, so 0 is no wait.
        Some(WaitsFor { lock: (raw as u32).checked_sub(1)?, raw })
    }

    /// When the wait began, by CLOCK_MONOTONIC.
    pub(super) fn since(&self) -> u64 {
        self.word(record::SINCE).load(Ordering::Relaxed)
    }

    /// Publishes that the thread waits for a lock.
    pub(super) fn publish_wait(&self, lock: u32, since: u64) {
        let wants = self.word(record::WANTS);
        let number = (wants.load(Ordering::Relaxed) >> WAIT_SHIFT).wrapping_add(1);
        self.word(record::SINCE).store(since, Ordering::Relaxed);
        wants.store(number << WAIT_SHIFT | u64::from(lock + 1), Ordering::Release);
    }

    /// Clears the published wait. Its number stays, so the next wait gets another.
    pub(super) fn clear_wait(&self) {
        let wants = self.wait_word();
        wants.store(wants.load(Ordering::Relaxed) >> WAIT_SHIFT << WAIT_SHIFT, Ordering::Release);
    }

    /// The word of the record that publishes the wait.
    pub(super) fn wait_word(&self) -> &'p AtomicU64 {
        self.word(record::WANTS)
    }
}

fn places(owner: u64) -> impl Iterator<Item = u32> {
    // Spread the processes, and keep the threads of one process together: they share a page then.
    let first = word::entry(owner).wrapping_mul(0x9E37_79B1).wrapping_add(word::serial(owner));
    (0..PROBES).map(move |probe| first.wrapping_add(probe * STRIDE) % format::RECORDS)
}

impl Space {
    fn record(&self, index: u32) -> Option<Record<'_>> {
        let usable = self.page_is_usable(format::page_of_record(index)) == Some(true);
        usable.then_some(Record { space: self, index })
    }

    /// The record of a thread that has one.
    pub(super) fn record_of(&self, owner: u64) -> Option<Record<'_>> {
        let owner = owner & word::OWNER;
        places(owner).filter_map(|index| self.record(index)).find(|record| record.key() == owner)
    }

    /// The same for a thread of this process. Its record is on a page that this process has reserved. The other pages are
    /// not looked at: asking for them costs more than all the rest of a process's first lock.
    fn own_record(&self, owner: u64) -> Option<Record<'_>> {
        let is_reserved = |index: &u32| self.has_reserved(format::page_of_record(*index));
        let mut records = places(owner).filter(is_reserved).map(|index| Record { space: self, index });
        records.find(|record| record.key() == owner)
    }

    /// The calling thread's record; it is made now if there is none.
    pub(super) fn claim_record(&self, owner: u64, thread: impl FnOnce() -> ThreadId) -> Option<Record<'_>> {
        if let Some(record) = self.own_record(owner) {
            return Some(record);
        }
        for index in places(owner) {
            let Some(record) = self.record(index).or_else(|| {
                self.reserve_page(format::page_of_record(index)).ok()?;
                self.record(index)
            }) else {
                continue;
            };
            let key = record.key();
            if key != 0 && !self.is_past(key) {
                continue;
            }
            let (slot, unfinished) = (record.word(record::KEY), owner | UNFINISHED);
            if slot.compare_exchange(key, unfinished, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                continue;
            }
            let ThreadId { tid, started_by } = thread();
            record.word(record::WANTS).store(0, Ordering::Relaxed);
            record
                .word(record::THREAD)
                .store(u64::from(started_by) << u32::BITS | u64::from(tid as u32), Ordering::Relaxed);
            slot.store(owner, Ordering::Release);
            return Some(record);
        }
        None
    }

    /// Frees the record of a thread that ends.
    pub(super) fn release_record(&self, owner: u64) {
        if let Some(record) = self.own_record(owner) {
            record.word(record::WANTS).store(0, Ordering::Relaxed);
            record.word(record::KEY).store(0, Ordering::Release);
        }
    }

    /// Frees all records of an entry that no process has, finished or not.
    pub(super) fn release_records_of(&self, entry: u32) {
        for record in (0..format::RECORDS).filter_map(|index| self.record(index)) {
            let key = record.key();
            if word::entry(key) == entry {
                let slot = record.word(record::KEY);
                let _anothers_by_now = slot.compare_exchange(key, 0, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
    }

    /// All records that belong to a thread.
    pub(super) fn records(&self) -> impl Iterator<Item = Record<'_>> {
        (0..format::RECORDS)
            .filter_map(|index| self.record(index))
            .filter(|record| !matches!(record.key(), 0) && record.key() & !word::OWNER == 0)
    }

    /// Whether the process that a key names no longer has its entry.
    pub(super) fn is_past(&self, key: u64) -> bool {
        match self.entry(word::entry(key)) {
            Ok(None) => true,
            Ok(Some(entry)) => !entry.state().is_named_by(key),
            Err(()) => false,
        }
    }
}
