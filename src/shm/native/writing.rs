// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The slow path of writers: taking a word, and draining one that readers have.

use std::sync::atomic::Ordering;

use crate::Reason;
use crate::acquisition::Progress;
use crate::manager::Acquired;
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

/// A writer's way through the cells of a lock whose word it has as one that drains.
pub(super) struct Drain {
    extent: Extent,
    next: usize,
    reserved: Reserved,
    /// Whether the present cell was read for a moment, and its reader judged, before the first sleep on it.
    is_known: bool,
    /// Whether it has slept on a cell: then readers stay for longer than a moment, or are dead, and hundreds may be.
    has_slept: bool,
}

/// How the word was had that drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reserved {
    /// Nobody was to be let in first.
    No,
    /// For readers that starve, none of whom came in a whole slice: they are dead or stopped, and their cells are taken
    /// away, or each later unlock would wait a slice for them (S13).
    InVain,
}

/// What a look at all cells found.
enum Readers {
    None,
    One(u64),
}

impl Caller<'_> {
    /// As whom the caller takes that word: a drain, and what takes one over, is always the thread's (S11).
    fn name_for(&self, seen: u64) -> u64 {
        if word::is_shared(seen) || word::is_draining(seen) { self.owner } else { self.word }
    }

    fn drains(&self, seen: u64) -> bool {
        seen & OWNER == self.owner && word::is_draining(seen)
    }
}

impl<'m> LockCall<'m> {
    /// Takes the lock if nobody holds it who lives. `None`: it is to be waited for, or drained.
    pub(super) fn contend(self, caller: &Caller<'_>) -> Progress {
        let (lock, pool) = (self.lock(), self.native.pool());
        let is_try = self.deadline.is_try();
        self.refuse_readers(caller)?;
        // Bounded: each round means that somebody else changed the word.
        for _ in 0..ROUNDS {
            let seen = lock.load(Ordering::Acquire);
            if caller.drains(seen) {
                // What the mid path, or a call that a handler left, has begun.
                return if is_try { self.try_drain(caller) } else { Ok(None) };
            }
            if let Some(reason) = self.refusal(seen, caller) {
                return Err(reason);
            }
            // A try does not make readers wait for one of them that lives (S16).
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

    /// What a call that does not wait is told.
    pub(super) fn held(self, holder: u32) -> Reason {
        self.deadline.missed(self.id, holder)
    }

    /// Who reads a lock cannot have it exclusively: two that tried would wait for each other (S14).
    fn refuse_readers(self, caller: &Caller<'_>) -> Result<(), Reason> {
        let reads = caller.thread.is_reading()
            && self.native.pool().cells(self.id).is_some_and(|cells| cells.find(caller.owner).is_some());
        if reads { Err(self.own(caller)) } else { Ok(()) }
    }

    /// What the caller itself holds it does not wait for.
    pub(super) fn own(self, caller: &Caller<'_>) -> Reason {
        self.deadline.held_by_caller(self.id, caller.thread.id() as u32)
    }

    /// Why the caller does not wait for a lock with that word, if it holds the lock itself. A drain that a handler left is no
    /// hold.
    pub(super) fn refusal(self, seen: u64, caller: &Caller<'_>) -> Option<Reason> {
        (seen & OWNER == caller.owner && !word::is_draining(seen)).then(|| self.own(caller))
    }

    /// A reader of the lock that is not known to be dead. The cells of the dead are emptied.
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

    /// Looks once at every cell behind the swap, and holds the lock if nobody is there.
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

    /// Ends a drain of the caller's without the lock, if there is one.
    pub(super) fn end_own_drain(self, owner: u64) {
        undrain(self.lock(), owner, |seen| self.native.pool().next_after(seen, self.id));
    }

    /// The word is to be held now that every cell is empty (S8). `None`: the place was lost.
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

    /// The holder may be one that died long ago.
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

    /// Takes a dead holder's lock over, or the drain of a dead writer, with one swap of exactly the word that was judged. Where
    /// it drains now and `None` comes of it, a sleep follows.
    pub(super) fn take_over(self, waiting: &mut Waiting<'m>, seen: u64, effort: Effort) -> Progress<Leaving> {
        let is_dead = word::has_owner(seen) && self.native.pool().judge(seen, effort) == Verdict::Dead;
        let next = word::taken_over(seen, waiting.caller.name_for(seen));
        if !is_dead || self.lock().compare_exchange(seen, next, Ordering::SeqCst, Ordering::Relaxed).is_err() {
            return Ok(None);
        }
        if word::is_draining(next) { self.begin_drain(waiting, Reserved::No) } else { Ok(Some(Acquired::OwnerDied)) }
    }

    /// Takes the lock, or shows that it is waited for and says how to sleep.
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
                    // Whoever changes the word all the while does not make this one wait for ever.
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
            self.check_wait()?;
            self.sleep_on_word(waiting, seen);
            return Ok(None);
        }
    }

    /// Begins to drain a word that is the caller's now, which whoever finds the wait left gives up.
    fn begin_drain(self, waiting: &mut Waiting<'m>, reserved: Reserved) -> Progress<Leaving> {
        let Some(cells) = self.native.pool().cells(self.id) else {
            // Nobody reads in such a segment: what SHARED meant there, it does not say.
            return match self.end_drain(&waiting.caller) {
                Some(acquired) => Ok(Some(acquired)),
                None => self.lose_place(waiting),
            };
        };
        let held_word = HeldWord { word: waiting.lock, owner: waiting.caller.owner, release: END_LEFT_DRAIN };
        waiting.counted.set_held_word(waiting.caller.thread, Some(held_word));
        waiting.drain = Some(Drain { extent: cells.extent(), next: 0, reserved, is_known: false, has_slept: false });
        self.go_on_draining(waiting, &cells)
    }

    fn lose_place(self, waiting: &mut Waiting<'m>) -> Progress<Leaving> {
        waiting.drain = None;
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

    /// Goes through the cells. One pass is enough: behind the swap nobody gets in, and a hold never moves (S7).
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
                    self.check_wait()?;
                    if is_marked {
                        self.sleep_on_cell(waiting, cell, next);
                        return Ok(None);
                    }
                }
                // Whoever waits for a starving reader waits for somebody who waits for it. One that came in vain is dead or
                // stopped, and claims anew if it goes on.
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
                Ok(Some(acquired))
            }
            None => self.lose_place(waiting),
        }
    }

    /// Whether a drain that another does not go on with could end as far as the readers are concerned: every cell is empty,
    /// starves or is dead (S10).
    pub(super) fn are_readers_gone(self) -> bool {
        let pool = self.native.pool();
        let Some(cells) = pool.cells(self.id) else { return false };
        let is_in = |seen: u64| word::is_reader(seen) && pool.judge(seen, Effort::Quick) != Verdict::Dead;
        // What cannot be looked at may be somebody.
        !cells.any(is_in).unwrap_or(true)
    }

    /// Whoever drains does not hold, so that one who is stopped must not keep others out when its readers have gone: what was
    /// so at both ends of a slice is swapped, exactly. The stopped one finds its place lost. `waiting.stuck` is the word as it
    /// was at the beginning (S10).
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
    /// How a word is had that this waiter takes.
    fn reserved(self, seen: u64) -> Reserved {
        let is_by_time = seen & RESERVED != 0 && !self.woken && !self.is_leaving;
        if is_by_time { Reserved::InVain } else { Reserved::No }
    }
}

/// How the last holder left a lock that was taken from this word.
pub(super) fn left_by(seen: u64) -> Acquired {
    if word::has_owner(seen) || seen & OWNER_DIED != 0 { Acquired::OwnerDied } else { Acquired::Clean }
}
