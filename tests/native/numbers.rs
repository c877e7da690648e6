// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers of processes and threads that mean somebody else: used again, or in another PID namespace.

use std::fs;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use lock_manager::{Acquired, Manager, Ownership};

use super::LONG;
use super::lost_by_robust_mutexes::recovered;
use super::support::alone::alone_as_root;
use super::support::made::{leak, pthread, raw_clone, raw_exit};
use super::support::native_layout as layout;
use super::support::process::{own_tid, sleep_until_killed};
use super::support::timing::{RECOVERED, mostly_within};
use super::support::{Child, Segment, board, errno_of, eventually, fork, namespace, skip, taken_once};

/// Has the next process or thread of this PID namespace be of that number, if it is free.
fn next_number(number: i32) {
    fs::write("/proc/sys/kernel/ns_last_pid", (number - 1).to_string()).unwrap();
}

#[test]
fn a_number_of_a_process_that_is_used_again() {
    alone_as_root!({
        let segment = Segment::native(64);
        // In a namespace of its own nobody else takes numbers.
        fork(|| {
            namespace::new_pid_namespace_for_children();
            fork(|| {
                const NUMBER: i32 = 300;
                for ownership in [Ownership::Thread, Ownership::Process] {
                    next_number(NUMBER);
                    let holder = fork(|| {
                        let manager = segment.open();
                        manager.set_ownership(ownership).unwrap();
                        let _ = manager.lock(3).unwrap();
                    });
                    assert_eq!(holder.pid(), NUMBER);
                    holder.succeeds();
                    next_number(NUMBER);
                    let namesake = fork(|| {
                        let manager = segment.open();
                        assert_eq!(errno_of(manager.unlock(3)), libc::EPERM);
                        assert_eq!(manager.locks_held().unwrap(), [0; 0]);
                        assert_eq!(manager.timed_lock(3, LONG).unwrap(), Acquired::OwnerDied);
                        manager.unlock(3).unwrap();
                        assert_eq!(taken_once(&manager, 3), Acquired::Clean);
                    });
                    assert_eq!(namesake.pid(), NUMBER);
                    namesake.succeeds();
                }
            })
            .succeeds();
        })
        .succeeds();
    });
}

#[test]
fn a_number_of_a_thread_that_is_used_again_by_another_of_its_process() {
    alone_as_root!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let ready = &board(1)[0];
        let holder = fork(|| {
            namespace::new_pid_namespace_for_children();
            fork(|| {
                const NUMBER: i32 = 300;
                let manager = leak(segment.open());
                next_number(NUMBER);
                pthread(move || {
                    assert_eq!(own_tid(), NUMBER);
                    let _ = manager.lock(3).unwrap();
                    raw_exit();
                })
                .join();
                // Starts count in clock ticks, of which there are a hundred a second.
                thread::sleep(Duration::from_millis(30));
                next_number(NUMBER);
                pthread(move || {
                    assert_eq!(own_tid(), NUMBER);
                    assert_eq!(errno_of(manager.unlock(3)), libc::EPERM);
                    ready.store(1, Ordering::Release);
                    sleep_until_killed();
                });
                // Only who sees these numbers in a /proc of their own can tell the two apart.
                eventually("the namesake is there", || ready.load(Ordering::Acquire) == 1);
                namespace::private_proc();
                assert_eq!(manager.timed_lock(3, LONG).unwrap(), Acquired::OwnerDied);
                manager.unlock(3).unwrap();
                assert_eq!(taken_once(manager, 3), Acquired::Clean);
            })
            .succeeds();
        });
        holder.succeeds();
        assert_eq!(taken_once(&manager, 3), Acquired::Clean);
    });
}

#[test]
fn two_pid_namespaces_with_the_same_numbers() {
    alone_as_root!({
        let segment = Segment::native(64);
        let manager = segment.open();
        mostly_within(RECOVERED, "a holder in another PID namespace is killed", |_| {
            // Each is process 1 of its own namespace.
            let [ready, first_go] = [&board(1)[0], &board(1)[0]];
            let in_a_namespace = |body: &dyn Fn()| {
                fork(|| {
                    namespace::new_pid_namespace_for_children();
                    let first = fork(|| {
                        assert_eq!(own_tid(), 1);
                        body();
                    });
                    first.succeeds();
                })
            };
            let holder = in_a_namespace(&|| {
                let manager = segment.open();
                let _ = manager.lock(3).unwrap();
                ready.store(1, Ordering::Release);
                eventually("it may die", || first_go.load(Ordering::Acquire) == 1);
                // Holding the lock.
            });
            eventually("it holds the lock", || ready.load(Ordering::Acquire) == 1);
            in_a_namespace(&|| {
                let manager = segment.open();
                assert_eq!(errno_of(manager.unlock(3)), libc::EPERM);
                assert_eq!(errno_of(manager.try_lock(3)), libc::EBUSY);
                assert_eq!(errno_of(manager.timed_lock(3, Duration::from_millis(50))), libc::ETIMEDOUT);
                assert_eq!(errno_of(manager.repair_lock(3)), libc::EBUSY);
                let info = manager.lock_info(3).unwrap();
                assert_eq!((info.held, info.pid, info.tid), (true, 0, 0));
            })
            .succeeds();
            assert_eq!(errno_of(manager.try_lock(3)), libc::EBUSY);
            let time = recovered(&segment, || first_go.store(1, Ordering::Release));
            holder.succeeds();
            time
        });
    });
}

/// Has process 1 of a new PID namespace do something and live on until it is dropped.
fn elsewhere(body: impl FnOnce()) -> Child {
    let ready = &board(1)[0];
    let keeper = fork(|| {
        namespace::new_pid_namespace_for_children();
        fork(|| {
            body();
            ready.store(1, Ordering::Release);
            sleep_until_killed();
        })
        .wait();
    });
    eventually("it is done", || ready.load(Ordering::Acquire) == 1);
    keeper
}

/// Where the numbers of threads say nothing, a thread's end is known because the thread itself says so.
#[test]
fn a_thread_that_ends_in_another_pid_namespace() {
    alone_as_root!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let _lives = elsewhere(|| {
            let manager = leak(segment.open());
            pthread(move || assert_eq!(manager.lock(3).unwrap(), Acquired::Clean)).join();
            let _ = manager.lock(4).unwrap();
        });
        assert_eq!(taken_once(&manager, 3), Acquired::OwnerDied);
        assert_eq!(errno_of(manager.try_lock(4)), libc::EBUSY);
    });
}

/// And a process's end by its record lock alone, which no child keeps.
#[test]
fn a_process_of_another_pid_namespace_whose_child_outlives_it() {
    alone_as_root!({
        for make in [fork_a_sleeper, clone_a_sleeper] {
            let segment = Segment::native(64);
            let manager = segment.open();
            let _lives = elsewhere(|| {
                fork(|| {
                    let _ = segment.open().lock(3).unwrap();
                    make();
                })
                .succeeds();
            });
            assert_eq!(taken_once(&manager, 3), Acquired::OwnerDied);
        }
    });
}

fn fork_a_sleeper() {
    std::mem::forget(fork(outlive));
}

fn clone_a_sleeper() {
    std::mem::forget(raw_clone(outlive));
}

fn outlive() {
    // SAFETY: prctl(2) with this argument touches no memory. The process ends with its PID namespace.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0) };
    sleep_until_killed();
}

/// When a thread started is counted otherwise in another time namespace, and a process may go to one at any time.
#[test]
fn a_time_namespace_that_is_entered_after_the_first_lock() {
    if !std::path::Path::new("/proc/self/ns/time").exists() {
        return skip("this kernel has no time namespaces");
    }
    alone_as_root!({
        // Both namespaces are of the test's own, since nobody may enter that of the host from a user namespace.
        fork(|| {
            drop(namespace::new_time_namespace(1));
            let segment = Segment::native(64);
            let holder = segment.holder_of(&[3]);
            fork(|| goes_to_another_time_namespace(&segment)).succeeds();
            holder.kill();
        })
        .succeeds();
    });
}

/// A process where lock 3 is held by another one.
fn goes_to_another_time_namespace(segment: &Segment) {
    let manager = segment.open();
    let _ = manager.lock(1).unwrap();
    assert_eq!(errno_of(manager.try_lock(3)), libc::EBUSY);
    let left = namespace::new_time_namespace(2);
    // What was found out before is good for a millisecond.
    thread::sleep(Duration::from_millis(5));
    assert_eq!(errno_of(manager.try_lock(3)), libc::EBUSY);
    thread::scope(|scope| {
        let board = board(1);
        scope.spawn(|| {
            let _ = manager.lock(5).unwrap();
            eventually("others have tried", || board[0].load(Ordering::Acquire) == 2);
            manager.unlock(5).unwrap();
        });
        eventually("the thread has the lock", || manager.locks_held().unwrap().contains(&5));
        let other = fork(|| {
            namespace::enter_time_namespace(&left);
            assert_eq!(errno_of(segment.open().try_lock(5)), libc::EBUSY);
        });
        other.succeeds();
        board[0].store(2, Ordering::Release);
    });
}

/// A look into /proc is had by one of many waiters; one that would see nothing leaves it to those who do.
#[test]
fn a_waiter_that_cannot_see_the_holder_does_not_look_in_the_place_of_those_who_can() {
    alone_as_root!({
        let segment = Segment::native(64);
        let holder = segment.holder_of(&[3]);
        let looked = || segment.number_at(layout::looked(3));
        let manager = segment.open();
        // Longer than it takes until a waiter has its turn to look.
        const LOOKS: Duration = super::support::timing::scaled(Duration::from_millis(40));
        let waits = || assert_eq!(errno_of(manager.timed_lock(3, LOOKS)), libc::ETIMEDOUT);
        fork(|| {
            namespace::new_pid_namespace_for_children();
            fork(waits).succeeds();
        })
        .succeeds();
        assert_eq!(looked(), 0, "from another PID namespace");
        fork(|| {
            namespace::hide_proc();
            waits();
        })
        .succeeds();
        assert_eq!(looked(), 0, "without /proc");
        waits();
        assert_ne!(looked(), 0);
        holder.kill();
    });
}
