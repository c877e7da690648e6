// SPDX-License-Identifier: MIT OR Apache-2.0
//! No room: said in words, nothing changed, nothing left behind, and no signal however late the room runs out.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lock_manager::{Acquired, Manager, Reason, ShmManager};

use super::support::alone::{alone, alone_as_root};
use super::support::native_layout::{AT_READY, AT_ROTOR};
use super::support::process::{limit, page_size, sleep_until_killed};
use super::support::{Child, Segment, board, errno_of, eventually, fork, namespace, skip, taken_once};
use super::{names_in, options};

/// Room in /dev/shm, in pages of the machine: less than one is not given out.
fn private_room(pages: u64) {
    namespace::private_shm(&(pages * page_size()).to_string());
}

/// Takes all room but that many pages, in a file that can be removed.
fn fill_but(pages: u64) {
    let _ = fs::remove_file("/dev/shm/filler");
    let file = File::create("/dev/shm/filler").unwrap();
    let page = vec![1; page_size() as usize];
    let mut length = 0;
    while file.write_all_at(&page, length).is_ok() {
        length += page_size();
    }
    file.set_len(length - pages * page_size()).unwrap();
}

#[test]
fn creation_without_room_is_enospc_and_leaves_nothing() {
    alone_as_root!({
        fork(|| {
            private_room(16);
            let page_of_locks = (page_size() / 64) as u32;
            let more = 32 * page_of_locks;
            for made in
                [ShmManager::create("/locks", more, &options()), ShmManager::open_or_create("/locks", more, &options())]
            {
                let error = made.unwrap_err();
                assert_eq!(error.errno(), libc::ENOSPC);
                assert!(matches!(error.reason(), Reason::NoSpace { .. }), "{error}");
                assert_eq!(names_in("/dev/shm"), [""; 0]);
            }
            // All of it is free again, and what fits can be used to the last byte.
            let fits = 8 * page_of_locks;
            let manager = ShmManager::create("/locks", fits, &options()).unwrap();
            assert!((0..fits).all(|id| taken_once(&manager, id) == Acquired::Clean));
        })
        .succeeds();
    });
}

#[test]
fn however_many_pages_are_left_each_call_works_or_is_enospc() {
    alone_as_root!({
        let mut outcomes = Vec::new();
        for pages in 0..10 {
            fork(|| {
                private_room(256);
                fill_but(pages);
                match ShmManager::create("/locks", 64, &options()) {
                    Err(error) => {
                        assert_eq!(error.errno(), libc::ENOSPC, "{error}");
                        assert_eq!(names_in("/dev/shm"), ["filler"]);
                    }
                    Ok(manager) => {
                        for id in 0..64 {
                            assert_eq!(taken_once(&manager, id), Acquired::Clean);
                        }
                        assert_eq!(manager.locks_held().unwrap(), [0; 0]);
                        assert!(!manager.lock_info(3).unwrap().held);
                    }
                }
            })
            .succeeds();
            // The same for a segment that somebody else made before the room ran out.
            let there = super::support::board(1);
            fork(|| {
                private_room(256);
                drop(ShmManager::create("/locks", 64, &options()).unwrap());
                fill_but(pages);
                fork(|| match ShmManager::open("/locks", 0) {
                    Err(error) => assert_eq!(error.errno(), libc::ENOSPC, "{error}"),
                    Ok(manager) => {
                        // The page of thread records may be missing: locks work without.
                        assert!((0..64).all(|id| taken_once(&manager, id) == Acquired::Clean));
                        assert_eq!(manager.allocate_lock().unwrap(), 0);
                        let _ = manager.lock(1).unwrap();
                        assert_eq!(manager.locks_held().unwrap(), [1]);
                        manager.unlock(1).unwrap();
                        there[0].store(1, std::sync::atomic::Ordering::Relaxed);
                    }
                })
                .succeeds();
            })
            .succeeds();
            outcomes.push(there[0].load(std::sync::atomic::Ordering::Relaxed));
        }
        assert!(outcomes.contains(&1), "{outcomes:?}");
    });
}

#[test]
fn growth_without_room_is_enospc_and_changes_nothing() {
    alone_as_root!({
        fork(|| {
            private_room(256);
            let manager = ShmManager::create("/locks", 64, &options()).unwrap();
            let _ = manager.lock(5).unwrap();
            fill_but(3);
            let room_taken = || fs::metadata("/dev/shm/locks").unwrap().blocks();
            let before = room_taken();
            let error = manager.grow(100_000).unwrap_err();
            assert_eq!(room_taken(), before);
            assert_eq!((error.errno(), manager.num_locks().unwrap()), (libc::ENOSPC, 64));
            assert!(matches!(error.reason(), Reason::NoSpace { .. }), "{error}");
            assert_eq!(errno_of(manager.try_lock(64)), libc::EINVAL);
            manager.unlock(5).unwrap();
            assert_eq!(ShmManager::open("/locks", 64).unwrap().available_locks().unwrap(), 64);
            fs::remove_file("/dev/shm/filler").unwrap();
            manager.grow(4096).unwrap();
            assert!((0..4096).all(|id| taken_once(&manager, id) == Acquired::Clean));
        })
        .succeeds();
    });
}

#[test]
fn a_limit_on_the_size_of_files_is_efbig_and_no_signal() {
    alone!({
        let segment = super::support::Segment::made(64, &options());
        fork(|| {
            let manager = segment.open();
            limit(libc::RLIMIT_FSIZE, segment.file().metadata().unwrap().len());
            assert_eq!(errno_of(manager.grow(4096)), libc::EFBIG);
            assert_eq!(manager.num_locks().unwrap(), 64);
            assert_eq!(taken_once(&manager, 63), Acquired::Clean);
            assert_eq!(errno_of(ShmManager::create(format!("{}-x", segment.name), 4096, &options())), libc::EFBIG);
            assert!(!Path::new(&format!("/dev/shm{}-x", segment.name)).exists());
        })
        .succeeds();
    });
}

/// What is there already is no larger for being used.
#[test]
fn a_limit_on_the_size_of_files_that_is_smaller_than_the_segment_keeps_nobody_from_using_it() {
    alone!({
        let segment = Segment::native(64);
        let holder = segment.holder_of(&[3]);
        fork(|| {
            limit(libc::RLIMIT_FSIZE, 4096);
            let manager = segment.open();
            assert_eq!(taken_once(&manager, 4), Acquired::Clean);
            assert_eq!(errno_of(manager.grow(128)), libc::EFBIG);
            holder.signal(libc::SIGKILL);
            assert_eq!(manager.timed_lock(3, Duration::from_secs(20)).unwrap(), Acquired::OwnerDied);
        })
        .succeeds();
    });
}

#[test]
fn without_descriptors_opening_is_emfile_and_works_again_later() {
    alone!({
        let segment = super::support::Segment::made(64, &options());
        fork(|| {
            let open = segment.open();
            let mut files: Vec<File> = Vec::new();
            limit(libc::RLIMIT_NOFILE, 40);
            while let Ok(file) = File::open("/dev/null") {
                files.push(file);
            }
            let other = super::support::Segment::unused();
            // With each number of descriptors left, from none on.
            let mut made = None;
            for _ in 0..8 {
                assert_eq!(taken_once(&open, 3), Acquired::Clean);
                assert_eq!(open.locks_held().unwrap(), [0; 0]);
                match ShmManager::create(&other.name, 64, &options()) {
                    Ok(manager) => {
                        made = Some(manager);
                        break;
                    }
                    Err(error) => assert_eq!(error.errno(), libc::EMFILE, "{error}"),
                }
                assert!(!other.file().exists(), "with {} descriptors left", 40 - files.len());
                let _ = files.pop();
            }
            assert_eq!(taken_once(&made.expect("with eight descriptors it works"), 3), Acquired::Clean);
        })
        .succeeds();
    });
}

/// More room in the attach table is made for speed long before there is none left in what there is.
#[test]
fn a_process_finds_the_entry_that_is_free_where_there_is_no_room_for_more() {
    const ATTACHED: u32 = 60;
    if page_size() > 4096 {
        return skip("a larger page has room for more entries than this attaches");
    }
    alone_as_root!({
        fork(|| {
            private_room(512);
            let segment = Segment::native(64);
            let there = &board(1)[0];
            let others: Vec<Child> = (0..ATTACHED)
                .map(|_| {
                    fork(|| {
                        let _manager = segment.open();
                        there.fetch_add(1, Ordering::AcqRel);
                        sleep_until_killed();
                    })
                })
                .collect();
            eventually("all are attached", || there.load(Ordering::Acquire) == ATTACHED);
            fill_but(0);
            segment.write_word_at(AT_ROTOR, 2);
            assert_eq!(taken_once(&segment.open(), 3), Acquired::Clean);
            assert_eq!(segment.number_at(AT_READY), 1, "there was room for more entries");
            others.into_iter().for_each(Child::kill);
        })
        .succeeds();
    });
}
