// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Thread records: which thread a lock word means, and which lock it waits for. A table hashed by the owner's word. A
//! thread that finds no room locks all the same, without the service of the thread's death and of deadlocks.

use std::sync::atomic::{AtomicU64, Ordering};

use super::format::{self, record};
use super::space::Space;
use super::word;

/// How many places are looked at.
const PROBES: u32 = 16;
/// How far they are apart: odd, so that they are all different, and far, so that the threads of one process, which lie
/// side by side, do not push each other out.
const STRIDE: u32 = 509;

/// A record under construction: no owner's word has that bit.
const UNFINISHED: u64 = word::WAITERS;

/// Bits of a wait that number it.
const WAIT_SHIFT: u32 = 32;

/// A thread's record, as long as it is its own.
#[derive(Clone, Copy)]
pub(super) struct Record<'p> {
    space: &'p Space,
    index: u32,
}

/// A thread as its record has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ThreadId {
    pub(super) tid: i32,
    /// A time by which it had started, in clock ticks since boot, the low half; 0: unknown.
    pub(super) started_by: u32,
}

/// A thread that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WaitsFor {
    pub(super) lock: u32,
    /// With its number.
    pub(super) raw: u64,
}

impl<'p> Record<'p> {
    fn word(&self, offset: usize) -> &'p AtomicU64 {
        self.space.segment.map.u64_at(self.space.geometry.record(self.index) + offset)
    }

    /// The owner's word, or something that is none.
    pub(super) fn key(&self) -> u64 {
        self.word(record::KEY).load(Ordering::Acquire)
    }

    pub(super) fn thread(&self) -> ThreadId {
        let both = self.word(record::THREAD).load(Ordering::Relaxed);
        ThreadId { tid: both as u32 as i32, started_by: (both >> u32::BITS) as u32 }
    }

    pub(super) fn waits_for(&self) -> Option<WaitsFor> {
        let raw = self.word(record::WANTS).load(Ordering::Acquire);
        // Plus one, so that 0 is no wait.
        Some(WaitsFor { lock: (raw as u32).checked_sub(1)?, raw })
    }

    /// Since when it waits, by CLOCK_MONOTONIC.
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

    /// Takes the wait back. Its number stays, for the next.
    pub(super) fn clear_wait(&self) {
        let wants = self.wait_word();
        wants.store(wants.load(Ordering::Relaxed) >> WAIT_SHIFT << WAIT_SHIFT, Ordering::Release);
    }

    /// Where the wait stands.
    pub(super) fn wait_word(&self) -> &'p AtomicU64 {
        self.word(record::WANTS)
    }
}

fn places(owner: u64) -> impl Iterator<Item = u32> {
    // Processes apart, the threads of one together: then they share a page.
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

    /// The record of a thread of this process that has one. It is on a page that this process has reserved, and to ask
    /// about the others is dearer than all the rest of a process's first lock.
    fn own_record(&self, owner: u64) -> Option<Record<'_>> {
        let is_reserved = |index: &u32| self.has_reserved(format::page_of_record(*index));
        let mut records = places(owner).filter(is_reserved).map(|index| Record { space: self, index });
        records.find(|record| record.key() == owner)
    }

    /// The calling thread's record, made now if it has none.
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

    /// Gives up the record of a thread that ends.
    pub(super) fn release_record(&self, owner: u64) {
        if let Some(record) = self.own_record(owner) {
            record.word(record::WANTS).store(0, Ordering::Relaxed);
            record.word(record::KEY).store(0, Ordering::Release);
        }
    }

    /// Gives up the records of whoever lived in an entry, finished or not; nobody lives there.
    pub(super) fn release_records_of(&self, entry: u32) {
        for record in (0..format::RECORDS).filter_map(|index| self.record(index)) {
            let key = record.key();
            if word::entry(key) == entry {
                let slot = record.word(record::KEY);
                let _anothers_by_now = slot.compare_exchange(key, 0, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
    }

    /// Every record that is somebody's.
    pub(super) fn records(&self) -> impl Iterator<Item = Record<'_>> {
        (0..format::RECORDS)
            .filter_map(|index| self.record(index))
            .filter(|record| !matches!(record.key(), 0) && record.key() & !word::OWNER == 0)
    }

    /// Whether the entry that a key names has another tenant by now, or none.
    pub(super) fn is_past(&self, key: u64) -> bool {
        match self.entry(word::entry(key)) {
            Ok(None) => true,
            Ok(Some(entry)) => !entry.state().is_named_by(key),
            Err(()) => false,
        }
    }
}
