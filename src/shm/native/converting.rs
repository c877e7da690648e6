// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The mid path between shared and exclusive: a writer that finds a lock shared whose readers are about to leave, and a
//! downgrade. As in `view` and `sharing`, nothing here can fail or panic, and a signal handler may come anywhere, and perhaps
//! never return.

use std::sync::atomic::Ordering;

use crate::backend::{FastAcquire, Release};
use crate::manager::Acquired;
use crate::sys::thread::Thread;

use super::abandoning::ROUNDS;
use super::cells::{Cells, Seen};
use super::note;
use super::releasing::{Next, wake};
use super::sharing::{hand_to_process, leave, sweep_claim, try_claim};
use super::view::View;
use super::waiting;
use super::word::{self, OWNER, OWNER_DIED, RESERVED, WaitState};

impl View {
    /// The mid path of a writer that finds a lock shared: takes the word to drain it, and holds the lock if the readers
    /// leave within a few microseconds. Otherwise the slow path finds the word as it is left here, and goes on draining.
    /// The caller counts the word as the thread's, since a drain is in the thread's name.
    pub(super) fn take_from_readers(&self, id: u32, thread: Thread) -> FastAcquire {
        let (Some(sharer), Some(cells)) = (self.sharer(thread), self.cells(id)) else {
            return FastAcquire::GoSlow;
        };
        let (lock, owner) = (cells.word, sharer.owner);
        let seen = lock.load(Ordering::Relaxed);
        // A reserved lock is for others, and only the slow path tells of a death.
        if !word::is_shared(seen) || seen & (RESERVED | OWNER_DIED) != 0 || thread.is_reading() {
            return FastAcquire::GoSlow;
        }
        let word::Step::Take(next) = word::step(seen, owner, WaitState::default()) else { return FastAcquire::GoSlow };
        if lock.compare_exchange(seen, next, Ordering::SeqCst, Ordering::Relaxed).is_err() || !are_left(&cells) {
            return FastAcquire::GoSlow;
        }
        for _ in 0..ROUNDS {
            let seen = lock.load(Ordering::Relaxed);
            if seen & OWNER != owner || !word::is_draining(seen) {
                return FastAcquire::GoSlow;
            }
            let next = word::drained(seen, sharer.process.unwrap_or(owner));
            if lock.compare_exchange(seen, next, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                if self.is_marked_as_retired() {
                    return FastAcquire::BackOut;
                }
                self.remember(id);
                return FastAcquire::Acquired(Acquired::Clean);
            }
        }
        FastAcquire::GoSlow
    }

    /// Makes an exclusive hold a shared one. It claims the cell first, so there is no gap (S15).
    pub(super) fn downgrade_mid(&self, id: u32) -> Release {
        if !self.is_lockable(id) {
            return Release::GoSlow;
        }
        let thread = Thread::calling();
        let (Some(sharer), Some(cells)) = (self.sharer(thread), self.cells(id)) else {
            return Release::GoSlow;
        };
        let holder = sharer.process.unwrap_or(sharer.owner);
        let is_its = |seen: u64| seen & OWNER == holder && !word::is_draining(seen);
        sweep_claim(thread);
        if note::manager(self.slot(id).1.load(Ordering::Relaxed)) != self.manager
            || !is_its(cells.word.load(Ordering::Relaxed))
        {
            return Release::GoSlow;
        }
        let owner = sharer.owner;
        let Some(cell) = cells.claimable(owner).find(|cell| try_claim(cell, owner, thread)) else {
            return Release::GoSlow;
        };
        // No second look at the word is needed: this thread holds the lock.
        if !cells.has(cell) || !thread.end_claim(cell) {
            self.withdraw(id, cell, owner);
            return Release::GoSlow;
        }
        match downgrade_word(&cells, is_its) {
            Release::Done => {}
            undone => {
                leave(cell, owner);
                thread.count_shared_unlock();
                return undone;
            }
        }
        match sharer.process {
            Some(process) => {
                hand_to_process(cell, owner, process);
                thread.count_shared_unlock();
            }
            None => thread.count_native_unlock(),
        }
        Release::Done
    }
}

/// Swaps the word of an exclusive hold for a shared one, and wakes the threads that an unlock would wake.
pub(super) fn downgrade_word(cells: &Cells<'_>, is_its: impl Fn(u64) -> bool) -> Release {
    for _ in 0..ROUNDS {
        let seen = cells.word.load(Ordering::Relaxed);
        if !is_its(seen) {
            return Release::NotHolder;
        }
        let Ok(next) = Next::after(seen, Some(cells)) else { return Release::GoSlow };
        if cells.word.compare_exchange(seen, word::downgraded(seen), Ordering::SeqCst, Ordering::Relaxed).is_ok() {
            wake(cells.word, seen, next);
            return Release::Done;
        }
    }
    Release::GoSlow
}

/// Whether all readers leave within a few microseconds. After the writer's swap no new reader gets in.
fn are_left(cells: &Cells<'_>) -> bool {
    let (extent, mut index) = (cells.extent(), 0);
    loop {
        match cells.at(&extent, index) {
            Seen::Cell(cell, seen) if word::is_reader(seen) => {
                let has_left = |now: u64| !word::is_reader(now);
                if !waiting::spin_until(cell, has_left) {
                    return false;
                }
            }
            Seen::Cell(..) => index += 1,
            Seen::Nothing(next) => index = next,
            Seen::Unusable(_) => return false,
            Seen::End => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::sys::thread::Thread;
    use crate::{InMemoryManager, Manager, Ownership};

    /// A thread that is believed to hold something searches all locks when it ends.
    #[test]
    fn what_is_given_back_is_counted_no_more_whichever_way_it_was_held() {
        for ownership in [Ownership::Thread, Ownership::Process] {
            let manager = InMemoryManager::new(1).unwrap();
            manager.set_ownership(ownership).unwrap();
            let is_threads = u64::from(ownership == Ownership::Thread);
            for _ in 0..3 {
                let _ = manager.lock_shared(0).unwrap();
                manager.unlock_shared(0).unwrap();
                assert_eq!(Thread::calling().held_native(), 0);
                // The word says yet that there may be readers.
                let _ = manager.lock(0).unwrap();
                assert_eq!(Thread::calling().held_native(), is_threads);
                manager.unlock(0).unwrap();
                let _ = manager.lock(0).unwrap();
                manager.downgrade_lock(0).unwrap();
                manager.unlock_shared(0).unwrap();
                assert_eq!(Thread::calling().held_native(), 0);
            }
        }
    }
}
