// SPDX-License-Identifier: MIT OR Apache-2.0
//! One lock: it has one holder, who hears of the death of the last, and nobody sleeps on while it is free.

use loom::sync::Arc;
use loom::thread;

use super::atomic::Ordering;
use super::lock::{Lock, RULES, Rules};
use super::{check_within, fails};

/// A thread of the model for each body.
fn together(lock: &Arc<Lock>, bodies: &[fn(&Lock)]) {
    let (mine, others) = bodies.split_first().unwrap();
    let threads: Vec<_> = others
        .iter()
        .map(|&body| {
            let lock = Arc::clone(lock);
            thread::spawn(move || body(&lock))
        })
        .collect();
    mine(lock);
    for thread in threads {
        thread.join().unwrap();
    }
    lock.assert_at_rest();
}

fn two_take_turns(rules: Rules) {
    check_within(4, move || {
        let twice = |lock: &Lock| (0..2).for_each(|_| lock.turn(0));
        let once: fn(&Lock) = |lock| lock.turn(1);
        together(&Lock::new(rules), &[twice, once]);
    });
}

fn three_take_turns(rules: Rules) {
    check_within(3, move || {
        together(&Lock::new(rules), &[|lock| lock.turn(0), |lock| lock.turn(1), |lock| lock.turn(2)]);
    });
}

fn a_waiter_leaves(rules: Rules) {
    check_within(2, move || {
        let lock = Lock::new(rules);
        let holder: fn(&Lock) = |lock| {
            lock.turn(0);
            let has_it = lock.lock(0);
            lock.late[1].store(true, Ordering::Relaxed);
            lock.futex.end_slices_of(&[1]);
            if has_it {
                lock.unlock(0);
            }
        };
        together(&lock, &[holder, |lock| lock.turn(1), |lock| lock.turn(2)]);
    });
}

fn a_holder_dies(rules: Rules) {
    check_within(2, move || {
        let lock = Lock::new(rules);
        let holder: fn(&Lock) = |lock| {
            if lock.lock(0) {
                lock.die_holding(0, &[1, 2]);
            }
        };
        together(&lock, &[holder, |lock| lock.turn(1), |lock| lock.turn(2)]);
    });
}

fn a_thread_ends(rules: Rules) {
    check_within(2, move || {
        let lock = Lock::new(rules);
        let holder: fn(&Lock) = |lock| {
            if lock.lock(0) {
                lock.end_holding(0);
            }
        };
        together(&lock, &[holder, |lock| lock.turn(1), |lock| lock.turn(2)]);
    });
}

#[test]
fn two_exclude_each_other_and_none_sleeps_on() {
    two_take_turns(RULES);
}

#[test]
fn three_exclude_each_other_and_none_sleeps_on() {
    three_take_turns(RULES);
}

#[test]
fn who_leaves_takes_no_wake_up_along() {
    a_waiter_leaves(RULES);
}

#[test]
fn of_a_death_the_next_holder_hears_and_no_other() {
    a_holder_dies(RULES);
}

#[test]
fn of_a_threads_end_the_next_holder_hears_and_no_other() {
    a_thread_ends(RULES);
}

#[test]
fn a_repair_beside_a_takeover_tells_of_the_death_once() {
    check_within(3, || {
        let lock = Lock::new(RULES);
        let holder: fn(&Lock) = |lock| {
            if lock.lock(0) {
                lock.die_holding(0, &[1]);
            }
        };
        together(&lock, &[holder, |lock| lock.turn(1), Lock::repair]);
    });
}

#[test]
fn without_release_at_unlock_the_next_holder_sees_what_was_before() {
    fails!("Causality violation", two_take_turns(Rules { unlock: Ordering::Relaxed, ..RULES }));
}

#[test]
fn without_a_wake_up_at_unlock_one_sleeps_on() {
    fails!("deadlock", two_take_turns(Rules { wakes: false, ..RULES }));
}

#[test]
fn without_a_word_for_other_sleepers_one_sleeps_on() {
    fails!("deadlock", three_take_turns(Rules { says_that_others_sleep: false, ..RULES }));
}

#[test]
fn without_passing_a_wake_up_on_one_sleeps_on() {
    fails!("deadlock", a_waiter_leaves(Rules { passes_on: false, ..RULES }));
}

#[test]
fn a_lock_that_stays_reserved_for_nobody_is_lost() {
    fails!("deadlock", a_waiter_leaves(Rules { unreserves: false, ..RULES }));
}

#[test]
fn a_takeover_of_another_word_than_was_judged_makes_two_holders() {
    fails!("two holders", a_holder_dies(Rules { takes_over_what_was_judged: false, ..RULES }));
}
