// SPDX-License-Identifier: MIT OR Apache-2.0
//! The walk that finds deadlocks: none is missed once all have published what they wait for, and none is found that was
//! not there.

use loom::sync::Arc;
use loom::sync::atomic::fence;
use loom::thread;

use super::atomic::{AtomicU64, Ordering};
use super::waits_for::{Graph, confirm, search};
use super::{check_as_loaded_within, fails};

const THREADS: usize = 3;

/// How threads keep to the rules.
#[derive(Debug, Clone, Copy)]
struct Rules {
    /// Between publishing and walking stands a fence.
    fences: bool,
    /// A cycle is looked at twice more before it is believed.
    confirms: bool,
    /// The victim clears its wait before the next may decide.
    clears_first: bool,
    /// A wait that was cleared and published again is another.
    numbers_waits: bool,
}

const RULES: Rules = Rules { fences: true, confirms: true, clears_first: true, numbers_waits: true };

/// Locks, who holds them, and what each thread waits for: a number and the lock plus one, as in a thread record.
struct Table {
    rules: Rules,
    holders: Vec<AtomicU64>,
    waits: Vec<AtomicU64>,
    detector: AtomicU64,
}

type Thread = u64;

impl Graph for Table {
    fn blockers(&self, waiter: Thread, lock: u32, visit: &mut dyn FnMut(Thread)) {
        let holder = self.holders[lock as usize].load(Ordering::Acquire);
        if holder != 0 && holder != waiter {
            visit(holder);
        }
    }

    fn waits_for(&self, holder: Thread) -> Option<(u32, u64)> {
        let raw = self.waits[holder as usize - 1].load(Ordering::Acquire);
        Some(((raw as u32).checked_sub(1)?, raw))
    }
}

impl Table {
    /// Thread `n + 1` holds lock `n`, for so many threads.
    fn of(threads: u64, rules: Rules) -> Arc<Self> {
        let holder = |lock| if lock < threads { lock + 1 } else { 0 };
        Arc::new(Self {
            rules,
            holders: (0..THREADS as u64).map(|lock| AtomicU64::new(holder(lock))).collect(),
            waits: (0..THREADS).map(|_| AtomicU64::new(0)).collect(),
            detector: AtomicU64::new(0),
        })
    }

    /// For the `number`th time in its life, `me` waits, now for `lock`.
    fn publish(&self, me: Thread, lock: u32, number: u64) {
        let number = if self.rules.numbers_waits { number } else { 0 };
        self.waits[me as usize - 1].store(number << 32 | u64::from(lock + 1), Ordering::Release);
        if self.rules.fences {
            fence(Ordering::SeqCst);
        }
    }

    fn withdraw(&self, me: Thread, number: u64) {
        let number = if self.rules.numbers_waits { number } else { 0 };
        self.waits[me as usize - 1].store(number << 32, Ordering::Release);
    }

    /// Whether the wait of `me` for `lock` would never end.
    fn deadlock(&self, me: Thread, lock: u32) -> bool {
        if search(self, me, lock).is_none()
            || self.detector.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            return false;
        }
        let is_one = !self.rules.confirms || confirm(self, me, lock).is_some();
        if is_one && self.rules.clears_first {
            self.withdraw(me, 1);
        }
        let _ = self.detector.compare_exchange(me, 0, Ordering::Release, Ordering::Relaxed);
        is_one
    }

    fn release(&self, me: Thread, lock: u32) {
        let released = self.holders[lock as usize].compare_exchange(me, 0, Ordering::Release, Ordering::Relaxed);
        assert_eq!(released, Ok(me));
    }
}

/// Each of a ring holds a lock, and wants the next one's.
fn a_ring(length: u64, preemptions: usize, rules: Rules) {
    check_as_loaded_within(preemptions, move || {
        let table = Table::of(length, rules);
        let wait = move |table: &Table, me: Thread| {
            let wanted = (me % length) as u32;
            table.publish(me, wanted, 1);
            table.deadlock(me, wanted)
        };
        let others: Vec<_> = (2..=length)
            .map(|me| {
                let table = Arc::clone(&table);
                thread::spawn(move || wait(&table, me))
            })
            .collect();
        let first = wait(&table, 1);
        let victims = others.into_iter().map(|other| other.join().unwrap()).chain([first]).filter(|&is_one| is_one);
        match victims.count() {
            // Each looks once here. Who found the detector taken looks again a slice later.
            0 => panic!("missed"),
            1 => {}
            more => panic!("{more} victims"),
        }
    });
}

/// Thread 1 waits for lock 1 while others do what closes no cycle at any instant.
fn no_ring(preemptions: usize, rules: Rules, others: fn(&Table)) {
    check_as_loaded_within(preemptions, move || {
        let table = Table::of(3, rules);
        let theirs = Arc::clone(&table);
        let others = thread::spawn(move || others(&theirs));
        table.publish(1, 1, 1);
        assert!(!table.deadlock(1, 1), "a deadlock that was none");
        others.join().unwrap();
    });
}

/// Thread 2 gives lock 1 back before it waits for lock 0.
fn gives_back_and_waits(rules: Rules) {
    no_ring(6, rules, |table| {
        table.release(2, 1);
        table.publish(2, 0, 1);
        assert!(!table.deadlock(2, 0), "a deadlock that was none");
    });
}

/// Thread 2 waits for lock 2 only while thread 3, which holds that, waits for nothing.
fn takes_turns_at_waiting(rules: Rules) {
    no_ring(6, rules, |table| {
        for number in 1..4 {
            table.publish(2, 2, number);
            table.withdraw(2, number);
            table.publish(3, 0, number);
            table.withdraw(3, number);
        }
    });
}

#[test]
fn who_gave_its_lock_back_is_in_no_cycle() {
    gives_back_and_waits(RULES);
}

#[test]
fn who_waits_at_different_times_is_in_no_cycle() {
    takes_turns_at_waiting(RULES);
}

#[test]
fn without_the_confirmation_a_lock_that_was_given_back_closes_a_cycle() {
    fails!("a deadlock that was none", gives_back_and_waits(Rules { confirms: false, ..RULES }));
}

#[test]
fn without_a_number_a_wish_made_again_closes_a_cycle() {
    fails!("a deadlock that was none", takes_turns_at_waiting(Rules { numbers_waits: false, ..RULES }));
}

#[test]
fn of_three_in_a_ring_one_gives_way() {
    a_ring(3, 2, RULES);
}

#[test]
fn of_two_who_wait_for_each_other_one_gives_way() {
    a_ring(2, 8, RULES);
}

#[test]
fn without_the_fence_a_deadlock_is_missed() {
    fails!("missed", a_ring(2, 8, Rules { fences: false, ..RULES }));
}

#[test]
fn a_victim_that_withdraws_late_is_not_the_only_one() {
    fails!("2 victims", a_ring(2, 8, Rules { clears_first: false, ..RULES }));
}
