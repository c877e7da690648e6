// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Readers and writers on one lock: their turns, and who waits how long.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::ReadWrite;
use crate::method::{Contended, Entry, ROUNDS, Run};
use crate::processes::{Board, Child, now, pin, spawn};
use crate::results::Quantity;
use crate::work::contended::Inside;

const TURNS: Quantity = Quantity::more("turns", "turns/s");
const WAITS: [Quantity; 2] =
    [Quantity::less("longest wait of a reader", "ms"), Quantity::less("longest wait of a writer", "ms")];
/// Processes, and how many of a thousand turns are a writer's.
const MIXES: [(usize, u64); 5] = [(2, 0), (2, 10), (8, 10), (32, 10), (32, 100)];
const READERS: usize = 20;
const WRITERS: usize = 5;
const WRITER_NS: u64 = 500_000;

const STOP: usize = 0;
const FIRST_WORKER: usize = 1;

pub fn run(run: &mut Run, locks: &[ReadWrite]) {
    let slice = run.effort.slice();
    for (processes, writers) in MIXES {
        let case = format!("{processes} processes; {} % writers", writers as f64 / 10.0);
        let entries =
            locks.iter().map(|lock| Entry::new(lock.name, move || mixed(lock, processes, writers, slice))).collect();
        run.rounds("sharing", &case, &[TURNS], ROUNDS, Contended::Yes, entries);
    }
    let time = Duration::from_millis(run.effort.pick(100, 1000));
    let entries = locks.iter().map(|lock| Entry::of_several(lock.name, move |_| longest_waits(lock, time))).collect();
    let case = format!("{READERS} readers of 1 ms; {WRITERS} writers of 0.5 ms");
    run.rounds("sharing waits", &case, &WAITS, ROUNDS, Contended::No, entries);
}

/// Turns a second that so many processes have together, of 50 ns where anybody writes.
fn mixed(lock: &ReadWrite, processes: usize, writers_in_1000: u64, slice: Duration) -> f64 {
    let board = Board::new(FIRST_WORKER + processes);
    let worker = |number: usize| {
        pin(number);
        let mut random = 0x9E37_79B9_7F4A_7C15 ^ (number as u64).wrapping_mul(0x2545_F491_4F6C_DD1D);
        let mut count = 0;
        while board[STOP].load(Ordering::Relaxed) == 0 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            match random % 1000 < writers_in_1000 {
                true => lock.write(|| Inside::FiftyNanoseconds.work()),
                false if writers_in_1000 == 0 => lock.read(|| ()),
                false => lock.read(|| Inside::FiftyNanoseconds.work()),
            }
            count += 1;
            board[FIRST_WORKER + number].store(count, Ordering::Relaxed);
        }
    };
    let children: Vec<_> = (0..processes).map(|number| spawn(|| worker(number))).collect();
    let turns = || (0..processes).map(|number| board[FIRST_WORKER + number].load(Ordering::Relaxed)).sum::<u64>();
    std::thread::sleep(slice / 8);
    let (start, before) = (now(), turns());
    std::thread::sleep(slice);
    let (end, after) = (now(), turns());
    board[STOP].store(1, Ordering::Relaxed);
    children.into_iter().for_each(Child::join);
    (after - before) as f64 * 1e9 / (end - start) as f64
}

/// The longest waits, in milliseconds, of readers that sleep inside and writers that work there, without a pause.
fn longest_waits(lock: &ReadWrite, time: Duration) -> Vec<f64> {
    let board = Board::new(FIRST_WORKER + 2);
    let waited = |kind: usize, start: u64| board[FIRST_WORKER + kind].fetch_max(now() - start, Ordering::Relaxed);
    let going_on = || board[STOP].load(Ordering::Relaxed) == 0;
    let reader = || {
        while going_on() {
            let start = now();
            lock.read(|| {
                waited(0, start);
                std::thread::sleep(Duration::from_millis(1));
            });
        }
    };
    let writer = || {
        while going_on() {
            let start = now();
            lock.write(|| {
                waited(1, start);
                let work = now();
                while now() - work < WRITER_NS {}
            });
        }
    };
    let readers = (0..READERS).map(|_| spawn(reader));
    let children: Vec<_> = readers.chain((0..WRITERS).map(|_| spawn(writer))).collect();
    std::thread::sleep(time);
    board[STOP].store(1, Ordering::Relaxed);
    children.into_iter().for_each(Child::join);
    [0, 1].map(|kind: usize| board[FIRST_WORKER + kind].load(Ordering::Relaxed) as f64 / 1e6).into()
}
