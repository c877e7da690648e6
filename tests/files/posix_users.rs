// SPDX-License-Identifier: MIT OR Apache-2.0
//! Users of POSIX locks on the files of ids, as libpod is one, and users of this library: each waits for the other, is
//! seen by the other, and outlives the other's death.

use std::fs::File;
use std::hint;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use lock_manager::{Acquired, FileManager, Manager, Ownership, Reason};

use super::place::Place;
use super::posix::{PosixHolder, PosixLock};
use super::support::alone::{alone, alone_as_root};
use super::support::namespace::new_pid_namespace_for_children;
use super::support::{Child, board, errno_of, eventually, fork, taken_once};

/// Far longer than anything here takes.
const LONG: Duration = super::support::timing::scaled(Duration::from_secs(20));

fn allocated(place: &Place) -> (FileManager, u32) {
    let manager = place.open();
    let id = manager.allocate_lock().unwrap();
    (manager, id)
}

#[test]
fn what_a_posix_lock_holds_is_held_here_and_its_process_is_named() {
    alone!({
        let place = Place::fresh();
        let (manager, id) = allocated(&place);
        let holder = PosixHolder::start(&place, id);
        assert_eq!(manager.locks_held().unwrap(), [id]);
        let info = manager.lock_info(id).unwrap();
        assert_eq!((info.allocated, info.held, info.owner_died), (true, true, false));
        assert_eq!(info.pid, holder.child.pid());

        assert_eq!(errno_of(manager.try_lock(id)), libc::EBUSY);
        assert_eq!(errno_of(manager.timed_lock(id, Duration::from_millis(30))), libc::ETIMEDOUT);
        assert_eq!(errno_of(manager.unlock(id)), libc::EPERM);
        assert_eq!(errno_of(manager.repair_lock(id)), libc::EBUSY);
        // Looking and trying have taken nothing from it.
        assert_eq!(manager.lock_info(id).unwrap().pid, holder.child.pid());
        holder.let_go();
        holder.child.succeeds();
        assert_eq!(manager.locks_held().unwrap(), [0; 0]);
        assert_eq!(taken_once(&manager, id), Acquired::Clean);
    });
}

#[test]
fn who_waits_for_a_posix_lock_gets_it_when_it_is_given_back_or_its_process_is_killed() {
    alone!({
        let place = Place::fresh();
        let (manager, id) = allocated(&place);
        for is_killed in [false, true] {
            let holder = PosixHolder::start(&place, id);
            thread::scope(|scope| {
                let waiter = scope.spawn(|| {
                    let acquired = manager.timed_lock(id, LONG).unwrap();
                    manager.unlock(id).unwrap();
                    acquired
                });
                eventually("a thread waits", || manager.lock_info(id).unwrap().waiters == 1);
                if is_killed {
                    holder.child.kill();
                } else {
                    holder.let_go();
                    holder.child.succeeds();
                }
                // Such a holder has no word in the table, so that its death is not told.
                assert_eq!(waiter.join().unwrap(), Acquired::Clean);
            });
        }
    });
}

#[test]
fn a_posix_lock_waits_for_what_is_held_here_until_it_is_unlocked_or_the_holder_is_killed() {
    alone!({
        let place = Place::fresh();
        let (manager, id) = allocated(&place);
        let _ = manager.lock(id).unwrap();
        fork(|| assert!(PosixLock::try_take(&place.file(id)).is_none())).succeeds();
        let waiter = PosixHolder::start_waiting(&place, id);
        waiter.until_it_waits();
        assert!(!waiter.holds());
        manager.unlock(id).unwrap();
        waiter.until_it_holds();
        waiter.let_go();
        waiter.child.succeeds();

        let holder = place.holder_of(&[id]);
        let waiter = PosixHolder::start_waiting(&place, id);
        waiter.until_it_waits();
        assert_eq!(manager.lock_info(id).unwrap().pid, holder.pid());
        assert!(!waiter.holds());
        holder.kill();
        waiter.until_it_holds();
        // The word of the dead stays until somebody takes the lock by it.
        assert_eq!(manager.lock_info(id).unwrap().pid, waiter.child.pid());
        waiter.let_go();
        waiter.child.succeeds();
        assert_eq!(taken_once(&manager, id), Acquired::OwnerDied);
        assert_eq!(taken_once(&manager, id), Acquired::Clean);
    });
}

#[test]
fn a_lock_that_is_held_here_is_not_lost_among_ourselves_when_another_descriptor_of_its_files_is_closed() {
    alone!({
        let place = Place::fresh();
        let (manager, id) = allocated(&place);
        let _ = manager.lock(id).unwrap();
        for path in [place.file(id), place.table()] {
            drop(File::options().read(true).write(true).open(path).unwrap());
        }
        // What POSIX says of its locks takes the record lock away, from libpod just as from us; the word stays.
        fork(|| assert_eq!(errno_of(place.open().try_lock(id)), libc::EBUSY)).succeeds();
        assert_eq!(manager.locks_held().unwrap(), [id]);
        manager.unlock(id).unwrap();
        fork(|| assert!(PosixLock::try_take(&place.file(id)).is_some())).succeeds();
    });
}

#[test]
fn a_posix_holder_that_cannot_be_seen_from_this_pid_namespace_is_a_holder_all_the_same() {
    alone_as_root!({
        let place = Place::fresh();
        let (manager, id) = allocated(&place);
        let holder = PosixHolder::start(&place, id);
        fork(|| {
            new_pid_namespace_for_children();
            fork(|| {
                let manager = place.open();
                let info = manager.lock_info(id).unwrap();
                assert_eq!((info.held, info.pid), (true, 0));
                assert_eq!(manager.locks_held().unwrap(), [id]);
                assert_eq!(errno_of(manager.try_lock(id)), libc::EBUSY);
            })
            .succeeds();
        })
        .succeeds();
        holder.let_go();
        holder.child.succeeds();
        assert_eq!(taken_once(&manager, id), Acquired::Clean);
    });
}

#[test]
fn of_posix_locks_and_ours_never_two_are_inside() {
    const EACH: usize = 2;
    const ROUNDS: u32 = 400;
    alone!({
        let place = Place::fresh();
        let (_manager, id) = allocated(&place);
        let words = board(2);
        let [inside, turns] = [&words[0], &words[1]];
        let turn = || {
            assert_eq!(inside.fetch_add(1, Ordering::AcqRel), 0, "two were inside");
            (0..500).for_each(|_| hint::spin_loop());
            assert_eq!(inside.fetch_sub(1, Ordering::AcqRel), 1, "two were inside");
            turns.fetch_add(1, Ordering::Relaxed);
        };
        let theirs = (0..EACH).map(|_| {
            fork(|| {
                for _ in 0..ROUNDS {
                    let _lock = PosixLock::take(&place.file(id));
                    turn();
                }
            })
        });
        let ours = (0..EACH).map(|_| {
            fork(|| {
                let manager = place.open();
                for _ in 0..ROUNDS {
                    assert_eq!(manager.timed_lock(id, LONG).unwrap(), Acquired::Clean);
                    turn();
                    manager.unlock(id).unwrap();
                }
            })
        });
        let all: Vec<Child> = theirs.chain(ours).collect();
        all.into_iter().for_each(Child::succeeds);
        assert_eq!(turns.load(Ordering::Relaxed), 2 * EACH as u32 * ROUNDS);
    });
}

/// The process owns what it locks: any of its threads may give a lock back, but not one that is still waited for.
#[test]
fn a_wait_for_a_posix_lock_is_not_given_back_by_another_thread() {
    alone!({
        let place = Place::fresh();
        let (manager, id) = allocated(&place);
        manager.set_ownership(Ownership::Process).unwrap();
        let holder = PosixHolder::start(&place, id);
        thread::scope(|scope| {
            let waiter = scope.spawn(|| manager.timed_lock(id, LONG).unwrap());
            // For libpod, and not for the word any more, which it has in hand.
            let waits =
                || manager.check_idle().is_err_and(|error| matches!(error.reason(), Reason::StillWaiting { .. }));
            eventually("the thread waits", waits);
            assert_eq!(errno_of(manager.unlock(id)), libc::EPERM);
            holder.let_go();
            assert_eq!(waiter.join().unwrap(), Acquired::Clean);
        });
        fork(|| assert_eq!(errno_of(place.open().try_lock(id)), libc::EBUSY)).succeeds();
        assert_eq!(manager.locks_held().unwrap(), [id]);
        manager.unlock(id).unwrap();
        holder.child.succeeds();
    });
}
