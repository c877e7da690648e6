// SPDX-License-Identifier: MIT OR Apache-2.0
//! A segment comes into being whole or not at all, is what was asked for, and is used only where it can be trusted.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing helper is a failing test")]

#[path = "creation/chroot.rs"]
mod chroot;
#[path = "creation/half_done.rs"]
mod half_done;
mod support;
#[path = "creation/trust.rs"]
mod trust;

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::thread;

use lock_manager::{Layout, MAX_LOCKS, Manager, Reason, SegmentOptions, ShmManager};
use support::alone::alone;
use support::{Segment, errno_of, eventually, layout};

/// The native layout's creation is tested in `native_storage.rs`.
const DEFAULT: fn() -> SegmentOptions = || SegmentOptions::default().layout(Layout::Libpod);

#[test]
fn a_new_segment_is_podmans_byte_for_byte() {
    let segment = Segment::of(2048);
    let bytes = segment.bytes();
    let length = match layout::MUTEX {
        24 => 49_444,
        40 => 82_488,
        48 => 98_880,
        other => panic!("a mutex of {other} bytes"),
    };
    assert_eq!(bytes.len(), length);
    let magic = if cfg!(target_endian = "little") { [0xd1, 0x87] } else { [0x87, 0xd1] };
    assert_eq!((&bytes[0..2], &bytes[2..4]), (&magic[..], &[0, 0][..]));
    assert_eq!(segment.word_at(layout::AT_NUM_BITMAPS), 64);
    assert_eq!(segment.word_at(layout::AT_NUM_LOCKS), 2048);
    let guard = layout::AT_GUARD as usize;
    let mutex = &bytes[guard..guard + layout::MUTEX as usize];
    for id in 0..2048 {
        let at = layout::mutex(id) as usize;
        assert_eq!(&bytes[at..at + mutex.len()], mutex, "lock {id}");
    }
    assert!((0..64).all(|group| segment.word_at(layout::bitmap(group)) == 0));
}

#[test]
fn creating_what_exists_is_refused_and_changes_nothing() {
    let segment = Segment::of(32);
    let manager = segment.open();
    assert_eq!(manager.allocate_lock().unwrap(), 0);
    assert_eq!(errno_of(ShmManager::create(&segment.name, 32, &DEFAULT())), libc::EEXIST);
    assert_eq!(manager.available_locks().unwrap(), 31);
}

#[test]
fn the_number_of_locks_is_rounded_up_to_a_multiple_of_32() {
    for (asked, there) in [(1, 32), (31, 32), (32, 32), (33, 64), (2047, 2048)] {
        let segment = Segment::unused();
        let manager = ShmManager::create(&segment.name, asked, &DEFAULT()).unwrap();
        assert_eq!(manager.num_locks().unwrap(), there, "{asked}");
        assert_eq!(manager.info().unwrap().max_locks, there);
        // Asked for in the same way it is the same segment.
        assert_eq!(ShmManager::open(&segment.name, asked).unwrap().num_locks().unwrap(), there);
        assert_eq!(segment.file().metadata().unwrap().len(), layout::size(there));
    }
}

#[test]
fn opening_with_another_number_of_locks_names_both_numbers() {
    let segment = Segment::of(64);
    let error = ShmManager::open(&segment.name, 2000).unwrap_err();
    assert_eq!(error.errno(), libc::ERANGE);
    assert_eq!(error.reason(), &Reason::WrongCount { there: 64, asked: 2016 });
    assert!(error.to_string().contains("64 locks, 2016 were asked for"), "{error}");
    assert_eq!(errno_of(ShmManager::open_or_create(&segment.name, 2000, &DEFAULT())), libc::ERANGE);
    assert_eq!(ShmManager::open(&segment.name, 0).unwrap().num_locks().unwrap(), 64);
}

#[test]
fn numbers_and_modes_that_no_segment_can_have_are_refused() {
    let segment = Segment::unused();
    assert_eq!(errno_of(ShmManager::create(&segment.name, 0, &DEFAULT())), libc::EINVAL);
    assert_eq!(errno_of(ShmManager::open_or_create(&segment.name, 0, &DEFAULT())), libc::EINVAL);
    for count in [MAX_LOCKS + 1, 1 << 31, u32::MAX] {
        assert_eq!(errno_of(ShmManager::create(&segment.name, count, &DEFAULT())), libc::EINVAL);
        assert_eq!(errno_of(ShmManager::open(&segment.name, count)), libc::EINVAL);
    }
    assert_eq!(errno_of(ShmManager::create(&segment.name, 32, &DEFAULT().mode(0o1600))), libc::EINVAL);
    assert!(!segment.file().exists());
}

#[test]
fn opening_what_does_not_exist_says_so() {
    let segment = Segment::unused();
    assert_eq!(errno_of(ShmManager::open(&segment.name, 0)), libc::ENOENT);
    assert_eq!(errno_of(ShmManager::open_read_only(&segment.name)), libc::ENOENT);
    assert_eq!(errno_of(ShmManager::remove(&segment.name)), libc::ENOENT);
    assert!(!segment.file().exists());
}

#[test]
fn open_or_create_takes_what_is_there_as_it_is() {
    let segment = Segment::of(64);
    let options = DEFAULT().mode(0o666).layout(Layout::Libpod);
    let manager = ShmManager::open_or_create(&segment.name, 0, &options).unwrap();
    assert_eq!(manager.num_locks().unwrap(), 64);
    assert_eq!(segment.file().metadata().unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn the_umask_does_not_touch_the_mode() {
    alone!({
        // SAFETY: umask(2) touches no memory; the process is the test's own.
        unsafe { libc::umask(0o777) };
        for (asked, there) in [(0, 0o600), (0o600, 0o600), (0o666, 0o666), (0o640, 0o640), (0o777, 0o777)] {
            let segment = Segment::unused();
            drop(ShmManager::create(&segment.name, 32, &DEFAULT().mode(asked)).unwrap());
            assert_eq!(segment.file().metadata().unwrap().mode() & 0o7777, there, "{asked:o}");
        }
    });
}

#[test]
fn a_removed_segment_is_apart_from_the_next_of_its_name() {
    alone!({
        let segment = Segment::of(32);
        let old = segment.open();
        assert_eq!(old.allocate_lock().unwrap(), 0);
        ShmManager::remove(&segment.name).unwrap();
        assert!(!segment.file().exists());
        assert!(old.info().unwrap().retired);
        let new = ShmManager::create(&segment.name, 64, &DEFAULT()).unwrap();
        assert_eq!((new.available_locks().unwrap(), old.available_locks().unwrap()), (64, 31));
        assert!(!new.info().unwrap().retired);
    });
}

#[test]
fn a_reader_that_locks_the_file_does_not_hang_its_remover() {
    let segment = Segment::of(32);
    let reader = File::open(segment.file()).unwrap();
    // As a remover's would be; anybody who can read the file can have one.
    let mut lock = libc::flock { l_type: libc::F_RDLCK as i16, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
    // SAFETY: fcntl(2) reads the flock, a local.
    assert_eq!(unsafe { libc::fcntl(reader.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) }, 0);
    assert_eq!(errno_of(ShmManager::remove(&segment.name)), libc::EBUSY);
    drop(reader);
    ShmManager::remove(&segment.name).unwrap();
}

#[test]
fn what_is_no_segment_is_not_removed_and_what_is_damaged_is() {
    let segment = Segment::unused();
    segment.write(b"somebody's letter, longer than the header of any segment that ever was made here");
    assert_eq!(errno_of(ShmManager::remove(&segment.name)), libc::EPROTO);
    assert!(segment.file().exists());
    let damaged = Segment::of(32);
    damaged.write(&damaged.bytes()[..100]);
    assert_eq!(errno_of(ShmManager::open(&damaged.name, 0)), libc::EPROTO);
    ShmManager::remove(&damaged.name).unwrap();
    assert!(!damaged.file().exists());
}

#[test]
fn after_an_unlink_allocation_and_waits_are_stale_but_unlock_and_reading_work() {
    alone!({
        let segment = Segment::of(32);
        let manager = segment.open();
        assert_eq!(manager.allocate_lock().unwrap(), 0);
        let _ = manager.lock(3).unwrap();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| errno_of(manager.lock(3)));
            eventually("the waiter waits", || segment.word_at(layout::word(3)) & layout::WAITERS != 0);
            fs::remove_file(segment.file()).unwrap();
            assert_eq!(waiter.join().unwrap(), libc::ESTALE);
        });
        eventually("allocation notices", || errno_of(manager.allocate_lock()) == libc::ESTALE);
        assert_eq!(errno_of(manager.free_lock(0)), libc::ESTALE);
        assert_eq!(manager.locks_held().unwrap(), [3]);
        assert!(manager.lock_info(0).unwrap().allocated);
        assert!(manager.info().unwrap().retired);
        manager.unlock(3).unwrap();
        assert_eq!(manager.locks_held().unwrap(), [0; 0]);
    });
}
