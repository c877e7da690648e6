// SPDX-License-Identifier: MIT OR Apache-2.0
//! Creating, opening, listing.

use std::ffi::{CStr, CString};
use std::process::Command;
use std::time::Instant;

use crate::library::{Layout, Library};
use crate::{lone, median, nanoseconds, row};

const ROUNDS: usize = 41;

pub fn run(library: &Library) {
    let mut create: [Vec<f64>; 2] = Default::default();
    let mut remove: [Vec<f64>; 2] = Default::default();
    let mut first: [[Vec<f64>; 2]; 2] = Default::default();
    let mut open: [Vec<f64>; 2] = Default::default();
    let segments = Layout::BOTH.map(|layout| library.segment(layout, 2048));
    for _ in 0..ROUNDS {
        for (index, layout) in Layout::BOTH.into_iter().enumerate() {
            let start = Instant::now();
            let segment = library.segment(layout, 2048);
            create[index].push(start.elapsed().as_nanos() as f64 / 1000.0);
            remove[index].push(nanoseconds(1, || library.check(segment.remove())) / 1000.0);
            for (times, took) in first[index].iter_mut().zip(first_calls(&segments[index].path)) {
                times.push(took);
            }
            open[index].push(nanoseconds(1, || open_and_close(library, &segments[index].path)) / 1000.0);
        }
    }
    let [[native_first, native_lock], [libpod_first, libpod_lock]] = first.map(|layout| layout.map(median));
    let ([native, libpod], [native_remove, libpod_remove]) = (create.map(median), remove.map(median));
    let [native_open, libpod_open] = open.map(median);
    row("create 2048 locks, native", "µs", native, libpod, "libpod layout");
    row("remove them, native", "µs", native_remove, libpod_remove, "libpod layout");
    row("open and close 2048 locks, native", "µs", native_open, libpod_open, "libpod layout");
    row("open 2048 locks in a fresh process, native", "µs", native_first, libpod_first, "libpod layout");
    row("first lock of a fresh process, native", "µs", native_lock, libpod_lock, "libpod layout");

    for layout in Layout::BOTH {
        for num_locks in [2048, 65_536] {
            listing(library, layout, num_locks);
        }
    }
}

/// What makes the benchmark a process that opens the segment named next, and nothing else.
const OPEN_FIRST: &str = "--open-first";

/// The segment that this process is to open.
pub fn asked_to_open() -> Option<CString> {
    let path = std::env::args().skip_while(|argument| argument != OPEN_FIRST).nth(1)?;
    Some(CString::new(path).expect("an argument has no NUL"))
}

/// A process's first two calls: says how many nanoseconds each took.
pub fn open_first(library: &Library, path: &CStr) {
    let mut manager = std::ptr::null_mut();
    let start = Instant::now();
    // SAFETY: as the header says.
    library.check(unsafe { (library.open_shm)(path.as_ptr(), 0, &mut manager) });
    let opened = start.elapsed();
    // SAFETY: the manager is open.
    library.check(unsafe { (library.lock)(manager, 7) });
    let locked = start.elapsed() - opened;
    // Or the next process would have to take it over.
    // SAFETY: held by this thread.
    library.check(unsafe { (library.unlock)(manager, 7) });
    println!("{} {}", opened.as_nanos(), locked.as_nanos());
}

/// Microseconds that opening a segment, and then its first lock, take in a new process.
fn first_calls(path: &CStr) -> [f64; 2] {
    let program = std::env::current_exe().expect("the program has a path");
    let mut command = Command::new(program);
    let output = command.arg(OPEN_FIRST).arg(path.to_str().expect("a name of the benchmark's own")).output();
    let output = String::from_utf8(output.expect("the program runs").stdout).expect("numbers");
    let mut numbers = output.split_whitespace().map(|number| number.parse::<f64>().expect("a number") / 1000.0);
    [(); 2].map(|()| numbers.next().expect("two numbers"))
}

fn open_and_close(library: &Library, path: &CStr) {
    let mut manager = std::ptr::null_mut();
    // SAFETY: as the header says; the manager is used no more.
    unsafe {
        library.check((library.open_shm)(path.as_ptr(), 0, &mut manager));
        library.check((library.close)(manager));
    }
}

fn listing(library: &Library, layout: Layout, num_locks: u32) {
    let segment = library.segment(layout, num_locks);
    let mut ids = vec![0; num_locks as usize];
    let mut held = 0;
    // A thread may hold 2000 in the libpod layout; in the native one all.
    let holding = if layout == Layout::Native { num_locks } else { 0 };
    for id in 0..holding {
        // SAFETY: the manager is open.
        library.check(unsafe { (library.lock)(segment.manager, id) });
    }
    let listed = (0..ROUNDS).map(|_| {
        nanoseconds(5, || {
            // SAFETY: ids has that capacity.
            library.check(unsafe { (library.locks_held)(segment.manager, ids.as_mut_ptr(), ids.len(), &mut held) });
        }) / 1000.0
    });
    let listed = median(listed.collect());
    assert_eq!(held, holding as usize);
    lone(&format!("locks_held of {num_locks}, {holding} of them held, {}", layout.name()), "µs", listed);
    for id in 0..holding {
        // SAFETY: held by this thread.
        library.check(unsafe { (library.unlock)(segment.manager, id) });
    }
}
