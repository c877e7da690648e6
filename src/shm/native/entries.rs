// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The attach table: an entry for each process that uses the segment. The process holds a record lock on the first byte
//! of its entry.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::sys::descriptor::record_lock::Range;
use crate::sys::process::namespaces::Namespaces;
use crate::sys::syscall::mapping::Mapping;

use super::format::{self, entry};
use super::geometry::Geometry;
use super::word;

/// The generation of an entry, and whether a process has it: one number, always read and written whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State(u64);

const LIVE: u64 = 1;

impl State {
    pub(super) fn live(generation: u64) -> Self {
        Self(generation << 1 | LIVE)
    }

    pub(super) fn gone(generation: u64) -> Self {
        Self(generation << 1)
    }

    pub(super) fn is_live(self) -> bool {
        self.0 & LIVE != 0
    }

    pub(super) fn generation(self) -> u64 {
        self.0 >> 1
    }

    /// Whether a word names this generation, and it is live.
    pub(super) fn is_named_by(self, word: u64) -> bool {
        self.is_live() && self.generation() & word::GENERATION_MASK == word::generation(word)
    }
}

/// What keeps the file description open that holds the record lock of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeptBy {
    /// A mapping, or nothing: no other process can ask.
    Mapping = 0,
    /// A descriptor, which closefrom(3) would close.
    Descriptor = 1,
}

/// The process that has an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProcessInfo {
    pub(super) pid: i32,
    pub(super) pid_namespace: u64,
    pub(super) time_namespace: u64,
}

/// One entry of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'m> {
    map: &'m Mapping,
    offset: usize,
}

impl<'m> Entry<'m> {
    pub(super) fn at(map: &'m Mapping, offset: usize) -> Self {
        Self { map, offset }
    }

    fn u32(&self, offset: usize) -> &'m AtomicU32 {
        self.map.u32_at(self.offset + offset)
    }

    fn u64(&self, offset: usize) -> &'m AtomicU64 {
        self.map.u64_at(self.offset + offset)
    }

    pub(super) fn state(&self) -> State {
        State(self.u64(entry::STATE).load(Ordering::Acquire))
    }

    pub(super) fn set_state(&self, state: State) {
        self.u64(entry::STATE).store(state.0, Ordering::Release);
    }

    /// Marks the process that had the entry in `state` as dead.
    pub(super) fn mark_dead(&self, state: State) {
        let gone = State::gone(state.generation()).0;
        let _another_did = self.u64(entry::STATE).compare_exchange(state.0, gone, Ordering::AcqRel, Ordering::Relaxed);
    }

    pub(super) fn process_info(&self) -> ProcessInfo {
        // Read this first: it is written last, so all the rest is there.
        let pid_namespace = self.u64(entry::PID_NAMESPACE).load(Ordering::Acquire);
        ProcessInfo {
            pid: self.u32(entry::PID).load(Ordering::Relaxed) as i32,
            pid_namespace,
            time_namespace: self.u64(entry::TIME_NAMESPACE).load(Ordering::Relaxed),
        }
    }

    /// Writes the process's id, and takes away what the entry's last process published of itself.
    pub(super) fn reset_identity(&self, pid: i32, kept_by: KeptBy) {
        self.publish_identity([0, 0], 0, Namespaces { pid_namespace: 0, time_namespace: 0 });
        self.u32(entry::PID).store(pid as u32, Ordering::Relaxed);
        self.u32(entry::FLAGS).store(kept_by as u32, Ordering::Relaxed);
    }

    /// Writes the process's command, and what its numbers mean.
    pub(super) fn publish_identity(&self, command: [u64; 2], started_by: u64, from: Namespaces) {
        for (part, half) in command.into_iter().enumerate() {
            self.u64(entry::COMMAND + part * 8).store(half, Ordering::Relaxed);
        }
        self.u64(entry::STARTED_BY).store(started_by, Ordering::Relaxed);
        self.u64(entry::TIME_NAMESPACE).store(from.time_namespace, Ordering::Relaxed);
        self.u64(entry::PID_NAMESPACE).store(from.pid_namespace, Ordering::Release);
    }
}

/// The bytes of all entries: one of them is locked if any process uses the segment.
pub(super) fn bytes(geometry: Geometry) -> Range {
    Range::between(geometry.entry(1) as u64, geometry.entry(format::ENTRIES) as u64)
}

/// The byte that the process of an entry locks.
pub(super) fn byte(geometry: Geometry, index: u32) -> Range {
    let start = geometry.entry(index) as u64;
    Range::between(start, start + 1)
}
