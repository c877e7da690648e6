// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file manager: allocating among 10,000, locking, handing over; beside what libpod's does, which tries to create
//! every name from 0 on, and opens, locks and closes a file for each lock.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::library::{Layout, Library, Manager};
use crate::{lone, median, nanoseconds, peer, row};

const ALLOCATED: u32 = 10_000;
const ROUNDS: usize = 21;
/// More of what is short.
const PAIR_ROUNDS: usize = 101;
const CALLS: u32 = 500;
/// An id that has no file.
const WITHOUT_FILE: u32 = ALLOCATED + 7;
/// So long after a change in the directory its time says that there was no other.
const UNTIL_TIMES_TELL: std::time::Duration = std::time::Duration::from_millis(3100);
const HELD: u32 = 1000;

/// A directory in which ids are allocated, and which goes with its value.
struct Crowd(PathBuf);

impl Crowd {
    fn new() -> Self {
        let path = PathBuf::from(format!("/dev/shm/lock_manager-bench-files-{}", std::process::id()));
        fs::create_dir(&path).expect("a directory in /dev/shm");
        (0..ALLOCATED).for_each(|id| drop(File::create_new(path.join(id.to_string())).expect("a file in it")));
        Self(path)
    }

    fn open(&self, library: &Library) -> Manager {
        let path = CString::new(self.0.as_os_str().as_bytes()).expect("no NUL");
        let mut manager = std::ptr::null_mut();
        // SAFETY: as the header says: a string and a place for the result.
        library.check(unsafe { (library.open_file)(path.as_ptr(), &raw mut manager) });
        manager
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn allocate_as_libpod(directory: &Path) -> u32 {
    (0..).find(|id| File::create_new(directory.join(id.to_string())).is_ok()).expect("there is no end of ids")
}

/// As containers/storage does it for libpod: the file is made where there is none.
fn lock_as_libpod(path: &Path) {
    let options = File::options().read(true).write(true).create(true).truncate(false).clone();
    let file = options.open(path).expect("the file of an id");
    // SAFETY: zeros are a valid flock; fcntl(2) reads it.
    unsafe {
        let mut lock: libc::flock = std::mem::zeroed();
        lock.l_type = libc::F_WRLCK as libc::c_short;
        assert_eq!(libc::fcntl(file.as_raw_fd(), libc::F_SETLKW, &raw const lock), 0);
    }
}

pub fn run(library: &Library) {
    let crowd = Crowd::new();
    allocate(library, &crowd);
    lock(library, &crowd);
    hand_over(library, &crowd);
}

fn allocate(library: &Library, crowd: &Crowd) {
    // The children write here how long an allocation took.
    let took = peer::shared::<AtomicU64>(2);
    // SAFETY: shared memory of the benchmark's own, never unmapped.
    let [first, next] = unsafe { [&*took, &*took.add(1)] };
    let (mut firsts, mut nexts, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        peer::in_child(|| {
            let manager = crowd.open(library);
            for word in [first, next] {
                let (mut id, start) = (0, Instant::now());
                // SAFETY: the manager is open and the id writable.
                library.check(unsafe { (library.allocate_lock)(manager, &raw mut id) });
                word.store(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
                fs::remove_file(crowd.0.join(id.to_string())).expect("it was just made");
            }
        });
        firsts.push(first.load(Ordering::Relaxed) as f64 / 1000.0);
        nexts.push(next.load(Ordering::Relaxed) as f64 / 1000.0);
        let start = Instant::now();
        let id = allocate_as_libpod(&crowd.0);
        theirs.push(start.elapsed().as_nanos() as f64 / 1000.0);
        fs::remove_file(crowd.0.join(id.to_string())).expect("it was just made");
    }
    let theirs = median(theirs);
    row("files: allocate with 10,000 allocated, first call", "µs", median(firsts), theirs, "every name from 0");
    row("files: allocate with 10,000 allocated, the next", "µs", median(nexts), theirs, "every name from 0");
}

fn lock(library: &Library, crowd: &Crowd) {
    let manager = crowd.open(library);
    let native = library.segment(Layout::Native, 64);
    let file = crowd.0.join("7");
    std::thread::sleep(UNTIL_TIMES_TELL);
    let pair = |manager, id| {
        nanoseconds(CALLS, || {
            // SAFETY: the manager is open.
            library.check(unsafe { (library.lock)(manager, id) });
            // SAFETY: as above.
            library.check(unsafe { (library.unlock)(manager, id) });
        })
    };
    let mut taken: [Vec<f64>; 4] = Default::default();
    for _ in 0..PAIR_ROUNDS {
        taken[0].push(pair(manager, 7));
        taken[1].push(nanoseconds(CALLS, || lock_as_libpod(&file)));
        taken[2].push(pair(manager, WITHOUT_FILE));
        taken[3].push(pair(native.manager, 7));
    }
    let [ours, theirs, without_file, native] = taken.map(median);
    row("files: lock + unlock, uncontended", "ns", ours, theirs, "open, F_SETLKW, close");
    row("files: lock + unlock of an id without a file", "ns", without_file, native, "native");

    for id in 0..HELD {
        // SAFETY: as above.
        library.check(unsafe { (library.lock)(manager, id) });
    }
    let (mut ids, mut count) = (vec![0; HELD as usize], 0);
    let listing = (0..ROUNDS)
        .map(|_| {
            // SAFETY: as the header says: room for as many ids as are said, and a place for the count.
            nanoseconds(1, || unsafe {
                library.check((library.locks_held)(manager, ids.as_mut_ptr(), ids.len(), &raw mut count));
            }) / 1_000_000.0
        })
        .collect();
    lone("files: locks_held, 1000 held of 10,000", "ms", median(listing));
    for id in 0..HELD {
        // SAFETY: as above.
        library.check(unsafe { (library.unlock)(manager, id) });
    }
    // SAFETY: nobody uses it any more.
    library.check(unsafe { (library.close)(manager) });
}

/// From an unlock here to the lock in a process that waits.
fn hand_over(library: &Library, crowd: &Crowd) {
    let words = peer::shared::<AtomicU64>(2);
    // SAFETY: shared memory of the benchmark's own, never unmapped.
    let [waits, unlocked] = unsafe { [&*words, &*words.add(1)] };
    let took = peer::shared::<AtomicU64>(ROUNDS);
    let start = Instant::now();
    let now = || start.elapsed().as_nanos() as u64;
    for round in 0..ROUNDS {
        // SAFETY: as above.
        let took = unsafe { &*took.add(round) };
        waits.store(0, Ordering::Release);
        let manager = crowd.open(library);
        // SAFETY: the manager is open.
        library.check(unsafe { (library.lock)(manager, 7) });
        let waiter = peer::spawn(|| {
            let manager = crowd.open(library);
            waits.store(1, Ordering::Release);
            // SAFETY: as above.
            library.check(unsafe { (library.lock)(manager, 7) });
            took.store(now() - unlocked.load(Ordering::Acquire), Ordering::Release);
            // SAFETY: as above.
            library.check(unsafe { (library.unlock)(manager, 7) });
        });
        while waits.load(Ordering::Acquire) == 0 {
            std::thread::yield_now();
        }
        // Long enough for it to sleep, and at another moment of its sleep each time.
        std::thread::sleep(std::time::Duration::from_micros(10_000 + 331 * round as u64));
        unlocked.store(now(), Ordering::Release);
        // SAFETY: as above.
        library.check(unsafe { (library.unlock)(manager, 7) });
        peer::join(waiter);
        // SAFETY: nobody uses it any more.
        library.check(unsafe { (library.close)(manager) });
    }
    // SAFETY: as above.
    let all: Vec<f64> =
        (0..ROUNDS).map(|round| unsafe { (*took.add(round)).load(Ordering::Acquire) as f64 / 1e6 }).collect();
    lone("files: unlock to the waiting process's lock, median", "ms", median(all.clone()));
    lone("files: unlock to the waiting process's lock, longest", "ms", all.into_iter().fold(0.0, f64::max));
}
