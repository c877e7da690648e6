// SPDX-License-Identifier: MIT OR Apache-2.0
//! A segment that was removed: who has it open hears of it and does not live on in a second world.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lock_manager::{Acquired, Layout, Manager, SegmentOptions, ShmManager};

use super::support::alone::alone;
use super::support::process::sleep_until_killed;
use super::support::timing::mostly_within;
use super::support::{Child, Segment, board, errno_of, eventually, fork, native_layout as layout, taken_once};

/// All lock calls and allocation are refused; what one has can be given back and looked at.
fn assert_stale(manager: &ShmManager, free: u32) {
    for code in [
        errno_of(manager.lock(free)),
        errno_of(manager.try_lock(free)),
        errno_of(manager.timed_lock(free, Duration::ZERO)),
        errno_of(manager.timed_lock(free, Duration::from_secs(1))),
        errno_of(manager.allocate_lock()),
        errno_of(manager.allocate_and_retrieve_lock(free)),
        errno_of(manager.free_lock(0)),
        errno_of(manager.free_all_locks()),
        errno_of(manager.grow(128)),
    ] {
        assert_eq!(code, libc::ESTALE);
    }
    assert!(manager.info().unwrap().retired);
    assert_eq!(manager.num_locks().unwrap(), 64);
    manager.available_locks().unwrap();
    manager.lock_info(free).unwrap();
}

#[test]
fn the_next_call_of_every_process_is_refused_and_unlocking_works() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        assert_eq!(manager.allocate_lock().unwrap(), 0);
        let _ = manager.lock(3).unwrap();
        let (ready, go) = (&board(1)[0], &board(1)[0]);
        let other = fork(|| {
            let own = segment.open();
            let _ = own.lock(4).unwrap();
            ready.fetch_add(1, Ordering::AcqRel);
            eventually("it is removed", || go.load(Ordering::Acquire) == 1);
            // Contended or not, in a child as well.
            assert_stale(&own, 5);
            assert_eq!(errno_of(own.try_lock(3)), libc::ESTALE);
            fork(|| assert_stale(&own, 5)).succeeds();
            fork(|| assert_stale(&manager, 5)).succeeds();
            assert_eq!(own.locks_held().unwrap(), [3, 4]);
            own.unlock(4).unwrap();
            own.close().unwrap();
        });
        let waiters: Vec<Child> =
            (0..3).map(|_| fork(|| assert_eq!(errno_of(segment.open().lock(3)), libc::ESTALE))).collect();
        waiters.iter().for_each(Child::until_it_waits);
        eventually("the other is ready", || ready.load(Ordering::Acquire) == 1);
        ShmManager::remove(&segment.name).unwrap();
        assert_stale(&manager, 5);
        go.store(1, Ordering::Release);
        other.succeeds();
        waiters.into_iter().for_each(Child::succeeds);
        manager.unlock(3).unwrap();
        assert_eq!(errno_of(manager.unlock(3)), libc::EPERM);
        assert_eq!(errno_of(ShmManager::open(&segment.name, 0).map(drop)), libc::ENOENT);
        assert_eq!(errno_of(ShmManager::remove(&segment.name)), libc::ENOENT);
        // A new one of that name is another world.
        let fresh = ShmManager::create(&segment.name, 64, &SegmentOptions::default().layout(Layout::Native)).unwrap();
        assert_eq!(taken_once(&fresh, 3), Acquired::Clean);
        assert_eq!(errno_of(manager.try_lock(3)), libc::ESTALE);
    });
}

#[test]
fn a_death_that_was_due_stays_due_when_the_lock_is_refused() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        segment.holder_of(&[3]).kill();
        ShmManager::remove(&segment.name).unwrap();
        assert_eq!(errno_of(manager.try_lock(3)), libc::ESTALE);
        assert!(manager.lock_info(3).unwrap().owner_died);
    });
}

/// Within the promised 100 ms, plus what the machine is busy with.
const NOTICED: Duration = Duration::from_millis(200);

#[test]
fn a_name_unlinked_behind_the_librarys_back_is_noticed_by_waits_and_allocation() {
    alone!({
        mostly_within(NOTICED, "a wait ends after the name was unlinked", |_| {
            let segment = Segment::native(64);
            let manager = segment.open();
            let _ = manager.lock(3).unwrap();
            let (micros, origin) = (&board(1)[0], Instant::now());
            let waiter = fork(|| {
                assert_eq!(errno_of(segment.open().lock(3)), libc::ESTALE);
                micros.store(origin.elapsed().as_micros() as u32, Ordering::Release);
            });
            waiter.until_it_waits();
            let start = origin.elapsed();
            fs::remove_file(segment.file()).unwrap();
            waiter.succeeds();
            eventually("allocation is refused", || errno_of(manager.allocate_lock()) == libc::ESTALE);
            let noticed = origin.elapsed() - start;
            assert!(manager.info().unwrap().retired);
            manager.unlock(3).unwrap();
            noticed.max(Duration::from_micros(micros.load(Ordering::Acquire).into()).saturating_sub(start))
        });
    });
}

/// Whoever meets its mark first, a call or an opener, takes it back.
#[test]
fn a_remover_that_died_before_the_name_was_gone_has_removed_nothing() {
    alone!({
        let options = SegmentOptions::default().layout(Layout::Native);
        for way in 0..6 {
            let segment = Segment::native(64);
            let old = segment.open();
            assert_eq!(taken_once(&old, 3), Acquired::Clean);
            segment.write_word_at(layout::AT_RETIRED, layout::REMOVING);
            match way {
                0 => drop(ShmManager::open(&segment.name, 0).unwrap()),
                1 => drop(ShmManager::open_or_create(&segment.name, 64, &options).unwrap()),
                2 => assert_eq!(taken_once(&old, 3), Acquired::Clean),
                3 => assert_eq!(old.allocate_lock().unwrap(), 0),
                4 => old.grow(128).unwrap(),
                _ => {
                    ShmManager::remove(&segment.name).unwrap();
                    assert_stale(&old, 3);
                    continue;
                }
            }
            assert_eq!(segment.word_at(layout::AT_RETIRED), 0, "way {way}");
            assert!(!old.info().unwrap().retired && segment.file().exists());
            assert_eq!(taken_once(&old, 3), Acquired::Clean);
        }
    });
}

/// Before it could say so.
#[test]
fn a_remover_that_died_after_the_name_was_gone_has_removed_it() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        segment.write_word_at(layout::AT_RETIRED, layout::REMOVING);
        fs::remove_file(segment.file()).unwrap();
        assert_stale(&manager, 3);
    });
}

/// To look changes nothing, so a reader takes nothing back.
#[test]
fn a_reader_sees_no_removal_before_it_is_done() {
    alone!({
        let segment = Segment::native(64);
        segment.write_word_at(layout::AT_RETIRED, layout::REMOVING);
        let reader = ShmManager::open_read_only(&segment.name).unwrap();
        assert!(!reader.info().unwrap().retired);
        assert_eq!(segment.word_at(layout::AT_RETIRED), layout::REMOVING);
        ShmManager::remove(&segment.name).unwrap();
        assert!(reader.info().unwrap().retired);
    });
}

#[test]
fn removers_and_creators_at_once_leave_one_world() {
    const PROCESSES: u32 = 4;
    const ROUNDS: u32 = 150;
    alone!({
        let segment = Segment::unused();
        let inside = &board(1)[0];
        let children: Vec<Child> = (0..PROCESSES)
            .map(|own| {
                fork(|| {
                    let options = SegmentOptions::default().layout(Layout::Native);
                    for round in 0..ROUNDS {
                        let manager = ShmManager::open_or_create(&segment.name, 64, &options).unwrap();
                        match manager.timed_lock(3, Duration::from_secs(10)) {
                            Ok(_) => {
                                // Who removes does so while it holds: nobody else is in the same world's lock.
                                assert_eq!(inside.swap(1, Ordering::AcqRel), 0, "two are inside");
                                if (round + own) % 3 == 0 {
                                    inside.store(0, Ordering::Release);
                                    let removed = errno_of(ShmManager::remove(&segment.name));
                                    assert!([0, libc::ENOENT].contains(&removed), "{removed}");
                                } else {
                                    inside.store(0, Ordering::Release);
                                }
                                manager.unlock(3).unwrap();
                            }
                            Err(error) => assert_eq!(error.errno(), libc::ESTALE, "{error}"),
                        }
                        manager.close().unwrap();
                    }
                })
            })
            .collect();
        children.into_iter().for_each(Child::succeeds);
        let _ = ShmManager::remove(&segment.name);
    });
}

#[test]
fn a_holder_that_dies_after_the_removal_is_of_no_concern() {
    alone!({
        let segment = Segment::native(64);
        let (ready, manager) = (&board(1)[0], segment.open());
        let holder = fork(|| {
            let own = segment.open();
            let _ = own.lock(3).unwrap();
            ready.store(1, Ordering::Release);
            sleep_until_killed();
        });
        eventually("it holds", || ready.load(Ordering::Acquire) == 1);
        ShmManager::remove(&segment.name).unwrap();
        holder.kill();
        assert_eq!(errno_of(manager.lock(3)), libc::ESTALE);
        // It can be looked at and repaired, though nobody can open it any more.
        assert_eq!(manager.locks_held().unwrap(), [0; 0]);
        manager.repair_lock(3).unwrap();
        assert!(manager.lock_info(3).unwrap().owner_died);
    });
}
