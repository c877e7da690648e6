// SPDX-License-Identifier: MIT OR Apache-2.0
//! A lock that nobody else wants: beside the libc's robust mutex, and beside the floor under any lock.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::library::{Layout, Library};
use crate::peer::RawMutex;
use crate::{median, nanoseconds, row};

const ROUNDS: usize = 401;
const CALLS: u32 = 20_000;

pub fn run(library: &Library) {
    let [native, libpod] = Layout::BOTH.map(|layout| library.segment(layout, 2048));
    let raw = RawMutex::new();
    let mut in_memory = std::ptr::null_mut();
    // SAFETY: as the header says: a number and a place for the result.
    library.check(unsafe { (library.new_in_memory)(2048, &mut in_memory) });
    let mut taken: [Vec<f64>; 5] = Default::default();
    for _ in 0..ROUNDS {
        taken[0].push(nanoseconds(CALLS, floor));
        taken[1].push(nanoseconds(CALLS, || {
            raw.lock();
            raw.unlock();
        }));
        for (times, manager) in taken[2..].iter_mut().zip([native.manager, libpod.manager, in_memory]) {
            times.push(nanoseconds(CALLS, || {
                // SAFETY: the manager is open.
                unsafe {
                    (library.lock)(manager, 5);
                    (library.unlock)(manager, 5);
                }
            }));
        }
    }
    // SAFETY: nobody uses it any more.
    library.check(unsafe { (library.close)(in_memory) });
    let [floor, raw, native, libpod, in_memory] = taken.map(median);
    row("lock + unlock, native", "ns", native, floor, "floor: cmpxchg + xchg");
    row("lock + unlock, native", "ns", native, raw, "raw robust pthread mutex");
    row("lock + unlock, in memory", "ns", in_memory, native, "native");
    row("lock + unlock, libpod layout", "ns", libpod, raw, "raw robust pthread mutex");
}

/// What no lock of two processes can do without.
#[inline(never)]
fn floor() {
    static WORD: AtomicU64 = AtomicU64::new(0);
    let _taken = WORD.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed);
    WORD.swap(0, Ordering::Release);
}
