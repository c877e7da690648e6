// SPDX-License-Identifier: MIT OR Apache-2.0
//! A segment grows while others lock, allocate, open it and grow it themselves.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use lock_manager::{Acquired, Manager, ShmManager};

use super::options;
use super::support::alone::alone;
use super::support::{Child, Segment, board, descriptors, errno_of, eventually, fork, taken_once};

const FIRST: u32 = 64;
const MOST: u32 = 64 * 400;

#[test]
fn every_attached_process_sees_new_locks_without_opening_anew() {
    alone!({
        let segment = Segment::made(FIRST, &options());
        let manager = segment.open();
        let (other, reader) = (segment.open(), ShmManager::open_read_only(&segment.name).unwrap());
        let stage = &board(1)[0];
        let child = fork(|| {
            eventually("it has grown", || stage.load(Ordering::Acquire) == 1);
            assert_eq!(taken_once(&manager, 999), Acquired::Clean);
            let _ = manager.lock(1000).unwrap();
            stage.store(2, Ordering::Release);
            eventually("it was seen", || stage.load(Ordering::Acquire) == 3);
        });
        other.grow(1001).unwrap();
        stage.store(1, Ordering::Release);
        eventually("the child has the lock", || stage.load(Ordering::Acquire) == 2);
        assert_eq!(errno_of(manager.try_lock(1000)), libc::EBUSY);
        assert_eq!((reader.num_locks().unwrap(), reader.locks_held().unwrap()), (1024, vec![1000]));
        assert_eq!(manager.available_locks().unwrap(), 1024);
        stage.store(3, Ordering::Release);
        child.succeeds();
        for asked in [FIRST, 65, 1000, 1024] {
            assert_eq!(ShmManager::open(&segment.name, asked).unwrap().num_locks().unwrap(), 1024);
        }
        assert_eq!(errno_of(ShmManager::open(&segment.name, 1025)), libc::ERANGE);
        assert_eq!(errno_of(manager.grow(1000)), libc::EINVAL);
        manager.grow(1024).unwrap();
    });
}

#[test]
fn two_grow_at_once_while_others_lock_allocate_and_open() {
    alone!({
        let segment = Segment::made(FIRST, &options().max_locks(MOST));
        let [over, opened] = [&board(1)[0], &board(1)[0]];
        let held = board(MOST as usize);
        let growers = [0, 1].map(|_| {
            fork(|| {
                let manager = segment.open();
                loop {
                    let now = manager.num_locks().unwrap();
                    if now == MOST {
                        break;
                    }
                    // Somebody else may have grown it further since.
                    assert!([0, libc::EINVAL].contains(&errno_of(manager.grow(now + 64))));
                }
            })
        });
        let users: Vec<Child> = (0..2).map(|_| fork(|| use_it(&segment, held, over))).collect();
        let opener = fork(|| {
            while over.load(Ordering::Acquire) == 0 {
                let manager = ShmManager::open(&segment.name, FIRST).unwrap_or_else(|error| panic!("{error}"));
                let num_locks = manager.num_locks().unwrap();
                assert_eq!(taken_once(&manager, num_locks - 1), Acquired::Clean);
                opened.fetch_add(1, Ordering::Relaxed);
            }
        });
        growers.into_iter().for_each(Child::succeeds);
        eventually("somebody opened it", || opened.load(Ordering::Relaxed) > 10);
        over.store(1, Ordering::Release);
        users.into_iter().for_each(Child::succeeds);
        opener.succeeds();
        let manager = segment.open();
        let taken = held.iter().filter(|word| word.load(Ordering::Relaxed) != 0).count() as u32;
        assert_eq!((manager.num_locks().unwrap(), manager.available_locks().unwrap()), (MOST, MOST - taken));
    });
}

/// Allocates what nobody else has, and locks it.
fn use_it(segment: &Segment, held: &[AtomicU32], over: &AtomicU32) {
    let manager = segment.open();
    while over.load(Ordering::Acquire) == 0 {
        match manager.allocate_lock() {
            Ok(id) => {
                assert_eq!(held[id as usize].fetch_add(1, Ordering::Relaxed), 0, "id {id} was given twice");
                assert_eq!(taken_once(&manager, id), Acquired::Clean);
                if id % 3 == 0 {
                    held[id as usize].store(0, Ordering::Relaxed);
                    manager.free_lock(id).unwrap();
                }
            }
            Err(error) => assert_eq!(error.errno(), libc::ENOLCK),
        }
    }
}

/// What is free is counted among the locks that there were at one instant.
#[test]
fn a_count_beside_a_grower_is_never_more_than_there_are() {
    // Small ones, so that counting takes no longer than growing.
    const SEGMENTS: u32 = 40;
    const MOST: u32 = 64 * 100;
    alone!({
        for _ in 0..SEGMENTS {
            let segment = Segment::made(FIRST, &options().max_locks(MOST));
            let manager = segment.open();
            let allocate = || (0..64).for_each(|_| _ = manager.allocate_lock().unwrap());
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    allocate();
                    for locks in (2 * FIRST..=MOST).step_by(64) {
                        manager.grow(locks).unwrap();
                        allocate();
                    }
                });
                while manager.num_locks().unwrap() < MOST {
                    let free = manager.available_locks().unwrap();
                    assert!(free <= 64, "{free}");
                }
            });
            assert_eq!(manager.available_locks().unwrap(), 0);
        }
    });
}

/// The program closes all descriptors and opens files of its own, whose numbers are those that the library has just
/// looked through.
#[test]
fn what_was_grown_is_mapped_from_the_segment_whatever_a_descriptors_number_is_of_by_then() {
    const STEPS: u32 = 2000;
    const MOST: u32 = 64 * (STEPS + 1);
    alone!({
        let segment = Segment::made(FIRST, &options().max_locks(MOST));
        let manager = segment.open();
        let (asked, grown) = (&board(1)[0], &board(1)[0]);
        let grower = fork(|| {
            let manager = segment.open();
            for step in 1..=STEPS {
                eventually("more is wanted", || asked.load(Ordering::Acquire) >= step);
                manager.grow(64 * (step + 1)).unwrap();
                grown.store(step, Ordering::Release);
            }
            // What the other process holds, it holds in the segment.
            for step in 1..=STEPS {
                assert_eq!(errno_of(manager.try_lock(64 * step)), libc::EBUSY, "{step}");
            }
        });
        let own = descriptors::program_file();
        own.set_len(1 << 30).unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| descriptors::take_over(3..16, &own, &over));
            for step in 1..=STEPS {
                asked.store(step, Ordering::Release);
                eventually("it has grown", || grown.load(Ordering::Acquire) >= step);
                eventually("this process has noticed", || manager.try_lock(64 * step).is_ok());
            }
            over.store(true, Ordering::Release);
        });
        grower.succeeds();
    });
}
