// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The slow path of writers: taking a word, and draining a lock that readers hold.

use std::sync::atomic::Ordering;

use crate::Reason;
use crate::acquisition::Progress;
use crate::manager::Acquired;
use crate::sys::probe::{self, DrainEnd};
use crate::sys::syscall::clock::Instant;
use crate::sys::thread::waits::HeldWord;

use super::abandoning::{ROUNDS, clear_dead};
use super::caller::Caller;
use super::cells::{Cells, Extent, Seen};
use super::judgement::{Effort, Verdict};
use super::locking::{Leaving, LockCall, Waiting};
use super::releasing::{END_LEFT_DRAIN, undrain, wake_cell};
use super::waiting::spin_until;
use super::word::{self, OWNER, OWNER_DIED, RESERVED, STARVING, Step, WAITERS, WaitState};

/// A drain: a writer's way through the cells of a lock whose word it has.
pub(super) struct Drain {
    extent: Extent,
    next: usize,
    reserved: Reserved,
    /// Whether the writer has spun on the present cell and judged its reader, as it does before it first sleeps on a
    /// cell.
    is_known: bool,
    /// Whether it has slept on a cell. Then it spins no more: the readers stay long, or hundreds of them are dead.
    has_slept: bool,
}

/// How a draining word was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reserved {
    /// It was not reserved for readers.
    No,
    /// It was reserved for starving readers, but none of them came in a whole slice: they are dead or stopped. Their
    /// cells are emptied, or every later unlock would wait a slice for them (S13).
    InVain,
}

/// The readers that a look at all cells found.
enum Readers {
    None,
    One(u64),
}

impl Caller<'_> {
    /// The word by which the caller takes the word `seen`. A drain is always in the thread's name, and so is its takeover
    /// (S11).
    fn name_for(&self, seen: u64) -> u64 {
        if word::is_shared(seen) || word::is_draining(seen) { self.owner } else { self.word }
    }

    fn drains(&self, seen: u64) -> bool {
        seen & OWNER == self.owner && word::is_draining(seen)
    }
}

impl<'m> LockCall<'m> {
    /// Takes the lock if no living thread holds it. `None`: the caller has to wait, or to drain.
    pub(super) fn contend(self, caller: &Caller<'_>) -> Progress {
        let (lock, pool) = (self.lock(), self.native.pool());
        let is_try = self.deadline.is_try();
        self.refuse_readers(caller)?;
        // Each round means that another thread has changed the word.
        for _ in 0..ROUNDS {
            let seen = lock.load(Ordering::Acquire);
            if caller.drains(seen) {
                // The mid path has begun to drain, or a call that a signal handler left.
                return if is_try { self.try_drain(caller) } else { Ok(None) };
            }
            if let Some(reason) = self.refusal(seen, caller) {
                return Err(reason);
            }
            // A try does not drain while a reader is alive: it would make other readers wait for that one (S16).
            if is_try
                && word::is_shared(seen)
                && let Readers::One(reader) = self.look_for_readers()?
            {
                return Err(self.held(pool.holder_thread(reader)));
            }
            let waiter = WaitState { is_leaving: is_try, ..WaitState::default() };
            let me = caller.name_for(seen);
            let next = match word::step(seen, me, waiter) {
                Step::Take(next) => next,
                _ if is_try && word::has_owner(seen) && pool.is_dead_now(seen) => word::taken_over(seen, me),
                _ => break,
            };
            if lock.compare_exchange(seen, next, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                if word::has_owner(seen) {
                    probe::takeover(self.inode(), self.id.into(), seen, next);
                }
                return match word::is_draining(next) {
                    false => Ok(Some(left_by(seen))),
                    true if is_try => self.try_drain(caller),
                    true => Ok(None),
                };
            }
        }
        match is_try {
            true => Err(self.held(pool.holder_thread(lock.load(Ordering::Relaxed)))),
            false => Ok(None),
        }
    }

    /// Why a call that does not wait fails.
    pub(super) fn held(self, holder: u32) -> Reason {
        self.deadline.missed(self.id, holder)
    }

    /// Refuses a reader of the lock: two readers that both wanted to become writers would wait for each other (S14).
    fn refuse_readers(self, caller: &Caller<'_>) -> Result<(), Reason> {
        let reads = caller.thread.is_reading()
            && self.native.pool().cells(self.id).is_some_and(|cells| cells.find(caller.owner).is_some());
        if reads { Err(self.own(caller)) } else { Ok(()) }
    }

    /// Why a call fails that asks for a lock of its own thread.
    pub(super) fn own(self, caller: &Caller<'_>) -> Reason {
        self.deadline.held_by_caller(self.id, caller.thread.id() as u32)
    }

    /// Why the call fails if the caller holds the lock itself. A drain that a signal handler left is no hold.
    pub(super) fn refusal(self, seen: u64, caller: &Caller<'_>) -> Option<Reason> {
        (seen & OWNER == caller.owner && !word::is_draining(seen)).then(|| self.own(caller))
    }

    /// Looks for a reader that is not known to be dead, and empties the cells of dead readers.
    fn look_for_readers(self) -> Result<Readers, Reason> {
        let pool = self.native.pool();
        let Some(cells) = pool.cells(self.id) else { return Ok(Readers::None) };
        let (extent, mut index) = (cells.extent(), 0);
        loop {
            match cells.at(&extent, index) {
                Seen::Cell(cell, seen) if word::is_reader(seen) => {
                    if !pool.is_dead_now(seen) {
                        return Ok(Readers::One(seen));
                    }
                    clear_dead(cell, seen);
                    index += 1;
                }
                Seen::Cell(..) => index += 1,
                Seen::Nothing(next) => index = next,
                Seen::Unusable(page) => pool.make_table_page_usable(page)?,
                Seen::End => return Ok(Readers::None),
            }
        }
    }

    /// Looks once at every cell, after the swap. Takes the lock if there is no reader.
    fn try_drain(self, caller: &Caller<'_>) -> Progress {
        let found = self.look_for_readers();
        if let Ok(Readers::None) = found {
            return match self.end_drain(caller) {
                Some(acquired) => Ok(Some(acquired)),
                None => Err(self.held(0)),
            };
        }
        self.end_own_drain(caller.owner);
        match found? {
            Readers::One(reader) => Err(self.held(self.native.pool().holder_thread(reader))),
            Readers::None => Ok(None),
        }
    }

    /// Ends a drain of the caller without the lock, if there is one.
    pub(super) fn end_own_drain(self, owner: u64) {
        undrain(self.lock(), owner, |seen| self.native.pool().next_after(seen, self.id));
    }

    /// Turns the drain into a hold, now that every cell is empty (S8). `None`: another thread has ended the drain.
    fn end_drain(self, caller: &Caller<'_>) -> Option<Acquired> {
        let lock = self.lock();
        for _ in 0..ROUNDS {
            let seen = lock.load(Ordering::Relaxed);
            if !caller.drains(seen) {
                return None;
            }
            let next = word::drained(seen, caller.word);
            if lock.compare_exchange(seen, next, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return Some(if seen & OWNER_DIED == 0 { Acquired::Clean } else { Acquired::OwnerDied });
            }
        }
        None
    }

    /// Judges the holder once before the first sleep: it may have died long ago.
    pub(super) fn before_first_sleep(self, waiting: &mut Waiting<'m>) -> Progress<Leaving> {
        let seen = self.lock().load(Ordering::Acquire);
        if waiting.caller.drains(seen) {
            return self.begin_drain(waiting, Reserved::No);
        }
        match self.take_over(waiting, seen, Effort::Quick)? {
            Some(acquired) => Ok(Some(acquired)),
            None if waiting.drain.is_some() => Ok(None),
            None => self.before_sleep(waiting),
        }
    }

    /// Takes a dead holder's lock over, or a dead writer's drain, by one swap of exactly the word that was judged. If the
    /// caller drains now and the result is `None`, a sleep follows.
    pub(super) fn take_over(self, waiting: &mut Waiting<'m>, seen: u64, effort: Effort) -> Progress<Leaving> {
        let is_dead = word::has_owner(seen) && self.native.pool().judge(seen, effort) == Verdict::Dead;
        let next = word::taken_over(seen, waiting.caller.name_for(seen));
        if !is_dead || self.lock().compare_exchange(seen, next, Ordering::SeqCst, Ordering::Relaxed).is_err() {
            return Ok(None);
        }
        probe::takeover(self.inode(), self.id.into(), seen, next);
        if word::is_draining(next) { self.begin_drain(waiting, Reserved::No) } else { Ok(Some(Acquired::OwnerDied)) }
    }

    /// Takes the lock, or sets WAITERS in the word and prepares a sleep.
    pub(super) fn before_sleep(self, waiting: &mut Waiting<'m>) -> Progress<Leaving> {
        let lock = waiting.lock;
        loop {
            let mut seen = lock.load(Ordering::Acquire);
            match word::step(seen, waiting.caller.name_for(seen), waiting.waiter) {
                Step::Take(next) => {
                    if lock.compare_exchange(seen, next, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                        return if word::is_draining(next) {
                            self.begin_drain(waiting, waiting.waiter.reserved(seen))
                        } else {
                            Ok(Some(left_by(seen)))
                        };
                    }
                    // Threads that change the word all the time must not keep this one from its deadline.
                    self.check_wait()?;
                    continue;
                }
                Step::Announce(next) => {
                    if lock.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed).is_err() {
                        self.check_wait()?;
                        continue;
                    }
                    seen = next;
                }
                Step::Sleep => {}
            }
            self.sleep_on_word(waiting, seen)?;
            return Ok(None);
        }
    }

    /// Begins to drain a word that the caller has just taken. The thread records the word, so that its next call ends the
    /// drain if a signal handler jumps out of the wait.
    fn begin_drain(self, waiting: &mut Waiting<'m>, reserved: Reserved) -> Progress<Leaving> {
        let Some(cells) = self.native.pool().cells(self.id) else {
            // The segment has no shared locks: SHARED means nothing in its words, and there is no reader to wait for.
            return match self.end_drain(&waiting.caller) {
                Some(acquired) => Ok(Some(acquired)),
                None => self.lose_place(waiting),
            };
        };
        let held_word = HeldWord { word: waiting.lock, owner: waiting.caller.owner, release: END_LEFT_DRAIN };
        waiting.counted.set_held_word(waiting.caller.thread, Some(held_word));
        probe::drain_begin(self.inode(), self.id.into(), held_word.owner);
        waiting.drain = Some(Drain { extent: cells.extent(), next: 0, reserved, is_known: false, has_slept: false });
        self.go_on_draining(waiting, &cells)
    }

    /// Goes back to waiting for the word: another waiter has ended the caller's drain.
    fn lose_place(self, waiting: &mut Waiting<'m>) -> Progress<Leaving> {
        if waiting.drain.take().is_some() {
            self.show_drain_end(DrainEnd::Revoked);
        }
        waiting.counted.set_held_word(waiting.caller.thread, None);
        waiting.waiter = WaitState { slept: true, woken: false, saw_reserved: false, ..waiting.waiter };
        self.before_sleep(waiting)
    }

    /// After a sleep on a cell.
    pub(super) fn after_drain_sleep(self, waiting: &mut Waiting<'m>) -> Progress<Leaving> {
        let (pool, now) = (self.native.pool(), Instant::now());
        let Some(cells) = pool.cells(self.id) else { return self.lose_place(waiting) };
        if !waiting.caller.drains(waiting.lock.load(Ordering::Relaxed)) {
            return self.lose_place(waiting);
        }
        if let Some(drain) = &mut waiting.drain {
            drain.has_slept = true;
        }
        if now >= waiting.slices.end {
            waiting.slices.next(now, waiting.local_waiters.size());
            let (cell, seen) = (waiting.sleep.word, waiting.sleep.word.load(Ordering::SeqCst));
            self.show_slice_end(waiting.start, now, seen);
            if word::is_reader(seen) && seen & OWNER == waiting.sleep.seen & OWNER {
                let effort =
                    if pool.claim_thorough_check(self.id, seen, now) { Effort::Thorough } else { Effort::Quick };
                if pool.judge(seen, effort) == Verdict::Dead {
                    clear_dead(cell, seen);
                }
            }
            self.look_for_deadlock(waiting)?;
            pool.check_not_removed_lately().map_err(Leaving::at_once)?;
        }
        self.go_on_draining(waiting, &cells)
    }

    /// Goes through the cells. One pass is enough: after the swap no reader gets in, and a hold never moves (S7).
    fn go_on_draining(self, waiting: &mut Waiting<'m>, cells: &Cells<'m>) -> Progress<Leaving> {
        let pool = self.native.pool();
        let me = waiting.caller.owner;
        while let Some(drain) = &mut waiting.drain {
            match cells.at(&drain.extent, drain.next) {
                Seen::Cell(_, seen) if word::is_reader(seen) && seen & OWNER == me => {
                    return Err(Leaving::at_once(Reason::SelfDeadlock { id: self.id }));
                }
                Seen::Cell(cell, seen) if word::is_reader(seen) => {
                    if !std::mem::replace(&mut drain.is_known, true) {
                        let stays = drain.has_slept || !spin_until(cell, |now| !word::is_reader(now));
                        if stays && pool.judge(seen, Effort::Quick) == Verdict::Dead {
                            clear_dead(cell, seen);
                        }
                        continue;
                    }
                    let next = seen | WAITERS;
                    let is_marked =
                        next == seen || cell.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
                    if is_marked {
                        let (pid, tid) = pool.shown_thread(seen);
                        probe::drain_sleep(self.inode(), self.id.into(), seen, pid, tid);
                        self.sleep_on_cell(waiting, cell, next)?;
                        return Ok(None);
                    }
                    self.check_wait()?;
                }
                // Never wait for a starving reader: it waits for this writer. If it did not come when it was let in, it
                // is dead or stopped, and claims again if it goes on.
                Seen::Cell(cell, seen) if drain.reserved == Reserved::InVain && seen & STARVING != 0 => {
                    if cell.compare_exchange(seen, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                        if seen & WAITERS != 0 {
                            wake_cell(cell);
                        }
                        drain.go_on(drain.next + 1);
                    }
                }
                Seen::Cell(..) => drain.go_on(drain.next + 1),
                Seen::Nothing(next) => drain.go_on(next),
                Seen::Unusable(page) => pool.make_table_page_usable(page).map_err(Leaving::at_once)?,
                Seen::End => break,
            }
        }
        match self.end_drain(&waiting.caller) {
            Some(acquired) => {
                waiting.drain = None;
                self.show_drain_end(DrainEnd::Locked);
                Ok(Some(acquired))
            }
            None => self.lose_place(waiting),
        }
    }

    /// Whether another thread's drain could end: every cell is empty, starves, or has a dead reader (S10).
    pub(super) fn are_readers_gone(self) -> bool {
        let pool = self.native.pool();
        let Some(cells) = pool.cells(self.id) else { return false };
        let is_in = |seen: u64| word::is_reader(seen) && pool.judge(seen, Effort::Quick) != Verdict::Dead;
        // A cell that cannot be read may have a reader.
        !cells.any(is_in).unwrap_or(true)
    }

    /// Ends another thread's drain that stands still although no reader is left (S10). A draining thread does not hold the
    /// lock, so a stopped one must not keep others out. The drain must have stood still, without readers, at both ends of a
    /// slice. `waiting.stuck` is the word at the beginning of that slice.
    pub(super) fn look_for_stuck_drain(self, waiting: &mut Waiting<'m>, seen: u64) {
        let before = std::mem::take(&mut waiting.stuck);
        if !word::is_draining(seen) || seen & OWNER == waiting.caller.owner || !self.are_readers_gone() {
            return;
        }
        if (before ^ seen) & !(WAITERS | STARVING) != 0 {
            waiting.stuck = seen;
            return;
        }
        let _went_on = waiting.lock.compare_exchange(seen, word::revoked(seen), Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl Drain {
    fn go_on(&mut self, next: usize) {
        (self.next, self.is_known) = (next, false);
    }
}

impl WaitState {
    /// How this waiter takes the word `seen`.
    fn reserved(self, seen: u64) -> Reserved {
        let is_by_time = seen & RESERVED != 0 && !self.woken && !self.is_leaving;
        if is_by_time { Reserved::InVain } else { Reserved::No }
    }
}

/// How the last holder left a lock that was taken from the word `seen`.
pub(super) fn left_by(seen: u64) -> Acquired {
    if word::has_owner(seen) || seen & OWNER_DIED != 0 { Acquired::OwnerDied } else { Acquired::Clean }
}
