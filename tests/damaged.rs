// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whatever bytes stand in a segment, opening it is refused in words or gives a manager that can be used: no signal,
//! no hang.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing helper is a failing test")]

/// Kinds of mutexes.
#[path = "damaged/kinds.rs"]
mod kinds;
mod support;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lock_manager::{Acquired, Layout, MAX_LOCKS, Manager, Reason, SegmentOptions, ShmManager};
use support::alone::alone;
use support::damage::damage;
use support::layout::{self, GROUP, LOST, OWNER, WORD};
use support::{Child, Exit, Random, Segment, board, errno_of, fork, taken_once};

const LOCKS: u32 = 2 * GROUP;

/// Why opening the segment is refused: always `EPROTO`, with a sentence that names the segment.
#[track_caller]
fn refusal(segment: &Segment) -> Reason {
    let error = ShmManager::open(&segment.name, 0).expect_err("should have been refused");
    assert_eq!(error.errno(), libc::EPROTO, "{error}");
    assert!(error.to_string().starts_with(&segment.name), "{error}");
    // Nor is it replaced or looked at; only its removal is open.
    assert_eq!(errno_of(ShmManager::open_or_create(&segment.name, LOCKS, &SegmentOptions::default())), libc::EPROTO);
    assert_eq!(errno_of(ShmManager::open_read_only(&segment.name)), libc::EPROTO);
    error.reason().clone()
}

fn disagree(what: &'static str, found: u64, expected: u64) -> Reason {
    Reason::Damaged { what, found, expected }
}

/// The magic number, and the unused word after it.
fn write_start(segment: &Segment, magic: u16, gap: u16) {
    let mut bytes = segment.bytes();
    let at = layout::AT_MAGIC as usize;
    bytes[at..at + 2].copy_from_slice(&magic.to_ne_bytes());
    bytes[at + 2..at + 4].copy_from_slice(&gap.to_ne_bytes());
    segment.write(&bytes);
}

#[test]
fn a_foreign_magic_number_is_refused() {
    let segment = Segment::of(LOCKS);
    write_start(&segment, 0x87D2, 0);
    assert!(matches!(refusal(&segment), Reason::NotASegment(_)));
    // The other byte order: a segment of another architecture.
    write_start(&segment, layout::MAGIC.swap_bytes(), 0);
    assert!(matches!(refusal(&segment), Reason::NotASegment(_)));
}

#[test]
fn a_word_in_the_gap_after_the_magic_number_is_named() {
    let segment = Segment::of(LOCKS);
    write_start(&segment, layout::MAGIC, 3);
    assert_eq!(refusal(&segment), disagree("the unused word after the magic number", 3, 0));
}

#[test]
fn numbers_of_bitmaps_that_cannot_be_are_named() {
    let segment = Segment::of(LOCKS);
    for bitmaps in [0, MAX_LOCKS / GROUP + 1, 1 << 27, 1 << 31, u32::MAX] {
        segment.write_word_at(layout::AT_NUM_BITMAPS, bitmaps);
        assert_eq!(refusal(&segment), disagree("the number of bitmaps", bitmaps.into(), 2));
    }
}

#[test]
fn numbers_of_locks_that_are_not_32_a_bitmap_are_named() {
    let segment = Segment::of(LOCKS);
    for locks in [0, 1, LOCKS - 1, LOCKS + 1, LOCKS + GROUP, 1 << 31, u32::MAX - 31, u32::MAX] {
        segment.write_word_at(layout::AT_NUM_LOCKS, locks);
        assert_eq!(refusal(&segment), disagree("the number of locks", locks.into(), LOCKS.into()));
        let error = ShmManager::open(&segment.name, 0).unwrap_err().to_string();
        assert!(error.contains(&format!("is {locks}, but should be {LOCKS}")), "{error}");
    }
}

#[test]
fn numbers_near_2_to_the_32_that_agree_with_each_other_are_refused() {
    let segment = Segment::of(LOCKS);
    // The last wraps around to a number of locks of 0, for whoever multiplies in 32 bits.
    for bitmaps in [MAX_LOCKS / GROUP + 1, (1 << 27) - 1, 1 << 27] {
        segment.write_word_at(layout::AT_NUM_BITMAPS, bitmaps);
        segment.write_word_at(layout::AT_NUM_LOCKS, bitmaps.wrapping_mul(GROUP));
        assert!(matches!(refusal(&segment), Reason::Damaged { what: "the number of bitmaps", .. }));
    }
}

#[test]
fn a_file_that_is_shorter_or_longer_than_its_numbers_say_is_refused_without_being_touched_there() {
    let segment = Segment::of(LOCKS);
    let whole = segment.bytes();
    let length = whole.len();
    assert_eq!(length as u64, layout::size(LOCKS));
    let header = layout::AT_GROUPS as usize;
    for found in [header, header + 8, 100, length - 1288, length - 4096.min(length - header), length - 1] {
        segment.write(&whole[..found]);
        assert_eq!(refusal(&segment), disagree("the size of the file", found as u64, length as u64));
    }
    for more in [1, 40, 1288, 4096, 1 << 20] {
        segment.write(&[whole.as_slice(), &vec![0; more]].concat());
        assert_eq!(refusal(&segment), disagree("the size of the file", (length + more) as u64, length as u64));
    }
}

#[test]
fn a_file_that_ends_within_the_header_is_refused() {
    let segment = Segment::of(LOCKS);
    let whole = segment.bytes();
    for length in [0, 1] {
        segment.write(&whole[..length]);
        assert!(matches!(refusal(&segment), Reason::NotASegment(_)), "{length}");
    }
    for length in [2, 4, 8, layout::AT_NUM_BITMAPS, layout::AT_NUM_LOCKS, layout::AT_GROUPS - 1] {
        segment.write(&whole[..length as usize]);
        assert_eq!(refusal(&segment), disagree("the size of the file", length, layout::AT_GROUPS));
    }
}

#[test]
fn a_lock_unlocked_without_repair_is_lost_until_it_is_repaired() {
    alone!({
        let segment = Segment::of(LOCKS);
        let manager = segment.open();
        let at = layout::mutex(5);
        segment.write_word_at(at + OWNER, LOST);
        for _ in 0..2 {
            assert_eq!(errno_of(manager.lock(5)), libc::ENOTRECOVERABLE);
            assert_eq!(errno_of(manager.try_lock(5)), libc::ENOTRECOVERABLE);
            assert_eq!(errno_of(manager.timed_lock(5, Duration::from_secs(1))), libc::ENOTRECOVERABLE);
            // Nobody was left holding it by the attempts, and nobody died with it.
            assert!(matches!(segment.word_at(at + WORD), 0 | LOST));
            let info = manager.lock_info(5).unwrap();
            assert_eq!((info.held, info.owner_died, info.tid), (false, false, 0));
            assert_eq!(manager.locks_held().unwrap(), []);
        }
        manager.repair_lock(5).unwrap();
        assert_eq!(taken_once(&manager, 5), Acquired::OwnerDied);
        assert_eq!(taken_once(&manager, 5), Acquired::Clean);
    });
}

/// A waiter of musl's own that sets its bit a moment too late sleeps on a mutex that is lost.
#[cfg(target_env = "musl")]
#[test]
fn a_repair_wakes_a_waiter_of_the_libc_s() {
    alone!({
        let segment = Segment::of(LOCKS);
        let manager = segment.open();
        segment.write_word_at(layout::word(5), support::process::own_tid().cast_unsigned());
        let waiter = fork(|| {
            let raw = support::raw_mutex::RawMutex::map(&segment.file(), layout::mutex(5));
            assert_eq!(raw.lock(), libc::EOWNERDEAD);
        });
        waiter.until_it_waits();
        segment.write_word_at(layout::word(5), LOST | layout::WAITERS);
        assert_eq!(errno_of(manager.try_lock(5)), libc::ENOTRECOVERABLE);
        manager.repair_lock(5).unwrap();
        waiter.succeeds();
    });
}

#[test]
fn lost_bitmaps_are_taken_up_again_as_they_are() {
    alone!({
        let segment = Segment::of(LOCKS);
        let manager = segment.open();
        assert_eq!(manager.allocate_lock().unwrap(), 0);
        segment.write_word_at(layout::AT_GUARD + OWNER, LOST);
        assert_eq!(manager.allocate_lock().unwrap(), 1);
        assert_eq!(manager.available_locks().unwrap(), LOCKS - 2);
    });
}

/// How many damaged segments there are in all, and how many one child opens.
const DAMAGED: u32 = 1000;
const BATCH: u32 = 25;
/// How many batches run at once: most of their time they wait for locks that a damage says are held.
const AT_ONCE: usize = 8;

#[test]
fn a_thousand_randomly_damaged_segments_are_refused_or_usable() {
    alone!({
        let mut random = Random::seeded();
        let recipe = random.recipe();
        let tally = Tally(board(4));
        let mut running: Vec<(Child, u64)> = Vec::new();
        for _ in 0..DAMAGED / BATCH {
            if running.len() == AT_ONCE {
                finish(running.remove(0), &recipe);
            }
            let seed = random.next();
            running.push((fork(|| open_damaged_batch(seed, &tally)), seed));
        }
        for batch in running {
            finish(batch, &recipe);
        }
        let [refused, opened, locked, healed] = tally.counts();
        assert_eq!(refused + opened, DAMAGED, "{recipe}");
        // Far from what chance could bring: all four ways are gone.
        assert!(refused > DAMAGED / 10 && opened > DAMAGED / 10, "{refused} refused, {opened} opened; {recipe}");
        assert!(locked > opened && healed > 0, "{locked} locked at once, {healed} after repair; {recipe}");
    });
}

struct Tally(&'static [AtomicU32]);

impl Tally {
    const REFUSED: usize = 0;
    const OPENED: usize = 1;
    const LOCKED: usize = 2;
    const HEALED: usize = 3;

    fn count(&self, what: usize) {
        self.0[what].fetch_add(1, Ordering::Relaxed);
    }

    fn counts(&self) -> [u32; 4] {
        [0, 1, 2, 3].map(|what| self.0[what].load(Ordering::Relaxed))
    }
}

fn finish((child, seed): (Child, u64), recipe: &str) {
    assert_eq!(child.wait(), Exit::Code(0), "batch {seed:#x}, {recipe}; 101: see above, signal 14: a hang");
}

fn open_damaged_batch(seed: u64, tally: &Tally) {
    let mut random = Random::from_seed(seed);
    for _ in 0..BATCH {
        let segment = Segment::of(LOCKS);
        prepare(&segment, &mut random);
        let mut bytes = segment.bytes();
        let damages = 1 + random.below(3);
        let done: Vec<String> = (0..damages).map(|_| damage(&mut bytes, &mut random)).collect();
        segment.write(&bytes);
        match ShmManager::open(&segment.name, 0) {
            Err(error) => {
                assert_eq!(error.errno(), libc::EPROTO, "{error} after {done:?}");
                tally.count(Tally::REFUSED);
            }
            Ok(manager) => {
                assert_eq!(layout::size(manager.num_locks().unwrap()), bytes.len() as u64, "{done:?}");
                tally.count(Tally::OPENED);
                use_every_way(&manager, &mut random, tally, &done);
            }
        }
    }
}

/// Some ids allocated, as in use.
fn prepare(segment: &Segment, random: &mut Random) {
    let manager = segment.open();
    for _ in 0..random.below(u64::from(LOCKS)) {
        manager.allocate_lock().unwrap();
    }
}

/// Every call. What each may answer depends on the damage; that it answers, and keeps to what it said, does not.
fn use_every_way(manager: &ShmManager, random: &mut Random, tally: &Tally, done: &[String]) {
    assert_eq!(manager.layout(), Layout::Libpod);
    let num_locks = manager.num_locks().unwrap();
    assert!(manager.available_locks().unwrap() <= num_locks);
    assert_eq!(manager.info().unwrap().num_locks, num_locks);
    let held = manager.locks_held().unwrap();
    for id in 0..num_locks {
        let info = manager.lock_info(id).unwrap();
        assert_eq!(info.held, held.contains(&id), "{done:?}");
        take_and_give_back(manager, id, random, tally, done);
    }
    let free = manager.available_locks().unwrap();
    match manager.allocate_lock() {
        Ok(id) => {
            assert!(id < num_locks);
            assert_eq!(manager.available_locks().unwrap(), free - 1);
            assert_eq!(errno_of(manager.allocate_and_retrieve_lock(id)), libc::EEXIST);
            manager.free_lock(id).unwrap();
            manager.free_all_locks().unwrap();
            assert_eq!(manager.available_locks().unwrap(), num_locks);
        }
        Err(error) if error.errno() == libc::ENOLCK => assert_eq!(free, 0),
        Err(error) => assert_eq!(error.errno(), libc::ENOTRECOVERABLE, "{error} after {done:?}"),
    }
}

fn take_and_give_back(manager: &ShmManager, id: u32, random: &mut Random, tally: &Tally, done: &[String]) {
    let attempt = match random.below(3) {
        0 => manager.try_lock(id),
        1 => manager.timed_lock(id, Duration::ZERO),
        _ => manager.timed_lock(id, Duration::from_millis(2)),
    };
    let held = match attempt {
        Ok(_) => true,
        Err(error) => {
            let expected = [libc::EBUSY, libc::ETIMEDOUT, libc::ENOTRECOVERABLE];
            assert!(expected.contains(&error.errno()), "lock {id}: {error} after {done:?}");
            match manager.repair_lock(id) {
                Ok(()) => {
                    let repaired = manager.try_lock(id);
                    assert!(repaired.is_ok(), "lock {id} is repaired, yet: {repaired:?} after {done:?}");
                    tally.count(Tally::HEALED);
                    true
                }
                Err(error) => {
                    assert_eq!(error.errno(), libc::EBUSY, "{error} after {done:?}");
                    false
                }
            }
        }
    };
    if held {
        assert!(manager.lock_info(id).unwrap().held, "lock {id} after {done:?}");
        manager.unlock(id).unwrap_or_else(|error| panic!("lock {id}: {error} after {done:?}"));
        assert_eq!(taken_once(manager, id), Acquired::Clean);
        tally.count(Tally::LOCKED);
    }
}
