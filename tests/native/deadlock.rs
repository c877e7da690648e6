// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a deadlock is and what is none: deaths and processes that own locks end a circle, order prevents it.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use lock_manager::{Acquired, Manager, Ownership, Reason, Wait, Waits};

use super::LONG;
use super::rings::{Waiters, until_waited_for};
use super::support::alone::alone;
use super::support::process::{own_tid, sleep_until_killed};
use super::support::{Child, Random, Segment, board, errno_of, eventually, fork, native_layout as layout, taken_once};

#[test]
fn the_one_who_is_told_is_told_of_whom() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let _ = manager.lock(0).unwrap();
        let mut waiters = Waiters::on(&segment);
        let first = waiters.add(1, 2, Wait::Forever);
        let second = waiters.add(2, 0, Wait::Forever);
        waiters.go();
        until_waited_for(&manager, 2, 1);
        until_waited_for(&manager, 0, 1);
        // Theirs is no ring until this process waits, and they have looked already or will find it as well.
        let told = manager.lock(1);
        let [first, second] = [first, second].map(|place| waiters.child(place).pid());
        if let Err(error) = told {
            let Reason::Deadlock { id: 1, cycle } = error.reason() else { panic!("{error}") };
            let others = [(1, first), (2, second)].map(|(id, pid)| Waits { id, pid, tid: pid });
            assert_eq!(cycle[..2], others);
            assert_eq!(cycle[2..], [Waits { id: 0, pid: std::process::id() as i32, tid: own_tid() }]);
            let text = error.to_string();
            for part in ["lock 0", "lock 1", "lock 2", &first.to_string(), &second.to_string()] {
                assert!(text.contains(part), "{text}");
            }
            assert_eq!(manager.locks_held().unwrap(), [0, 1, 2]);
        } else {
            manager.unlock(1).unwrap();
        }
        manager.unlock(0).unwrap();
        assert!(waiters.end().len() <= 1);
    });
}

#[test]
fn threads_of_one_process_are_told_as_well() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let held = board(1);
        let told = thread::scope(|scope| {
            let threads = [0, 1, 2].map(|place| {
                let manager = &manager;
                scope.spawn(move || {
                    let _ = manager.lock(place).unwrap();
                    held[0].fetch_add(1, Ordering::AcqRel);
                    eventually("all hold", || held[0].load(Ordering::Acquire) == 3);
                    let code = errno_of(manager.lock((place + 1) % 3));
                    if code == 0 {
                        manager.unlock((place + 1) % 3).unwrap();
                    }
                    manager.unlock(place).unwrap();
                    code
                })
            });
            threads.map(|thread| thread.join().unwrap())
        });
        let codes: BTreeSet<i32> = told.into_iter().collect();
        assert_eq!((codes, told.iter().filter(|&&code| code != 0).count()), ([0, libc::EDEADLK].into(), 1), "{told:?}");
    });
}

/// A dead member waits for nobody, also before anybody has found it dead.
#[test]
fn a_ring_with_a_dead_member_is_none() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let _ = manager.lock(0).unwrap();
        let mut waiters = Waiters::on(&segment);
        let between = waiters.add(1, 2, Wait::Forever);
        let dead = waiters.add(2, 0, Wait::Forever);
        waiters.go();
        until_waited_for(&manager, 2, 1);
        until_waited_for(&manager, 0, 1);
        // Who waits for the dead one could find it dead, but is stopped.
        waiters.child(between).signal(libc::SIGSTOP);
        waiters.child(between).until_it_is_stopped();
        let dead_child = waiters.child(dead).pid();
        waiters.child(dead).signal(libc::SIGKILL);
        eventually("it is dead", || super::support::process::state_of(dead_child) == Some('Z'));
        // The word still names it, and its record still says what it waited for.
        let waited = manager.timed_lock(1, Duration::from_millis(200));
        assert_eq!(errno_of(waited), libc::ETIMEDOUT);
        waiters.child(between).signal(libc::SIGCONT);
        assert_eq!(manager.timed_lock(1, LONG).unwrap(), Acquired::Clean);
        manager.unlock(1).unwrap();
        manager.unlock(0).unwrap();
    });
}

#[test]
fn a_detector_whose_holder_has_died_is_taken_over() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let dead = segment.holder_of(&[9]);
        let name = layout::owner_of(segment.number_at(layout::word(9)));
        dead.kill();
        segment.write_number_at(layout::AT_DETECTOR, name);
        let mut waiters = Waiters::on(&segment);
        waiters.add(0, 1, Wait::Forever);
        waiters.add(1, 0, Wait::Forever);
        waiters.go();
        assert_eq!(waiters.end().len(), 1);
        assert_eq!(segment.number_at(layout::AT_DETECTOR), 0);
        assert_eq!(taken_once(&manager, 9), Acquired::OwnerDied);
    });
}

#[test]
fn a_lock_that_a_process_owns_ends_the_way() {
    alone!({
        let segment = Segment::native(64);
        let held = &board(1)[0];
        let waiters = [(0, 1), (1, 0)].map(|(own, other)| {
            fork(|| {
                let manager = segment.open();
                // One of the two is enough: any of its threads may unlock.
                if own == 0 {
                    manager.set_ownership(Ownership::Process).unwrap();
                }
                let _ = manager.lock(own).unwrap();
                held.fetch_add(1, Ordering::AcqRel);
                eventually("both hold", || held.load(Ordering::Acquire) >= 2);
                assert_eq!(errno_of(manager.timed_lock(other, Duration::from_millis(150))), libc::ETIMEDOUT);
                // Not before the other has waited out its time.
                held.fetch_add(1, Ordering::AcqRel);
                eventually("both have waited", || held.load(Ordering::Acquire) == 4);
                manager.unlock(own).unwrap();
            })
        });
        waiters.into_iter().for_each(Child::succeeds);
    });
}

/// Runs of eight processes, each of which takes two or three of four locks at a time, and now and then stays inside for
/// longer than a slice. Tells how many runs ended in a deadlock.
fn runs(segment: &Segment, runs_each: u32, is_ordered: bool) -> u32 {
    let (told, mut random) = (&board(1)[0], Random::seeded());
    let recipe = random.recipe();
    let children: Vec<Child> = (0..8)
        .map(|_| {
            let mut random = Random::from_seed(random.next());
            fork(|| {
                let manager = segment.open();
                for _ in 0..runs_each {
                    let mut wanted: Vec<u32> = (0..4).collect();
                    (0..3).for_each(|place| wanted.swap(place, place + random.below(4 - place as u64) as usize));
                    wanted.truncate(2 + random.below(2) as usize);
                    if is_ordered {
                        wanted.sort_unstable();
                    }
                    let mut held = Vec::new();
                    for id in wanted {
                        match manager.lock(id) {
                            Ok(_) => held.push(id),
                            Err(error) => {
                                assert_eq!(error.errno(), libc::EDEADLK, "{error}");
                                told.fetch_add(1, Ordering::Relaxed);
                                break;
                            }
                        }
                    }
                    if random.below(20) == 0 {
                        thread::sleep(Duration::from_millis(2));
                    }
                    held.into_iter().for_each(|id| manager.unlock(id).unwrap());
                }
            })
        })
        .collect();
    let exits: Vec<_> = children.into_iter().map(Child::wait).collect();
    assert!(exits.iter().all(|&exit| exit == super::support::Exit::Code(0)), "{exits:?}; {recipe}");
    told.load(Ordering::Relaxed)
}

#[test]
fn ten_thousand_runs_in_order_are_told_of_no_deadlock() {
    alone!({ assert_eq!(runs(&Segment::native(64), 1250, true), 0) });
}

#[test]
fn runs_in_any_order_get_stuck_nowhere() {
    alone!({
        let start = Instant::now();
        let told = runs(&Segment::native(64), 100, false);
        super::support::note(format_args!("{told} deadlocks in 800 runs, {:?}", start.elapsed()));
        assert!(told > 0, "no two ever waited for each other: the test shows nothing");
    });
}

#[test]
fn a_wait_that_ends_otherwise_leaves_no_edge_behind() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let _ = manager.lock(0).unwrap();
        let (done, ready) = (&board(1)[0], &board(1)[0]);
        let other = fork(|| {
            let manager = segment.open();
            let _ = manager.lock(1).unwrap();
            assert_eq!(errno_of(manager.timed_lock(0, Duration::from_millis(30))), libc::ETIMEDOUT);
            ready.store(1, Ordering::Release);
            eventually("the other has waited", || done.load(Ordering::Acquire) == 1);
            manager.unlock(1).unwrap();
            sleep_until_killed();
        });
        eventually("it has waited", || ready.load(Ordering::Acquire) == 1);
        assert_eq!(manager.lock_info(0).unwrap().waiters, 0);
        assert_eq!(errno_of(manager.timed_lock(1, Duration::from_millis(100))), libc::ETIMEDOUT);
        done.store(1, Ordering::Release);
        assert_eq!(manager.timed_lock(1, LONG).unwrap(), Acquired::Clean);
        drop(other);
    });
}

/// A thread that left a wait by jumping out of a signal handler still seems to want that lock, until it calls again.
#[test]
fn what_a_thread_wanted_once_it_does_not_want_when_it_calls_again() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let holder = segment.holder_of(&[1, 2]);
        let _ = manager.lock(3).unwrap();
        let own = layout::owner_of(segment.number_at(layout::word(3)));
        let record = (0..layout::RECORDS).map(layout::record).find(|&at| segment.number_at(at) == own).unwrap();
        // The number of the wish, and the lock plus one.
        segment.write_number_at(record + 16, 9 << 32 | 2);
        assert_eq!(manager.lock_info(1).unwrap().waiters, 1);
        assert_eq!(errno_of(manager.timed_lock(2, Duration::from_millis(20))), libc::ETIMEDOUT);
        assert_eq!(manager.lock_info(1).unwrap().waiters, 0);
        segment.write_number_at(record + 16, 10 << 32 | 2);
        assert_eq!(errno_of(manager.try_lock(2)), libc::EBUSY);
        assert_eq!(manager.lock_info(1).unwrap().waiters, 0);
        holder.kill();
    });
}
