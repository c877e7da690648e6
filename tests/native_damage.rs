// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whatever somebody writes into a native segment, before it is opened or while it is in use: an error in words, or a
//! manager that works; no signal, no panic, and every wait ends when its time is over.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing helper is a failing test")]

#[path = "native_damage/damage.rs"]
mod damage;
#[path = "native_damage/document.rs"]
mod document;
#[path = "native_damage/files.rs"]
mod files;
#[path = "native_damage/format.rs"]
mod format;
#[path = "native_damage/header.rs"]
mod header;
#[path = "native_damage/version_1.rs"]
mod version_1;
#[path = "native_damage/writer.rs"]
mod writer;

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use lock_manager::{Layout, Manager, SegmentOptions, ShmManager};
use support::{Random, Segment};

/// What a call may take beyond its own time, on a machine that is busy with other things: one that stood still for three
/// seconds, with all processes on it, was seen.
const MARGIN: Duration = support::timing::scaled(Duration::from_secs(10));

fn options() -> SegmentOptions {
    SegmentOptions::default().layout(Layout::Native).max_locks(damage::MOST as u32)
}

fn write_at(segment: &Segment, at: u64, bytes: &[u8]) {
    File::options().write(true).open(segment.file()).unwrap().write_all_at(bytes, at).unwrap();
}

/// Makes a call, whichever comes; it ends within its own time and a margin.
fn call_anything(manager: &ShmManager, random: &mut Random) {
    let most = damage::MOST as u32;
    let id = random.pick(&[0, 1, 2, 3, 4, 5, 6, 7, most - 1, u32::MAX]);
    let own_time = Duration::from_millis(random.below(12));
    let start = Instant::now();
    let _ = match random.below(24) {
        0..=3 => manager.timed_lock(id, own_time).map(drop),
        4 | 5 => manager.try_lock(id).map(drop),
        6..=9 => manager.unlock(id),
        10 => manager.allocate_lock().map(drop),
        11 => manager.free_lock(id),
        12 => manager.allocate_and_retrieve_lock(id),
        13 => manager.lock_info(id).map(drop),
        14 => manager.locks_held().map(|ids| assert!(ids.iter().all(|&id| id < most))),
        15 => manager.available_locks().map(|free| assert!(free <= most)),
        16 => manager.repair_lock(id),
        17 => manager.timed_lock_shared(id, own_time).map(drop),
        18 => manager.try_lock_shared(id).map(drop),
        19 | 20 => manager.unlock_shared(id),
        21 => manager.downgrade_lock(id),
        22 => manager.lock_holders(id).map(drop),
        _ => match random.below(8) {
            0 => manager.grow(most),
            1 => manager.free_all_locks(),
            2 => manager.info().map(drop),
            3 => manager.retrieve_lock(id),
            _ => manager.num_locks().map(|num_locks| assert!(num_locks <= most)),
        },
    };
    assert!(start.elapsed() < own_time + MARGIN, "a call took {:?}", start.elapsed());
}
