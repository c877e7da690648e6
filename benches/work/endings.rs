// SPDX-License-Identifier: MIT OR Apache-2.0
//! Waits that end without the lock: by cancellation, and by a timeout.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::library::{Cancel, Layout, Manager, Segment, check, library};
use crate::method::{Contended, Entry, Run};
use crate::peers::{self, PEER_MEMORY};
use crate::processes::{Board, Words, now, pin, shared_memory, spawn, unmap, until};
use crate::results::Quantity;

const CANCELLATION: Quantity = Quantity::less("cancel_trigger to the end of the wait", "ms");
const OVERSHOOT: Quantity = Quantity::less("beyond the timeout", "ms");
const LOCK: u32 = 7;
const TIMEOUT: Duration = Duration::from_millis(8);
/// The longest slice of a wait.
const SLICE_US: u64 = 5000;

pub fn run(run: &mut Run) {
    let segments = Layout::BOTH.map(|layout| (layout, Segment::new(layout, 2048)));
    let board = Board::new(1);
    let mutex = shared_memory(PEER_MEMORY);
    let peer = peers::find(peers::RAW).expect("the libc has it");
    let timed = peer.timed_lock.expect("the mutex has it");
    // SAFETY: as peer.h says: zeroed shared memory; this peer wants no path.
    let handle = unsafe {
        (peer.make)(mutex.as_ptr().cast(), c"".as_ptr());
        (peer.attach)(mutex.as_ptr().cast(), c"".as_ptr())
    };
    let holder = spawn(|| {
        segments.iter().for_each(|(_, segment)| library().take(segment.manager, LOCK));
        let [lock, _] = peer.pair;
        // SAFETY: attached before the fork, which the mutex's memory survives.
        assert_eq!(unsafe { lock(handle, LOCK) }, 0);
        board[0].store(1, Ordering::Release);
        loop {
            std::thread::sleep(Duration::from_secs(60));
        }
    });
    until(&board[0], 1);

    let rounds = run.effort.pick(9, 151);
    let entries = segments.iter().map(|(layout, segment)| {
        Entry::of_several(layout.contender(), |round| vec![cancellation(segment.manager, round as u64)])
    });
    run.rounds("endings", "a wait is cancelled", &[CANCELLATION], rounds, Contended::No, entries.collect());

    let timeout_ns = TIMEOUT.as_nanos() as u64;
    let mut entries: Vec<Entry<'_>> = segments
        .iter()
        .map(|(layout, segment)| {
            // SAFETY: the manager is open.
            let wait = || unsafe { (library().timed_lock)(segment.manager, LOCK, timeout_ns) };
            Entry::new(layout.contender(), move || overshoot(wait, -libc::ETIMEDOUT))
        })
        .collect();
    // SAFETY: attached; another process holds it.
    let wait = move || unsafe { timed(handle, LOCK, timeout_ns) };
    entries.push(Entry::new(peer.name, move || overshoot(wait, libc::ETIMEDOUT)));
    run.rounds("endings", "a timeout of 8 ms", &[OVERSHOOT], rounds, Contended::No, entries);
    holder.kill_and_wait();
    unmap(mutex, PEER_MEMORY);
}

/// Milliseconds that a wait takes beyond its timeout.
fn overshoot(wait: impl FnOnce() -> i32, timed_out: i32) -> f64 {
    let start = now();
    assert_eq!(wait(), timed_out);
    (now() - start).saturating_sub(TIMEOUT.as_nanos() as u64) as f64 / 1e6
}

/// Milliseconds from the trigger, by another thread, to the end of the wait.
fn cancellation(manager: Manager, round: u64) -> f64 {
    let took = Words::new(1);
    // A child has the second thread, so that this process keeps one when it forks.
    let child = spawn(|| {
        let mut cancel: Cancel = std::ptr::null_mut();
        // SAFETY: as the header says: a place for the result.
        check(unsafe { (library().cancel_new)(&mut cancel) });
        let shared = (manager as usize, cancel as usize);
        let ended = std::thread::spawn(move || {
            pin(1);
            let (manager, cancel) = (shared.0 as Manager, shared.1 as Cancel);
            // SAFETY: both are open until this thread has ended.
            let code = unsafe { (library().cancellable_lock)(manager, LOCK, u64::MAX, cancel) };
            assert_eq!(code, -libc::ECANCELED);
            now()
        });
        pin(0);
        // It sleeps by then, at another point of a slice each time.
        std::thread::sleep(Duration::from_millis(12) + Duration::from_micros(round * 797 % SLICE_US));
        let triggered = now();
        // SAFETY: the object lives.
        check(unsafe { (library().cancel_trigger)(cancel) });
        let ended = ended.join().expect("the waiter");
        took[0].store(ended - triggered, Ordering::Release);
        // SAFETY: nobody uses it any more.
        check(unsafe { (library().cancel_free)(cancel) });
    });
    child.join();
    took[0].load(Ordering::Acquire) as f64 / 1e6
}
