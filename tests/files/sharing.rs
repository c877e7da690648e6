// SPDX-License-Identifier: MIT OR Apache-2.0
//! Readers beside libpod, which knows none: together they have the record lock for reading, which keeps libpod out as a
//! writer's would.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use lock_manager::{Acquired, FileManager, Manager, Ownership};

use super::place::Place;
use super::support::alone::alone;
use super::support::process::sleep_until_killed;
use super::support::{Child, board, errno_of, eventually, fork};

const LONG: Duration = super::support::timing::scaled(Duration::from_secs(20));

fn with_lock() -> (Place, FileManager, u32) {
    let place = Place::fresh();
    let manager = place.open();
    let id = manager.allocate_lock().unwrap();
    (place, manager, id)
}

/// Takes the record lock of that kind on all of a file, as libpod takes its own.
fn try_record(file: &File, kind: libc::c_int) -> bool {
    // SAFETY: all zeros are a flock; fcntl(2) reads it.
    unsafe {
        let mut whole: libc::flock = std::mem::zeroed();
        whole.l_type = kind as libc::c_short;
        libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const whole) == 0
    }
}

/// What another process may have on the id's file now: for reading, for writing.
fn others_may(place: &Place, id: u32) -> (bool, bool) {
    let answer = &board(1)[0];
    fork(|| {
        let file = File::options().read(true).write(true).open(place.file(id)).unwrap();
        let [reads, writes] = [libc::F_RDLCK, libc::F_WRLCK].map(|kind| {
            let is_had = try_record(&file, kind);
            assert!(try_record(&file, libc::F_UNLCK));
            u32::from(is_had)
        });
        answer.store(1 + reads + 2 * writes, Ordering::Release);
    })
    .succeeds();
    let answer = answer.load(Ordering::Acquire) - 1;
    (answer & 1 != 0, answer & 2 != 0)
}

/// Another process that has the file for writing, as libpod has it.
fn as_libpod(place: &Place, id: u32) -> Child {
    let ready = &board(1)[0];
    let child = fork(|| {
        let file = File::options().read(true).write(true).open(place.file(id)).unwrap();
        assert!(try_record(&file, libc::F_WRLCK));
        ready.store(1, Ordering::Release);
        sleep_until_killed();
    });
    eventually("it has the file", || ready.load(Ordering::Acquire) == 1);
    child
}

#[test]
fn the_first_reader_of_a_process_takes_the_record_lock_and_the_last_gives_it_back() {
    alone!({
        for ownership in [Ownership::Thread, Ownership::Process] {
            let (place, manager, id) = with_lock();
            manager.set_ownership(ownership).unwrap();
            assert_eq!(others_may(&place, id), (true, true));
            assert_eq!(manager.lock_shared(id).unwrap(), Acquired::Clean);
            assert_eq!(others_may(&place, id), (true, false));
            let step = &AtomicU32::new(0);
            thread::scope(|scope| {
                scope.spawn(|| {
                    assert_eq!(manager.lock_shared(id).unwrap(), Acquired::Clean);
                    step.store(1, Ordering::Release);
                    eventually("it is to leave", || step.load(Ordering::Acquire) == 2);
                    manager.unlock_shared(id).unwrap();
                });
                eventually("the second reads", || step.load(Ordering::Acquire) == 1);
                manager.unlock_shared(id).unwrap();
                assert_eq!(others_may(&place, id), (true, false), "the second reads yet");
                step.store(2, Ordering::Release);
            });
            assert_eq!(others_may(&place, id), (true, true));
            // Other processes of this library read beside it.
            assert_eq!(manager.lock_shared(id).unwrap(), Acquired::Clean);
            fork(|| {
                let manager = place.open();
                assert_eq!(manager.lock_shared(id).unwrap(), Acquired::Clean);
                manager.unlock_shared(id).unwrap();
                assert_eq!(errno_of(manager.try_lock(id)), libc::EBUSY);
            })
            .succeeds();
            manager.unlock_shared(id).unwrap();
        }
    });
}

#[test]
fn what_libpod_has_is_waited_for() {
    alone!({
        let (place, manager, id) = with_lock();
        let libpod = as_libpod(&place, id);
        assert_eq!(errno_of(manager.try_lock_shared(id)), libc::EBUSY);
        assert_eq!(errno_of(manager.timed_lock_shared(id, Duration::from_millis(20))), libc::ETIMEDOUT);
        // Whoever gave up keeps no writer of this library out.
        assert_eq!(manager.lock_holders(id).unwrap().iter().filter(|holder| holder.shared).count(), 0);
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                assert_eq!(manager.timed_lock_shared(id, LONG).unwrap(), Acquired::Clean);
                manager.unlock_shared(id).unwrap();
            });
            eventually("it waits, and is no reader", || {
                let info = manager.lock_info(id).unwrap();
                (info.readers, info.waiters) == (0, 1)
            });
            libpod.kill();
            waiter.join().unwrap();
        });
        assert_eq!(others_may(&place, id), (true, true));
    });
}

#[test]
fn a_downgrade_lets_other_readers_of_the_file_in() {
    alone!({
        let (place, manager, id) = with_lock();
        assert_eq!(manager.lock(id).unwrap(), Acquired::Clean);
        assert_eq!(others_may(&place, id), (false, false));
        manager.downgrade_lock(id).unwrap();
        assert_eq!(others_may(&place, id), (true, false));
        manager.unlock_shared(id).unwrap();
        assert_eq!(others_may(&place, id), (true, true));
        assert_eq!(manager.try_lock(id).unwrap(), Acquired::Clean);
        manager.unlock(id).unwrap();
    });
}

/// Whether anybody at all, this process among them, has the file locked.
fn is_locked(file: &File) -> bool {
    // SAFETY: all zeros are a flock; fcntl(2) reads and writes it.
    unsafe {
        let mut whole: libc::flock = std::mem::zeroed();
        whole.l_type = libc::F_WRLCK as libc::c_short;
        assert_eq!(libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut whole), 0);
        whole.l_type != libc::F_UNLCK as libc::c_short
    }
}

#[test]
fn what_another_thread_gives_back_as_soon_as_it_is_downgraded_leaves_no_record_lock() {
    const ROUNDS: u32 = 3000;
    alone!({
        let (place, manager, id) = with_lock();
        manager.set_ownership(Ownership::Process).unwrap();
        let neighbour = manager.allocate_lock().unwrap();
        // Closed at the end only: what the process has on the file would go with it.
        let file = File::options().read(true).write(true).open(place.file(id)).unwrap();
        let (held, is_over) = (&AtomicU32::new(0), &AtomicU32::new(0));
        thread::scope(|scope| {
            // What it does in the same process has the others meet each other at all points.
            scope.spawn(|| {
                while is_over.load(Ordering::Relaxed) == 0 {
                    let _ = manager.lock_shared(neighbour).unwrap();
                    manager.unlock_shared(neighbour).unwrap();
                }
            });
            scope.spawn(|| {
                for round in 1..=ROUNDS {
                    eventually("it is locked", || held.load(Ordering::Acquire) == round);
                    while manager.unlock_shared(id).is_err() {}
                    held.store(0, Ordering::Release);
                }
            });
            let mut left = 0;
            for round in 1..=ROUNDS {
                assert_eq!(manager.lock(id).unwrap(), Acquired::Clean);
                held.store(round, Ordering::Release);
                manager.downgrade_lock(id).unwrap();
                eventually("it is given back", || held.load(Ordering::Acquire) == 0);
                left += u32::from(is_locked(&file));
            }
            is_over.store(1, Ordering::Relaxed);
            assert_eq!(left, 0, "record locks that stayed, in {ROUNDS} rounds");
        });
    });
}

#[test]
fn a_thread_that_ends_reading_gives_the_record_lock_back_unless_another_reads() {
    alone!({
        let (place, manager, id) = with_lock();
        let read_and_end = || {
            thread::scope(|scope| {
                scope.spawn(|| assert_eq!(manager.lock_shared(id).unwrap(), Acquired::Clean)).join().unwrap();
            });
        };
        read_and_end();
        assert_eq!(others_may(&place, id), (true, true));
        assert_eq!(manager.lock_shared(id).unwrap(), Acquired::Clean);
        read_and_end();
        assert_eq!(others_may(&place, id), (true, false), "the other reads yet");
        manager.unlock_shared(id).unwrap();
        assert_eq!(others_may(&place, id), (true, true));
    });
}

#[test]
fn what_the_process_reads_is_given_back_through_another_manager_that_has_taken_nothing() {
    alone!({
        let (place, manager, id) = with_lock();
        let others = [place.open(), place.open()];
        others.iter().for_each(|other| other.set_ownership(Ownership::Process).unwrap());
        assert_eq!(errno_of(manager.unlock_shared(id)), libc::EPERM);
        let [reading, fresh] = others;
        assert_eq!(reading.lock_shared(id).unwrap(), Acquired::Clean);
        assert_eq!(errno_of(manager.unlock_shared(id)), libc::EPERM, "its locks are threads'");
        reading.close().unwrap();
        fresh.unlock_shared(id).unwrap();
        assert_eq!(others_may(&place, id), (true, true));
        // Nothing was taken through it yet.
        fresh.set_ownership(Ownership::Thread).unwrap();
        assert_eq!(fresh.lock_shared(id).unwrap(), Acquired::Clean);
        manager.unlock_shared(id).unwrap();
    });
}
