// SPDX-License-Identifier: MIT OR Apache-2.0
//! Children hold nothing of their parent's, however they were made; what they may do depends on how.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lock_manager::{Acquired, Layout, Manager, SegmentOptions, ShmManager};

use super::support::alone::alone;
use super::support::layout;
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
use super::support::made::lent_tls;
use super::support::made::{InSharedMemory, raw_clone};
use super::support::process::{self, sleep_until_killed};
use super::support::{Segment, board, errno_of, eventually, fork, taken_once};
#[cfg(target_pointer_width = "64")]
use super::support::{alone::alone_as_root, namespace, skip};

#[test]
fn a_forked_child_holds_nothing_and_can_use_the_manager_at_once() {
    alone!({
        let segment = Segment::of(32);
        let manager = segment.open();
        let id = manager.allocate_lock().unwrap();
        let _ = manager.lock(3).unwrap();
        fork(|| {
            assert_eq!(errno_of(manager.unlock(3)), libc::EPERM);
            assert_eq!(errno_of(manager.try_lock(3)), libc::EBUSY);
            // It would wait for its parent, not for itself.
            assert_eq!(errno_of(manager.timed_lock(3, Duration::from_millis(60))), libc::ETIMEDOUT);
            manager.check_idle().unwrap();
            assert_eq!(taken_once(&manager, 4), Acquired::Clean);
            assert_eq!(manager.allocate_lock().unwrap(), id + 1);
            manager.free_lock(id).unwrap();
            // A lock of its own is lost to its parent, and its death to nobody.
            let _ = manager.lock(5).unwrap();
            fork(|| assert_eq!(errno_of(manager.unlock(5)), libc::EPERM)).succeeds();
        })
        .succeeds();
        assert_eq!(taken_once(&manager, 5), Acquired::OwnerDied);
        assert_eq!(manager.locks_held().unwrap(), [3]);
        manager.unlock(3).unwrap();
        assert_eq!(taken_once(&manager, 3), Acquired::Clean);
    });
}

/// A mutex that a thread holds has pointers to those that it took before and after. musl leaves a forked child its parent's list,
/// so a mutex that the child takes would stand before the parent's.
#[test]
fn what_a_forked_child_takes_does_not_get_into_its_parents_list() {
    alone!({
        let segment = Segment::of(32);
        let words = board(3);
        let [holds, unlock, unlocked] = [&words[0], &words[1], &words[2]];
        let parent = fork(|| {
            let manager = segment.open();
            let _ = manager.lock(1).unwrap();
            let _ = manager.lock(2).unwrap();
            let _child = fork(|| {
                let _ = manager.lock(3).unwrap();
                holds.store(1, Ordering::Release);
                sleep_until_killed();
            });
            eventually("the main process has seen the child", || unlock.load(Ordering::Acquire) == 1);
            manager.unlock(2).unwrap();
            unlocked.store(1, Ordering::Release);
            sleep_until_killed();
        });
        eventually("the child holds its lock", || holds.load(Ordering::Acquire) == 1);
        unlock.store(1, Ordering::Release);
        eventually("the parent has unlocked", || unlocked.load(Ordering::Acquire) == 1);
        // In the list of another process by now.
        let _heir = segment.holder_of(&[2]);
        parent.kill();
        // The kernel has walked the parent's list to its end.
        assert_eq!(segment.word_at(layout::word(1)) & !layout::WAITERS, layout::OWNER_DIED);
    });
}

/// When a thread ends, musl itself walks its list.
#[cfg(target_env = "musl")]
#[test]
fn a_forked_child_whose_first_thread_ends_frees_nothing_of_its_parents() {
    unsafe extern "C" {
        fn pthread_exit(value: *mut libc::c_void) -> !;
    }
    alone!({
        let segment = Segment::of(32);
        let manager = segment.open();
        let _ = manager.lock(1).unwrap();
        let over = &board(1)[0];
        let child = fork(|| {
            thread::spawn(|| {
                eventually("the main process has looked", || over.load(Ordering::Acquire) == 1);
                std::process::exit(0);
            });
            // SAFETY: pthread_exit(3), which unwinds nothing in musl.
            unsafe { pthread_exit(std::ptr::null_mut()) };
        });
        eventually("the first thread has ended", || process::state_of(child.pid()) == Some('Z'));
        fork(|| assert_eq!(errno_of(segment.open().try_lock(1)), libc::EBUSY)).succeeds();
        over.store(1, Ordering::Release);
        child.succeeds();
        manager.unlock(1).unwrap();
    });
}

#[test]
fn a_child_that_outlives_its_parent_does_not_keep_its_parents_locks() {
    alone!({
        let segment = Segment::of(32);
        let ready = &board(1)[0];
        let parent = fork(|| {
            let manager = segment.open();
            let _ = manager.lock(3).unwrap();
            let _child = fork(|| {
                // SAFETY: prctl(2) with this argument touches no memory.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0) };
                ready.store(std::process::id(), Ordering::Release);
                sleep_until_killed();
            });
            sleep_until_killed();
        });
        eventually("the grandchild is there", || ready.load(Ordering::Acquire) != 0);
        parent.kill();
        assert_eq!(taken_once(&segment.open(), 3), Acquired::OwnerDied);
        let orphan = ready.load(Ordering::Acquire) as i32;
        assert!(process::state_of(orphan).is_some(), "the grandchild was to outlive its parent");
        // SAFETY: kill(2) touches no memory; the orphan sleeps until then, so the number is its own.
        unsafe { libc::kill(orphan, libc::SIGKILL) };
    });
}

#[test]
fn a_child_cloned_behind_the_libcs_back_may_look_but_not_lock() {
    alone!({
        let segment = Segment::of(32);
        let manager = segment.open();
        let id = manager.allocate_lock().unwrap();
        let _ = manager.lock(3).unwrap();
        let before = segment.bytes();
        let try_all = |manager: &ShmManager| {
            for code in [
                errno_of(manager.lock(4)),
                errno_of(manager.try_lock(4)),
                errno_of(manager.timed_lock(3, Duration::from_secs(20))),
                errno_of(manager.allocate_lock()),
                errno_of(manager.free_lock(id)),
                errno_of(manager.free_all_locks()),
            ] {
                assert_eq!(code, libc::EOPNOTSUPP);
            }
            assert_eq!(errno_of(manager.unlock(3)), libc::EPERM);
            assert_eq!(manager.locks_held().unwrap(), [3]);
            assert_eq!(manager.available_locks().unwrap(), 31);
        };
        raw_clone(|| try_all(&manager)).succeeds();
        // With a manager of its own, too.
        raw_clone(|| try_all(&segment.open())).succeeds();
        assert_eq!(segment.bytes(), before);
        manager.unlock(3).unwrap();
        assert_eq!(taken_once(&manager, 3), Acquired::Clean);
    });
}

#[test]
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
fn a_child_that_shares_the_memory_but_has_tls_of_its_own_is_refused() {
    alone!({
        let segment = Segment::of(32);
        let manager = segment.open();
        let _ = manager.lock(3).unwrap();
        let (lender, tls) = lent_tls();
        let known_id = note_of(lender, tls);
        let shared = InSharedMemory::leak(manager);
        // Once the libc takes the child for the lender, and once it knows the child's own number.
        for own_id in [None, Some(known_id)] {
            shared.refuses_child_with(tls, own_id);
        }
        assert_eq!(shared.manager.locks_held().unwrap(), [3]);
        shared.manager.unlock(3).unwrap();
    });
}

/// Where the libc has noted the id of the thread whose handle that is.
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
fn note_of(tid: i32, handle: usize) -> *mut i32 {
    /// Well within glibc's struct pthread.
    const WORDS: usize = 256;
    // SAFETY: the words lie within what the libc keeps of a thread, and the thread sleeps.
    let at = (0..WORDS).map(|word| (handle as *mut i32).wrapping_add(word)).find(|&at| unsafe { at.read() } == tid);
    at.expect("the libc knows the ids of its threads")
}

#[test]
fn a_lock_that_a_vfork_child_takes_is_its_parents_and_not_lost() {
    alone!({
        let segment = Segment::of(32);
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

#[test]
fn a_child_forked_while_other_threads_are_inside_the_library_can_use_it() {
    const CHILDREN: u32 = 300;
    alone!({
        let [segment, other] = [Segment::of(64), Segment::of(64)];
        let manager = segment.open();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            for id in [1, 2] {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        drop(
                            ShmManager::open_or_create(
                                &other.name,
                                64,
                                &SegmentOptions::default().layout(Layout::Libpod),
                            )
                            .unwrap(),
                        );
                        let id = manager.allocate_lock().unwrap();
                        manager.free_lock(id).unwrap();
                    }
                });
                let manager = &manager;
                let over = &over;
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        assert_eq!(taken_once(manager, id), Acquired::Clean);
                    }
                });
            }
            // All that these threads do is the library's and the heap's, which glibc hands over whole.
            let children = (0..CHILDREN).map(|_| {
                fork(|| {
                    assert_eq!(taken_once(&manager, 0), Acquired::Clean);
                    let id = manager.allocate_lock().unwrap();
                    manager.free_lock(id).unwrap();
                    assert_eq!(taken_once(&other.open(), 0), Acquired::Clean);
                })
                .wait()
            });
            let failed = children.filter(|&exit| exit != process::Exit::Code(0)).count();
            over.store(true, Ordering::Relaxed);
            assert_eq!(failed, 0, "of {CHILDREN} children");
        });
    });
}

#[test]
#[cfg(target_pointer_width = "64")]
fn a_process_whose_number_is_half_of_an_address_is_served_as_any() {
    alone_as_root!({
        // Not by this process, which must not find out anything yet that its children would inherit.
        let segment = Segment::unused();
        fork(|| {
            drop(ShmManager::create(&segment.name, 32, &SegmentOptions::default().layout(Layout::Libpod)).unwrap())
        })
        .succeeds();
        // SAFETY: the address alone is looked at. It is in the thread's own memory, as is the head of its list of mutexes.
        let number = (unsafe { libc::__errno_location() }.addr() >> 32) as i32;
        // In a PID namespace of its own nobody else takes numbers.
        fork(|| {
            namespace::new_pid_namespace_for_children();
            fork(|| {
                if std::fs::write("/proc/sys/kernel/ns_last_pid", (number - 1).to_string()).is_err() {
                    return skip("the number of a process cannot be chosen here");
                }
                let child = fork(|| assert_eq!(taken_once(&segment.open(), 3), Acquired::Clean));
                assert_eq!(child.pid(), number);
                child.succeeds();
            })
            .succeeds();
        })
        .succeeds();
    });
}
