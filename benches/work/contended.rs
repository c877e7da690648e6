// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Processes that all want one lock, without a pause: how many turns they have together.
//!
//! Every worker is pinned, the first to the first processor and so on in turn. Inside, each raises a counter that all
//! share, and then works for as long as the case says; at the end the counter tells whether the lock kept them apart.

use std::hint::black_box;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::AGAIN;
use crate::contenders::{Contender, LIBPOD, Lock, NATIVE, Scope};
use crate::method::{Contended, Effort, Entry, ROUNDS, Run, nanoseconds};
use crate::peers;
use crate::processes::{Board, Child, STOP, WAIT, now, pin, spawn, turns_in, until};
use crate::results::Quantity;

const TURNS: Quantity = Quantity::more("turns", "turns/s");

/// What a holder does beside raising the counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inside {
    Nothing,
    FiftyNanoseconds,
    Microsecond,
    HundredMicroseconds,
    Millisecond,
}

impl Inside {
    pub const ALL: [Self; 5] =
        [Self::Nothing, Self::FiftyNanoseconds, Self::Microsecond, Self::HundredMicroseconds, Self::Millisecond];

    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "0",
            Self::FiftyNanoseconds => "50 ns",
            Self::Microsecond => "1 µs",
            Self::HundredMicroseconds => "100 µs",
            Self::Millisecond => "1 ms",
        }
    }

    #[inline(always)]
    pub fn work(self) {
        match self {
            Self::Nothing => {}
            Self::FiftyNanoseconds => busy(50),
            Self::Microsecond => busy(1000),
            Self::HundredMicroseconds => until_ns_later(100_000),
            Self::Millisecond => until_ns_later(1_000_000),
        }
    }
}

fn until_ns_later(ns: u64) {
    let end = now() + ns;
    while now() < end {
        std::hint::spin_loop();
    }
}

/// Work without memory and without a pause instruction, whose length differs thirtyfold between processors.
#[inline(always)]
fn busy(ns: u32) {
    let mut value = 1u64;
    for _ in 0..u64::from(ns) * steps_in_1000_ns() / 1000 {
        value = black_box(value.wrapping_mul(3));
    }
    black_box(value);
}

fn steps_in_1000_ns() -> u64 {
    static STEPS: OnceLock<u64> = OnceLock::new();
    *STEPS.get_or_init(|| {
        const SAMPLE: u32 = 100_000;
        let step = || {
            let mut value = 1u64;
            nanoseconds(SAMPLE, || value = black_box(value.wrapping_mul(3)))
        };
        let fastest = (0..20).map(|_| step()).fold(f64::INFINITY, f64::min);
        (1000.0 / fastest) as u64
    })
}

pub fn run(run: &mut Run) {
    for inside in Inside::ALL {
        case(run, &Contender::locks(), 2, inside);
    }
    let crowd = Contender::named(&[
        NATIVE,
        LIBPOD,
        peers::RAW,
        peers::SEMAPHORE,
        peers::OFD,
        peers::FLOCK,
        peers::BOOST,
        peers::PARKING_LOT,
    ]);
    for inside in Inside::ALL {
        for &workers in crowds(run.effort, inside) {
            case(run, &crowd, workers, inside);
        }
    }
}

/// How many come beside the two; of the section that locks are compared by, more of them.
fn crowds(effort: Effort, inside: Inside) -> &'static [usize] {
    match (effort, inside) {
        (Effort::Quick, Inside::FiftyNanoseconds) => &[1, 16],
        (Effort::Quick, _) => &[],
        (Effort::Full, Inside::FiftyNanoseconds) => &[1, 4, 8, 16, 32, 64],
        (Effort::Full, _) => &[4, 16, 64],
    }
}

/// The name of a case: how many, and what they do inside.
pub fn case_name(workers: usize, inside: Inside) -> String {
    format!("{workers}; {} inside", inside.name())
}

fn case(run: &mut Run, contenders: &[Contender], workers: usize, inside: Inside) {
    let slice = run.effort.slice();
    let entry =
        |name: &str, contender: Contender| Entry::new(name, move || compete(&contender, workers, inside, slice));
    let mut entries: Vec<_> = contenders.iter().map(|contender| entry(contender.name, *contender)).collect();
    entries.push(entry(AGAIN, Contender::native()));
    let name = case_name(workers, inside);
    run.rounds("contended", &name, &[TURNS], ROUNDS, Contended::Yes, entries);
}

const STATE: usize = 0;
const READY: usize = 1;
const COUNTER: usize = 2;
const FIRST_WORKER: usize = 3;

/// Turns a second that all have together in that time.
pub fn compete(contender: &Contender, workers: usize, inside: Inside, slice: Duration) -> f64 {
    // Measured before there are children.
    steps_in_1000_ns();
    let fresh = contender.fresh();
    let board = Board::new(FIRST_WORKER + workers);
    let work = |number: usize, lock: Lock| worker(number, lock, inside, &board);
    let children: Vec<Child> = match contender.scope {
        Scope::Processes => (0..workers).map(|number| spawn(|| work(number, fresh.attach()))).collect(),
        Scope::Threads => vec![spawn(|| {
            let lock = fresh.attach();
            std::thread::scope(|threads| {
                for number in 0..workers {
                    threads.spawn(move || work(number, lock));
                }
            });
        })],
    };
    until(&board[READY], workers as u64);
    let turns = || (0..workers).map(|number| board[FIRST_WORKER + number].load(Ordering::Relaxed)).sum::<u64>();
    let (taken, nanoseconds) = turns_in(&board[STATE], slice, turns, children);
    let counted = board[COUNTER].load(Ordering::Relaxed);
    assert_eq!(counted, turns(), "{} let two in at once", contender.name);
    taken * 1e9 / nanoseconds
}

fn worker(number: usize, lock: Lock, inside: Inside, board: &Board) {
    pin(number);
    board[READY].fetch_add(1, Ordering::AcqRel);
    while board[STATE].load(Ordering::Acquire) == WAIT {
        std::thread::sleep(Duration::from_micros(100));
    }
    let (state, counter, own): (&AtomicU64, &AtomicU64, &AtomicU64) =
        (&board[STATE], &board[COUNTER], &board[FIRST_WORKER + number]);
    let (mut turns, mut failed) = (0, 0);
    while state.load(Ordering::Relaxed) != STOP {
        failed |= lock.lock();
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        inside.work();
        failed |= lock.unlock();
        turns += 1;
        own.store(turns, Ordering::Relaxed);
    }
    assert_eq!(failed, 0, "a call failed");
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(5);

    #[test]
    fn every_peer_of_this_machine_keeps_workers_apart() {
        let ours = Contender::ours();
        let peers = Contender::locks().into_iter().filter(|peer| ours.iter().all(|own| own.name != peer.name));
        for peer in peers {
            // A busy machine may give nobody a turn in so short a time.
            while compete(&peer, 3, Inside::FiftyNanoseconds, SHORT) == 0.0 {}
        }
    }

    #[test]
    #[should_panic = "a child of the benchmark failed"]
    fn what_keeps_nobody_apart_is_found() {
        compete(&Contender::named(&[peers::FLOOR])[0], 2, Inside::Microsecond, SHORT);
    }
}
