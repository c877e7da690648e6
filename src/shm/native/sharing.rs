// SPDX-License-Identifier: MIT OR Apache-2.0
#![allow(unsafe_code, reason = "a claim that was left is noted by its cell's address")]
//! The fast path and the mid path of readers. One compare-and-swap claims a cell, one releases it, and the word is only
//! read. As in `view`, nothing here can fail or panic, and a signal handler may come anywhere, and perhaps
//! never return.
//!
//! A claim is no hold until the word was read again. A handler may come between the two and jump away. So the thread
//! notes the cell before it claims it, and takes the note away once it holds the lock. A later call of the thread that
//! finds the note releases the cell (S14).

use std::hint;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::backend::{FastAcquire, Release, Spin};
use crate::manager::Acquired;
use crate::sys::probe;
use crate::sys::thread::Thread;
use crate::sys::thread::waits;

use super::super::SHORT_WAITS;
use super::super::removal::mark;
use super::cells::{self, CellRelease, Cells, LEVEL_OF_A_BUSY_LOCK};
use super::releasing::wake_cell;
use super::view::View;
use super::waiting;
use super::word::{self, OWNER, OWNER_DIED, SHARED, WaitState};

/// After a thread has met other readers this often in the slots' cells, the lock's readers use the table (S18a).
const MEETINGS: u64 = 64;

/// Releases a cell, and wakes the writer that sleeps on it. Returns whether the cell was the owner's.
#[inline(always)]
pub(super) fn leave(cell: &AtomicU64, owner: u64) -> bool {
    let given_back = cells::release_cell(cell, owner);
    if given_back == CellRelease::Awaited {
        wake_cell(cell);
    }
    given_back != CellRelease::NotIts
}

/// Releases an unfinished claim of the calling thread. Either a signal handler jumped away from the claim. Or this call
/// runs in a handler that interrupts the claim; then the interrupted call repeats it.
pub(super) fn sweep_claim(thread: Thread) {
    let Some((address, owner)) = thread.claim() else { return };
    let cell = ptr::with_exposed_provenance::<u64>(address as usize);
    // Read the cell through the kernel: if the claim was left before its swap, the segment may be unmapped by now. A cell
    // that names the owner is mapped: a process does not unmap a segment while a cell in it names the process.
    if waits::read_own_memory(cell).is_some_and(|found| found & OWNER == owner) {
        // SAFETY: a cell of a segment that is mapped, see above; accessed as an atomic everywhere.
        leave(unsafe { AtomicU64::from_ptr(cell.cast_mut()) }, owner);
        probe::claim_undone(address, owner);
    }
    thread.forget_claim(address);
}

/// Notes a claim, then claims an empty cell. `false`: the cell was not empty.
#[inline(always)]
pub(super) fn try_claim(cell: &AtomicU64, owner: u64, thread: Thread) -> bool {
    thread.begin_claim(cell, owner);
    let is_claimed = cell.compare_exchange(0, owner, Ordering::SeqCst, Ordering::Relaxed).is_ok();
    if !is_claimed {
        thread.abandon_claim(cell);
    }
    is_claimed
}

/// A thread that takes a lock shared. It claims cells in its own name (S11), even if the hold will be the process's.
#[derive(Clone, Copy)]
pub(super) struct Sharer {
    pub(super) thread: Thread,
    /// The thread's word.
    pub(super) owner: u64,
    /// The word of the process, if the process owns the locks.
    pub(super) process: Option<u64>,
}

impl View {
    /// The fast path: takes a lock shared that is shared already, or does nothing.
    #[inline(always)]
    pub(super) fn share_fast(&self, id: u32) -> FastAcquire {
        if !self.is_lockable(id) {
            return FastAcquire::GoSlow;
        }
        let thread = Thread::calling();
        let Some(owner) = self.thread_word(thread) else {
            return FastAcquire::GoSlow;
        };
        let Some(cells) = self.cells(id) else {
            return FastAcquire::GoSlow;
        };
        // A thread that already reads a lock may read this one. Only a search would tell, and the mid path searches.
        if thread.is_reading() || !is_open(cells.word.load(Ordering::Relaxed)) {
            return FastAcquire::GoSlow;
        }
        if cells.level.load(Ordering::Relaxed) != 0 {
            hint::cold_path();
            return self.share_in_table(id);
        }
        let cell = cells.first_own(owner);
        // Load all addresses before the swap: the processor starts nothing new until the swap is done.
        let (word, retired, others) = (cells.word, self.retired(), cells.others(owner));
        if !try_claim(cell, owner, thread) {
            return FastAcquire::GoSlow;
        }
        if !is_open(word.load(Ordering::SeqCst))
            || retired.load(Ordering::Relaxed) != mark::IN_USE
            || !thread.end_claim(cell)
        {
            return self.withdraw(id, cell, owner);
        }
        if others != 0 {
            spread_out_at_times(cells.level, thread);
        }
        FastAcquire::Acquired(Acquired::Clean)
    }

    /// The same for a lock whose readers use the table. The caller has checked that the thread has entered and reads
    /// nothing, and that the word lets it in.
    #[inline(never)]
    #[allow(
        improper_ctypes_definitions,
        reason = "called in the library alone: the convention says that nothing unwinds"
    )]
    extern "C" fn share_in_table(&self, id: u32) -> FastAcquire {
        let thread = Thread::calling();
        let (Some(owner), Some(cells)) = (self.thread_word(thread), self.cells(id)) else {
            return FastAcquire::GoSlow;
        };
        let Some(cell) = cells.first_place(owner) else {
            return FastAcquire::GoSlow;
        };
        let (word, retired) = (cells.word, self.retired());
        if !try_claim(cell, owner, thread) {
            return FastAcquire::GoSlow;
        }
        if !cells.has(cell)
            || !is_open(word.load(Ordering::SeqCst))
            || retired.load(Ordering::Relaxed) != mark::IN_USE
            || !thread.end_claim(cell)
        {
            return self.withdraw(id, cell, owner);
        }
        FastAcquire::Acquired(Acquired::Clean)
    }

    /// Withdraws a claim. A signal handler may have released it already. If the handler came before the swap, the cell is
    /// still the thread's. If it came after, the cell may be a hold that the handler has claimed for a lock of its own.
    ///
    /// It finds the cells anew: what a fast path hands on by reference, it writes to memory before each of its swaps.
    #[cold]
    #[inline(never)]
    #[allow(improper_ctypes_definitions, reason = "as above")]
    pub(super) extern "C" fn withdraw(&self, id: u32, cell: &AtomicU64, owner: u64) -> FastAcquire {
        let thread = Thread::calling();
        let is_its = || self.cells(id).is_some_and(|cells| cells.has(cell));
        if thread.claims(cell) || !thread.is_reading() || is_its() {
            leave(cell, owner);
        }
        thread.abandon_claim(cell);
        FastAcquire::GoSlow
    }

    pub(super) fn sharer(&self, thread: Thread) -> Option<Sharer> {
        if let Some(owner) = self.thread_word(thread) {
            return Some(Sharer { thread, owner, process: None });
        }
        let process = self.lets_process_in(thread).then(|| self.process_word().load(Ordering::Relaxed))?;
        Some(Sharer { thread, owner: process | thread.serial_bits(), process: Some(process) })
    }

    /// The mid path: for the first reader of a lock, for a reader of several locks, and for a lock that a writer holds
    /// for a moment.
    pub(super) fn share_mid(&self, id: u32, spin: Spin) -> FastAcquire {
        if !self.is_lockable(id) {
            return FastAcquire::GoSlow;
        }
        let thread = Thread::calling();
        let (Some(sharer), Some(cells)) = (self.sharer(thread), self.cells(id)) else {
            return FastAcquire::GoSlow;
        };
        sweep_claim(thread);
        // A thread does not take a lock twice (S14).
        if thread.is_reading() && cells.find(sharer.owner).is_some() {
            return FastAcquire::GoSlow;
        }
        for _ in 0..SHORT_WAITS {
            let is_open = match spin {
                Spin::Never | Spin::Try => word::may_enter(cells.word.load(Ordering::Relaxed), WaitState::default()),
                Spin::Briefly => waiting::spin_to_share(self.slot(id), thread),
            };
            if !is_open || cells.word.load(Ordering::Relaxed) & OWNER == sharer.owner {
                break;
            }
            let attempt = self.come_in(id, &cells, sharer);
            if attempt != FastAcquire::GoSlow {
                return attempt;
            }
        }
        if spin == Spin::Try { self.refuse_mid(id) } else { FastAcquire::GoSlow }
    }

    fn come_in(&self, id: u32, cells: &Cells<'_>, sharer: Sharer) -> FastAcquire {
        let Sharer { thread, owner, process } = sharer;
        let Some(cell) = cells.claimable(owner).find(|cell| try_claim(cell, owner, thread)) else {
            return FastAcquire::GoSlow;
        };
        let seen = if cells.has(cell) { cells.look_again(WaitState::default()) } else { None };
        let Some(seen) = seen.filter(|_| !self.is_marked_as_retired() && thread.end_claim(cell)) else {
            return self.withdraw(id, cell, owner);
        };
        if cells.has_in_slot(cell) && cells.others(owner) != 0 {
            spread_out_at_times(cells.level, thread);
        }
        if let Some(process) = process {
            hand_to_process(cell, owner, process);
            thread.count_shared_unlock();
        }
        FastAcquire::Acquired(if seen & OWNER_DIED == 0 { Acquired::Clean } else { Acquired::OwnerDied })
    }

    /// The fast path: releases a shared hold in the cell that the thread tries first.
    #[inline(always)]
    pub(super) fn unshare_fast(&self, id: u32) -> Release {
        if !self.is_lockable(id) {
            return Release::GoSlow;
        }
        let thread = Thread::calling();
        let Some(owner) = self.thread_word(thread) else {
            return Release::GoSlow;
        };
        let Some(cells) = self.cells(id) else {
            return Release::GoSlow;
        };
        let cell = match cells.level.load(Ordering::Relaxed) {
            0 => Some(cells.first_own(owner)),
            _ => cells.first_place(owner),
        };
        let Some(cell) = cell.filter(|_| !thread.is_claiming()) else {
            return Release::GoSlow;
        };
        if cell.compare_exchange(owner, 0, Ordering::Release, Ordering::Relaxed).is_err() {
            return Release::GoSlow;
        }
        thread.count_shared_unlock();
        Release::Done
    }

    /// The mid path: releases a shared hold in any cell.
    pub(super) fn unshare_mid(&self, id: u32) -> Release {
        if !self.is_lockable(id) {
            return Release::GoSlow;
        }
        let thread = Thread::calling();
        let (Some(sharer), Some(cells)) = (self.sharer(thread), self.cells(id)) else {
            return Release::GoSlow;
        };
        sweep_claim(thread);
        if let Some(process) = sharer.process {
            if let Some(cell) = cells.find_of_process(process) {
                return if leave(cell, process) { Release::Done } else { Release::GoSlow };
            }
            // The hold may still be in a thread's name: a handler may have ended the thread before it handed the hold to
            // the process. Or the thread owns it through another manager, which has to release it. The slow path decides.
            if self.pool.has_owning_threads.load(Ordering::Relaxed) {
                return Release::GoSlow;
            }
        }
        match cells.find(sharer.owner) {
            Some(cell) if leave(cell, sharer.owner) => {
                thread.count_shared_unlock();
                Release::Done
            }
            _ => Release::GoSlow,
        }
    }
}

/// Hands the hold of a thread to its process (S11). WAITERS stays in the cell.
pub(super) fn hand_to_process(cell: &AtomicU64, owner: u64, process: u64) {
    let _its_until_now = cells::change(cell, owner, Ordering::Release, |seen| process | (seen & !OWNER));
}

/// Whether a word lets every reader in, and there is no death to tell.
#[inline(always)]
fn is_open(seen: u64) -> bool {
    !word::has_owner(seen) && seen & (SHARED | OWNER_DIED) == SHARED
}

/// Sends readers that often meet to the table, where each has a cache line of its own: the slot's cells share one.
#[cold]
#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "as above")]
extern "C" fn spread_out_at_times(level: &AtomicU64, thread: Thread) {
    if thread.meets_others(MEETINGS) {
        let _by_others = level.compare_exchange(0, LEVEL_OF_A_BUSY_LOCK, Ordering::SeqCst, Ordering::Relaxed);
    }
}
