// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two processes: one lock for some 50 ns at a time, and locks side by side.

use std::hint;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::library::{Layout, Library};
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
    for layout in Layout::BOTH {
        let segment = library.segment(layout, 2048);
        let raw = RawMutex::new();
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            theirs.push(compete(|_| {
                raw.lock();
                inside();
                raw.unlock();
            }));
            ours.push(compete(|_| {
                // SAFETY: the manager is open; a forked child may use it at once.
                unsafe {
                    (library.lock)(segment.manager, 7);
                    inside();
                    (library.unlock)(segment.manager, 7);
                }
            }));
        }
        let what = format!("two processes, one lock, 50 ns inside, {} (more is better)", layout.name());
        row(&what, "M/s", median(ours), median(theirs), "raw robust pthread mutex");
        side_by_side(library, layout);
    }
}

/// What each of two processes pays for a lock beside the other's, and for one far away.
fn side_by_side(library: &Library, layout: Layout) {
    let segment = library.segment(layout, 2048);
    let pairs = |ids: [u32; 2]| {
        let rate = compete(|process| {
            // SAFETY: as above.
            unsafe {
                (library.lock)(segment.manager, ids[process]);
                (library.unlock)(segment.manager, ids[process]);
            }
        });
        2000.0 / rate
    };
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        near.push(pairs([5, 6]));
        far.push(pairs([5, 1005]));
    }
    let what = format!("lock + unlock of neighbours by two processes, {}", layout.name());
    row(&what, "ns", median(near), median(far), "locks far from each other");
}

fn inside() {
    for _ in 0..INSIDE_PAUSES {
        hint::spin_loop();
    }
}

/// Millions of turns a second that two processes have together.
fn compete(turn: impl Fn(usize) + Copy) -> f64 {
    let board = peer::shared::<Board>(1);
    // SAFETY: fresh zeroed shared memory; atomics may hold zeros.
    let board = unsafe { &*board };
    let children: Vec<_> = board
        .turns
        .iter()
        .enumerate()
        .map(|(process, turns)| {
            peer::spawn(|| {
                // Counted here and told now and then: a counter beside the other's would be what is measured.
                let mut count = 0;
                while !board.stop.load(Ordering::Relaxed) {
                    turn(process);
                    count += 1;
                    if count % 64 == 0 {
                        turns.store(count, Ordering::Relaxed);
                    }
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
