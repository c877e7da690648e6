// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program that has closed its standard files, and prints all the same.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lock_manager::{Acquired, FileManager, Manager, ShmManager};

use super::options;
use super::support::alone::alone;
use super::support::{Segment, fork, taken_once};

/// How long it prints; each opening gives it some chances.
const LASTS: Duration = Duration::from_millis(700);

/// Ends the other threads, whether the test goes well or not.
struct Set<'o>(&'o AtomicBool);

impl Drop for Set<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Closes 0, 1 and 2, and does `call` again and again while other threads write under those numbers. How often they could.
fn printed(call: impl Fn() + Sync) -> u64 {
    let (over, printed) = (AtomicBool::new(false), AtomicU64::new(0));
    // SAFETY: close(2) touches no memory; nothing in this process uses these files any more.
    (0..3).for_each(|number| unsafe { _ = libc::close(number) });
    thread::scope(|scope| {
        for number in 0..3 {
            let (over, printed) = (&over, &printed);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    // SAFETY: write(2) reads the text.
                    if unsafe { libc::write(number, c"garbage".as_ptr().cast(), 7) } > 0 {
                        printed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let _over_at_last = Set(&over);
        let start = Instant::now();
        while start.elapsed() < LASTS {
            call();
        }
    });
    // SAFETY: fcntl(2) with this command touches no memory.
    let is_closed = |number| unsafe { libc::fcntl(number, libc::F_GETFD) } == -1;
    assert!((0..3).all(is_closed), "what was closed is closed again");
    printed.into_inner()
}

#[test]
fn what_it_prints_reaches_no_segment() {
    alone!({
        let (segment, made) = (Segment::native(64), Segment::unused());
        fork(|| {
            let printed = printed(|| {
                drop(segment.open());
                drop(ShmManager::open_read_only(&segment.name).unwrap());
                drop(ShmManager::create(&made.name, 64, &options()).unwrap());
                ShmManager::remove(&made.name).unwrap();
            });
            assert_eq!(printed, 0);
        })
        .succeeds();
        assert_eq!(taken_once(&segment.open(), 3), Acquired::Clean);
    });
}

#[test]
fn what_it_prints_reaches_no_file_of_a_directory() {
    alone!({
        let directory = Segment::directory();
        fork(|| {
            let printed = printed(|| {
                let manager = FileManager::open_or_create(directory.file()).unwrap();
                let id = manager.allocate_lock().unwrap();
                assert_eq!(taken_once(&manager, id), Acquired::Clean);
                manager.free_lock(id).unwrap();
            });
            assert_eq!(printed, 0);
        })
        .succeeds();
    });
}

/// A thread of the program's that opens a file of its own meanwhile keeps it, whatever its number.
#[test]
fn files_of_the_programs_own_under_these_numbers_stay_open() {
    alone!({
        let segment = Segment::native(64);
        fork(|| {
            // SAFETY: close(2) touches no memory; nothing in this process uses these files any more.
            (0..3).for_each(|number| unsafe { _ = libc::close(number) });
            let over = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        // SAFETY: open(2) reads the path; the number is closed once, here.
                        unsafe {
                            let number = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
                            assert!(number >= 0 && libc::write(number, c"text".as_ptr().cast(), 4) == 4);
                            assert_eq!(libc::close(number), 0, "closed by somebody else");
                        }
                    }
                });
                let _over_at_last = Set(&over);
                let start = Instant::now();
                while start.elapsed() < LASTS {
                    drop(segment.open());
                }
            });
        })
        .succeeds();
    });
}
