// SPDX-License-Identifier: MIT OR Apache-2.0
//! Killed after any instruction of a call that changes something, a process loses no lock and no id, and the next
//! holder is told exactly when it died inside.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};

use lock_manager::{Acquired, Manager, ShmManager};

use super::LONG;
use super::support::alone::alone;
use super::support::native_layout::{self, OWNER_DIED, WAITERS};
use super::support::step::{Step, Stepped, at_every_instruction, opened_and_used};
use super::support::{Segment, board, errno_of, fork};

/// Where the stepped child is, as it says itself.
const OUTSIDE: u32 = 0;
const INSIDE: u32 = 1;

/// No errno.
const UNKNOWN: u32 = u32::MAX;

fn lock_and_unlock(manager: &ShmManager, place: &AtomicU32) {
    let _ = manager.lock(0).unwrap();
    place.store(INSIDE, Ordering::Relaxed);
    place.store(OUTSIDE, Ordering::Relaxed);
    manager.unlock(0).unwrap();
}

fn holder(segment: &Segment, id: u32) -> u32 {
    native_layout::entry_of(segment.number_at(native_layout::word(id)))
}

/// Kills the stepped child, after which the lock is had at once, and the death is told if it had the lock.
fn kill_and_take(segment: &Segment, manager: &ShmManager, stepped: Stepped, place: &AtomicU32, count: u64) {
    let had_it = holder(segment, 0) != 0;
    let was_inside = place.swap(OUTSIDE, Ordering::Relaxed) == INSIDE;
    assert!(had_it || !was_inside, "the lock was lost while it was held, after {count} instructions");
    stepped.kill();
    let acquired = manager.try_lock(0);
    let due = if had_it { Acquired::OwnerDied } else { Acquired::Clean };
    assert_eq!(acquired.as_ref().ok(), Some(&due), "after {count} instructions: {acquired:?}");
    manager.unlock(0).unwrap();
    assert_eq!(manager.try_lock(0).unwrap(), Acquired::Clean, "told twice, after {count} instructions");
    manager.unlock(0).unwrap();
    assert_eq!(manager.locks_held().unwrap(), [0; 0], "after {count} instructions");
}

#[test]
fn of_lock_and_unlock_no_lock_is_lost_and_the_death_is_told_exactly_when_it_is_due() {
    alone!({
        let (segment, place) = (Segment::native(64), &board(1)[0]);
        let manager = segment.open();
        at_every_instruction(
            || Stepped::start(|| opened_and_used(&segment), |manager| lock_and_unlock(manager, place)),
            |stepped, count| kill_and_take(&segment, &manager, stepped, place, count),
        );
    });
}

#[test]
fn of_a_threads_first_lock_no_lock_is_lost() {
    alone!({
        let (segment, place) = (Segment::native(64), &board(1)[0]);
        let manager = segment.open();
        at_every_instruction(
            || Stepped::start(|| segment.open(), |manager| lock_and_unlock(manager, place)),
            |stepped, count| kill_and_take(&segment, &manager, stepped, place, count),
        );
    });
}

#[test]
fn of_a_take_over_the_news_is_not_lost() {
    alone!({
        let (segment, place) = (Segment::native(64), &board(1)[0]);
        let manager = segment.open();
        let with_a_dead_holder = || {
            segment.holder_of(&[0]).kill();
            Stepped::start(|| opened_and_used(&segment), |manager| lock_and_unlock(manager, place))
        };
        // The word is a dead one's until it is the stepped child's, so that the death is due until that one unlocks.
        at_every_instruction(with_a_dead_holder, |stepped, count| {
            kill_and_take(&segment, &manager, stepped, place, count);
        });
    });
}

#[test]
fn of_an_unlock_with_a_waiter_the_waiter_gets_the_lock_and_is_told_exactly_when_it_is_due() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let told = &board(1)[0];
        let waiters = RefCell::new(Vec::new());
        let start = || {
            let lock = || {
                let manager = opened_and_used(&segment);
                let _ = manager.lock(0).unwrap();
                manager
            };
            // The waiter sleeps before the first step; the holder, stopped until then, is not robbed.
            let holder = Stepped::start(lock, |manager| manager.unlock(0).unwrap());
            let waiter = fork(|| {
                let manager = segment.open();
                let acquired = manager.timed_lock(0, LONG).unwrap();
                told.store(1 + u32::from(acquired == Acquired::OwnerDied), Ordering::Release);
                manager.unlock(0).unwrap();
            });
            waiter.until_it_waits();
            assert_ne!(segment.number_at(native_layout::word(0)) & WAITERS, 0);
            waiters.borrow_mut().push((waiter, self::holder(&segment, 0)));
            holder
        };
        at_every_instruction(start, |stepped, count| {
            let (waiter, entry) = waiters.borrow_mut().pop().unwrap();
            let had_it = holder(&segment, 0) == entry;
            stepped.kill();
            waiter.succeeds();
            assert_eq!(told.swap(0, Ordering::AcqRel) == 2, had_it, "after {count} instructions");
            assert_eq!(manager.try_lock(0).unwrap(), Acquired::Clean, "told twice, after {count} instructions");
            manager.unlock(0).unwrap();
        });
    });
}

#[test]
fn of_allocate_and_free_at_most_one_id_is_lost_and_none_is_given_twice() {
    // The last of a word of the bitmap, so that the summary changes, too.
    const IN_USE: u32 = 63;
    alone!({
        let segment = Segment::native(128);
        let manager = segment.open();
        for _ in 0..IN_USE {
            manager.allocate_lock().unwrap();
        }
        let allocate_and_free = |manager: &ShmManager| {
            let id = manager.allocate_lock().unwrap();
            assert!(id >= IN_USE);
            manager.free_lock(id).unwrap();
        };
        at_every_instruction(
            || Stepped::start(|| opened_and_used(&segment), allocate_and_free),
            |stepped, count| {
                stepped.kill();
                let words = [0, 64].map(|first| segment.number_at(native_layout::bitmap(first)));
                let is_allocated = |&id: &u32| words[id as usize / 64] & 1 << (id % 64) != 0;
                let allocated: Vec<u32> = (0..128).filter(is_allocated).collect();
                assert!((0..IN_USE).all(|id| allocated.contains(&id)), "{allocated:?} after {count} instructions");
                let leaked = allocated.len() as u32 - IN_USE;
                assert!(leaked <= 1, "{allocated:?} after {count} instructions");
                assert_eq!(manager.available_locks().unwrap(), 128 - IN_USE - leaked);
                // The others can all be had, once each, whatever the summary says; then what was lost is given back.
                let mut others: Vec<u32> = (allocated.len()..128).map(|_| manager.allocate_lock().unwrap()).collect();
                assert_eq!(manager.allocate_lock().unwrap_err().errno(), libc::ENOLCK);
                others.extend(&allocated);
                others.sort_unstable();
                assert!(others.iter().copied().eq(0..128), "{others:?} after {count} instructions");
                (IN_USE..128).for_each(|id| manager.free_lock(id).unwrap());
            },
        );
    });
}

/// Retired at any instruction of a lock call, the segment lets the caller have the lock or refuses it, and then the lock
/// is as it was before.
#[test]
fn of_a_lock_call_the_removal_is_heard_of_or_comes_after() {
    alone!({
        for is_death_due in [false, true] {
            let (segment, outcome) = (Segment::native(64), &board(1)[0]);
            let manager = segment.open();
            let start = || {
                segment.write_word_at(native_layout::AT_RETIRED, 0);
                outcome.store(UNKNOWN, Ordering::Release);
                if is_death_due {
                    segment.holder_of(&[0]).kill();
                    manager.repair_lock(0).unwrap();
                }
                Stepped::start(
                    || opened_and_used(&segment),
                    |manager| outcome.store(errno_of(manager.try_lock(0)) as u32, Ordering::Release),
                )
            };
            let (mut had, mut refused) = (0, 0);
            at_every_instruction(start, |stepped, count| {
                segment.write_word_at(native_layout::AT_RETIRED, native_layout::REMOVED);
                if outcome.load(Ordering::Acquire) == UNKNOWN {
                    stepped.finish();
                }
                match outcome.load(Ordering::Acquire) as i32 {
                    0 => {
                        had += 1;
                        assert_ne!(holder(&segment, 0), 0, "after {count} instructions");
                    }
                    libc::ESTALE => {
                        refused += 1;
                        let left = segment.number_at(native_layout::word(0));
                        let due = if is_death_due { OWNER_DIED } else { 0 };
                        assert_eq!(left & !WAITERS, due, "after {count} instructions");
                    }
                    other => panic!("{other} after {count} instructions"),
                }
                stepped.kill();
                segment.write_word_at(native_layout::AT_RETIRED, 0);
                if manager.try_lock(0).is_ok() {
                    manager.unlock(0).unwrap();
                }
            });
            assert!(had > 0 && refused > 0, "{had} had it, {refused} were refused");
        }
    });
}

/// Opening is too long for each instruction: each system call from both sides, and instructions between them.
#[test]
fn of_opening_nothing_is_left() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let start = || Stepped::start(|| (), |()| lock_and_unlock(&segment.open(), &board(1)[0]));
        let check = |stepped: Stepped, count: u64| {
            stepped.kill();
            assert_eq!(manager.info().unwrap().attached, 1, "after {count} steps");
            let _ = manager.try_lock(0).unwrap();
            manager.unlock(0).unwrap();
            fork(|| assert_eq!(segment.open().try_lock(1).unwrap(), Acquired::Clean)).succeeds();
            assert_eq!(manager.try_lock(1).unwrap(), Acquired::OwnerDied);
            manager.unlock(1).unwrap();
        };
        let whole = start();
        let calls = (1..).find(|_| whole.system_call() == Step::Over).unwrap();
        check(whole, calls);
        for count in 0..calls {
            let stepped = start();
            let _over = (0..count).any(|_| stepped.system_call() == Step::Over);
            check(stepped, count);
        }
        at_every_instruction(start, check);
    });
}
