// SPDX-License-Identifier: MIT OR Apache-2.0
//! Creating, opening, listing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::library::{Layout, Library};
use crate::{lone, median, nanoseconds, peer, row};

const ROUNDS: usize = 41;

pub fn run(library: &Library) {
    let mut create: [Vec<f64>; 2] = Default::default();
    let mut open: [Vec<f64>; 2] = Default::default();
    let segments = Layout::BOTH.map(|layout| library.segment(layout, 2048));
    for _ in 0..ROUNDS {
        for (index, layout) in Layout::BOTH.into_iter().enumerate() {
            create[index].push(nanoseconds(1, || drop(library.segment(layout, 2049))) / 1000.0);
            open[index].push(first_opening(library, &segments[index].path) / 1000.0);
        }
    }
    let ([native, libpod], [native_open, libpod_open]) = (create.map(median), open.map(median));
    row("create and remove 2048 locks, native", "µs", native, libpod, "libpod layout");
    row("open 2048 locks in a fresh process, native", "µs", native_open, libpod_open, "libpod layout");

    for layout in Layout::BOTH {
        for num_locks in [2048, 65_536] {
            listing(library, layout, num_locks);
        }
    }
}

/// Nanoseconds that a process's first call takes to open a segment.
fn first_opening(library: &Library, path: &std::ffi::CStr) -> f64 {
    let took = peer::shared::<AtomicU64>(1);
    // SAFETY: shared memory of the benchmark's own.
    let time = unsafe { &*took };
    peer::in_child(|| {
        let mut manager = std::ptr::null_mut();
        let start = Instant::now();
        // SAFETY: as the header says.
        library.check(unsafe { (library.open_shm)(path.as_ptr(), 0, &mut manager) });
        time.store(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
    });
    let nanoseconds = time.load(Ordering::Relaxed) as f64;
    // SAFETY: nobody uses the word any more.
    unsafe { libc::munmap(took.cast(), 4096) };
    nanoseconds
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
