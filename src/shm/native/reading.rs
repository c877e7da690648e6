// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The slow path of readers. A reader claims a cell in the name of its thread, then looks at the word again. A reader
//! that starves keeps a cell marked STARVING while it sleeps: it does not hold the lock, and asks to be let in next.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Reason;
use crate::acquisition::Progress;
use crate::backend::{Mode, Release};
use crate::manager::{Acquired, Ownership};
use crate::sys::probe;
use crate::sys::thread::waits::HeldWord;

use super::Native;
use super::abandoning::ROUNDS;
use super::caller::Caller;
use super::cells::{self, CellRelease, Cells};
use super::converting::downgrade_word;
use super::judgement::{Effort, Verdict};
use super::locking::{Leaving, LockCall, Waiting};
use super::note;
use super::releasing::{RELEASE_LEFT_CLAIM, wake_any, wake_cell, wake_oldest};
use super::sharing::{hand_to_process, leave};
use super::word::{self, OWNER, OWNER_DIED, RESERVED, STARVING, Step, WaitState};

/// What a reader's wait has come to.
#[derive(Clone, Copy, Default)]
pub(super) struct Reading<'m> {
    /// The cell in which it starves or, at the end, holds the lock.
    cell: Option<&'m AtomicU64>,
    /// Whether it has starved in a cell. The last reader that did wakes a writer.
    has_starved: bool,
    /// The word as it was when the reader took the lock.
    entered: u64,
}

impl<'m> Reading<'m> {
    /// The cell in which it starves as `owner`, if the cell is still its own. A writer may have emptied the cell after a
    /// read phase for which no reader came (S13). A signal handler may then have claimed the cell for another lock.
    fn starving_claim(&self, owner: u64) -> Option<&'m AtomicU64> {
        self.cell.filter(|cell| cells::is_starving_claim_of(cell.load(Ordering::Relaxed), owner))
    }
}

/// How often to search for a hold of the process. A search misses a hold only if other threads of the process lock and
/// unlock meanwhile.
const SEARCHES: u32 = 16;

const NO_READERS: Reason = Reason::Unsupported(
    "the segment has format version 1, which has no shared locks; lock exclusively, or create the segment anew",
);

impl Native {
    /// Checks that the segment has this kind of hold.
    pub(super) fn may_share(&self, mode: Mode) -> Result<(), Reason> {
        match mode {
            Mode::Shared if self.pool().table().is_none() => Err(NO_READERS),
            _ => Ok(()),
        }
    }

    /// Releases a lock that the calling thread or this process holds shared.
    #[cold]
    pub(super) fn release_cell(&self, id: u32) -> Result<(), Reason> {
        self.may_lock(id)?;
        self.may_share(Mode::Shared)?;
        let holder = self.own_words().ok_or(Reason::NotHolder { id })?;
        super::sharing::sweep_claim(holder.thread);
        let cells = self.pool().cells(id).ok_or(NO_READERS)?;
        let thread_word = holder.thread_word.filter(|_| self.ownership.chosen() == Ownership::Thread);
        // Repeat this for a hold of the process: another thread may release the cell that was just found, and claim one
        // that the search has passed.
        let has_left = match thread_word {
            Some(owner) => cells.find(owner).is_some_and(|cell| leave(cell, owner)),
            None => (0..SEARCHES).any(|_| {
                let owner = holder.process_word;
                cells.find_of_process(owner).is_some_and(|cell| leave(cell, owner))
            }),
        };
        if !has_left {
            return Err(Reason::NotHolder { id });
        }
        if thread_word.is_some() {
            holder.thread.count_shared_unlock();
        }
        Ok(())
    }

    /// Makes an exclusive hold a shared one (S15).
    #[cold]
    pub(super) fn downgrade_held(&self, id: u32) -> Result<(), Reason> {
        self.may_lock(id)?;
        self.may_share(Mode::Shared)?;
        let pool = self.pool();
        let caller = self.enter()?;
        let cells = pool.cells(id).ok_or(NO_READERS)?;
        let is_its = |seen: u64| seen & OWNER == caller.word && !word::is_draining(seen);
        if !is_its(cells.word.load(Ordering::Relaxed)) || note::manager(pool.note(id)) != self.view.manager {
            return Err(Reason::NotHolder { id });
        }
        // Claim before the swap of the word: a writer could come between the two.
        let cell = pool.claim_cell(&cells, caller.owner)?;
        pool.next_after(STARVING, id);
        match downgrade_word(&cells, is_its) {
            Release::Done => {}
            undone => {
                leave(cell, caller.owner);
                return Err(match undone {
                    Release::GoSlow => Reason::Unsettled { id, rounds: ROUNDS },
                    _ => Reason::NotHolder { id },
                });
            }
        }
        match caller.ownership {
            Ownership::Thread => {
                caller.thread.count_shared_lock();
                caller.thread.count_native_unlock();
            }
            Ownership::Process => hand_to_process(cell, caller.owner, caller.word),
        }
        Ok(())
    }
}

impl<'m> LockCall<'m> {
    fn cells(self) -> Result<Cells<'m>, Reason> {
        self.native.pool().cells(self.id).ok_or(NO_READERS)
    }

    /// Takes the lock shared if no living writer holds it or is next.
    pub(super) fn contend_shared(self, caller: &Caller<'m>) -> Progress {
        let (pool, cells) = (self.native.pool(), self.cells()?);
        let is_try = self.deadline.is_try();
        // No thread reads a lock twice: if a writer waits, the second call would wait for ever (S14).
        if caller.thread.is_reading() && cells.find(caller.owner).is_some() {
            return Err(self.own(caller));
        }
        self.end_own_drain(caller.owner);
        let waiter = WaitState { is_leaving: is_try, ..WaitState::default() };
        for _ in 0..ROUNDS {
            let seen = cells.word.load(Ordering::Acquire);
            if let Some(reason) = self.refusal(seen, caller) {
                return Err(reason);
            }
            if word::may_enter(seen, waiter) {
                let cell = self.claim(&cells, caller.owner)?;
                if let Some(entered) = cells.look_again(waiter) {
                    let reading = Reading { cell: Some(cell), has_starved: false, entered };
                    return self.finish_shared(caller, reading, waiter);
                }
                leave(cell, caller.owner);
            } else if is_try && word::has_owner(seen) && pool.is_dead_now(seen) {
                let _changed = self.swap_dead_owner(seen);
            } else {
                break;
            }
        }
        match is_try {
            true => Err(self.held(pool.holder_thread(cells.word.load(Ordering::Relaxed)))),
            false => Ok(None),
        }
    }

    fn claim(self, cells: &Cells<'m>, claim: u64) -> Result<&'m AtomicU64, Reason> {
        self.native.pool().claim_cell(cells, claim)
    }

    /// Swaps a dead owner's word for one that readers may enter, and keeps the death in it (S5).
    fn swap_dead_owner(self, seen: u64) -> bool {
        let next = word::found_dead(seen);
        let is_swapped = self.lock().compare_exchange(seen, next, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if is_swapped {
            probe::takeover(self.inode(), self.id.into(), seen, next);
        }
        is_swapped
    }

    pub(super) fn clear_dead_owner(self, seen: u64, effort: Effort) {
        if word::has_owner(seen) && self.native.pool().judge(seen, effort) == Verdict::Dead {
            let _changed = self.swap_dead_owner(seen);
        }
    }

    /// Finishes once a reader holds the lock. If the segment was removed, it releases the cell.
    pub(super) fn finish_shared(self, caller: &Caller<'_>, reading: Reading<'_>, waiter: WaitState) -> Progress {
        let Some(cell) = reading.cell else { return Ok(None) };
        // Check this after the second look at the word, as a writer checks it after its swap: a removed segment gives no new
        // holds (S22).
        let checked = self.native.pool().check_not_retired();
        if checked.is_err() {
            leave(cell, caller.owner);
        }
        self.pass_on(reading, waiter);
        checked?;
        match caller.ownership {
            Ownership::Thread => caller.thread.count_shared_lock(),
            Ownership::Process => hand_to_process(cell, caller.owner, caller.word),
        }
        Ok(Some(if reading.entered & OWNER_DIED == 0 { Acquired::Clean } else { Acquired::OwnerDied }))
    }

    /// Passes a wake-up on: a writer uses it up, because its unlock wakes the next, but a reader does not (S4). The last
    /// reader that starved ends the read phase (S12).
    fn pass_on(self, reading: Reading<'_>, waiter: WaitState) {
        if reading.entered & RESERVED == 0 {
            if waiter.woken {
                wake_any(self.lock());
            }
        } else if (waiter.woken || reading.has_starved)
            && self.native.pool().next_after(STARVING, self.id) == super::releasing::Next::Anybody
        {
            wake_oldest(self.lock());
        }
    }

    /// Judges the owner once before the first sleep: it may have died long ago.
    pub(super) fn before_first_shared_sleep(self, waiting: &mut Waiting<'m>) -> Progress<Leaving> {
        self.clear_dead_owner(self.lock().load(Ordering::Acquire), Effort::Quick);
        self.before_shared_sleep(waiting)
    }

    /// Takes the lock, or sets WAITERS in the word and prepares a sleep.
    pub(super) fn before_shared_sleep(self, waiting: &mut Waiting<'m>) -> Progress<Leaving> {
        let cells = self.cells().map_err(Leaving::at_once)?;
        loop {
            let mut seen = cells.word.load(Ordering::Acquire);
            match word::reader_step(seen, waiting.waiter) {
                Step::Take(_) => {
                    if self.come_in(waiting, &cells).map_err(Leaving::at_once)? {
                        return Ok(Some(Acquired::Clean));
                    }
                    self.check_wait()?;
                    continue;
                }
                Step::Announce(next) => {
                    if cells.word.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed).is_err() {
                        self.check_wait()?;
                        continue;
                    }
                    seen = next;
                }
                Step::Sleep => {}
            }
            let has_claim = waiting.reading.starving_claim(waiting.caller.owner).is_some();
            if waiting.waiter.starves && !has_claim && self.starve(waiting, &cells) {
                // The word may let it in by now.
                continue;
            }
            self.sleep_on_word(waiting, seen)?;
            return Ok(None);
        }
    }

    /// Claims a cell marked STARVING, if there is room (S12).
    fn starve(self, waiting: &mut Waiting<'m>, cells: &Cells<'m>) -> bool {
        let Ok(cell) = self.claim(cells, waiting.caller.owner | STARVING) else { return false };
        waiting.reading = Reading { cell: Some(cell), has_starved: true, entered: 0 };
        self.hold(waiting, Some(cell));
        true
    }

    /// Records the cell, so that it is released if the wait is left.
    fn hold(self, waiting: &Waiting<'m>, cell: Option<&'m AtomicU64>) {
        let owner = waiting.caller.owner;
        let held_word = cell.map(|word| HeldWord { word, owner, release: RELEASE_LEFT_CLAIM });
        waiting.counted.set_held_word(waiting.caller.thread, held_word);
    }

    /// Claims a cell, or turns the one in which it starves into a claim, and looks at the word again (S1). Returns whether
    /// it holds the lock now.
    fn come_in(self, waiting: &mut Waiting<'m>, cells: &Cells<'m>) -> Result<bool, Reason> {
        let owner = waiting.caller.owner;
        let kept = waiting.reading.starving_claim(owner).filter(|cell| {
            cells::change(cell, owner, Ordering::SeqCst, |seen| seen & !STARVING) != CellRelease::NotIts
        });
        let cell = match kept {
            Some(cell) => cell,
            None => {
                waiting.reading.cell = None;
                self.hold(waiting, None);
                self.claim(cells, owner)?
            }
        };
        if let Some(entered) = cells.look_again(waiting.waiter) {
            waiting.reading = Reading { cell: Some(cell), entered, ..waiting.reading };
            return Ok(true);
        }
        // A writer was faster.
        if !waiting.waiter.starves {
            leave(cell, owner);
            return Ok(false);
        }
        if cells::change(cell, owner, Ordering::Release, |_| owner | STARVING) == CellRelease::Awaited {
            wake_cell(cell);
        }
        waiting.reading = Reading { cell: Some(cell), has_starved: true, entered: 0 };
        self.hold(waiting, Some(cell));
        Ok(false)
    }

    /// Leaves the wait, perhaps with the lock after all: see [`Leaving::last_try`].
    pub(super) fn leave_shared(self, waiting: &mut Waiting<'m>, leaving: Leaving) -> Progress {
        let cells = self.cells()?;
        if Self::is_last_try(&leaving) {
            waiting.waiter.is_leaving = true;
            if word::may_enter(cells.word.load(Ordering::Acquire), waiting.waiter)
                && self.come_in(waiting, &cells).unwrap_or(false)
            {
                return Ok(Some(Acquired::Clean));
            }
        }
        if let Some(cell) = waiting.reading.starving_claim(waiting.caller.owner) {
            leave(cell, waiting.caller.owner);
        }
        // Pass the wake-up on. This may also have been the last reader that starved.
        if waiting.waiter.woken || waiting.reading.has_starved {
            wake_any(cells.word);
        }
        Err(leaving.reason)
    }
}
