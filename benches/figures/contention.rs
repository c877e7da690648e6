// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two processes that want one lock for some 50 ns at a time.

use std::hint;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::library::Library;
use crate::peer::{self, RawMutex};
use crate::{median, row};

const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(200);
const INSIDE_PAUSES: u32 = 4;

struct Board {
    stop: AtomicBool,
    turns: [AtomicU64; 2],
}

pub fn run(library: &Library) {
    let segment = library.segment(2048);
    let manager = segment.manager;
    let raw = RawMutex::new();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        theirs.push(compete(|| {
            raw.lock();
            inside();
            raw.unlock();
        }));
        ours.push(compete(|| {
            // SAFETY: the manager is open; a forked child may use it at once.
            unsafe {
                (library.lock)(manager, 7);
                inside();
                (library.unlock)(manager, 7);
            }
        }));
    }
    let (ours, theirs) = (median(ours), median(theirs));
    row("two processes, one lock, 50 ns inside (more is better)", "M/s", ours, theirs, "raw robust pthread mutex");
}

fn inside() {
    for _ in 0..INSIDE_PAUSES {
        hint::spin_loop();
    }
}

/// Millions of turns a second that two processes have together.
fn compete(turn: impl Fn() + Copy) -> f64 {
    let board = peer::shared::<Board>(1);
    // SAFETY: fresh zeroed shared memory; atomics may hold zeros.
    let board = unsafe { &*board };
    let children: Vec<_> = board
        .turns
        .iter()
        .map(|turns| {
            peer::spawn(|| {
                while !board.stop.load(Ordering::Relaxed) {
                    turn();
                    turns.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let start = Instant::now();
    std::thread::sleep(ROUND);
    let turns: u64 = board.turns.iter().map(|turns| turns.load(Ordering::Relaxed)).sum();
    let rate = turns as f64 / start.elapsed().as_micros() as f64;
    board.stop.store(true, Ordering::Relaxed);
    children.into_iter().for_each(peer::join);
    // SAFETY: nobody uses the board any more.
    unsafe { libc::munmap(std::ptr::from_ref(board).cast_mut().cast(), 4096) };
    rate
}
