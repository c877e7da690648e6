// SPDX-License-Identifier: MIT OR Apache-2.0
//! A manager is not closed under a holder or waiter, and a mapping stays as long as the kernel may look into it.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::thread;

use lock_manager::{Acquired, Layout, Manager, Reason, SegmentOptions, ShmManager};

use super::LONG;
use super::support::alone::alone;
use super::support::process::sleep_until_killed;
use super::support::{Segment, board, errno_of, eventually, fork, layout, taken_once};

#[test]
fn a_manager_that_holds_a_lock_comes_back_from_close() {
    alone!({
        let segment = Segment::of(32);
        let manager = segment.open();
        let _ = manager.lock(3).unwrap();
        let (manager, error) = *manager.close().unwrap_err();
        assert_eq!((error.errno(), error.reason()), (libc::EBUSY, &Reason::StillHeld { id: 3 }));
        manager.unlock(3).unwrap();
        manager.close().unwrap();
        assert_eq!(taken_once(&segment.open(), 3), Acquired::Clean);
    });
}

#[test]
fn another_threads_lock_keeps_a_manager_open_and_a_dead_threads_does_not() {
    alone!({
        let segment = Segment::of(32);
        let manager = segment.open();
        let [held, go] = [&board(2)[0], &board(2)[1]];
        thread::scope(|scope| {
            let holder = scope.spawn(|| {
                let _ = manager.lock(3).unwrap();
                held.store(1, Ordering::Release);
                eventually("it may end", || go.load(Ordering::Acquire) == 1);
            });
            eventually("the lock is held", || held.load(Ordering::Acquire) == 1);
            assert_eq!(manager.check_idle().unwrap_err().reason(), &Reason::StillHeld { id: 3 });
            go.store(1, Ordering::Release);
            holder.join().unwrap();
        });
        manager.close().unwrap();
        assert_eq!(taken_once(&segment.open(), 3), Acquired::OwnerDied);
    });
}

#[test]
fn a_manager_is_busy_while_a_thread_waits_in_a_call_on_it() {
    alone!({
        let segment = Segment::of(32);
        let [manager, holder] = [segment.open(), segment.open()];
        let _ = holder.lock(3).unwrap();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| manager.timed_lock(3, LONG).map(|_| manager.unlock(3)));
            eventually("the waiter waits", || segment.word_at(layout::word(3)) & layout::WAITERS != 0);
            let error = manager.check_idle().unwrap_err();
            assert_eq!((error.errno(), error.reason()), (libc::EBUSY, &Reason::StillWaiting { threads: 1 }));
            // The other manager has locks held, and nobody waiting.
            assert_eq!(holder.check_idle().unwrap_err().reason(), &Reason::StillHeld { id: 3 });
            holder.unlock(3).unwrap();
            waiter.join().unwrap().unwrap().unwrap();
        });
        holder.close().unwrap();
        manager.close().unwrap();
    });
}

#[test]
fn a_process_maps_a_segment_once_and_until_its_last_manager_is_closed() {
    alone!({
        let segment = Segment::of(32);
        assert_eq!(segment.maps().len(), 0);
        let [first, second] = [segment.open(), segment.open()];
        assert_eq!(segment.maps().len(), 1);
        first.close().unwrap();
        assert_eq!(segment.maps().len(), 1);
        let _ = second.lock(3).unwrap();
        second.unlock(3).unwrap();
        second.close().unwrap();
        assert_eq!(segment.maps().len(), 0);
    });
}

#[test]
fn a_manager_dropped_with_a_lock_held_leaves_it_mapped_and_held_until_death() {
    alone!({
        let [segment, other] = [Segment::of(32), Segment::of(32)];
        let ready = &board(1)[0];
        let holder = fork(|| {
            // One in another segment first: were the second unmapped, the kernel would not find the way to it.
            let earlier = other.open();
            let _ = earlier.lock(5).unwrap();
            let manager = segment.open();
            let _ = manager.lock(3).unwrap();
            drop(manager);
            assert_eq!(segment.maps().len(), 1);
            assert_eq!(errno_of(segment.open().try_lock(3)), libc::EBUSY);
            assert_eq!(errno_of(segment.open().unlock(3)), libc::EPERM);
            // The thread's list of what it holds is whole: it can go on locking.
            assert_eq!(taken_once(&earlier, 6), Acquired::Clean);
            ready.store(1, Ordering::Release);
            sleep_until_killed();
        });
        eventually("the holder has dropped its manager", || ready.load(Ordering::Acquire) == 1);
        assert_eq!(errno_of(segment.open().try_lock(3)), libc::EBUSY);
        holder.kill();
        assert_eq!(taken_once(&segment.open(), 3), Acquired::OwnerDied);
        assert_eq!(taken_once(&other.open(), 5), Acquired::OwnerDied);
    });
}

#[test]
fn closing_every_descriptor_changes_nothing() {
    alone!({
        let segment = Segment::of(32);
        let [closed, go] = [&board(2)[0], &board(2)[1]];
        let child = fork(|| {
            let manager = segment.open();
            let _ = manager.lock(3).unwrap();
            // SAFETY: close_range(2) touches no memory; nothing else in this child uses a descriptor.
            assert_eq!(unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) }, 0);
            closed.store(1, Ordering::Release);
            eventually("the other has looked", || go.load(Ordering::Acquire) == 1);
            assert_eq!(manager.allocate_lock().unwrap(), 0);
            manager.unlock(3).unwrap();
            assert_eq!(taken_once(&manager, 3), Acquired::Clean);
            fs::remove_file(segment.file()).unwrap();
            eventually("removal is noticed", || errno_of(manager.allocate_lock()) == libc::ESTALE);
            // The numbers that the manager once had are others' now, and stay theirs.
            let files: Vec<File> = (0..8).map(|_| File::open("/dev/null").unwrap()).collect();
            manager.close().unwrap();
            for file in &files {
                // SAFETY: fcntl(2) with this command touches no memory.
                assert_ne!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFD) }, -1);
            }
        });
        eventually("the holder has closed all", || closed.load(Ordering::Acquire) == 1);
        assert_eq!(errno_of(segment.open().try_lock(3)), libc::EBUSY);
        go.store(1, Ordering::Release);
        child.succeeds();
    });
}

#[test]
fn the_maker_of_a_segment_may_close_every_descriptor_too() {
    alone!({
        let segment = Segment::unused();
        fork(|| {
            let manager =
                ShmManager::create(&segment.name, 32, &SegmentOptions::default().layout(Layout::Libpod)).unwrap();
            // SAFETY: as above.
            assert_eq!(unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) }, 0);
            let _others = [(); 8].map(|()| File::open("/dev/null").unwrap());
            assert_eq!(manager.allocate_lock().unwrap(), 0);
            fs::remove_file(segment.file()).unwrap();
            eventually("removal is noticed", || errno_of(manager.allocate_lock()) == libc::ESTALE);
        })
        .succeeds();
    });
}

/// What another manager of the process takes and gives back all the while keeps this one open for not an instant, though
/// this one had it last.
#[test]
fn a_manager_is_closed_while_another_uses_the_lock_that_was_its_own() {
    alone!({
        let segment = Segment::native(64);
        let other = segment.open();
        let stop = &board(1)[0];
        thread::scope(|scope| {
            scope.spawn(|| {
                while stop.load(Ordering::Relaxed) == 0 {
                    let _ = other.lock(3).unwrap();
                    other.unlock(3).unwrap();
                }
            });
            for _ in 0..2000 {
                let manager = segment.open();
                let _ = manager.lock(3).unwrap();
                manager.unlock(3).unwrap();
                manager.close().unwrap();
            }
            stop.store(1, Ordering::Relaxed);
        });
    });
}
