// SPDX-License-Identifier: MIT OR Apache-2.0
//! Killed after any instruction of a call on a shared lock, a process keeps nobody out, and a death is told exactly where a
//! writer died holding the lock.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};

use lock_manager::{Acquired, Manager, ShmManager};

use super::LONG;
use super::support::alone::alone;
use super::support::native_layout::{self as layout, OWNER_DIED, RESERVED, STARVING};
use super::support::step::{Stepped, at_every_instruction, opened_and_used};
use super::support::{Child, Segment, board, eventually, fork};

/// What the stepped child is, as it says itself.
const OUTSIDE: u32 = 0;
const READING: u32 = 1;
const WRITING: u32 = 2;

fn read(manager: &ShmManager, place: &AtomicU32) {
    let _ = manager.lock_shared(0).unwrap();
    place.store(READING, Ordering::Relaxed);
    place.store(OUTSIDE, Ordering::Relaxed);
    manager.unlock_shared(0).unwrap();
}

fn write(manager: &ShmManager, place: &AtomicU32) {
    let _ = manager.lock(0).unwrap();
    place.store(WRITING, Ordering::Relaxed);
    place.store(OUTSIDE, Ordering::Relaxed);
    manager.unlock(0).unwrap();
}

/// Whether a death is due, by the word and by what was due before.
fn is_due(word: u64) -> bool {
    word & OWNER_DIED != 0 || (layout::entry_of(word) != 0 && word & RESERVED == 0)
}

/// Kills the stepped child, after which reader and writer have the lock at once, told exactly what is true.
fn kill_and_take(segment: &Segment, manager: &ShmManager, stepped: Stepped, place: &AtomicU32, count: u64) {
    let word = segment.number_at(layout::word(0));
    let owner_holds = layout::entry_of(word) != 0 && word & RESERVED == 0;
    match place.swap(OUTSIDE, Ordering::Relaxed) {
        READING => {
            assert!(
                !owner_holds && word & (STARVING | RESERVED) != 0,
                "a reader in {word:#x} after {count} instructions"
            );
        }
        WRITING => assert!(owner_holds, "a writer in {word:#x} after {count} instructions"),
        _ => {}
    }
    stepped.kill();
    let due = if is_due(word) { Acquired::OwnerDied } else { Acquired::Clean };
    let acquired = manager.try_lock_shared(0);
    assert_eq!(acquired.as_ref().ok(), Some(&due), "{word:#x} after {count} instructions: {acquired:?}");
    manager.unlock_shared(0).unwrap();
    let acquired = manager.try_lock(0);
    assert_eq!(acquired.as_ref().ok(), Some(&due), "{word:#x} after {count} instructions: {acquired:?}");
    manager.unlock(0).unwrap();
    assert_eq!(manager.try_lock(0).unwrap(), Acquired::Clean, "told twice, after {count} instructions");
    manager.unlock(0).unwrap();
    assert_eq!(manager.locks_held().unwrap(), [0; 0], "after {count} instructions");
}

/// Steps through `act` in a process that has used the segment, from a state that `begin` makes.
fn step_through(level: u64, begin: impl Fn(&Segment), act: impl Fn(&ShmManager, &AtomicU32)) {
    let (segment, place) = (Segment::native(64), &board(1)[0]);
    let manager = segment.open();
    segment.write_number_at(layout::level(0), level);
    let start = || {
        begin(&segment);
        let prepare = || {
            let manager = opened_and_used(&segment);
            // Its pages of the table are ready.
            manager.timed_lock_shared(0, LONG).map(|_| manager.unlock_shared(0)).unwrap().unwrap();
            begin(&segment);
            manager
        };
        Stepped::start(prepare, |manager| act(manager, place))
    };
    at_every_instruction(start, |stepped, count| kill_and_take(&segment, &manager, stepped, place, count));
}

/// A reader that was killed holding lock 0.
fn dead_reader(segment: &Segment) {
    let ready = &board(1)[0];
    let child = fork(|| {
        let manager = segment.open();
        let _ = manager.lock_shared(0).unwrap();
        ready.store(1, Ordering::Release);
        super::support::process::sleep_until_killed();
    });
    eventually("it reads", || ready.load(Ordering::Acquire) == 1);
    child.kill();
}

fn nobody_reads(segment: &Segment) {
    segment.write_number_at(layout::word(0), 0);
}

fn somebody_has_read(segment: &Segment) {
    segment.write_number_at(layout::word(0), STARVING);
}

#[test]
fn the_first_reader() {
    alone!({ step_through(0, nobody_reads, read) });
}

#[test]
fn a_later_reader() {
    alone!({ step_through(0, somebody_has_read, read) });
}

#[test]
fn a_reader_in_the_table() {
    alone!({
        step_through(3, nobody_reads, read);
        step_through(3, somebody_has_read, read);
    });
}

#[test]
fn a_reader_that_is_told_of_a_death() {
    alone!({ step_through(0, |segment| segment.write_number_at(layout::word(0), OWNER_DIED), read) });
}

#[test]
fn a_writer_that_drains() {
    alone!({ step_through(0, somebody_has_read, write) });
}

#[test]
fn a_writer_that_drains_with_a_death_due() {
    alone!({ step_through(0, |segment| segment.write_number_at(layout::word(0), OWNER_DIED | STARVING), write) });
}

#[test]
fn a_writer_that_drains_past_a_dead_reader() {
    alone!({
        step_through(0, dead_reader, write);
        step_through(3, dead_reader, write);
    });
}

#[test]
fn a_downgrade() {
    let downgrade = |manager: &ShmManager, place: &AtomicU32| {
        let _ = manager.lock(0).unwrap();
        place.store(WRITING, Ordering::Relaxed);
        place.store(OUTSIDE, Ordering::Relaxed);
        manager.downgrade_lock(0).unwrap();
        place.store(READING, Ordering::Relaxed);
        place.store(OUTSIDE, Ordering::Relaxed);
        manager.unlock_shared(0).unwrap();
    };
    alone!({
        step_through(0, nobody_reads, downgrade);
        step_through(3, nobody_reads, downgrade);
    });
}

/// A reader, or writer, that waits, and what it was told.
struct Waiter {
    child: Child,
    told: &'static AtomicU32,
}

impl Waiter {
    fn start(segment: &Segment, wait: impl FnOnce(&ShmManager) -> Acquired) -> Self {
        let told = &board(1)[0];
        let child = fork(|| {
            let acquired = wait(&segment.open());
            told.store(1 + u32::from(acquired == Acquired::OwnerDied), Ordering::Release);
        });
        child.until_it_waits();
        Self { child, told }
    }

    fn was_told(self) -> bool {
        self.child.succeeds();
        self.told.load(Ordering::Acquire) == 2
    }
}

fn read_after_a_wait(manager: &ShmManager) -> Acquired {
    let acquired = manager.timed_lock_shared(0, LONG).unwrap();
    manager.unlock_shared(0).unwrap();
    acquired
}

fn write_after_a_wait(manager: &ShmManager) -> Acquired {
    let acquired = manager.timed_lock(0, LONG).unwrap();
    manager.unlock(0).unwrap();
    acquired
}

#[test]
fn an_unlock_for_which_a_reader_starves() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let waiters = RefCell::new(Vec::new());
        let start = || {
            let lock = || {
                let manager = opened_and_used(&segment);
                let _ = manager.lock(0).unwrap();
                manager
            };
            let holder = Stepped::start(lock, |manager| manager.unlock(0).unwrap());
            let waiter = Waiter::start(&segment, read_after_a_wait);
            let cells = || (0..4).map(|index| segment.number_at(layout::cell(0, index)));
            eventually("it starves", || cells().any(|cell| cell & STARVING != 0));
            waiters.borrow_mut().push(waiter);
            holder
        };
        at_every_instruction(start, |stepped, count| {
            let waiter = waiters.borrow_mut().pop().unwrap();
            let had_it = is_due(segment.number_at(layout::word(0)));
            stepped.kill();
            assert_eq!(waiter.was_told(), had_it, "after {count} instructions");
            let due = if had_it { Acquired::OwnerDied } else { Acquired::Clean };
            assert_eq!(manager.timed_lock(0, LONG).unwrap(), due, "after {count} instructions");
            manager.unlock(0).unwrap();
        });
    });
}

#[test]
fn an_unlock_for_which_a_writer_waits() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let waiters = RefCell::new(Vec::new());
        let start = || {
            let lock = || {
                let manager = opened_and_used(&segment);
                let _ = manager.lock_shared(0).unwrap();
                manager
            };
            let reader = Stepped::start(lock, |manager| manager.unlock_shared(0).unwrap());
            waiters.borrow_mut().push(Waiter::start(&segment, write_after_a_wait));
            reader
        };
        at_every_instruction(start, |stepped, count| {
            let waiter = waiters.borrow_mut().pop().unwrap();
            stepped.kill();
            assert!(!waiter.was_told(), "after {count} instructions");
            assert_eq!(manager.timed_lock_shared(0, LONG).unwrap(), Acquired::Clean, "after {count} instructions");
            manager.unlock_shared(0).unwrap();
        });
    });
}
