// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whoever lives keeps its locks, however still it stands.

use std::ffi::{CString, c_void};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lock_manager::{Acquired, Manager, Ownership, ShmManager};

use super::support::alone::alone;
use super::support::made::{leak, pthread, raw_exit, stack};
use super::support::process::{sleep_until_killed, state_of};
use super::support::{Child, Segment, board, descriptors, errno_of, eventually, fork, taken_once};

/// Many slices long.
const LONG_ENOUGH: Duration = Duration::from_millis(1200);

/// Nobody gets lock 3 from its holder: neither who waits, nor who tries, nor who repairs.
fn assert_not_robbed(segment: &Segment, manager: &ShmManager) {
    let over = &board(1)[0];
    // On a slow machine a wait may be over before it is seen, so they wait again.
    let wait = || {
        let manager = segment.open();
        loop {
            assert_eq!(errno_of(manager.timed_lock(3, LONG_ENOUGH)), libc::ETIMEDOUT);
            if over.load(Ordering::Acquire) == 1 {
                break;
            }
        }
    };
    let waiters: Vec<Child> = (0..3).map(|_| fork(wait)).collect();
    // A sleep of a few milliseconds would not be seen on a slow machine; a wait is.
    eventually("all wait", || manager.lock_info(3).unwrap().waiters == 3);
    for _ in 0..20 {
        assert_eq!(errno_of(manager.try_lock(3)), libc::EBUSY);
        assert_eq!(errno_of(manager.repair_lock(3)), libc::EBUSY);
        assert_eq!(manager.locks_held().unwrap(), [3]);
        assert_eq!(errno_of(manager.timed_lock(3, Duration::from_millis(20))), libc::ETIMEDOUT);
    }
    over.store(1, Ordering::Release);
    waiters.into_iter().for_each(Child::succeeds);
}

fn assert_died(manager: &ShmManager, holder: Child) {
    holder.kill();
    assert_eq!(taken_once(manager, 3), Acquired::OwnerDied);
    assert_eq!(taken_once(manager, 3), Acquired::Clean);
}

#[test]
fn a_stopped_one() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let holder = segment.holder_of(&[3]);
        holder.signal(libc::SIGSTOP);
        holder.until_it_is_stopped();
        assert_not_robbed(&segment, &manager);
        assert_died(&manager, holder);
    });
}

#[test]
fn a_stopped_one_whose_lock_its_process_owns() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let ready = &board(1)[0];
        let holder = fork(|| {
            let manager = segment.open();
            manager.set_ownership(Ownership::Process).unwrap();
            let _ = manager.lock(3).unwrap();
            ready.store(1, Ordering::Release);
            sleep_until_killed();
        });
        eventually("it holds the lock", || ready.load(Ordering::Acquire) == 1);
        holder.signal(libc::SIGSTOP);
        holder.until_it_is_stopped();
        assert_not_robbed(&segment, &manager);
        assert_died(&manager, holder);
    });
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_traced_one() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let holder = super::support::step::Stepped::start(
            || {
                let manager = segment.open();
                let _ = manager.lock(3).unwrap();
                manager
            },
            |_| (),
        );
        assert_not_robbed(&segment, &manager);
        holder.kill();
        assert_eq!(taken_once(&manager, 3), Acquired::OwnerDied);
    });
}

/// A process whose first thread has ended while others go on.
fn without_its_first_thread(segment: &Segment, ownership: Ownership, holding: fn(&'static ShmManager)) -> Child {
    let ready = &board(1)[0];
    let holder = fork(|| {
        let manager = leak(segment.open());
        manager.set_ownership(ownership).unwrap();
        let hold = move || {
            let _ = manager.lock(3).unwrap();
            ready.store(1, Ordering::Release);
            holding(manager);
        };
        pthread(hold);
        raw_exit();
    });
    eventually("the other thread has the lock", || ready.load(Ordering::Acquire) == 1);
    eventually("the first has ended", || state_of(holder.pid()) == Some('Z'));
    holder
}

#[test]
fn a_thread_of_a_process_without_its_first_thread() {
    alone!({
        for ownership in [Ownership::Thread, Ownership::Process] {
            let segment = Segment::native(64);
            let manager = segment.open();
            let holder = without_its_first_thread(&segment, ownership, |_| sleep_until_killed());
            assert_not_robbed(&segment, &manager);
            assert_died(&manager, holder);
        }
    });
}

/// Each thread starts the next and ends: a list of them shows only such as have ended by the time they are looked at.
#[test]
fn a_process_whose_threads_hand_over_to_each_other() {
    fn hand_over(_: &'static ShmManager) {
        fn next() {
            pthread(next).detach();
        }
        next();
    }
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let holder = without_its_first_thread(&segment, Ownership::Process, hand_over);
        assert_not_robbed(&segment, &manager);
        assert_died(&manager, holder);
    });
}

#[test]
fn one_that_stands_still_in_vfork() {
    extern "C" fn wait_for_go(go: *mut c_void) -> libc::c_int {
        // SAFETY: a word of a board, which stays for the life of the process.
        let go = unsafe { &*go.cast::<AtomicU32>() };
        while go.load(Ordering::Acquire) == 0 {
            // SAFETY: usleep(3) touches no memory.
            unsafe { libc::usleep(1000) };
        }
        0
    }
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let [ready, go] = [&board(1)[0], &board(1)[0]];
        let holder = fork(|| {
            let manager = segment.open();
            let _ = manager.lock(3).unwrap();
            ready.store(1, Ordering::Release);
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
            let argument = std::ptr::from_ref(go).cast_mut().cast();
            // SAFETY: a stack that nobody else uses; the parent stands still until the child ends.
            let pid = unsafe { libc::clone(wait_for_go, stack(), flags, argument) };
            manager.unlock(3).unwrap();
            Child::adopt(pid).succeeds();
        });
        eventually("it holds the lock", || ready.load(Ordering::Acquire) == 1);
        eventually("it stands still", || state_of(holder.pid()) == Some('D'));
        assert_not_robbed(&segment, &manager);
        go.store(1, Ordering::Release);
        holder.succeeds();
        assert_eq!(taken_once(&manager, 3), Acquired::Clean);
    });
}

#[test]
fn one_that_is_stopped_and_goes_on_in_turn() {
    const ROUNDS: u32 = 200;
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let holder = segment.holder_of(&[3]);
        for _ in 0..ROUNDS {
            holder.signal(libc::SIGSTOP);
            assert_eq!(errno_of(manager.try_lock(3)), libc::EBUSY);
            assert_eq!(errno_of(manager.timed_lock(3, Duration::from_millis(2))), libc::ETIMEDOUT);
            holder.signal(libc::SIGCONT);
            assert_eq!(errno_of(manager.try_lock(3)), libc::EBUSY);
        }
        assert_died(&manager, holder);
    });
}

/// A program that closes all descriptors again and again while its other threads ask whether the holder lives and open
/// files of their own, which get the numbers of those that the library has just opened: those of a thread that is dead.
#[test]
fn one_that_is_asked_after_through_descriptors_that_others_close() {
    const LASTS: Duration = Duration::from_secs(2);
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let holder = segment.holder_of(&[3]);
        let zombie = fork(|| ());
        eventually("there is a dead one", || state_of(zombie.pid()) == Some('Z'));
        let stat = CString::new(format!("/proc/{0}/task/{0}/stat", zombie.pid())).unwrap();
        let program = fork(|| {
            let (manager, start) = (segment.open(), Instant::now());
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        while start.elapsed() < LASTS {
                            assert_eq!(errno_of(manager.try_lock(3)), libc::EBUSY);
                        }
                    });
                    scope.spawn(|| {
                        while start.elapsed() < LASTS {
                            // SAFETY: open(2) reads the path; the number may be closed by then, which is no matter.
                            unsafe { libc::close(libc::open(stat.as_ptr(), libc::O_RDONLY)) };
                        }
                    });
                }
                while start.elapsed() < LASTS {
                    // SAFETY: close_range(2); what is open here is used by nobody who minds.
                    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
                }
            });
        });
        program.succeeds();
        assert_eq!(manager.locks_held().unwrap(), [3]);
        assert_died(&manager, holder);
    });
}

/// The program closes all descriptors, and opens files of its own, in the instants in which it attaches as well.
#[test]
fn one_that_closed_all_descriptors_while_it_attached() {
    const ROUNDS: u32 = 300;
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let stage = &board(1)[0];
        let holder = fork(|| {
            let over = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| descriptors::take_over(3..12, &descriptors::program_file(), &over));
                for round in 0..ROUNDS {
                    let mut opened = None;
                    eventually("it is attached", || {
                        // For want of the descriptor that was just closed it may well fail.
                        opened = ShmManager::open(&segment.name, 0).ok();
                        opened.is_some()
                    });
                    let own = opened.unwrap();
                    let _ = own.lock(3).unwrap();
                    stage.store(2 * round + 1, Ordering::Release);
                    eventually("the other has tried", || stage.load(Ordering::Acquire) == 2 * round + 2);
                    own.unlock(3).unwrap();
                }
                over.store(true, Ordering::Release);
            });
        });
        for round in 0..ROUNDS {
            eventually("it holds the lock", || stage.load(Ordering::Acquire) == 2 * round + 1);
            assert_eq!(errno_of(manager.try_lock(3)), libc::EBUSY);
            stage.store(2 * round + 2, Ordering::Release);
        }
        holder.succeeds();
    });
}

/// Another process closes all descriptors, and opens files of its own, while it attaches: of each of those it would be told
/// that nobody has locked the bytes of the entries that it passes by.
#[test]
fn ones_that_another_passes_by_while_its_descriptors_are_closed() {
    const LASTS: Duration = Duration::from_secs(1);
    alone!({
        let segment = Segment::native(64);
        let holders: Vec<Child> = (0..8).map(|id| segment.holder_of(&[id])).collect();
        let passer = fork(|| {
            let (over, start) = (AtomicBool::new(false), Instant::now());
            thread::scope(|scope| {
                scope.spawn(|| descriptors::take_over(3..12, &descriptors::program_file(), &over));
                while start.elapsed() < LASTS {
                    // For want of the descriptor that was just closed it may well fail.
                    let _opened = ShmManager::open(&segment.name, 0);
                }
                over.store(true, Ordering::Release);
            });
        });
        passer.succeeds();
        let manager = segment.open();
        for id in 0..8 {
            assert_eq!(errno_of(manager.try_lock(id)), libc::EBUSY);
        }
        holders.into_iter().for_each(Child::kill);
    });
}
