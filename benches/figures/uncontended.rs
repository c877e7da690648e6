// SPDX-License-Identifier: MIT OR Apache-2.0
//! A lock that nobody else wants.

use crate::library::Library;
use crate::peer::RawMutex;
use crate::{median, nanoseconds, row};

const ROUNDS: usize = 401;
const CALLS: u32 = 20_000;

pub fn run(library: &Library) {
    let segment = library.segment(2048);
    let (manager, lock, unlock) = (segment.manager, library.lock, library.unlock);
    let raw = RawMutex::new();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        theirs.push(nanoseconds(CALLS, || {
            raw.lock();
            raw.unlock();
        }));
        ours.push(nanoseconds(CALLS, || {
            // SAFETY: the manager is open.
            unsafe {
                lock(manager, 5);
                unlock(manager, 5);
            }
        }));
    }
    let (ours, theirs) = (median(ours), median(theirs));
    row("lock + unlock, uncontended", "ns", ours, theirs, "raw robust pthread mutex");
}
