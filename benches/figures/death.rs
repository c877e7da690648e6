// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the SIGKILL of a holder to the lock in a waiter's hands.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::library::{Layout, Library, Manager};
use crate::peer::{self, now, until};
use crate::{lone, median};

const DEATHS: u32 = 1000;
const BIG_DEATHS: u32 = 7;
const BIG: usize = 4 << 30;
/// By then a waiter sleeps in slices of their full length.
const SETTLED: Duration = Duration::from_millis(12);

#[derive(Default)]
struct Board {
    held: AtomicU64,
    waits: AtomicU64,
    acquired: AtomicU64,
}

pub fn run(library: &Library) {
    let segment = library.segment(Layout::Native, 2048);
    let mut took: Vec<f64> = (0..DEATHS).map(|round| death(library, segment.manager, round, 0)).collect();
    took.sort_by(f64::total_cmp);
    lone("SIGKILL of the holder → a waiter has the lock, native", "ms", median(took.clone()));
    lone(&format!("… the worst of {DEATHS}"), "ms", took[took.len() - 1]);
    let big = (0..BIG_DEATHS).map(|round| death(library, segment.manager, round, BIG)).fold(0.0, f64::max);
    lone(&format!("… of a holder of 4 GiB, the worst of {BIG_DEATHS}"), "ms", big);
}

/// Milliseconds from the kill of a holder with that much memory.
fn death(library: &Library, manager: Manager, round: u32, memory: usize) -> f64 {
    let shared = peer::shared::<Board>(1);
    // SAFETY: fresh zeroed shared memory; atomics may hold zeros.
    let board = unsafe { &*shared };
    let holder = peer::spawn(|| {
        let touched = vec![1u8; memory];
        // SAFETY: the manager is open; a forked child may use it at once.
        library.check(unsafe { (library.lock)(manager, 11) });
        board.held.store(1, Ordering::Release);
        loop {
            std::hint::black_box(&touched);
            std::thread::sleep(Duration::from_secs(60));
        }
    });
    until(&board.held);
    let waiter = peer::spawn(|| {
        // Attached and known before the wait that counts.
        // SAFETY: as above.
        unsafe {
            library.check((library.lock)(manager, 12));
            library.check((library.unlock)(manager, 12));
            board.waits.store(1, Ordering::Release);
            assert_eq!((library.lock)(manager, 11), 1, "owner died");
            board.acquired.store(now(), Ordering::Release);
            library.check((library.unlock)(manager, 11));
        }
    });
    until(&board.waits);
    // At every point of a slice.
    std::thread::sleep(SETTLED + Duration::from_micros(u64::from(round) * 53 % 5000));
    let killed = now();
    // SAFETY: a child of this process.
    unsafe { libc::kill(holder, libc::SIGKILL) };
    peer::join(waiter);
    let mut status = 0;
    // SAFETY: as above.
    unsafe { libc::waitpid(holder, &mut status, 0) };
    let took = board.acquired.load(Ordering::Acquire) - killed;
    // SAFETY: nobody uses the board any more.
    unsafe { libc::munmap(shared.cast(), 4096) };
    took as f64 / 1e6
}
