// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a header says that does not fit is refused with both numbers; what can be seen to be ours can be removed.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use lock_manager::{Acquired, Layout, Manager, Reason, SegmentOptions, ShmManager};

use super::damage::MOST;
use super::format::{self, parts};
use super::support::alone::alone;
use super::support::disk::Disk;
use super::support::process::limit;
use super::support::{Segment, board, errno_of, eventually, fork, taken_once};
use super::{options, write_at};

const LOCKS: u64 = 128;

/// Why opening it is refused: always `EPROTO`, however it is opened.
#[track_caller]
fn refusal(segment: &Segment) -> Reason {
    let error = ShmManager::open(&segment.name, 0).expect_err("should have been refused");
    assert_eq!(error.errno(), libc::EPROTO, "{error}");
    assert!(error.to_string().starts_with(&segment.name), "{error}");
    assert_eq!(errno_of(ShmManager::open_read_only(&segment.name)), libc::EPROTO);
    assert_eq!(errno_of(ShmManager::open_or_create(&segment.name, 64, &options())), libc::EPROTO);
    error.reason().clone()
}

fn fresh() -> Segment {
    Segment::made(LOCKS as u32, &options())
}

fn set_size(segment: &Segment, bytes: u64) {
    File::options().write(true).open(segment.file()).unwrap().set_len(bytes).unwrap();
}

#[test]
fn each_number_of_the_header_that_is_wrong_is_named_with_what_it_should_be() {
    let parts = parts(MOST);
    for (at, size, what, expected) in [
        (format::AT_BYTE_ORDER, 4, "the mark of the byte order", 0x0102_0304),
        (format::AT_VERSION, 4, "the version of the format", 2),
        (format::AT_FEATURES, 8, "the word of the features that it needs", 0),
        (format::AT_CELL_SIZE, 4, "the size of a place in the cell table", format::CELL),
        (format::AT_CELLS, 4, "the number of places in the cell table", format::CELLS),
        (format::AT_CELL_TABLE, 8, "the offset of the cell table", parts.cells),
        (format::AT_HEADER_SIZE, 4, "the size of the header", format::HEADER),
        (format::AT_SLOT_SIZE, 4, "the size of a slot", format::SLOT),
        (format::AT_ENTRY_SIZE, 4, "the size of an entry", format::ENTRY),
        (format::AT_ENTRIES, 4, "the number of entries", format::ENTRIES),
        (format::AT_RECORD_SIZE, 4, "the size of a thread record", format::RECORD),
        (format::AT_RECORDS, 4, "the number of thread records", format::RECORDS),
        (format::AT_SUMMARY, 8, "the offset of the summary", parts.summary),
        (format::AT_BITMAP, 8, "the offset of the bitmap", parts.bitmap),
        (format::AT_ENTRY_TABLE, 8, "the offset of the entries", parts.entries),
        (format::AT_RECORD_TABLE, 8, "the offset of the thread records", parts.records),
        (format::AT_SLOTS, 8, "the offset of the slots", parts.slots),
    ] {
        let segment = fresh();
        let found = expected + 7;
        if size == 8 {
            write_at(&segment, at, &found.to_ne_bytes());
        } else {
            write_at(&segment, at, &(found as u32).to_ne_bytes());
        }
        assert_eq!(refusal(&segment), Reason::Damaged { what, found, expected });
        let said = ShmManager::open(&segment.name, 0).unwrap_err().to_string();
        assert!(said.contains(what) && said.contains(&format!("{found}, but should be {expected}")), "{said}");
        ShmManager::remove(&segment.name).unwrap();
        assert!(!segment.file().exists());
    }
}

#[test]
fn a_segment_of_the_other_byte_order_is_one_of_another_byte_order() {
    let segment = fresh();
    write_at(&segment, format::AT_BYTE_ORDER, &0x0403_0201u32.to_ne_bytes());
    write_at(&segment, format::AT_VERSION, &2u32.swap_bytes().to_ne_bytes());
    let Reason::Damaged { what, found, .. } = refusal(&segment) else { panic!("another reason") };
    assert_eq!((what, found), ("the mark of the byte order", 0x0403_0201));
}

#[test]
fn numbers_of_locks_that_cannot_be_are_refused() {
    for (at, numbers) in [
        (format::AT_FIRST_LOCKS, [0, 1, 65, 320, u32::MAX]),
        (format::AT_MAX_LOCKS, [0, 64, 257, (16 << 20) + 64, u32::MAX]),
        (format::AT_NUM_LOCKS, [0, 64, 129, 320, u32::MAX]),
    ] {
        for number in numbers {
            let segment = fresh();
            write_at(&segment, at, &number.to_ne_bytes());
            assert!(matches!(refusal(&segment), Reason::Damaged { .. }), "{number} at {at}");
        }
    }
}

/// Whoever uses the segment already goes on with the locks that it knows; nobody grows it on such a number's word.
#[test]
fn a_number_of_locks_that_does_not_fit_is_not_grown_from() {
    let segment = fresh();
    let manager = segment.open();
    let made = format::size(MOST, LOCKS);
    for number in [MOST as u32, LOCKS as u32 + 64, LOCKS as u32 + 1, MOST as u32 + 64, 1 << 31, u32::MAX] {
        write_at(&segment, format::AT_NUM_LOCKS, &number.to_ne_bytes());
        let error = manager.grow(LOCKS as u32 + 64).unwrap_err();
        assert_eq!((error.errno(), manager.num_locks().unwrap()), (libc::EPROTO, LOCKS as u32), "{number}: {error}");
        assert_eq!(errno_of(manager.try_lock(LOCKS as u32)), libc::EINVAL);
        assert_eq!(taken_once(&manager, LOCKS as u32 - 1), Acquired::Clean);
        assert_eq!(segment.file().metadata().unwrap().len(), made);
    }
}

#[test]
fn a_file_one_byte_shorter_than_it_was_made_or_last_grown_is_refused() {
    let segment = fresh();
    let made = format::size(MOST, LOCKS);
    assert_eq!(segment.file().metadata().unwrap().len(), made);
    let what = "the size of the file";
    set_size(&segment, made - 1);
    assert_eq!(refusal(&segment), Reason::Damaged { what, found: made - 1, expected: made });
    set_size(&segment, made);
    segment.open().grow(MOST as u32).unwrap();
    let grown = format::size(MOST, MOST);
    assert_eq!(segment.file().metadata().unwrap().len(), grown);
    set_size(&segment, grown - 1);
    assert_eq!(refusal(&segment), Reason::Damaged { what, found: grown - 1, expected: grown });
    for short in [511, 256, 100, 9, 8] {
        set_size(&segment, short);
        assert!(matches!(refusal(&segment), Reason::Damaged { .. }), "{short}");
    }
    ShmManager::remove(&segment.name).unwrap();
    assert!(!segment.file().exists());
}

#[test]
fn a_copy_is_no_segment() {
    let (segment, copy) = (fresh(), Segment::unused());
    fs::copy(segment.file(), copy.file()).unwrap();
    let Reason::Damaged { what, .. } = refusal(&copy) else { panic!("another reason") };
    assert_eq!(what, "the inode of the file that it was made in");
    ShmManager::remove(&copy.name).unwrap();
    segment.open();
}

/// Writes another boot's id into the segment.
fn age(path: &Path) {
    write_into(path, format::AT_BOOT, &[7; 16]);
}

fn write_into(path: &Path, offset: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, bytes, offset).unwrap();
}

fn assert_is_stale_and_replaced(path: &Path) {
    for refused in [ShmManager::open(path, 0), ShmManager::open_read_only(path)] {
        let error = refused.unwrap_err();
        assert_eq!((error.errno(), error.reason()), (libc::ESTALE, &Reason::BeforeBoot));
    }
    let manager = ShmManager::open_or_create(path, 64, &options()).unwrap();
    assert_eq!((manager.num_locks().unwrap(), manager.available_locks().unwrap()), (64, 64));
}

#[test]
fn a_segment_from_before_this_boot_is_stale_and_replaced() {
    let Some(directory) = Disk::directory_or_skip("boot") else { return };
    let path = directory.join("locks");
    let _ = ShmManager::create(&path, LOCKS as u32, &options()).unwrap().allocate_lock().unwrap();
    age(&path);
    assert_is_stale_and_replaced(&path);
    age(&path);
    ShmManager::remove(&path).unwrap();
}

/// As devices have after a boot, by the order in which the kernel found them.
#[test]
fn a_segment_from_before_this_boot_is_known_though_its_device_has_another_number() {
    let Some(directory) = Disk::directory_or_skip("device") else { return };
    let path = directory.join("locks");
    let _ = ShmManager::create(&path, LOCKS as u32, &options()).unwrap().allocate_lock().unwrap();
    let device = fs::metadata(&path).unwrap().dev() + 1;
    write_into(&path, format::AT_DEVICE, &device.to_ne_bytes());
    let error = ShmManager::open_or_create(&path, 64, &options()).unwrap_err();
    assert_eq!(error.errno(), libc::EPROTO, "a copy that was made in this boot: {error}");
    age(&path);
    // Copied since, from a backup or to another disk.
    let copy = directory.join("copy");
    fs::copy(&path, &copy).unwrap();
    assert_is_stale_and_replaced(&path);
    assert_is_stale_and_replaced(&copy);
}

/// Whoever has no descriptor left to read the boot's id with does not know that a segment is old.
#[test]
fn a_process_short_of_descriptors_takes_no_living_segment_for_an_old_one() {
    alone!({
        let Some(directory) = Disk::directory_or_skip("short") else { return };
        let path = directory.join("locks");
        let stage = &board(1)[0];
        // Made by a child: this process is not to know the boot's id already.
        let user = fork(|| {
            let manager = ShmManager::create(&path, LOCKS as u32, &options()).unwrap();
            let _ = manager.lock(3).unwrap();
            stage.store(1, Ordering::Release);
            eventually("it was opened", || stage.load(Ordering::Acquire) == 2);
            manager.unlock(3).unwrap();
            assert_eq!(taken_once(&manager, 4), Acquired::Clean);
        });
        eventually("the segment is there", || stage.load(Ordering::Acquire) == 1);
        let made = fs::metadata(&path).unwrap().ino();
        let next = File::open("/dev/null").unwrap().as_raw_fd() as u64;
        let mut before = None;
        let opened = (next..next + 16).find_map(|most| {
            let was = limit(libc::RLIMIT_NOFILE, most);
            before.get_or_insert(was);
            match ShmManager::open_or_create(&path, 0, &options()) {
                Ok(manager) => Some(manager),
                Err(error) => {
                    assert_eq!(error.errno(), libc::EMFILE, "{error}");
                    None
                }
            }
        });
        limit(libc::RLIMIT_NOFILE, before.unwrap());
        assert_eq!(errno_of(opened.unwrap().try_lock(3)), libc::EBUSY);
        stage.store(2, Ordering::Release);
        user.succeeds();
        assert_eq!(fs::metadata(&path).unwrap().ino(), made);
        ShmManager::remove(&path).unwrap();
    });
}

#[test]
fn a_layout_that_is_named_must_be_the_one_that_is_there() {
    let (native, libpod) = (fresh(), Segment::of(64));
    for (segment, there, asked) in
        [(&native, Layout::Native, Layout::Libpod), (&libpod, Layout::Libpod, Layout::Native)]
    {
        let options = SegmentOptions::default().layout(asked);
        let error = ShmManager::open_or_create(&segment.name, 0, &options).unwrap_err();
        assert_eq!((error.errno(), error.reason()), (libc::EPROTO, &Reason::WrongLayout { there, asked }));
        assert_eq!(ShmManager::open(&segment.name, 0).unwrap().layout(), there);
    }
}

#[test]
fn a_strangers_file_is_not_removed() {
    let segment = fresh();
    write_at(&segment, format::AT_MAGIC, b"lock-mgR");
    assert!(matches!(refusal(&segment), Reason::NotASegment(_)));
    assert_eq!(errno_of(ShmManager::remove(&segment.name)), libc::EPROTO);
    assert!(segment.file().exists());
}

/// Not what a remover leaves that dies, which is a mark that may be taken back.
#[test]
fn a_name_of_what_was_removed_for_good_is_removed_by_the_next_opener() {
    const REMOVED: u32 = 2;
    let segment = fresh();
    write_at(&segment, format::AT_RETIRED, &REMOVED.to_ne_bytes());
    assert_eq!(errno_of(ShmManager::open(&segment.name, 0)), libc::ENOENT);
    assert!(!segment.file().exists());
}
