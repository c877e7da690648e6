// SPDX-License-Identifier: MIT OR Apache-2.0
//! Allocating the last free lock, again and again and as the first call of a process; counting the free ones.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::library::{Layout, Library};
use crate::peer::{self, LinearPool};
use crate::{lone, median, nanoseconds, row};

const ROUNDS: usize = 101;
const CALLS: u32 = 2000;
const FIRST_CALLS: usize = 41;

pub fn run(library: &Library) {
    for (layout, locks) in [(Layout::Native, 2048), (Layout::Libpod, 2048), (Layout::Native, 1_048_576)] {
        last_of(library, layout, locks);
    }
}

fn last_of(library: &Library, layout: Layout, locks: u32) {
    let segment = library.segment(layout, locks);
    let peer = LinearPool::new(locks);
    let mut id = 0;
    for _ in 1..locks {
        // SAFETY: the manager is open and the id writable.
        library.check(unsafe { (library.allocate_lock)(segment.manager, &mut id) });
        peer.allocate().expect("the peer has as many");
    }
    let of = format!("{} locks, {}", locks, layout.name());
    let their_calls = if locks > 10_000 { 3 } else { CALLS };

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(nanoseconds(CALLS, || {
            let mut id = 0;
            // SAFETY: as above.
            unsafe {
                (library.allocate_lock)(segment.manager, &mut id);
                (library.free_lock)(segment.manager, id);
            }
        }));
        theirs.push(nanoseconds(their_calls, || {
            let id = peer.allocate().expect("one is free");
            peer.free(id);
        }));
    }
    row(
        &format!("allocate + free the last of {of}, warm"),
        "ns",
        median(ours),
        median(theirs),
        "search from the start",
    );

    // The children write here how long their first allocation took.
    let took = peer::shared::<AtomicU64>(1);
    // SAFETY: shared memory of the benchmark's own, never unmapped.
    let took = unsafe { &*took };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..FIRST_CALLS {
        peer::in_child(|| {
            let (mut manager, mut id) = (std::ptr::null_mut(), 0);
            // SAFETY: as the header says.
            unsafe {
                library.check((library.open_shm)(segment.path.as_ptr(), 0, &mut manager));
                let start = Instant::now();
                library.check((library.allocate_lock)(manager, &mut id));
                took.store(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
                library.check((library.free_lock)(manager, id));
            }
        });
        ours.push(took.load(Ordering::Relaxed) as f64 / 1000.0);
        peer::in_child(|| {
            let start = Instant::now();
            let id = peer.allocate().expect("one is free");
            took.store(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
            peer.free(id);
        });
        theirs.push(took.load(Ordering::Relaxed) as f64 / 1000.0);
    }
    let what = format!("allocate the last of {of}, a process's first call");
    row(&what, "µs", median(ours), median(theirs), "search from the start");

    let mut count = 0;
    let available = (0..ROUNDS).map(|_| {
        // SAFETY: as above.
        nanoseconds(20, || library.check(unsafe { (library.available_locks)(segment.manager, &mut count) })) / 1000.0
    });
    lone(&format!("available_locks of {of}, one free"), "µs", median(available.collect()));
}
