// SPDX-License-Identifier: MIT OR Apache-2.0
//! A child holds nothing of its parent's and gets a place of its own in the segment, however it was made.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use lock_manager::{Acquired, Manager, Ownership, ShmManager};

use super::support::alone::alone;
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
use super::support::made::lent_tls;
use super::support::made::{InSharedMemory, raw_clone, stack};
use super::support::process::{self, own_tid, sleep_until_killed, state_of};
use super::support::{Child, Segment, board, errno_of, eventually, fork, taken_once};

fn attached(manager: &ShmManager) -> u32 {
    manager.info().unwrap().attached
}

#[test]
fn it_attaches_anew_and_so_does_its_own_child() {
    alone!({
        attaches_anew(|body| fork(body));
        attaches_anew(|body| raw_clone(body));
    });
}

fn attaches_anew(make: impl FnOnce(&dyn Fn()) -> Child) {
    let segment = Segment::native(64);
    let manager = segment.open();
    let _ = manager.lock(3).unwrap();
    assert_eq!(attached(&manager), 1);
    make(&|| in_a_child(&manager, 1, 4)).succeeds();
    assert_eq!(attached(&manager), 1);
    for id in 4..7 {
        assert_eq!(taken_once(&manager, id), Acquired::OwnerDied, "{id}");
    }
    assert_eq!(manager.locks_held().unwrap(), [3]);
    manager.unlock(3).unwrap();
}

/// What a child may do, and its child, down to a third. Each leaves one lock held.
fn in_a_child(manager: &ShmManager, others: u32, own: u32) {
    assert_eq!(attached(manager), others + 1, "its first call, though that only looks, makes it a user of the segment");
    assert_eq!(errno_of(manager.unlock(3)), libc::EPERM);
    assert_eq!(errno_of(manager.try_lock(3)), libc::EBUSY);
    assert_eq!(errno_of(manager.timed_lock(3, Duration::from_millis(20))), libc::ETIMEDOUT);
    assert_eq!(attached(manager), others + 1);
    manager.check_idle().unwrap();
    assert_eq!(manager.lock(own).unwrap(), Acquired::Clean);
    assert_eq!(errno_of(manager.lock(own)), libc::EDEADLK);
    assert_eq!(errno_of(manager.check_idle()), libc::EBUSY);
    assert_eq!(manager.lock_info(own).unwrap().pid, std::process::id() as i32);
    let id = manager.allocate_lock().unwrap();
    manager.free_lock(id).unwrap();
    if own < 6 {
        fork(|| {
            assert_eq!(errno_of(manager.unlock(own)), libc::EPERM);
            in_a_child(manager, others + 1, own + 1);
        })
        .succeeds();
    }
}

#[test]
fn its_locks_outlive_its_parent() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let orphan = &board(1)[0];
        fork(|| {
            let own = segment.open();
            let _ = own.lock(3).unwrap();
            let child = fork(|| {
                // SAFETY: prctl(2) with this argument touches no memory.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0) };
                let _ = own.lock(4).unwrap();
                orphan.store(std::process::id(), Ordering::Release);
                sleep_until_killed();
            });
            eventually("the child holds its lock", || orphan.load(Ordering::Acquire) != 0);
            std::mem::forget(child);
        })
        .succeeds();
        assert_eq!(taken_once(&manager, 3), Acquired::OwnerDied);
        assert_eq!(errno_of(manager.timed_lock(4, Duration::from_millis(50))), libc::ETIMEDOUT);
        let pid = orphan.load(Ordering::Acquire) as i32;
        assert_eq!(manager.lock_info(4).unwrap().pid, pid);
        // SAFETY: kill(2) touches no memory; the orphan sleeps until then, so the number is its own.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        eventually("the orphan has died", || state_of(pid).is_none_or(|state| state == 'Z'));
        assert_eq!(taken_once(&manager, 4), Acquired::OwnerDied);
    });
}

#[test]
fn a_lock_that_its_parent_owns_as_a_process_is_not_its_own() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        manager.set_ownership(Ownership::Process).unwrap();
        let _ = manager.lock(3).unwrap();
        let body = || {
            assert_eq!(errno_of(manager.unlock(3)), libc::EPERM);
            assert_eq!(errno_of(manager.try_lock(3)), libc::EBUSY);
            let _ = manager.lock(4).unwrap();
            // Any thread of the process that took it.
            thread::scope(|scope| scope.spawn(|| manager.unlock(4).unwrap()).join().unwrap());
        };
        fork(body).succeeds();
        raw_clone(body).succeeds();
        assert_eq!(manager.locks_held().unwrap(), [3]);
        thread::scope(|scope| scope.spawn(|| manager.unlock(3).unwrap()).join().unwrap());
        assert_eq!(taken_once(&manager, 3), Acquired::Clean);
    });
}

#[test]
fn forked_while_other_threads_are_inside_the_library_it_can_use_it() {
    const CHILDREN: u32 = 300;
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        let _ = manager.lock(1).unwrap();
                        manager.unlock(1).unwrap();
                        let id = manager.allocate_lock().unwrap();
                        manager.free_lock(id).unwrap();
                        drop(segment.open());
                    }
                });
            }
            let children = (0..CHILDREN).map(|_| {
                fork(|| {
                    assert_eq!(taken_once(&manager, 0), Acquired::Clean);
                    // Its parent's threads go on, but it is not they who hold.
                    let _ = manager.timed_lock(1, super::LONG).unwrap();
                    manager.unlock(1).unwrap();
                    let id = manager.allocate_lock().unwrap();
                    manager.free_lock(id).unwrap();
                    assert_eq!(taken_once(&segment.open(), 0), Acquired::Clean);
                })
                .wait()
            });
            let failed = children.filter(|&exit| exit != process::Exit::Code(0)).count();
            over.store(true, Ordering::Relaxed);
            assert_eq!(failed, 0, "of {CHILDREN} children");
        });
        assert_eq!(manager.locks_held().unwrap(), [0; 0]);
        assert_eq!(attached(&manager), 1);
    });
}

#[test]
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
fn sharing_the_memory_with_tls_of_its_own_it_is_refused() {
    alone!({
        for ownership in [Ownership::Thread, Ownership::Process] {
            let segment = Segment::native(64);
            let manager = segment.open();
            manager.set_ownership(ownership).unwrap();
            let _ = manager.lock(3).unwrap();
            let (_, tls) = lent_tls();
            let shared = InSharedMemory::leak(manager);
            shared.refuses_child_with(tls, None);
            assert_eq!(shared.manager.locks_held().unwrap(), [3]);
            assert_eq!(attached(&shared.manager), 1);
            shared.manager.unlock(3).unwrap();
            assert_eq!(taken_once(&shared.manager, 3), Acquired::Clean);
        }
    });
}

#[test]
fn a_vfork_childs_lock_is_its_parents_and_not_lost() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        assert_eq!(taken_once(&manager, 4), Acquired::Clean);
        let shared = InSharedMemory::leak(manager);
        shared.has_vforked_child_lock();
        assert_eq!(shared.manager.locks_held().unwrap(), [4]);
        fork(|| assert_eq!(errno_of(segment.open().try_lock(4)), libc::EBUSY)).succeeds();
        shared.manager.unlock(4).unwrap();
        fork(|| assert_eq!(taken_once(&segment.open(), 4), Acquired::Clean)).succeeds();
    });
}

/// A CLONE_VM child keeps its dead parent's memory, and with it the description that holds the record lock.
#[test]
fn sharing_the_memory_it_does_not_keep_its_dead_parent_alive() {
    extern "C" fn sleep(_: *mut c_void) -> libc::c_int {
        sleep_until_killed()
    }
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let pid: &AtomicU32 = &board(1)[0];
        let holder = fork(|| {
            let own = segment.open();
            let _ = own.lock(3).unwrap();
            // SAFETY: a stack that nobody else uses; the child does nothing but sleep.
            let child = unsafe { libc::clone(sleep, stack(), libc::CLONE_VM, std::ptr::null_mut()) };
            pid.store(child as u32, Ordering::Release);
            sleep_until_killed();
        });
        eventually("the child is there", || pid.load(Ordering::Acquire) != 0);
        holder.kill();
        let told = manager.timed_lock(3, super::LONG);
        let child = pid.load(Ordering::Acquire) as i32;
        assert_ne!(child, own_tid());
        assert!(state_of(child).is_some_and(|state| state != 'Z'), "the child was to outlive its parent");
        // SAFETY: kill(2) touches no memory; the child sleeps until then, so the number is its own.
        unsafe { libc::kill(child, libc::SIGKILL) };
        assert_eq!(told.unwrap(), Acquired::OwnerDied);
        manager.unlock(3).unwrap();
    });
}

/// How many of this process's descriptors and mappings are of the segment.
fn traces_of(segment: &Segment) -> (usize, usize) {
    (segment.descriptors().len(), segment.maps().len())
}

#[test]
fn it_closes_what_it_inherited_without_having_used_it() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let _ = manager.lock(3).unwrap();
        let before = traces_of(&segment);
        let inherited = std::mem::ManuallyDrop::new(manager);
        for make in [|body: &dyn Fn()| fork(body), |body: &dyn Fn()| raw_clone(body)] {
            make(&|| {
                // SAFETY: the child's own copy, which nobody uses after this.
                let own = unsafe { std::ptr::read(&raw const *inherited) };
                own.close().unwrap();
                assert_eq!(traces_of(&segment), (0, 0));
            })
            .succeeds();
        }
        assert_eq!(traces_of(&segment), before);
        inherited.unlock(3).unwrap();
    });
}
