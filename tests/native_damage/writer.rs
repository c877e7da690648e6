// SPDX-License-Identifier: MIT OR Apache-2.0
//! A process that means harm writes into a segment that others use.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lock_manager::{Manager, ShmManager};

use super::damage::{of_what_changes, word};
use super::support::alone::alone;
use super::support::{Child, Exit, Random, Segment, board, errno_of, eventually, fork};
use super::{call_anything, format, options};

const LOCKS: u32 = 128;
const USERS: u32 = 3;
const THREADS: u32 = 2;

/// How long somebody writes, and how often all of it is begun anew.
const ROUND: Duration = Duration::from_millis(300);
const ROUNDS: u32 = 20;

#[test]
fn users_of_a_segment_survive_whatever_is_written_into_it() {
    alone!({
        let mut random = Random::seeded();
        let recipe = random.recipe();
        let mut calls = 0;
        for round in 0..ROUNDS {
            let segment = Segment::made(LOCKS, &options());
            let shared: &[_; 3] = board(3).first_chunk().unwrap();
            let [ready, over, made] = shared;
            let seed = random.next();
            let users: Vec<Child> =
                (0..USERS).map(|user| fork(|| use_it(&segment, seed + u64::from(user), shared))).collect();
            eventually("they have opened it", || ready.load(Ordering::Acquire) == USERS * THREADS);
            write_until_its_time_is_over(&segment, &mut random);
            over.store(1, Ordering::Release);
            for user in users {
                assert_eq!(user.wait(), Exit::Code(0), "round {round}, {recipe}; 101: see above, signal 14: a hang");
            }
            calls += made.load(Ordering::Relaxed);
        }
        assert!(calls > ROUNDS * USERS * THREADS * 20, "{calls} calls show nothing");
    });
}

/// Threads that make calls until it is over, on a manager from before the damage, and on others that they open and close.
fn use_it(segment: &Segment, seed: u64, board: &[AtomicU32; 3]) {
    let [ready, over, calls] = board;
    thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let mut random = Random::from_seed(seed << 8 | u64::from(thread));
                let manager = segment.open();
                ready.fetch_add(1, Ordering::Release);
                while over.load(Ordering::Acquire) == 0 {
                    match random.below(50) {
                        0 => use_once(ShmManager::open(&segment.name, 0), &mut random),
                        1 => use_once(ShmManager::open_read_only(&segment.name), &mut random),
                        _ => call_anything(&manager, &mut random),
                    }
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
}

fn use_once(opened: lock_manager::Result<ShmManager>, random: &mut Random) {
    let Ok(manager) = opened else { return };
    for _ in 0..random.below(20) {
        call_anything(&manager, random);
    }
    let _ = manager.close();
}

fn write_until_its_time_is_over(segment: &Segment, random: &mut Random) {
    let file = File::options().write(true).open(segment.file()).unwrap();
    let start = Instant::now();
    while start.elapsed() < ROUND {
        let damage = of_what_changes(random, LOCKS.into());
        file.write_all_at(&damage.bytes, damage.at).unwrap();
    }
}

#[test]
fn a_wait_ends_by_its_time_while_the_word_changes_all_the_while() {
    const WAIT: Duration = Duration::from_millis(50);
    alone!({
        let segment = Segment::made(LOCKS, &options());
        let manager = segment.open();
        let (over, turns) = (&board(1)[0], &board(1)[0]);
        // Two who write, so that one does while the other is not running.
        let writers = [1u64, 2].map(|seed| {
            fork(|| {
                let mut random = Random::from_seed(seed);
                let file = File::options().write(true).open(segment.file()).unwrap();
                let at = format::parts(super::damage::MOST).slots;
                while over.load(Ordering::Acquire) == 0 {
                    // Nobody's, so that a waiter always has something to swap; or a holder that is alive.
                    let any = word(&mut random);
                    let word = random.pick(&[format::OWNER_DIED, format::WAITERS, format::owner(1, 1, 9), any]);
                    file.write_all_at(&word.to_ne_bytes(), at).unwrap();
                    turns.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        eventually("they write", || turns.load(Ordering::Relaxed) > 100);
        for _ in 0..100 {
            let start = Instant::now();
            let taken = errno_of(manager.timed_lock(0, WAIT));
            assert!(start.elapsed() < WAIT + super::MARGIN, "it took {:?}", start.elapsed());
            let _ = (taken == 0).then(|| manager.unlock(0));
        }
        over.store(1, Ordering::Release);
        writers.into_iter().for_each(Child::succeeds);
    });
}
