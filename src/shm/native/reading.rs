// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The slow path of readers. A cell is claimed in the name of the thread, then the word is looked at again; a reader that
//! starves keeps its cell, marked STARVING, while it sleeps: "not in, but let me in next".

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Reason;
use crate::acquisition::Progress;
use crate::backend::{Mode, Release};
use crate::manager::{Acquired, Ownership};
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

/// What a wait has come to as a reader's.
#[derive(Clone, Copy, Default)]
pub(super) struct Reading<'m> {
    /// Its cell, in which it starves or, at the end, stands.
    cell: Option<&'m AtomicU64>,
    /// Whether it starved in a cell: whoever did, and is the last of them, wakes a writer.
    has_starved: bool,
    /// The word by which it came in.
    entered: u64,
}

impl<'m> Reading<'m> {
    /// The cell in which it starves as `owner`, if that stands yet: a writer that took a reservation which none came for has
    /// taken such cells away (S13), and a signal handler may have claimed that very one for another lock since.
    fn starving_claim(&self, owner: u64) -> Option<&'m AtomicU64> {
        self.cell.filter(|cell| cells::is_starving_claim_of(cell.load(Ordering::Relaxed), owner))
    }
}

/// How often a hold of the process is looked for: each time that it was not found though it is there, others of its threads
/// have locked and unlocked in the midst of the search.
const SEARCHES: u32 = 16;

const NO_READERS: Reason = Reason::Unsupported(
    "the segment has format version 1, which has no shared locks; lock exclusively, or create the segment anew",
);

impl Native {
    /// Whether a lock may be had in that way.
    pub(super) fn may_share(&self, mode: Mode) -> Result<(), Reason> {
        match mode {
            Mode::Shared if self.pool().table().is_none() => Err(NO_READERS),
            _ => Ok(()),
        }
    }

    /// Gives back what the calling thread, or this process, holds shared.
    #[cold]
    pub(super) fn release_cell(&self, id: u32) -> Result<(), Reason> {
        self.may_lock(id)?;
        self.may_share(Mode::Shared)?;
        let holder = self.own_words().ok_or(Reason::NotHolder { id })?;
        super::sharing::sweep_claim(holder.thread);
        let cells = self.pool().cells(id).ok_or(NO_READERS)?;
        let thread_word = holder.thread_word.filter(|_| self.ownership.chosen() == Ownership::Thread);
        // Of the process: other threads give back what was just found, and their holds move to cells that the search has passed.
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
        // Behind the swap of the word a writer might come before the cell.
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

    /// Holds the lock shared if no writer has it who lives, or is next.
    pub(super) fn contend_shared(self, caller: &Caller<'m>) -> Progress {
        let (pool, cells) = (self.native.pool(), self.cells()?);
        let is_try = self.deadline.is_try();
        // Nobody reads a lock twice: behind a writer that waits the second would wait for ever (S14).
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

    /// A dead owner's word becomes one that may be entered, with the death that was due (S5).
    fn swap_dead_owner(self, seen: u64) -> bool {
        self.lock().compare_exchange(seen, word::found_dead(seen), Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    pub(super) fn clear_dead_owner(self, seen: u64, effort: Effort) {
        if word::has_owner(seen) && self.native.pool().judge(seen, effort) == Verdict::Dead {
            let _changed = self.swap_dead_owner(seen);
        }
    }

    /// What comes once a reader is in. It cannot fail but by giving the cell back.
    pub(super) fn finish_shared(self, caller: &Caller<'_>, reading: Reading<'_>, waiter: WaitState) -> Progress {
        let Reading { cell: Some(cell), has_starved, entered } = reading else { return Ok(None) };
        // After the second look at the word, as a writer looks after its swap: a removed segment gives no new holds (S22).
        let checked = self.native.pool().check_not_retired();
        if checked.is_err() {
            leave(cell, caller.owner);
        }
        self.pass_on(entered, waiter, has_starved);
        checked?;
        match caller.ownership {
            Ownership::Thread => caller.thread.count_shared_lock(),
            Ownership::Process => hand_to_process(cell, caller.owner, caller.word),
        }
        Ok(Some(if entered & OWNER_DIED == 0 { Acquired::Clean } else { Acquired::OwnerDied }))
    }

    /// A reader does not use a wake-up up, as a writer does, whose unlock wakes the next (S4). The last of those that starved
    /// ends the read phase (S12).
    fn pass_on(self, entered: u64, waiter: WaitState, has_starved: bool) {
        if entered & RESERVED == 0 {
            if waiter.woken {
                wake_any(self.lock());
            }
        } else if (waiter.woken || has_starved)
            && self.native.pool().next_after(STARVING, self.id) == super::releasing::Next::Anybody
        {
            wake_oldest(self.lock());
        }
    }

    /// The owner may be one that died long ago.
    pub(super) fn before_first_shared_sleep(self, waiting: &mut Waiting<'m>) -> Progress<Leaving> {
        self.clear_dead_owner(self.lock().load(Ordering::Acquire), Effort::Quick);
        self.before_shared_sleep(waiting)
    }

    /// Comes in, or shows that it waits and says how to sleep.
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
                // By now it may enter.
                continue;
            }
            self.check_wait()?;
            self.sleep_on_word(waiting, seen);
            return Ok(None);
        }
    }

    /// Claims a cell in which to starve, if there is room for it (S12).
    fn starve(self, waiting: &mut Waiting<'m>, cells: &Cells<'m>) -> bool {
        let Ok(cell) = self.claim(cells, waiting.caller.owner | STARVING) else { return false };
        waiting.reading = Reading { cell: Some(cell), has_starved: true, entered: 0 };
        self.hold(waiting, Some(cell));
        true
    }

    /// Notes a cell for whoever finds the wait left.
    fn hold(self, waiting: &Waiting<'m>, cell: Option<&'m AtomicU64>) {
        let owner = waiting.caller.owner;
        let held_word = cell.map(|word| HeldWord { word, owner, release: RELEASE_LEFT_CLAIM });
        waiting.counted.set_held_word(waiting.caller.thread, held_word);
    }

    /// Claims a cell, or turns the one in which it starved into a claim, and looks at the word again (S1). Whether it is in.
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
        // What it was woken for is another's, and it may have been the last that starved.
        if waiting.waiter.woken || waiting.reading.has_starved {
            wake_any(cells.word);
        }
        Err(leaving.reason)
    }
}
