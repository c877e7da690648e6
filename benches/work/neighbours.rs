// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Two processes on two locks: what a lock beside the other's costs, and one far from it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::library::{Layout, Manager, Segment, library};
use crate::method::{Contended, Entry, ROUNDS, Run};
use crate::processes::{Board, GO, STOP, pin, spawn, turns_in, until};
use crate::results::Quantity;

const PAIR: Quantity = Quantity::less("lock + unlock", "ns");
const CASES: [(&str, [u32; 2]); 2] = [("neighbours", [5, 6]), ("far from each other", [5, 1005])];

const READY: usize = 0;
const STATE: usize = 1;
const TURNS: usize = 2;

pub fn run(run: &mut Run) {
    let segments = Layout::BOTH.map(|layout| (layout, Segment::new(layout, 2048)));
    let slice = run.effort.slice();
    for (case, ids) in CASES {
        let entries = segments
            .iter()
            .map(|(layout, segment)| Entry::new(layout.contender(), move || pair(segment.manager, ids, slice)));
        run.rounds("neighbours", case, &[PAIR], ROUNDS, Contended::Yes, entries.collect());
    }
}

/// Nanoseconds that a pair takes each of two processes.
fn pair(manager: Manager, ids: [u32; 2], slice: Duration) -> f64 {
    let board = Board::new(TURNS + 2);
    let worker = |number: usize| {
        pin(number);
        board[READY].fetch_add(1, Ordering::AcqRel);
        until(&board[STATE], GO);
        let mut turns = 0;
        while board[STATE].load(Ordering::Relaxed) != STOP {
            library().take(manager, ids[number]);
            library().give_back(manager, ids[number]);
            turns += 1;
            board[TURNS + number].store(turns, Ordering::Relaxed);
        }
    };
    let children = [spawn(|| worker(0)), spawn(|| worker(1))];
    until(&board[READY], 2);
    let turns = || board[TURNS].load(Ordering::Relaxed) + board[TURNS + 1].load(Ordering::Relaxed);
    let (taken, nanoseconds) = turns_in(&board[STATE], slice, turns, children);
    2.0 * nanoseconds / taken
}
