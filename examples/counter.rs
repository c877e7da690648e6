// SPDX-License-Identifier: MIT OR Apache-2.0
//! Threads count in a file under one lock, together with other processes, in C, Go or Rust, that count in the same file.
//!
//! usage: counter SEGMENT ID ROUNDS FILE

#![allow(unsafe_code, reason = "what the lock protects is memory that processes share")]

use std::error::Error;
use std::fs::OpenOptions;
use std::thread;

use lock_manager::{Lock, ShmManager};
use memmap2::MmapRaw;

const THREADS: u64 = 2;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [segment, id, rounds, file] = arguments.as_slice() else {
        return Err("usage: counter SEGMENT ID ROUNDS FILE".into());
    };
    let manager = ShmManager::open(segment, 0)?;
    let lock = Lock::retrieve(&manager, id.parse()?)?;
    let rounds: u64 = rounds.parse()?;
    let map = MmapRaw::map_raw(&OpenOptions::new().read(true).write(true).open(file)?)?;
    if map.len() < size_of::<u64>() {
        return Err(format!("{file}: its {} bytes are too short for a 64-bit number", map.len()).into());
    }
    thread::scope(|scope| {
        let counting: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| count(lock, rounds, &map))).collect();
        counting.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".into())))
    })
}

fn count(lock: Lock<'_>, rounds: u64, map: &MmapRaw) -> Outcome {
    let number = map.as_mut_ptr().cast::<u64>();
    for _ in 0..rounds {
        let _held = lock.lock()?;
        // SAFETY: a mapping of at least that many bytes, page aligned; the lock is held, and nobody counts without it.
        unsafe { number.write_volatile(number.read_volatile() + 1) };
    }
    Ok(())
}
