// SPDX-License-Identifier: MIT OR Apache-2.0
//! Readers of a native segment: where they stand, who is told of circles through them, and what becomes of a drain when
//! threads end.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use lock_manager::{Acquired, Manager, Ownership, Reason, ShmManager};

use super::LONG;
use super::support::alone::alone;
use super::support::native_layout::{self as layout, GENERATIONS, OWNER_DIED, RESERVED, STARVING, WAITERS};
use super::support::process::{own_tid, sleep_until_killed, until_thread_waits};
use super::support::{Child, Segment, board, errno_of, eventually, fork};

const ID: u32 = 7;

/// A child that does `body` with the segment open, says so, and waits to be killed.
fn child_that(segment: &Segment, body: impl FnOnce(&ShmManager)) -> Child {
    let ready = &board(1)[0];
    let child = fork(|| {
        let manager = segment.open();
        body(&manager);
        ready.store(1, Ordering::Release);
        sleep_until_killed();
    });
    eventually("the child is there", || ready.load(Ordering::Acquire) == 1);
    child
}

fn reader(segment: &Segment) -> Child {
    child_that(segment, |manager| assert_eq!(manager.lock_shared(ID).unwrap(), Acquired::Clean))
}

fn cells(segment: &Segment) -> [u64; 4] {
    [0, 1, 2, 3].map(|index| segment.number_at(layout::cell(ID, index)))
}

fn word(segment: &Segment) -> u64 {
    segment.number_at(layout::word(ID))
}

#[test]
fn a_reader_stands_in_a_cell_and_the_word_says_that_there_may_be_some() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let _ = manager.lock_shared(ID).unwrap();
        let own = cells(&segment).into_iter().find(|&cell| cell != 0).unwrap();
        assert_eq!((word(&segment), layout::owner_of(own)), (STARVING, own));
        manager.unlock_shared(ID).unwrap();
        assert_eq!((word(&segment), cells(&segment)), (STARVING, [0; 4]));
        // A writer has seen every cell empty.
        let _ = manager.lock(ID).unwrap();
        assert_eq!(word(&segment), own);
        manager.unlock(ID).unwrap();
        assert_eq!(word(&segment), 0);
    });
}

#[test]
fn the_fifth_reader_stands_in_the_table_and_a_writer_sees_it() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let mut readers: Vec<Child> = (0..12).map(|_| reader(&segment)).collect();
        assert_eq!(manager.lock_info(ID).unwrap().readers, 12);
        assert!(segment.number_at(layout::level(ID)) > 0);
        while let Some(last) = readers.pop() {
            assert_eq!(errno_of(manager.try_lock(ID)), libc::EBUSY, "{} are left", readers.len() + 1);
            last.kill();
        }
        assert_eq!(manager.try_lock(ID).unwrap(), Acquired::Clean);
        manager.unlock(ID).unwrap();
    });
}

/// Where nobody writes, nobody else looks after them.
#[test]
fn readers_that_died_keep_no_later_one_out_however_many_they_were() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let crowd = child_that(&segment, |manager| {
            manager.set_ownership(Ownership::Process).unwrap();
            for id in [ID, ID + 1] {
                while manager.try_lock_shared(id).is_ok() {}
            }
        });
        for id in [ID, ID + 1] {
            assert_eq!(errno_of(manager.lock_shared(id)), libc::EAGAIN);
        }
        crowd.kill();
        for id in [ID, ID + 1] {
            assert_eq!(manager.lock_shared(id).unwrap(), Acquired::Clean);
            manager.unlock_shared(id).unwrap();
        }
        let _ = manager.lock(ID + 2).unwrap();
        manager.downgrade_lock(ID + 2).unwrap();
        manager.unlock_shared(ID + 2).unwrap();
    });
}

#[test]
fn readers_that_keep_meeting_go_to_the_table_by_themselves() {
    alone!({
        let segment = Segment::native(64);
        let (manager, stop) = (segment.open(), AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while stop.load(Ordering::Acquire) == 0 {
                        let _ = manager.lock_shared(ID).unwrap();
                        thread::yield_now();
                        manager.unlock_shared(ID).unwrap();
                    }
                });
            }
            eventually("they are in the table", || segment.number_at(layout::level(ID)) == 3);
            stop.store(1, Ordering::Release);
        });
        let _ = manager.lock_shared(ID).unwrap();
        assert_eq!(cells(&segment), [0; 4]);
        assert_eq!(errno_of(manager.lock(ID)), libc::EDEADLK);
        manager.unlock_shared(ID).unwrap();
        // A lock whose readers seldom meet stays as it is.
        let _ = manager.lock_shared(ID + 1).unwrap();
        manager.unlock_shared(ID + 1).unwrap();
        assert_eq!(segment.number_at(layout::level(ID + 1)), 0);
    });
}

#[test]
fn one_reader_more_than_there_is_room_for_is_refused() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let living = manager.info().map(|_| manager.lock_shared(ID)).unwrap().unwrap();
        assert_eq!(living, Acquired::Clean);
        let own = cells(&segment).into_iter().find(|&cell| cell != 0).unwrap();
        // All pages of the table, full of somebody who lives.
        segment.write_number_at(layout::level(ID), 11);
        segment.write_number_at(layout::AT_READY + 24, u64::from(u32::MAX));
        (0..4).for_each(|index| segment.write_number_at(layout::cell(ID, index), own));
        (0..layout::CELLS).for_each(|index| segment.write_number_at(layout::place(index), own));
        fork(|| {
            let manager = segment.open();
            let refused = manager.lock_shared(ID).unwrap_err();
            assert_eq!(*refused.reason(), Reason::TooManyReaders { id: ID });
            assert_eq!(refused.errno(), libc::EAGAIN);
            let _ = manager.lock(ID + 1).unwrap();
            segment.write_number_at(layout::level(ID + 1), 11);
            (0..4).for_each(|index| segment.write_number_at(layout::cell(ID + 1, index), own));
            assert_eq!(errno_of(manager.downgrade_lock(ID + 1)), libc::EAGAIN);
            manager.unlock(ID + 1).unwrap();
            // One place is enough.
            segment.write_number_at(layout::place(4711), 0);
            assert_eq!(manager.lock_shared(ID).unwrap(), Acquired::Clean);
            manager.unlock_shared(ID).unwrap();
        })
        .succeeds();
    });
}

/// Whether readers that starved came in before a writer that had waited for longer than they.
fn readers_come_first(segment: &Segment, manager: &ShmManager) -> bool {
    const READERS: u32 = 3;
    let _ = manager.lock(ID).unwrap();
    let (came, writer_came_after, tid) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            tid.store(own_tid() as u32, Ordering::Release);
            let _ = manager.timed_lock(ID, LONG).unwrap();
            writer_came_after.store(1 + came.load(Ordering::Acquire), Ordering::Release);
            manager.unlock(ID).unwrap();
        });
        eventually("a writer comes", || tid.load(Ordering::Acquire) != 0);
        until_thread_waits(tid.load(Ordering::Acquire) as i32);
        for _ in 0..READERS {
            scope.spawn(|| {
                let _ = manager.timed_lock_shared(ID, LONG).unwrap();
                came.fetch_add(1, Ordering::AcqRel);
                manager.unlock_shared(ID).unwrap();
            });
        }
        let starving = || cells(segment).iter().filter(|&cell| cell & STARVING != 0).count();
        eventually("all starve", || starving() == READERS as usize);
        manager.unlock(ID).unwrap();
    });
    writer_came_after.load(Ordering::Acquire) == 1 + READERS
}

#[test]
fn an_unlock_lets_all_readers_in_that_starve() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        // By chance they come first in a quarter of all rounds, give or take. Where the machine is busy, a reader may come so
        // late that the writer takes the lock: then it takes more rounds to tell.
        const CHANCE: f64 = 0.25;
        const DEVIATIONS: f64 = 3.0;
        let (mut first, mut rounds) = (0.0, 0.0_f64);
        let is_no_chance =
            |first: f64, rounds: f64| first > CHANCE * rounds + DEVIATIONS * (CHANCE * (1.0 - CHANCE) * rounds).sqrt();
        eventually("readers come first more often than by chance", || {
            rounds += 1.0;
            first += f64::from(u8::from(readers_come_first(&segment, &manager)));
            is_no_chance(first, rounds)
        });
        super::support::note(format_args!("readers came first in {first} of {rounds} rounds"));
    });
}

/// A writer goes on after a slice in which none of those readers came, and takes their cells away. One of them that was only
/// slow must show again that it starves: it would be behind all writers otherwise, for as long as there are some.
#[test]
fn a_starving_reader_that_came_too_late_for_its_turn_asks_for_another() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let _ = manager.lock(ID).unwrap();
        let late = fork(|| {
            let manager = segment.open();
            assert_eq!(manager.timed_lock_shared(ID, LONG).unwrap(), Acquired::Clean);
        });
        let starves = || cells(&segment).iter().any(|&cell| cell & STARVING != 0);
        eventually("it starves", starves);
        late.signal(libc::SIGSTOP);
        late.until_it_is_stopped();
        manager.unlock(ID).unwrap();
        assert_eq!(manager.timed_lock(ID, LONG).unwrap(), Acquired::Clean);
        assert!(!starves(), "the writer took the cells away: {:x?}", cells(&segment));
        late.signal(libc::SIGCONT);
        eventually("it starves again", starves);
        manager.unlock(ID).unwrap();
        late.succeeds();
    });
}

#[test]
fn a_stopped_reader_is_not_robbed() {
    alone!({
        let segment = Segment::native(64);
        let (manager, child) = (segment.open(), reader(&segment));
        child.signal(libc::SIGSTOP);
        child.until_it_is_stopped();
        assert_eq!(errno_of(manager.timed_lock(ID, Duration::from_millis(100))), libc::ETIMEDOUT);
        assert_eq!(errno_of(manager.repair_lock(ID)), libc::EBUSY);
        child.kill();
        assert_eq!(manager.try_lock(ID).unwrap(), Acquired::Clean);
        manager.unlock(ID).unwrap();
    });
}

/// A stopped writer that drains must not keep readers out whose lock nobody holds.
#[test]
fn the_drain_of_a_stopped_writer_ends_when_its_readers_have_gone() {
    alone!({
        let segment = Segment::native(64);
        let (manager, first) = (segment.open(), reader(&segment));
        let got_it = &board(1)[0];
        let writer = fork(|| {
            assert_eq!(segment.open().timed_lock(ID, LONG).unwrap(), Acquired::Clean);
            got_it.store(1, Ordering::Release);
        });
        writer.until_it_waits();
        writer.signal(libc::SIGSTOP);
        writer.until_it_is_stopped();
        first.kill();
        assert_ne!(word(&segment) & RESERVED, 0);
        assert_eq!(manager.timed_lock_shared(ID, LONG).unwrap(), Acquired::Clean);
        assert_eq!(got_it.load(Ordering::Acquire), 0);
        // It finds its place lost, and queues again.
        writer.signal(libc::SIGCONT);
        eventually("it drains anew", || manager.lock_info(ID).unwrap().draining);
        manager.unlock_shared(ID).unwrap();
        writer.succeeds();
    });
}

#[test]
fn a_dead_drainer_is_told_to_nobody_and_leaves_its_readers_alone() {
    alone!({
        for is_death_due in [false, true] {
            let segment = Segment::native(64);
            let (manager, first) = (segment.open(), reader(&segment));
            if is_death_due {
                segment.write_number_at(layout::word(ID), OWNER_DIED | STARVING);
            }
            let due = if is_death_due { Acquired::OwnerDied } else { Acquired::Clean };
            let writer = fork(|| _ = segment.open().timed_lock(ID, LONG).unwrap());
            writer.until_it_waits();
            writer.kill();
            // What it was about to have is no more another writer's than it was its own.
            assert_eq!(errno_of(manager.try_lock(ID)), libc::EBUSY);
            let second = fork(|| _ = segment.open().timed_lock(ID, LONG).unwrap());
            second.until_it_waits();
            second.kill();
            assert_eq!(errno_of(manager.timed_lock(ID, Duration::from_millis(20))), libc::ETIMEDOUT);
            assert_eq!(manager.timed_lock_shared(ID, LONG).unwrap(), due);
            assert_eq!(manager.lock_info(ID).unwrap().readers, 2);
            manager.unlock_shared(ID).unwrap();
            assert_eq!(errno_of(manager.try_lock(ID)), libc::EBUSY);
            first.kill();
            assert_eq!(manager.timed_lock(ID, LONG).unwrap(), due);
            manager.unlock(ID).unwrap();
            assert_eq!(manager.try_lock(ID).unwrap(), Acquired::Clean);
        }
    });
}

/// A thread that ends while it reads, or starves, against a writer that drains; and one that ends while it drains.
#[test]
fn threads_end_against_a_drain() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        for _ in 0..50 {
            let [reads, tid] = [&AtomicU32::new(0), &AtomicU32::new(0)];
            thread::scope(|scope| {
                let reader = scope.spawn(|| {
                    let _ = manager.lock_shared(ID).unwrap();
                    reads.store(1, Ordering::Release);
                    eventually("it is to end", || reads.load(Ordering::Acquire) == 2);
                });
                eventually("it reads", || reads.load(Ordering::Acquire) == 1);
                let writer = scope.spawn(|| {
                    tid.store(own_tid() as u32, Ordering::Release);
                    assert_eq!(manager.timed_lock(ID, LONG).unwrap(), Acquired::Clean);
                    manager.unlock(ID).unwrap();
                });
                eventually("a writer comes", || tid.load(Ordering::Acquire) != 0);
                until_thread_waits(tid.load(Ordering::Acquire) as i32);
                reads.store(2, Ordering::Release);
                reader.join().unwrap();
                writer.join().unwrap();
            });
            assert_eq!((word(&segment), cells(&segment)), (0, [0; 4]));
        }
    });
}

/// What names an entry whose generations begin again is nobody's, in words, cells and the table.
#[test]
fn a_reader_of_a_generation_that_comes_again_is_none() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let index = 5;
        let old = |serial| layout::owner(index, 0, serial);
        segment.write_number_at(layout::entry(index), (GENERATIONS - 1) << 1);
        segment.write_number_at(layout::word(ID), old(3) | RESERVED | WAITERS);
        segment.write_number_at(layout::cell(ID, 1), old(1) | WAITERS);
        segment.write_number_at(layout::cell(ID + 1, 2), old(2) | STARVING);
        segment.write_number_at(layout::AT_READY + 24, 1);
        segment.write_number_at(layout::place(17), old(4));
        segment.write_word_at(layout::AT_ROTOR, index);
        let tenant = child_that(&segment, |manager| _ = manager.retrieve_lock(0));
        assert_ne!(segment.number_at(layout::entry(index)) & 1, 0);
        assert_eq!(word(&segment), STARVING | WAITERS);
        let left = [layout::cell(ID, 1), layout::cell(ID + 1, 2), layout::place(17)].map(|at| segment.number_at(at));
        assert_eq!(left, [0; 3]);
        drop(tenant);
        assert_eq!(manager.try_lock(ID).unwrap(), Acquired::Clean);
        manager.unlock(ID).unwrap();
    });
}

/// A ring in which a lock has several readers, one of whom waits for the writer that waits for all of them.
fn ring_through_readers(readers: u32, kinds: fn(u32) -> bool) -> u32 {
    let segment = Segment::native(64);
    let manager = segment.open();
    let (ready, told) = (&board(1)[0], &board(1)[0]);
    let wait_for = |is_ready: u32| eventually("all hold what they hold", || ready.load(Ordering::Acquire) >= is_ready);
    let mut members = Vec::new();
    let others: Vec<Child> = (1..readers).map(|_| reader(&segment)).collect();
    for (own, wanted) in [(ID, ID + 1), (ID + 1, ID)] {
        members.push(fork(|| {
            let manager = segment.open();
            let _ = if own == ID { manager.lock_shared(own) } else { manager.lock(own) }.unwrap();
            ready.fetch_add(1, Ordering::AcqRel);
            wait_for(2);
            let is_shared = kinds(wanted);
            let acquired =
                if is_shared { manager.timed_lock_shared(wanted, LONG) } else { manager.timed_lock(wanted, LONG) };
            match acquired {
                Ok(_) if is_shared => manager.unlock_shared(wanted).unwrap(),
                Ok(_) => manager.unlock(wanted).unwrap(),
                Err(error) => {
                    assert!(matches!(error.reason(), Reason::Deadlock { .. }), "{error}");
                    told.fetch_add(1, Ordering::AcqRel);
                }
            }
            if own == ID { manager.unlock_shared(own) } else { manager.unlock(own) }.unwrap();
        }));
    }
    // The others leave once the ring is broken.
    eventually("one is told", || told.load(Ordering::Acquire) > 0);
    drop(others);
    members.into_iter().for_each(Child::succeeds);
    assert_eq!(manager.locks_held().unwrap(), [0; 0]);
    told.load(Ordering::Acquire)
}

#[test]
fn of_a_ring_through_one_of_many_readers_one_is_told() {
    alone!({
        for readers in [1, 3, 9] {
            for kinds in [|_| false, |wanted| wanted != ID] as [fn(u32) -> bool; 2] {
                assert_eq!(ring_through_readers(readers, kinds), 1, "{readers} readers");
            }
        }
    });
}

/// Who looks for a moment whether it may read a lock that is being drained does not hold it: no ring goes through it.
#[test]
fn in_ten_thousand_turns_without_a_ring_nobody_is_told() {
    alone!({
        const THREADS: u32 = 4;
        let segment = Segment::native(64);
        let (manager, rounds) = (segment.open(), 10_000 / THREADS);
        thread::scope(|scope| {
            for place in 0..THREADS {
                let manager = &manager;
                scope.spawn(move || {
                    for round in 0..rounds {
                        // Always the lower first, either way.
                        let (low, high) = (ID, ID + 1);
                        let shares = |lock: u32| !(round + place + lock).is_multiple_of(3);
                        let take = |lock| if shares(lock) { manager.lock_shared(lock) } else { manager.lock(lock) };
                        let _ = take(low).unwrap();
                        let _ = take(high).unwrap();
                        if round % 16 == 0 {
                            thread::sleep(Duration::from_millis(2));
                        }
                        for lock in [high, low] {
                            if shares(lock) { manager.unlock_shared(lock) } else { manager.unlock(lock) }.unwrap();
                        }
                    }
                });
            }
        });
        assert_eq!(manager.locks_held().unwrap(), [0; 0]);
    });
}

#[test]
fn a_process_that_reads_makes_no_circle() {
    alone!({
        let segment = Segment::native(64);
        let (by_process, by_thread) = (segment.open(), segment.open());
        by_process.set_ownership(Ownership::Process).unwrap();
        let _ = by_process.lock_shared(ID).unwrap();
        assert_eq!(errno_of(by_thread.timed_lock(ID, Duration::from_millis(30))), libc::ETIMEDOUT);
        thread::scope(|scope| {
            scope.spawn(|| by_process.unlock_shared(ID).unwrap());
        });
        assert_eq!(by_thread.timed_lock(ID, LONG).unwrap(), Acquired::Clean);
        by_thread.unlock(ID).unwrap();
    });
}

#[test]
fn what_a_thread_reads_is_not_given_back_through_a_manager_of_the_process() {
    alone!({
        let segment = Segment::native(64);
        let (by_process, by_thread) = (segment.open(), segment.open());
        by_process.set_ownership(Ownership::Process).unwrap();
        let _ = by_process.lock_shared(ID).unwrap();
        by_process.unlock_shared(ID).unwrap();
        let _ = by_thread.lock_shared(ID).unwrap();
        assert_eq!(errno_of(by_process.unlock_shared(ID)), libc::EPERM);
        by_thread.unlock_shared(ID).unwrap();
        let _ = by_process.lock_shared(ID).unwrap();
        assert_eq!(errno_of(by_thread.unlock_shared(ID)), libc::EPERM);
        by_process.unlock_shared(ID).unwrap();
    });
}
