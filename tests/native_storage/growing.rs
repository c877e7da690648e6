// SPDX-License-Identifier: MIT OR Apache-2.0
//! A segment grows while others lock, allocate, open it and grow it themselves.

use std::iter;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use lock_manager::{Acquired, InMemoryManager, Manager, ShmManager};

use super::options;
use super::support::alone::alone;
use super::support::process::{limit, page_size};
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

/// On 32 bits each would take a third of all addresses if it had room for the most locks at once.
#[test]
fn many_that_have_grown_fit_into_the_addresses_of_one_process() {
    alone!({
        let managers: Vec<_> = (0..20).map(|_| InMemoryManager::new(64).unwrap()).collect();
        // On 32 bits each of them is mapped twice more.
        for most in [1000, 40_000] {
            for manager in &managers {
                let _ = manager.lock(5).unwrap();
                manager.grow(most).unwrap();
                assert_eq!(errno_of(manager.lock(5)), libc::EDEADLK);
                assert_eq!(taken_once(manager, most - 1), Acquired::Clean);
                manager.unlock(5).unwrap();
            }
        }
    });
}

/// On 32 bits it is mapped anew at three of these numbers. That a thread learns so late that another mapping is there by
/// then is too rare for a test; the models have every order.
#[test]
fn threads_of_one_manager_use_at_once_what_any_of_them_grows() {
    const ROUNDS: usize = 100;
    const MOST: u32 = 8192;
    alone!({
        for _ in 0..ROUNDS {
            let segment = Segment::made(64, &options().max_locks(MOST));
            let manager = segment.open();
            let grow_and_use = || {
                loop {
                    let now = manager.num_locks().unwrap();
                    assert_eq!(manager.lock(now - 1).unwrap(), Acquired::Clean);
                    manager.unlock(now - 1).unwrap();
                    if now == MOST {
                        break;
                    }
                    assert!([0, libc::EINVAL].contains(&errno_of(manager.grow(2 * now))));
                }
            };
            std::thread::scope(|scope| {
                let threads = [0; 3].map(|_| scope.spawn(grow_and_use));
                threads.into_iter().for_each(|thread| thread.join().unwrap());
            });
            assert!((0..MOST).all(|id| taken_once(&manager, id) == Acquired::Clean));
        }
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
/// looked through, and others of the process, who open the segment, get them then.
#[test]
fn what_was_grown_is_mapped_from_the_segment_whatever_a_descriptors_number_is_of_by_then() {
    const SEGMENTS: usize = 300;
    const STEPS: u32 = 4;
    const MOST: u32 = 64 * (STEPS + 1);
    alone!({
        let segments: Vec<Segment> = (0..SEGMENTS).map(|_| Segment::made(FIRST, &options().max_locks(MOST))).collect();
        let stage = &board(1)[0];
        // In turns: what is new is asked for, made, held, and found held.
        let turn = |number: u32| eventually("it is this one's turn", || stage.load(Ordering::Acquire) == number);
        let next = || stage.fetch_add(1, Ordering::AcqRel) + 2;
        let grower = fork(|| {
            let mut number = 1;
            for segment in &segments {
                turn(number);
                let manager = segment.open();
                for step in 1..=STEPS {
                    turn(number);
                    manager.grow(64 * (step + 1)).unwrap();
                    number = next();
                    turn(number);
                    // What the other process holds, it holds in the segment.
                    assert_eq!(errno_of(manager.try_lock(64 * step)), libc::EBUSY, "{step}");
                    number = next();
                }
            }
        });
        let own = descriptors::program_file();
        own.set_len(1 << 30).unwrap();
        let (over, opened) = (AtomicBool::new(false), &board(1)[0]);
        std::thread::scope(|scope| {
            scope.spawn(|| descriptors::take_over(3..12, &own, &over));
            scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    let segment = &segments[opened.load(Ordering::Relaxed) as usize];
                    drop(ShmManager::open_read_only(&segment.name));
                }
            });
            let mut number = 0;
            for (index, segment) in segments.iter().enumerate() {
                // Its descriptor may be closed before it is looked at.
                let manager =
                    iter::repeat_with(|| ShmManager::open(&segment.name, FIRST)).find_map(Result::ok).unwrap();
                opened.store(index as u32, Ordering::Relaxed);
                for step in 1..=STEPS {
                    turn(number);
                    number = next();
                    turn(number);
                    eventually("this process has noticed", || manager.try_lock(64 * step).is_ok());
                    number = next();
                    turn(number);
                    manager.unlock(64 * step).unwrap();
                }
            }
            over.store(true, Ordering::Release);
        });
        grower.succeeds();
    });
}

/// The number that the library has for the segment is a descriptor of the program's by now, of the same file, by which
/// nothing can be mapped for writing: what is mapped comes from what is mapped already.
#[test]
fn what_was_grown_is_not_mapped_by_a_descriptors_number() {
    alone!({
        let segment = Segment::made(FIRST, &options());
        let stage = &board(1)[0];
        let grower = fork(|| {
            eventually("it may grow", || stage.load(Ordering::Acquire) == 1);
            segment.open().grow(1000).unwrap();
        });
        let manager = segment.open();
        let numbers = segment.descriptors();
        let own = std::fs::File::open(segment.file()).unwrap();
        assert_eq!(numbers.len(), 1);
        // SAFETY: dup2(2) touches no memory; the library asks of whom its number is.
        unsafe { libc::dup2(own.as_raw_fd(), numbers[0]) };
        stage.store(1, Ordering::Release);
        grower.succeeds();
        assert_eq!(taken_once(&manager, 999), Acquired::Clean);
        assert_eq!((manager.num_locks().unwrap(), manager.available_locks().unwrap()), (1024, 1024));
    });
}

/// How many bytes of the segment this process has mapped.
fn mapped(segment: &Segment) -> u64 {
    let lengths = segment.maps().into_iter().map(|line| {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [start, end] = [start, end].map(|number| u64::from_str_radix(number, 16).unwrap());
        end - start
    });
    lengths.sum()
}

/// Whoever waits does so in what was mapped before, and is woken through what is mapped since.
#[test]
fn a_segment_takes_room_for_more_once_it_has_grown_and_what_was_mapped_before_stays() {
    alone!({
        let segment = Segment::made(FIRST, &options());
        let manager = segment.open();
        // The entry's lock is kept by a page of its own.
        let witness = page_size();
        assert_eq!(mapped(&segment), file_size(&segment).next_multiple_of(page_size()) + witness);
        assert_eq!(taken_once(&manager, 3), Acquired::Clean);
        let _ = manager.lock(5).unwrap();
        let before = segment.open();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(before.lock(5).unwrap(), Acquired::Clean);
                before.unlock(5).unwrap();
            });
            eventually("it waits", || manager.lock_info(5).unwrap().waiters == 1);
            manager.grow(4096).unwrap();
            assert_eq!(taken_once(&before, 4095), Acquired::Clean);
            manager.unlock(5).unwrap();
        });
        // For all that there may be; on 32 bits, for a part of them.
        assert!(mapped(&segment) > if cfg!(target_pointer_width = "64") { 64 << 20 } else { 1 << 20 });
        assert!((0..4096).all(|id| taken_once(&manager, id) == Acquired::Clean));
        drop((before, manager));
        assert_eq!(mapped(&segment), 0);

        let opened = segment.open();
        assert_eq!(
            (opened.num_locks().unwrap(), mapped(&segment)),
            (4096, file_size(&segment).next_multiple_of(page_size()) + witness)
        );
    });
}

fn file_size(segment: &Segment) -> u64 {
    std::fs::metadata(segment.file()).unwrap().len()
}

#[test]
fn where_more_cannot_be_mapped_growing_is_enomem_and_changes_nothing() {
    alone!({
        // So many that there must be room for all that there may be.
        const ASKED: u32 = if cfg!(target_pointer_width = "64") { 1000 } else { 1 << 19 };
        const GROWN: u32 = ASKED.next_multiple_of(64);
        let segment = Segment::made(FIRST, &options());
        let grown = &board(1)[0];
        let limited = fork(|| {
            let manager = segment.open();
            let status = std::fs::read_to_string("/proc/self/statm").unwrap();
            let pages: u64 = status.split(' ').next().unwrap().parse().unwrap();
            let before = limit(libc::RLIMIT_AS, pages * page_size() + (16 << 20));
            let size = file_size(&segment);
            let error = manager.grow(ASKED).unwrap_err();
            assert_eq!((error.errno(), file_size(&segment)), (libc::ENOMEM, size));
            assert!(error.to_string().contains("RLIMIT_AS"), "{error}");
            assert_eq!(segment.open().num_locks().unwrap(), FIRST);
            grown.store(1, Ordering::Release);
            eventually("another process has grown it", || grown.load(Ordering::Acquire) == 2);
            // It is there, but not for this process, yet.
            assert_eq!(manager.num_locks().unwrap(), FIRST);
            assert_eq!(errno_of(manager.try_lock(FIRST)), libc::EINVAL);
            assert_eq!(taken_once(&manager, FIRST - 1), Acquired::Clean);
            limit(libc::RLIMIT_AS, before);
            assert_eq!(manager.num_locks().unwrap(), GROWN);
            assert_eq!(taken_once(&manager, GROWN - 1), Acquired::Clean);
        });
        eventually("it could not be grown", || grown.load(Ordering::Acquire) == 1);
        segment.open().grow(ASKED).unwrap();
        grown.store(2, Ordering::Release);
        limited.succeeds();
    });
}
