// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ids that are freed, and perhaps given to somebody else, while locks on them are held and waited for.

use std::fs;
use std::hint;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use lock_manager::{Acquired, Manager};

use super::place::Place;
use super::support::alone::alone;
use super::support::{Child, board, errno_of, eventually, fork, taken_once};

/// The highest id that there can be.
const LAST_ID: u32 = 16_777_215;

const LONG: Duration = super::support::timing::scaled(Duration::from_secs(20));

/// For one test at a time: a lock on the highest id takes a GiB for its table, and small machines have no two in /dev/shm.
fn one_large_table() -> MutexGuard<'static, ()> {
    static ROOM: Mutex<()> = Mutex::new(());
    ROOM.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_lock_that_is_not_allocated_works_and_is_not_allocated_by_it() {
    let _room = one_large_table();
    alone!({
        let place = Place::fresh();
        let manager = place.open();
        for id in [0, 7, 1 << 20, LAST_ID - 1, LAST_ID] {
            assert_eq!(manager.lock(id).unwrap(), Acquired::Clean);
            assert_eq!(manager.locks_held().unwrap(), [id]);
            let info = manager.lock_info(id).unwrap();
            assert_eq!((info.allocated, info.held, info.pid), (false, true, std::process::id() as i32));
            fork(|| assert_eq!(errno_of(place.open().try_lock(id)), libc::EBUSY)).succeeds();
            manager.unlock(id).unwrap();
            assert_eq!(errno_of(manager.free_lock(id)), libc::ENOENT);
            place.holder_of(&[id]).kill();
            assert_eq!(taken_once(&manager, id), Acquired::OwnerDied);
        }
        assert_eq!(place.names(), Place::names_of(&[]));
        assert_eq!(manager.allocate_lock().unwrap(), 0);
    });
}

#[test]
fn the_highest_ids_are_ids_like_others() {
    let _room = one_large_table();
    alone!({
        let place = Place::fresh();
        let manager = place.open();
        let ids = [LAST_ID - 1, LAST_ID];
        for id in ids {
            manager.retrieve_lock(id).unwrap();
            manager.allocate_and_retrieve_lock(id).unwrap();
            assert_eq!(errno_of(manager.allocate_and_retrieve_lock(id)), libc::EEXIST);
            let _ = manager.lock(id).unwrap();
        }
        assert_eq!(place.names(), Place::names_of(&ids));
        assert_eq!(manager.locks_held().unwrap(), ids);
        for id in ids {
            manager.unlock(id).unwrap();
            manager.free_lock(id).unwrap();
        }
        assert_eq!(place.names(), Place::names_of(&[]));
        // What would be the next ones are none.
        for id in [LAST_ID + 1, u32::MAX] {
            assert_eq!(errno_of(manager.retrieve_lock(id)), libc::EINVAL);
            assert_eq!(errno_of(manager.lock_info(id)), libc::EINVAL);
            fs::write(place.file(id), "").unwrap();
            assert_eq!(errno_of(manager.try_lock(id)), libc::EINVAL);
            assert_eq!(errno_of(manager.free_lock(id)), libc::EINVAL);
        }
        manager.free_all_locks().unwrap();
        assert_eq!(place.names().len(), 3, "a file that is no id's was removed");
    });
}

#[test]
fn an_id_that_is_freed_and_allocated_again_under_its_holder_has_no_second_holder() {
    alone!({
        let place = Place::fresh();
        let manager = place.open();
        let id = manager.allocate_lock().unwrap();
        let holder = place.holder_of(&[id]);
        manager.free_lock(id).unwrap();
        assert_eq!(errno_of(manager.try_lock(id)), libc::EBUSY);
        assert_eq!(manager.locks_held().unwrap(), [id]);
        assert!(!manager.lock_info(id).unwrap().allocated);
        assert_eq!(manager.allocate_lock().unwrap(), id);
        assert_eq!(errno_of(manager.try_lock(id)), libc::EBUSY);
        assert_eq!(manager.lock_info(id).unwrap().pid, holder.pid());
        fork(|| assert_eq!(errno_of(place.open().try_lock(id)), libc::EBUSY)).succeeds();
        holder.kill();
        assert_eq!(manager.timed_lock(id, LONG).unwrap(), Acquired::OwnerDied);
        fork(|| assert_eq!(errno_of(place.open().try_lock(id)), libc::EBUSY)).succeeds();
        manager.unlock(id).unwrap();
    });
}

#[test]
fn a_waiter_for_an_id_that_is_freed_meanwhile_gets_the_lock() {
    alone!({
        let place = Place::fresh();
        let manager = place.open();
        for is_allocated_again in [false, true] {
            let id = manager.allocate_lock().unwrap();
            let _ = manager.lock(id).unwrap();
            let waits = &board(1)[0];
            let waiter = fork(|| {
                let manager = place.open();
                thread::scope(|scope| {
                    let waiting = scope.spawn(|| manager.timed_lock(id, LONG).map(drop));
                    eventually("its thread waits", || manager.lock_info(id).unwrap().waiters == 1);
                    waits.store(1, Ordering::Release);
                    waiting.join().unwrap().unwrap();
                });
            });
            eventually("the child waits", || waits.load(Ordering::Acquire) == 1);
            manager.free_lock(id).unwrap();
            if is_allocated_again {
                manager.allocate_and_retrieve_lock(id).unwrap();
            }
            manager.unlock(id).unwrap();
            waiter.succeeds();
            // Its thread ended with the lock.
            assert_eq!(taken_once(&manager, id), Acquired::OwnerDied);
            if is_allocated_again {
                manager.free_lock(id).unwrap();
            }
        }
    });
}

#[test]
fn while_an_id_is_freed_and_allocated_all_the_time_never_two_hold_it() {
    const LOCKERS: usize = 4;
    const ROUNDS: u32 = 600;
    alone!({
        let place = Place::fresh();
        let words = board(3);
        let [inside, turns, over] = [&words[0], &words[1], &words[2]];
        let lockers: Vec<Child> = (0..LOCKERS)
            .map(|_| {
                fork(|| {
                    let manager = place.open();
                    for _ in 0..ROUNDS {
                        assert_eq!(manager.timed_lock(0, LONG).unwrap(), Acquired::Clean);
                        assert_eq!(inside.fetch_add(1, Ordering::AcqRel), 0, "two were inside");
                        (0..300).for_each(|_| hint::spin_loop());
                        assert_eq!(inside.fetch_sub(1, Ordering::AcqRel), 1, "two were inside");
                        manager.unlock(0).unwrap();
                        turns.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let freer = fork(|| {
            let manager = place.open();
            while over.load(Ordering::Acquire) == 0 {
                manager.allocate_and_retrieve_lock(0).unwrap();
                manager.free_lock(0).unwrap();
            }
        });
        lockers.into_iter().for_each(Child::succeeds);
        over.store(1, Ordering::Release);
        freer.succeeds();
        assert_eq!(turns.load(Ordering::Relaxed), LOCKERS as u32 * ROUNDS);
    });
}
