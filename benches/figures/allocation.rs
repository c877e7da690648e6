// SPDX-License-Identifier: MIT OR Apache-2.0
//! Allocating the last free lock of 2048, again and again and as the first call of a process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::library::Library;
use crate::peer::{self, LinearPool};
use crate::{median, nanoseconds, row};

const LOCKS: u32 = 2048;
const ROUNDS: usize = 101;
const CALLS: u32 = 2000;

pub fn run(library: &Library) {
    let segment = library.segment(LOCKS);
    let peer = LinearPool::new(LOCKS);
    let mut id = 0;
    for _ in 1..LOCKS {
        // SAFETY: the manager is open and the id writable.
        library.check(unsafe { (library.allocate_lock)(segment.manager, &mut id) });
        peer.allocate().expect("the peer has as many");
    }

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
        theirs.push(nanoseconds(CALLS, || {
            let id = peer.allocate().expect("one is free");
            peer.free(id);
        }));
    }
    row("allocate + free the last of 2048, warm", "ns", median(ours), median(theirs), "search from the start");

    // The children write here how long their first allocation took.
    let took = peer::shared::<AtomicU64>(1);
    // SAFETY: shared memory of the benchmark's own, never unmapped.
    let took = unsafe { &*took };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
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
    row(
        "allocate the last of 2048, a process's first call",
        "µs",
        median(ours),
        median(theirs),
        "search from the start",
    );
}
