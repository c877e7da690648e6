// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the generations of an entry begin again, nothing that names an earlier tenant may come to mean a new one.

use std::fs::File;
use std::os::unix::fs::FileExt;

use lock_manager::{Acquired, Manager};

use super::support::alone::alone;
use super::support::native_layout::{self as layout, GENERATIONS, RECORDS, WAITERS};
use super::support::process::{gone_tid, sleep_until_killed};
use super::support::{Child, Segment, board, errno_of, eventually, fork, taken_once};

const ENTRY: u32 = 9;

/// A segment in which the next to attach gets ENTRY, whose last tenant had the last generation of all.
fn about_to_wrap(was_live: bool) -> Segment {
    let segment = Segment::native(64);
    segment.write_number_at(layout::entry(ENTRY), (GENERATIONS - 1) << 1 | u64::from(was_live));
    segment.write_word_at(layout::AT_ROTOR, ENTRY);
    segment
}

/// A child that attaches, and holds lock 0 until it is killed.
fn tenant(segment: &Segment) -> Child {
    let ready = &board(1)[0];
    let child = fork(|| {
        let manager = segment.open();
        let _ = manager.lock(0).unwrap();
        ready.store(1, std::sync::atomic::Ordering::Release);
        sleep_until_killed();
    });
    eventually("the child holds the lock", || ready.load(std::sync::atomic::Ordering::Acquire) == 1);
    let named = segment.number_at(layout::word(0));
    assert_eq!(layout::process_of(named), layout::owner(ENTRY, 0, 0), "{named:#x}");
    child
}

#[test]
fn words_that_name_the_entry_become_a_dead_holders() {
    alone!({
        for was_live in [false, true] {
            let segment = about_to_wrap(was_live);
            // As left by tenants that were killed: one of the generation that comes next, one of another, one waited for.
            for (id, generation, more) in [(1, 0, 0), (2, 77, 0), (3, 0, WAITERS)] {
                segment.write_number_at(layout::word(id), layout::owner(ENTRY, generation, 1) | more);
            }
            let bystander = layout::owner(ENTRY + 1, 0, 1);
            segment.write_number_at(layout::word(4), bystander);
            let child = tenant(&segment);
            for id in [1, 2, 3] {
                let word = segment.number_at(layout::word(id));
                assert_eq!(word & !WAITERS, layout::OWNER_DIED, "{id}");
            }
            assert_eq!(segment.number_at(layout::word(4)), bystander);
            let manager = segment.open();
            assert_eq!(manager.locks_held().unwrap(), [0]);
            for id in 1..=4 {
                assert_eq!(taken_once(&manager, id), Acquired::OwnerDied, "{id}");
            }
            child.kill();
            assert_eq!(taken_once(&manager, 0), Acquired::OwnerDied);
        }
    });
}

/// Writes a record of a dead thread of ENTRY's generation 0 into every place.
fn fill_records(segment: &Segment, tid: i32) {
    let mut bytes = Vec::new();
    for _ in 0..RECORDS {
        for number in [layout::owner(ENTRY, 0, 1), tid as u64, 0, 0] {
            bytes.extend_from_slice(&number.to_ne_bytes());
        }
    }
    File::options().write(true).open(segment.file()).unwrap().write_all_at(&bytes, layout::record(0)).unwrap();
    // Pages of records follow the 128 of the entries.
    segment.write_number_at(layout::AT_READY + 16, u64::MAX);
}

#[test]
fn a_record_of_an_earlier_tenants_thread_does_not_speak_for_the_new_ones() {
    alone!({
        let segment = about_to_wrap(false);
        fill_records(&segment, gone_tid());
        let holder = tenant(&segment);
        // Would the record speak, this thread would be dead.
        let manager = segment.open();
        assert_eq!(errno_of(manager.try_lock(0)), libc::EBUSY);
        assert_eq!(manager.lock_info(0).unwrap().tid, holder.pid());
        holder.kill();
        assert_eq!(taken_once(&manager, 0), Acquired::OwnerDied);
    });
}

#[test]
fn the_detector_does_not_stay_an_earlier_tenants() {
    alone!({
        let segment = about_to_wrap(false);
        segment.write_number_at(layout::AT_DETECTOR, layout::owner(ENTRY, 0, 5));
        let _holder = tenant(&segment);
        assert_eq!(layout::entry_of(segment.number_at(layout::AT_DETECTOR)), 0);
    });
}

#[test]
fn a_tenant_of_any_generation_is_found_alive_and_dead() {
    alone!({
        for generation in [GENERATIONS - 2, GENERATIONS, GENERATIONS + 5, (1 << 15) - 1, (1 << 63) - 2] {
            let segment = Segment::native(64);
            segment.write_number_at(layout::entry(ENTRY), generation << 1);
            segment.write_word_at(layout::AT_ROTOR, ENTRY);
            let holder = segment.holder_of(&[3]);
            let manager = segment.open();
            let word = segment.number_at(layout::word(3));
            assert_eq!(layout::process_of(word), layout::owner(ENTRY, (generation + 1) % GENERATIONS, 0));
            assert_eq!(errno_of(manager.try_lock(3)), libc::EBUSY);
            holder.kill();
            assert_eq!(taken_once(&manager, 3), Acquired::OwnerDied);
        }
    });
}
