// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! From the SIGKILL of a holder to the lock in a waiter's hands, as a distribution.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::contenders::{Contender, Death, LIBPOD, NATIVE};
use crate::machine;
use crate::method::{Contended, Entry, ROUNDS, Run};
use crate::peers;
use crate::processes::{Board, now, spawn, until};
use crate::progress;
use crate::results::Quantity;

const TIME: Quantity = Quantity::less("SIGKILL to the next holder", "ms");
const BIG: u64 = 2 << 30;
/// By then a waiter sleeps as it does for long.
const SETTLED: Duration = Duration::from_millis(12);
/// The kills are spread over that: a waiter may look now and then.
const SPREAD_US: u64 = 5000;
/// A lock that is not passed on by then is not passed on.
const NEVER: Duration = Duration::from_secs(1);

const HELD: usize = 0;
const WAITS: usize = 1;
const ACQUIRED: usize = 2;

pub fn run(run: &mut Run) {
    let (passed_on, stays): (Vec<_>, Vec<_>) =
        Contender::between_processes().into_iter().partition(|contender| contender.death != Death::Stays);
    let deaths = run.effort.pick(7, 150);
    let small = "a small holder";
    let entry = |contender: Contender, memory: u64| {
        Entry::of_several(contender.name, move |round| vec![death(&contender, round as u64, memory)])
    };
    let entries = passed_on.into_iter().map(|contender| entry(contender, 0));
    run.rounds("recovery", small, &[TIME], deaths, Contended::No, entries.collect());
    // Once is enough to show it.
    let entries = stays.into_iter().map(|contender| entry(contender, 0));
    run.rounds("recovery", small, &[TIME], 1, Contended::No, entries.collect());

    if !machine::has_memory_for(BIG) {
        progress::skipped("the death of a holder of 2 GiB", "the machine has not enough memory to spare");
        return;
    }
    let big = Contender::named(&[NATIVE, LIBPOD, peers::RAW, peers::OFD]);
    let rounds = run.effort.pick(1, ROUNDS);
    let entries = big.into_iter().map(|contender| entry(contender, BIG));
    run.rounds("recovery", "a holder of 2 GiB", &[TIME], rounds, Contended::No, entries.collect());
}

/// Milliseconds from the kill of a holder with that much memory; infinite if nobody gets the lock.
fn death(contender: &Contender, round: u64, memory: u64) -> f64 {
    let (fresh, board) = (contender.fresh(), Board::new(3));
    let holder = spawn(|| {
        let touched = vec![1u8; memory as usize];
        let lock = fresh.attach();
        assert_eq!(lock.lock(), 0);
        board[HELD].store(1, Ordering::Release);
        loop {
            std::hint::black_box(&touched);
            std::thread::sleep(Duration::from_secs(60));
        }
    });
    until(&board[HELD], 1);
    let waiter = spawn(|| {
        let lock = fresh.attach();
        board[WAITS].store(1, Ordering::Release);
        let code = lock.lock();
        board[ACQUIRED].store(now(), Ordering::Release);
        assert_eq!(code > 0, contender.death == Death::Told, "{}: {code}", contender.name);
        lock.unlock();
    });
    until(&board[WAITS], 1);
    std::thread::sleep(SETTLED + Duration::from_micros(round * 797 % SPREAD_US));
    let killed = now();
    holder.kill();
    while board[ACQUIRED].load(Ordering::Acquire) == 0 {
        if now() - killed > NEVER.as_nanos() as u64 {
            waiter.kill_and_wait();
            holder.kill_and_wait();
            return f64::INFINITY;
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    waiter.join();
    holder.kill_and_wait();
    (board[ACQUIRED].load(Ordering::Acquire) - killed) as f64 / 1e6
}
