// SPDX-License-Identifier: MIT OR Apache-2.0
//! Segments that were damaged before they are opened.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lock_manager::{Manager, ShmManager};

use super::damage::{MOST, of_anything};
use super::format;
use super::support::alone::{allow, alone};
use super::support::{Child, Exit, Random, Segment, board, fork};
use super::{MARGIN, call_anything, options, write_at};

const LOCKS: u32 = 64;

/// How many there are in all, how many one child opens, and how many children at once.
const DAMAGED: u32 = 10_000;
const BATCH: u32 = 250;
const AT_ONCE: usize = 4;

#[test]
fn ten_thousand_damaged_segments_are_refused_or_usable() {
    alone!({
        allow(600);
        let mut random = Random::seeded();
        let recipe = random.recipe();
        let counts = board(2);
        let mut running: Vec<(Child, u64)> = Vec::new();
        let finish = |(child, seed): (Child, u64)| {
            assert_eq!(child.wait(), Exit::Code(0), "batch {seed:#x}, {recipe}; 101: see above, signal 14: a hang");
        };
        for _ in 0..DAMAGED / BATCH {
            if running.len() == AT_ONCE {
                finish(running.remove(0));
            }
            let seed = random.next();
            running.push((fork(|| open_batch(seed, counts)), seed));
        }
        running.into_iter().for_each(finish);
        let [refused, opened] = [0, 1].map(|what| counts[what].load(Ordering::Relaxed));
        assert_eq!(refused + opened, DAMAGED, "{recipe}");
        // Far from what chance could bring: one of the two ways is gone.
        assert!(refused > DAMAGED / 20 && opened > DAMAGED / 20, "{refused} refused, {opened} opened; {recipe}");
    });
}

fn open_batch(seed: u64, counts: &[AtomicU32]) {
    let mut random = Random::from_seed(seed);
    for _ in 0..BATCH {
        let segment = Segment::made(LOCKS, &options());
        let damages: Vec<_> = (0..=random.below(4)).map(|_| of_anything(&mut random, LOCKS.into())).collect();
        for damage in &damages {
            write_at(&segment, damage.at, &damage.bytes);
        }
        if random.below(16) == 0 {
            let length = random.below(format::size(MOST, LOCKS.into()) + 5000);
            std::fs::File::options().write(true).open(segment.file()).unwrap().set_len(length).unwrap();
        }
        let start = Instant::now();
        match ShmManager::open(&segment.name, 0) {
            Err(error) => {
                // Retired by what was written: then it is removed, too.
                let expected = [libc::EPROTO, libc::ESTALE, libc::ENOENT];
                assert!(expected.contains(&error.errno()), "{error} after {damages:?}");
                counts[0].fetch_add(1, Ordering::Relaxed);
            }
            Ok(manager) => {
                counts[1].fetch_add(1, Ordering::Relaxed);
                assert!(manager.num_locks().unwrap() <= MOST as u32);
                for _ in 0..12 {
                    call_anything(&manager, &mut random);
                }
                // Of eight locks, some were damaged; whatever is held by nobody who lives can be had.
                for id in 0..4 {
                    let taken = manager.timed_lock(id, Duration::from_millis(2));
                    if taken.is_ok() {
                        let _ = manager.unlock(id);
                    }
                }
            }
        }
        assert!(start.elapsed() < MARGIN, "{:?} after {damages:?}", start.elapsed());
    }
}
