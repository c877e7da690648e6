// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fifty processes that all want one lock, 1 ms inside, without a pause.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::library::{Layout, Library};
use crate::peer::{self, RawMutex, now};
use crate::{lone, row};

const PROCESSES: usize = 50;
const INSIDE_NS: u64 = 1_000_000;
const RUN_NS: u64 = 8_000_000_000;

struct Board {
    /// When to begin; 0: not yet.
    start: AtomicU64,
    turns: [AtomicU64; PROCESSES],
    longest: [AtomicU64; PROCESSES],
}

struct Outcome {
    /// Jain's index: 1 where all had as many turns, 1/50 where one had all.
    fairness: f64,
    turns_a_second: f64,
    longest_wait_ms: f64,
}

pub fn run(library: &Library) {
    let segment = library.segment(Layout::Native, 2048);
    let raw = RawMutex::new();
    let theirs = crowd(|| raw.lock(), || raw.unlock());
    // SAFETY: the manager is open; forked children may use it at once.
    let lock = || library.check(unsafe { (library.lock)(segment.manager, 9) });
    // SAFETY: held by the caller.
    let unlock = || library.check(unsafe { (library.unlock)(segment.manager, 9) });
    let ours = crowd(lock, unlock);
    let what = "50 processes, 1 ms inside: turns a second, native";
    row(what, "1/s", ours.turns_a_second, theirs.turns_a_second, "raw robust pthread mutex");
    row("… longest wait", "ms", ours.longest_wait_ms, theirs.longest_wait_ms, "raw robust pthread mutex");
    lone("… Jain's index of the turns", "", ours.fairness);
    lone("… the raw robust pthread mutex's", "", theirs.fairness);
}

fn crowd(lock: impl Fn() + Copy, unlock: impl Fn() + Copy) -> Outcome {
    let shared = peer::shared::<Board>(1);
    // SAFETY: fresh zeroed shared memory; atomics may hold zeros.
    let board = unsafe { &*shared };
    let children: Vec<_> = (0..PROCESSES)
        .map(|process| {
            peer::spawn(|| {
                while board.start.load(Ordering::Acquire) == 0 {
                    std::thread::sleep(Duration::from_micros(100));
                }
                let end = board.start.load(Ordering::Acquire) + RUN_NS;
                while now() < end {
                    let asked = now();
                    lock();
                    let taken = now();
                    board.longest[process].fetch_max(taken - asked, Ordering::Relaxed);
                    while now() < taken + INSIDE_NS {
                        std::hint::spin_loop();
                    }
                    board.turns[process].fetch_add(1, Ordering::Relaxed);
                    unlock();
                }
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(100));
    board.start.store(now(), Ordering::Release);
    children.into_iter().for_each(peer::join);
    let turns: Vec<f64> = board.turns.iter().map(|turns| turns.load(Ordering::Relaxed) as f64).collect();
    let (sum, squares) = (turns.iter().sum::<f64>(), turns.iter().map(|turns| turns * turns).sum::<f64>());
    let longest = board.longest.iter().map(|wait| wait.load(Ordering::Relaxed)).max().unwrap_or(0);
    Outcome {
        fairness: sum * sum / (PROCESSES as f64 * squares),
        turns_a_second: sum / (RUN_NS as f64 / 1e9),
        longest_wait_ms: longest as f64 / 1e6,
    }
}
