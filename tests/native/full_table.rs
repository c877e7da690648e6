// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many may use a segment at a time. A description that locks the bytes of entries stands for their processes.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use lock_manager::{Acquired, Manager, Reason, ShmManager};

use super::support::alone::alone;
use super::support::native_layout::{self as layout, ENTRIES};
use super::support::process::Exit;
use super::support::{Segment, errno_of, fork, taken_once};

/// Locks bytes of the file until the result is dropped.
fn lock_bytes(segment: &Segment, ranges: impl IntoIterator<Item = (u64, u64)>) -> File {
    let file = File::options().read(true).write(true).open(segment.file()).unwrap();
    for (start, length) in ranges {
        // SAFETY: all-zero bytes are a valid flock.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = libc::F_WRLCK as libc::c_short;
        (lock.l_start, lock.l_len) = (start as libc::off_t, length as libc::off_t);
        // SAFETY: fcntl(2) reads the flock, a local.
        assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) }, 0);
    }
    file
}

/// Makes the first entries look lived in, as many.
fn fill(segment: &Segment, count: u32) {
    let mut bytes = segment.bytes();
    for index in 1..=count {
        let at = layout::entry(index) as usize;
        bytes[at..at + 8].copy_from_slice(&(5u64 << 1 | 1).to_ne_bytes());
    }
    let (start, end) = (layout::entry(1), layout::entry(count + 1));
    let file = File::options().write(true).open(segment.file()).unwrap();
    file.write_all_at(&bytes[start as usize..end as usize], start).unwrap();
    segment.make_entries_ready(count + 1);
}

/// From the first byte of an entry up to that of another.
fn between(first: u32, end: u32) -> (u64, u64) {
    (layout::entry(first), layout::entry(end) - layout::entry(first))
}

#[test]
fn one_more_than_there_is_room_for_is_told_so_and_fits_when_one_has_gone() {
    alone!({
        let segment = Segment::native(64);
        fill(&segment, ENTRIES - 1);
        let everybody = lock_bytes(&segment, [between(1, ENTRIES)]);
        let error = ShmManager::open(&segment.name, 0).unwrap_err();
        assert_eq!(error.errno(), libc::EUSERS);
        assert_eq!(error.reason(), &Reason::TooManyProcesses { most: ENTRIES - 1 });
        let text = error.to_string();
        assert!(text.contains("8191 processes") && text.contains(&segment.name), "{text}");
        assert_eq!(errno_of(ShmManager::open(&segment.name, 64).map(drop)), libc::EUSERS);
        // To look takes no place.
        let looking = ShmManager::open_read_only(&segment.name).unwrap();
        assert_eq!(looking.info().unwrap().attached, ENTRIES - 1);
        drop(everybody);
        assert_eq!(looking.info().unwrap().attached, 0);
        let manager = segment.open();
        assert_eq!(taken_once(&manager, 3), Acquired::Clean);
        assert_eq!(looking.info().unwrap().attached, 1);
    });
}

#[test]
fn a_child_for_which_there_is_no_room_is_told_so_at_its_first_lock() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let _ = manager.lock(3).unwrap();
        let own = layout::entry_of(segment.number_at(layout::word(3)));
        let own_state = segment.number_at(layout::entry(own));
        fill(&segment, ENTRIES - 1);
        segment.write_number_at(layout::entry(own), own_state);
        let others = [(1, own), (own + 1, ENTRIES)].into_iter().filter(|(first, end)| first < end);
        let everybody = lock_bytes(&segment, others.map(|(first, end)| between(first, end)));
        let child = fork(|| {
            assert_eq!(errno_of(manager.try_lock(4)), libc::EUSERS);
            assert_eq!(errno_of(manager.unlock(3)), libc::EPERM);
            assert_eq!(manager.locks_held().unwrap(), [3]);
            drop(everybody);
        });
        assert_eq!(child.wait(), Exit::Code(0));
        manager.unlock(3).unwrap();
    });
}

/// The contract says 4096 at least: with 4095 others all is as with none.
#[test]
fn four_thousand_and_ninety_six_fit() {
    const OTHERS: u32 = 4095;
    alone!({
        let segment = Segment::native(64);
        fill(&segment, OTHERS);
        let _others = lock_bytes(&segment, (1..=OTHERS).map(|index| (layout::entry(index), 1)));
        let manager = segment.open();
        assert_eq!(manager.info().unwrap().attached, OTHERS + 1);
        let holder = segment.holder_of(&[3]);
        assert_eq!(manager.info().unwrap().attached, OTHERS + 2);
        assert_eq!(errno_of(manager.try_lock(3)), libc::EBUSY);
        holder.kill();
        assert_eq!(taken_once(&manager, 3), Acquired::OwnerDied);
        assert_eq!(manager.info().unwrap().attached, OTHERS + 1);
    });
}
