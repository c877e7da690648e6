// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! A waiter that is killed around its wake-up: does the next one get the lock that is free?
//!
//! A holder unlocks, which wakes the first of two waiters, and kills it. Where it dies with the wake-up in its hands, and
//! nobody else looks again, the second sleeps beside a free lock for ever. The moment of the kill is another one each
//! time; two processors and a spread of a few microseconds meet the gap in some rounds and miss it in others.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::contenders::{Contender, LIBPOD, NATIVE};
use crate::method::{Contended, Entry, Run};
use crate::peers;
use crate::processes::{Board, Child, Words, now, pin, spawn, until};
use crate::results::Quantity;

const STRANDED: Quantity = Quantity::less("stranded", "of 400");
const TRIALS: u64 = 400;
/// Far more than any contender takes to notice; a stranded waiter is woken by nothing.
const STRANDED_AFTER: Duration = Duration::from_millis(250);
/// So many trials go on beside each other, because a stranded waiter takes its time.
const BESIDE: u64 = 8;

const ATTACHED: usize = 0;
const FIRST_HAS_IT: usize = 1;
const SECOND_HAS_IT: usize = 2;

pub fn run(run: &mut Run) {
    let trials = run.effort.pick(16, TRIALS);
    let contenders = Contender::named(&[NATIVE, LIBPOD, peers::RAW]);
    let entries = contenders.iter().map(|contender| {
        Entry::new(contender.name, move || stranded_of(contender, trials) as f64 * TRIALS as f64 / trials as f64)
    });
    run.rounds("killed-waiter", "a waiter is killed at its wake-up", &[STRANDED], 1, Contended::No, entries.collect());
}

fn stranded_of(contender: &Contender, trials: u64) -> u64 {
    let stranded = Words::new(BESIDE as usize);
    let some = |first: u64| {
        let count = (first..trials).step_by(BESIDE as usize).filter(|&trial| strands(contender, trial)).count();
        stranded[first as usize].store(count as u64, Ordering::Release);
    };
    let children: Vec<_> = (0..BESIDE).map(|first| spawn(|| some(first))).collect();
    children.into_iter().for_each(Child::join);
    stranded.iter().map(|count| count.load(Ordering::Acquire)).sum()
}

/// Whether the second waiter sleeps on although the lock is free.
fn strands(contender: &Contender, trial: u64) -> bool {
    let (fresh, board) = (contender.fresh(), Board::new(3));
    let lock = fresh.attach();
    assert_eq!(lock.lock(), 0);
    let waiter = |has_it: usize| {
        let fresh = &fresh;
        let board = &board;
        move || {
            // Both beside the holder's processor, so that the woken one has not run yet when it is killed.
            pin(0);
            let lock = fresh.attach();
            board[ATTACHED].fetch_add(1, Ordering::AcqRel);
            let code = lock.lock();
            board[has_it].store(1, Ordering::Release);
            assert!(code >= 0, "{code}");
            lock.unlock();
        }
    };
    let first = spawn(waiter(FIRST_HAS_IT));
    until(&board[ATTACHED], 1);
    first.until_it_sleeps();
    let second = spawn(waiter(SECOND_HAS_IT));
    until(&board[ATTACHED], 2);
    second.until_it_sleeps();
    lock.unlock();
    // Takes the lock again before the woken waiter does, which is what a busy holder does.
    let again = lock.lock();
    for _ in 0..trial % 20 * 50 {
        std::hint::spin_loop();
    }
    first.kill_and_wait();
    assert!(again >= 0);
    lock.unlock();
    let unlocked = now();
    while board[SECOND_HAS_IT].load(Ordering::Acquire) == 0 {
        if now() - unlocked > STRANDED_AFTER.as_nanos() as u64 {
            second.kill_and_wait();
            return true;
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    second.join();
    false
}
