// SPDX-License-Identifier: MIT OR Apache-2.0
//! A try at a lock that another process holds.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::contenders::{LIBPOD, NATIVE};
use crate::library::{Layout, Segment, library};
use crate::method::{Contended, Entry, Run, nanoseconds};
use crate::processes::{Board, spawn, until};
use crate::results::Quantity;

const TRY: Quantity = Quantity::less("try", "ns");
const CALLS: u32 = 5000;
const LOCK: u32 = 7;

pub fn run(run: &mut Run) {
    let segments = Layout::BOTH.map(|layout| Segment::new(layout, 2048));
    let board = Board::new(1);
    let holder = spawn(|| {
        segments.iter().for_each(|segment| library().take(segment.manager, LOCK));
        board[0].store(1, Ordering::Release);
        loop {
            std::thread::sleep(Duration::from_secs(60));
        }
    });
    until(&board[0], 1);
    let entries = [NATIVE, LIBPOD].into_iter().zip(&segments).map(|(name, segment)| {
        Entry::new(name, move || {
            nanoseconds(CALLS, || {
                // SAFETY: the manager is open.
                assert_eq!(unsafe { (library().try_lock)(segment.manager, LOCK) }, -libc::EBUSY);
            })
        })
    });
    let rounds = run.effort.pick(21, 101);
    run.rounds("held", "another process holds it", &[TRY], rounds, Contended::No, entries.collect());
    holder.kill_and_wait();
}
