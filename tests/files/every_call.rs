// SPDX-License-Identifier: MIT OR Apache-2.0
//! Killed, or stopped while somebody else changes something, before and after every system call.

use std::sync::atomic::Ordering;
use std::time::Duration;

use lock_manager::{Acquired, Lock, Manager};

use super::place::Place;
use super::posix::PosixLock;
use super::support::alone::alone;
use super::support::board;
use super::support::step::{Step, Stepped};

/// Where a lock that is lost would be waited for in vain.
const LONG: Duration = super::support::timing::scaled(Duration::from_secs(20));

/// Does `act` again and again, killed one stop later each time, until it gets to its end; `after` looks at each.
fn killed_at_every_stop(start: impl Fn() -> Stepped, mut after: impl FnMut(u32)) {
    for stop in 0.. {
        let stepped = start();
        let is_over = (0..stop).any(|_| stepped.system_call() == Step::Over);
        stepped.kill();
        after(stop);
        if is_over {
            assert!(stop > 10, "{stop} stops are too few for what was done");
            return;
        }
    }
}

#[test]
fn a_lock_is_never_lost_and_who_died_inside_is_told() {
    alone!({
        let place = Place::fresh();
        let manager = place.open();
        let id = manager.allocate_lock().unwrap();
        let inside = &board(1)[0];
        let start = || {
            Stepped::start(
                || place.open(),
                |manager| {
                    let acquired = manager.lock(id).unwrap();
                    assert_eq!(acquired, Acquired::Clean);
                    inside.store(1, Ordering::Release);
                    // A system call to be killed at.
                    std::thread::yield_now();
                    inside.store(0, Ordering::Release);
                    manager.unlock(id).unwrap();
                },
            )
        };
        let mut deaths_inside = 0;
        killed_at_every_stop(start, |stop| {
            let acquired = manager.timed_lock(id, LONG).unwrap();
            let was_inside = inside.swap(0, Ordering::AcqRel) == 1;
            deaths_inside += u32::from(was_inside);
            assert!(!was_inside || acquired == Acquired::OwnerDied, "stop {stop}");
            manager.unlock(id).unwrap();
            assert_eq!(manager.try_lock(id).unwrap(), Acquired::Clean, "told twice, at stop {stop}");
            manager.unlock(id).unwrap();
        });
        assert_eq!(deaths_inside, 2, "before and after one system call");
    });
}

#[test]
fn who_is_killed_while_being_told_leaves_it_to_the_next() {
    alone!({
        let place = Place::fresh();
        let manager = place.open();
        let was_told = &board(1)[0];
        let start = || {
            place.holder_of(&[3]).kill();
            was_told.store(0, Ordering::Release);
            Stepped::start(
                || place.open(),
                |manager| {
                    assert_eq!(manager.lock(3).unwrap(), Acquired::OwnerDied);
                    was_told.store(1, Ordering::Release);
                },
            )
        };
        killed_at_every_stop(start, |stop| {
            // Either nobody was told yet, or who was told has died with the lock.
            assert_eq!(manager.timed_lock(3, LONG).unwrap(), Acquired::OwnerDied, "stop {stop}");
            manager.unlock(3).unwrap();
        });
        assert_eq!(was_told.load(Ordering::Acquire), 1);
    });
}

#[test]
fn an_id_is_allocated_or_not() {
    alone!({
        let place = Place::fresh();
        let manager = place.open();
        let start = || {
            Stepped::start(
                || place.open(),
                |manager| {
                    let id = manager.allocate_lock().unwrap();
                    manager.free_lock(id).unwrap();
                },
            )
        };
        killed_at_every_stop(start, |stop| {
            let there = place.names().len() - 1;
            assert!(there <= 1, "stop {stop}");
            if there == 1 {
                assert_eq!(manager.allocate_and_retrieve_lock(0).unwrap_err().errno(), libc::EEXIST);
                manager.free_lock(0).unwrap();
            }
        });
        assert_eq!(place.names(), Place::names_of(&[]));
    });
}

/// Stops a child that tries the lock, one stop later each time, lets somebody else `enter`, and the child go on: it must
/// not get the lock as well. `enter` answers nothing once the child has it already.
fn nobody_gets_in_beside<T>(place: &Place, id: u32, mut enter: impl FnMut() -> Option<T>) {
    let entered = &board(1)[0];
    for stop in 0.. {
        let child = Stepped::start(
            || place.open(),
            |manager| entered.store(u32::from(manager.try_lock(id).is_ok()), Ordering::Release),
        );
        let is_over = (0..stop).any(|_| child.system_call() == Step::Over);
        assert!(!is_over, "the child was never seen to have the lock");
        let Some(other) = enter() else {
            assert!(stop > 4, "{stop} stops are too few to have a lock");
            return;
        };
        while child.system_call() != Step::Over {}
        assert_eq!(entered.load(Ordering::Acquire), 0, "a second one got the lock, from stop {stop} on");
        child.kill();
        drop(other);
    }
}

#[test]
fn who_is_about_to_lock_the_file_of_an_id_that_is_freed_and_allocated_again_does_not_get_in_beside_libpod() {
    alone!({
        let place = Place::fresh();
        let manager = place.open();
        let id = manager.allocate_lock().unwrap();
        nobody_gets_in_beside(&place, id, || {
            drop(PosixLock::try_take(&place.file(id))?);
            manager.free_lock(id).unwrap();
            manager.allocate_and_retrieve_lock(id).unwrap();
            Some(PosixLock::try_take(&place.file(id)).unwrap())
        });
    });
}

#[test]
fn who_is_about_to_lock_a_record_of_a_table_that_vanishes_does_not_get_in_beside_the_next() {
    alone!({
        let place = Place::fresh();
        let manager = place.open();
        let lock = Lock::retrieve(&manager, 3).unwrap();
        nobody_gets_in_beside(&place, 3, || {
            drop(lock.try_lock().ok()?);
            place.free_all_as_libpod();
            Some(lock.try_lock().unwrap())
        });
    });
}
