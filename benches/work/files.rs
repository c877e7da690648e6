// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The file manager with 10 to 100,000 allocated: allocating, locking, listing, handing over; beside what libpod's does,
//! which tries to create every name from 0 on, and opens, locks and closes a file for each lock.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::contenders::{FILES, UNTIL_TIMES_TELL};
use crate::library::{Manager, library};
use crate::method::{Contended, Entry, ROUNDS, Run, microseconds, nanoseconds};
use crate::processes::{Board, Words, in_child, now, spawn, until};
use crate::results::Quantity;

const ALLOCATE: Quantity = Quantity::less("allocate", "µs");
const PAIR: Quantity = Quantity::less("lock + unlock", "ns");
const LIST: Quantity = Quantity::less("list 1000 held ones", "ms");
const HAND_OVER: Quantity = Quantity::less("unlock to the next holder", "ms");
/// Allocation as libpod's file manager does it.
const EVERY_NAME: &str = "every name from 0";
const SIZES: [u32; 4] = [10, 1000, 10_000, 100_000];
const CALLS: u32 = 500;
const HELD: u32 = 1000;
const LOCK: u32 = 7;
/// The longest slice of a wait.
const SLICE_US: u64 = 5000;

/// A directory in which ids are allocated, and which goes with its value.
struct Crowd(PathBuf);

impl Crowd {
    fn new(allocated: u32) -> Self {
        let path = PathBuf::from(format!("/dev/shm/lock_manager-bench-{}-files", std::process::id()));
        fs::create_dir(&path).expect("a directory in /dev/shm");
        (0..allocated).for_each(|id| drop(File::create_new(path.join(id.to_string())).expect("a file in it")));
        Self(path)
    }

    fn open(&self) -> Manager {
        library().open_files(&CString::new(self.0.as_os_str().as_bytes()).expect("no NUL"))
    }

    fn remove(&self, id: u32) {
        fs::remove_file(self.0.join(id.to_string())).expect("it was just made");
    }

    /// The next free id, as libpod finds it.
    fn first_free_name(&self) -> u32 {
        (0..).find(|id: &u32| File::create_new(self.0.join(id.to_string())).is_ok()).expect("there is no end of ids")
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn run(run: &mut Run) {
    for allocated in SIZES {
        let crowd = Crowd::new(allocated);
        allocate(run, &crowd, allocated);
        if allocated == 10_000 {
            lock(run, &crowd, allocated);
            hand_over(run, &crowd);
        }
    }
}

fn allocate(run: &mut Run, crowd: &Crowd, allocated: u32) {
    // The first allocation of a process that has just opened the directory, and the next.
    let ours = |which: usize| {
        let took = Words::new(2);
        in_child(|| {
            let manager = crowd.open();
            for word in took.iter() {
                let (us, id) = microseconds(|| library().allocate(manager));
                word.store(us.to_bits(), Ordering::Release);
                crowd.remove(id);
            }
        });
        f64::from_bits(took[which].load(Ordering::Acquire))
    };
    let theirs = || {
        let (us, id) = microseconds(|| crowd.first_free_name());
        crowd.remove(id);
        us
    };
    let entries =
        vec![Entry::new(FILES, || ours(0)), Entry::new("the next call", || ours(1)), Entry::new(EVERY_NAME, theirs)];
    let case = format!("{allocated} allocated");
    run.rounds("files", &case, &[ALLOCATE], run.effort.pick(ROUNDS, 21), Contended::No, entries);
}

fn lock(run: &mut Run, crowd: &Crowd, allocated: u32) {
    let manager = crowd.open();
    std::thread::sleep(UNTIL_TIMES_TELL);
    let pair = |id| {
        nanoseconds(CALLS, || {
            library().take(manager, id);
            library().give_back(manager, id);
        })
    };
    let entries = vec![Entry::new(FILES, || pair(LOCK)), Entry::new("an id without a file", || pair(allocated + LOCK))];
    let case = format!("{allocated} allocated");
    run.rounds("files pair", &case, &[PAIR], run.effort.pick(21, 101), Contended::No, entries);

    (0..HELD).for_each(|id| library().take(manager, id));
    let mut ids = vec![0; HELD as usize];
    let list = || nanoseconds(1, || assert_eq!(library().count_held(manager, &mut ids), HELD as usize)) / 1e6;
    run.rounds("files list", &case, &[LIST], run.effort.pick(ROUNDS, 21), Contended::No, vec![Entry::new(FILES, list)]);
    (0..HELD).for_each(|id| library().give_back(manager, id));
    library().close(manager);
}

/// From an unlock here to the lock in a process that waits.
fn hand_over(run: &mut Run, crowd: &Crowd) {
    const WAITS: usize = 0;
    const ACQUIRED: usize = 1;
    let once = |round: usize| {
        let board = Board::new(2);
        let manager = crowd.open();
        library().take(manager, LOCK);
        let waiter = spawn(|| {
            let manager = crowd.open();
            board[WAITS].store(1, Ordering::Release);
            library().take(manager, LOCK);
            board[ACQUIRED].store(now(), Ordering::Release);
            library().give_back(manager, LOCK);
        });
        until(&board[WAITS], 1);
        // Long enough for it to sleep, and at another moment of its sleep each time.
        std::thread::sleep(Duration::from_millis(12) + Duration::from_micros(round as u64 * 797 % SLICE_US));
        let unlocked = now();
        library().give_back(manager, LOCK);
        waiter.join();
        library().close(manager);
        vec![(board[ACQUIRED].load(Ordering::Acquire) - unlocked) as f64 / 1e6]
    };
    let rounds = run.effort.pick(ROUNDS, 41);
    let entries = vec![Entry::of_several(FILES, once)];
    run.rounds("files hand over", "a process waits", &[HAND_OVER], rounds, Contended::No, entries);
}
