// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mutexes of another kind than this libc writes: those that lock alike are used, the others refused by the name of
//! what makes them differ.

use std::sync::atomic::Ordering;
use std::time::Duration;

use lock_manager::{Acquired, Manager, Reason, ShmManager};

use crate::support::alone::alone;
use crate::support::layout::{self, GROUP, KIND, OWNER_DIED, TID, WORD};
use crate::support::process::own_tid;
use crate::support::raw_mutex::RawMutex;
use crate::support::{Segment, board, errno_of, fork, taken_once};
use crate::{LOCKS, refusal};

/// What the libc has written for a normal, robust, process-shared mutex. glibc: whether normal was asked for by name or not, by
/// versions with lock elision and without; and with the adaptive type, which a robust mutex locks as normal.
const ALIKE: &[u32] = if layout::IS_MUSL { &[0x84] } else { &[0x90, 0x290, 0x93, 0x293] };

/// Kinds of the libc that lock otherwise, and what each is called.
const OTHERWISE: &[(u32, &str)] = if layout::IS_MUSL {
    &[
        (0x85, "recursive (0x1)"),
        (0x86, "error checking (0x2)"),
        (0x8c, "priority inheriting (0x8)"),
        (0x80, "not robust (0x4 is missing)"),
        (0x04, "private to a process (0x80 is missing)"),
        (0x82, "error checking (0x2), so it refuses its holder, and not robust (0x4 is missing)"),
    ]
} else {
    &[
        (0x91, "recursive (0x1)"),
        (0x291, "recursive (0x1)"),
        (0x92, "error checking (0x2)"),
        (0xb0, "priority inheriting (0x20)"),
        (0x2d0, "priority protecting (0x40)"),
        (0x80, "not robust (0x10 is missing)"),
        (0x210, "private to a process (0x80 is missing)"),
        (0x190, "lock elision (0x100)"),
        (0x390, "lock elision (0x100)"),
        (0x202, "error checking (0x2), so it refuses its holder, and not robust (0x10 is missing)"),
    ]
};

/// Longer than anything here takes.
const LONG: Duration = super::support::timing::scaled(Duration::from_secs(20));

/// A segment every mutex of which, the one that guards the bitmaps too, is of the kind that `kind` gives for its number.
fn with_kinds(kind: impl Fn(u32) -> u32) -> Segment {
    let segment = Segment::of(LOCKS);
    segment.write_word_at(layout::AT_GUARD + KIND, kind(LOCKS));
    (0..LOCKS).for_each(|id| segment.write_word_at(layout::mutex(id) + KIND, kind(id)));
    segment
}

/// All that two processes do with a lock, and a third that dies with it.
fn go_round(segment: &Segment, id: u32) {
    let manager = segment.open();
    assert_eq!(taken_once(&manager, id), Acquired::Clean);
    let _ = manager.lock(id).unwrap();
    assert_eq!(segment.word_at(layout::mutex(id) + WORD) & TID, own_tid().cast_unsigned());

    // Another process is kept out, waits, and gets in at the unlock.
    let got = &board(1)[0];
    let waiter = fork(|| {
        let manager = segment.open();
        assert_eq!(errno_of(manager.try_lock(id)), libc::EBUSY);
        assert_eq!(manager.timed_lock(id, LONG).unwrap(), Acquired::Clean);
        got.store(1, Ordering::Release);
        manager.unlock(id).unwrap();
    });
    waiter.until_it_waits();
    assert_eq!(got.load(Ordering::Acquire), 0);
    manager.unlock(id).unwrap();
    waiter.succeeds();

    // Its death is told, to the next and to no other.
    segment.holder_of(&[id]).kill();
    assert_ne!(segment.word_at(layout::mutex(id) + WORD) & OWNER_DIED, 0);
    assert_eq!(manager.timed_lock(id, LONG).unwrap(), Acquired::OwnerDied);
    manager.unlock(id).unwrap();
    assert_eq!(taken_once(&manager, id), Acquired::Clean);

    // And a program without this library keeps out and is kept out.
    let raw = RawMutex::map(&segment.file(), layout::mutex(id));
    assert_eq!(raw.lock(), 0);
    fork(|| assert_eq!(errno_of(segment.open().try_lock(id)), libc::EBUSY)).succeeds();
    assert_eq!(raw.unlock(), 0);
    segment.holder_of(&[id]).kill();
    assert_eq!(raw.lock(), libc::EOWNERDEAD);
}

#[test]
fn a_segment_of_any_kind_that_locks_alike_is_used() {
    alone!({
        for &kind in ALIKE {
            let segment = with_kinds(|_| kind);
            go_round(&segment, 9);
            let manager = segment.open();
            assert_eq!(manager.allocate_lock().unwrap(), 0);
            manager.repair_lock(11).unwrap();
            // The word stays as its maker wrote it.
            assert_eq!(segment.word_at(layout::mutex(9) + KIND), kind);
        }
    });
}

#[test]
fn kinds_that_lock_alike_may_stand_beside_each_other_in_one_segment() {
    alone!({
        let segment = with_kinds(|id| ALIKE[id as usize % ALIKE.len()]);
        for id in [0, 1, 2, 3, GROUP, LOCKS - 1] {
            go_round(&segment, id);
        }
        // All of them held by one thread, whose death frees all.
        let every: Vec<u32> = (0..LOCKS).filter(|id| ![0, 1, 2, 3, GROUP, LOCKS - 1].contains(id)).collect();
        segment.holder_of(&every).kill();
        let manager = segment.open();
        every.iter().for_each(|&id| assert_eq!(taken_once(&manager, id), Acquired::OwnerDied));
        assert_eq!(manager.available_locks().unwrap(), LOCKS);
    });
}

#[test]
fn a_kind_that_turns_into_one_that_locks_alike_under_a_holder_is_of_no_moment() {
    alone!({
        let segment = Segment::of(LOCKS);
        let manager = segment.open();
        for &kind in ALIKE {
            let _ = manager.lock(7).unwrap();
            segment.write_word_at(layout::mutex(7) + KIND, kind);
            manager.unlock(7).unwrap();
        }
    });
}

#[test]
fn a_new_segment_has_the_kind_that_asking_for_normal_by_name_gives() {
    let kind = kind_of_this_libc();
    assert!(ALIKE.contains(&kind), "{kind:#x}");
    let segment = Segment::of(LOCKS);
    assert_eq!(segment.word_at(layout::AT_GUARD + KIND), kind);
    assert!((0..LOCKS).all(|id| segment.word_at(layout::mutex(id) + KIND) == kind));
}

/// By the calls of libpod.
fn kind_of_this_libc() -> u32 {
    // SAFETY: all-zero bytes are valid values of these plain C structs, which the calls initialise and read in place;
    // a mutex begins with more words than the one that is read.
    unsafe {
        let mut attributes: libc::pthread_mutexattr_t = std::mem::zeroed();
        let mut mutex: libc::pthread_mutex_t = std::mem::zeroed();
        assert_eq!(libc::pthread_mutexattr_init(&raw mut attributes), 0);
        assert_eq!(libc::pthread_mutexattr_setpshared(&raw mut attributes, libc::PTHREAD_PROCESS_SHARED), 0);
        assert_eq!(libc::pthread_mutexattr_setrobust(&raw mut attributes, libc::PTHREAD_MUTEX_ROBUST), 0);
        assert_eq!(libc::pthread_mutexattr_settype(&raw mut attributes, libc::PTHREAD_MUTEX_NORMAL), 0);
        assert_eq!(libc::pthread_mutex_init(&raw mut mutex, &raw const attributes), 0);
        (&raw const mutex).cast::<u32>().add(KIND as usize / size_of::<u32>()).read()
    }
}

/// Makes a mutex what the other libc makes, as it is while `holder` holds it.
fn make_the_other_libc_s(segment: &Segment, at: u64, holder: u32) {
    segment.write_word_at(at + KIND, 0);
    let words = if layout::IS_MUSL {
        [(layout::GLIBC_KIND, layout::GLIBC_NORMAL), (0, holder)]
    } else {
        [(layout::MUSL_KIND, layout::MUSL_NORMAL), (4, holder)]
    };
    words.iter().for_each(|&(word, value)| segment.write_word_at(at + word, value));
}

#[test]
fn a_segment_of_the_other_libc_is_refused_by_its_name() {
    let (this, other) = if layout::IS_MUSL { ("musl", "glibc") } else { ("glibc", "musl") };
    // A holder whose id looks like musl's kind is a thread like others.
    for holder in [0, 77, layout::MUSL_NORMAL, layout::MUSL_NORMAL | OWNER_DIED] {
        let segment = Segment::of(LOCKS);
        make_the_other_libc_s(&segment, layout::AT_GUARD, holder);
        (0..LOCKS).for_each(|id| make_the_other_libc_s(&segment, layout::mutex(id), holder));
        assert_eq!(refusal(&segment), Reason::OtherLibc { made_by: other, built_for: this }, "{holder:#x}");
        let sentence = ShmManager::open(&segment.name, 0).unwrap_err().to_string();
        assert!(sentence.contains(&format!("the mutexes of {other}")), "{sentence}");
        assert!(sentence.contains(&format!("a library that was built for {other}")), "{sentence}");
    }
}

#[test]
fn a_lone_mutex_of_the_other_libc_is_refused() {
    let segment = Segment::of(LOCKS);
    let expected = segment.word_at(layout::AT_GUARD + KIND);
    make_the_other_libc_s(&segment, layout::mutex(LOCKS - 1), 0);
    assert_eq!(refusal(&segment), Reason::ForeignMutex { id: Some(LOCKS - 1), found: 0, expected });
}

#[test]
fn mutexes_that_lock_otherwise_are_refused_by_the_name_of_what_they_do() {
    let segment = Segment::of(LOCKS);
    let expected = segment.word_at(layout::mutex(9) + KIND);
    for &(found, name) in OTHERWISE {
        segment.write_word_at(layout::mutex(9) + KIND, found);
        assert_eq!(refusal(&segment), Reason::ForeignMutex { id: Some(9), found, expected });
        let sentence = ShmManager::open(&segment.name, 0).unwrap_err().to_string();
        assert!(sentence.contains("the mutex of lock 9 is ") && sentence.contains(name), "{sentence}");
        assert!(sentence.contains(&format!("kind is {found:#x}, this libc writes {expected:#x}")), "{sentence}");
    }
}

#[test]
fn a_word_that_is_no_kind_is_said_to_be_another_libc_s() {
    let segment = Segment::of(LOCKS);
    let expected = segment.word_at(layout::AT_GUARD + KIND);
    for found in [0, 0x490, 0x9000_0000, u32::MAX] {
        segment.write_word_at(layout::AT_GUARD + KIND, found);
        assert_eq!(refusal(&segment), Reason::ForeignMutex { id: None, found, expected });
        let sentence = ShmManager::open(&segment.name, 0).unwrap_err().to_string();
        assert!(sentence.contains("guards the bitmaps was initialised by another libc"), "{sentence}");
    }
}

#[test]
fn a_mutex_whose_kind_changes_under_a_manager_is_not_given_to_the_libc() {
    alone!({
        let segment = Segment::of(LOCKS);
        let manager = segment.open();
        let kind = segment.word_at(layout::mutex(9) + KIND);
        for found in [0, kind | 1, kind | 0x100, 0x40, 0x43, 0x100, u32::MAX] {
            segment.write_word_at(layout::mutex(9) + KIND, found);
            let expected = Reason::ForeignMutex { id: Some(9), found, expected: kind };
            assert_eq!(manager.lock(9).unwrap_err().reason(), &expected);
            assert_eq!(manager.try_lock(9).unwrap_err().reason(), &expected);
            assert_eq!(manager.repair_lock(9).unwrap_err().reason(), &expected);
            segment.write_word_at(layout::AT_GUARD + KIND, found);
            assert_eq!(errno_of(manager.allocate_lock()), libc::EPROTO);
        }
        // While it is held: the holder hears of it, and neither he nor the process's end does harm.
        let _ = manager.lock(8).unwrap();
        segment.write_word_at(layout::mutex(8) + KIND, 0);
        assert!(matches!(manager.unlock(8).unwrap_err().reason(), Reason::Damaged { .. }));
        // The others are none the worse.
        assert_eq!(taken_once(&manager, 10), Acquired::Clean);
    });
}
