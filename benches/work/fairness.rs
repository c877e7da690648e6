// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Fifty processes that all want one lock, 1 ms inside, without a pause: who gets how many turns, and who waits how long.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::contended::Inside;
use crate::contenders::{Contender, LIBPOD, NATIVE};
use crate::method::{Contended, Entry, ROUNDS, Run, quantile};
use crate::peers;
use crate::processes::{Board, Child, GO, STOP, Words, now, pin, spawn, until};
use crate::results::Quantity;

const PROCESSES: usize = 50;
const QUANTITIES: [Quantity; 6] = [
    Quantity::more("Jain's index", ""),
    Quantity::more("turns", "1/s"),
    Quantity::less("wait p50", "ms"),
    Quantity::less("wait p99", "ms"),
    Quantity::less("wait p99.9", "ms"),
    Quantity::less("longest wait", "ms"),
];

const READY: usize = 0;
const STATE: usize = 1;

pub fn run(run: &mut Run) {
    let time = Duration::from_millis(run.effort.pick(150, 1500));
    let contenders =
        Contender::named(&[NATIVE, LIBPOD, peers::RAW, peers::SEMAPHORE, peers::SEMOP, peers::OFD, peers::FLOCK]);
    let entries = contenders.iter().map(|contender| Entry::of_several(contender.name, move |_| crowd(contender, time)));
    run.rounds("fairness", "50 processes; 1 ms inside", &QUANTITIES, ROUNDS, Contended::Yes, entries.collect());
}

/// A wait that the end of the time cuts short counts as long as it has lasted until then.
fn crowd(contender: &Contender, time: Duration) -> Vec<f64> {
    // One holder at a time, a millisecond each.
    let most = 2 * time.as_millis() as usize;
    let (fresh, board) = (contender.fresh(), Board::new(2));
    let (turns, waits) = (Words::new(PROCESSES), Words::new(PROCESSES * most));
    let worker = |number: usize| {
        pin(number);
        let lock = fresh.attach();
        board[READY].fetch_add(1, Ordering::AcqRel);
        until(&board[STATE], GO);
        let own = &waits[number * most..(number + 1) * most];
        for wait in own {
            let asked = now();
            assert_eq!(lock.lock(), 0);
            wait.store(now() - asked, Ordering::Relaxed);
            let stopped = board[STATE].load(Ordering::Relaxed) == STOP;
            if !stopped {
                Inside::Millisecond.work();
                turns[number].fetch_add(1, Ordering::Relaxed);
            }
            assert_eq!(lock.unlock(), 0);
            if stopped {
                return;
            }
        }
    };
    let children: Vec<_> = (0..PROCESSES).map(|number| spawn(|| worker(number))).collect();
    until(&board[READY], PROCESSES as u64);
    let start = now();
    board[STATE].store(GO, Ordering::Release);
    std::thread::sleep(time);
    board[STATE].store(STOP, Ordering::Release);
    let seconds = (now() - start) as f64 / 1e9;
    children.into_iter().for_each(Child::join);

    let turns: Vec<f64> = turns.iter().map(|turns| turns.load(Ordering::Relaxed) as f64).collect();
    let (sum, squares) = (turns.iter().sum::<f64>(), turns.iter().map(|turns| turns * turns).sum::<f64>());
    let mut waits: Vec<f64> =
        waits.iter().map(|wait| wait.load(Ordering::Relaxed) as f64 / 1e6).filter(|&wait| wait > 0.0).collect();
    let mut waited = vec![sum * sum / (PROCESSES as f64 * squares), sum / seconds];
    waited.extend([0.5, 0.99, 0.999, 1.0].map(|share| quantile(&mut waits, share)));
    waited
}
