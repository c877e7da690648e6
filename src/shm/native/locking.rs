// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The slow path: first calls, waits, dead holders, refusals. It is a series of steps with sleeps between them. No signal
//! handler comes within a step. One may come in a sleep, and end the thread or jump away. For that case, `waits` records
//! everything that a wait has counted. Writers and readers differ in `writing` and `reading`.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::Reason;
use crate::acquisition::{self, Acquisition, Deadline, Progress};
use crate::backend::{FastAcquire, Mode, Request};
use crate::cancel::{self, Cancel};
use crate::manager::{Acquired, Ownership};
use crate::sys::probe::{self, DrainEnd};
use crate::sys::syscall::clock::Instant;
use crate::sys::syscall::futex::{self, WakeReason};
use crate::sys::thread::waits::{self, WaitEffects};

use super::Native;
use super::caller::Caller;
use super::judgement::Effort;
use super::local_waiters::LocalWaiters;
use super::reading::Reading;
use super::releasing::wake_any;
use super::waiting::{self, READERS, Slices, classes, futex_of, starves};
use super::word::{self, RESERVED, Step, WaitState};
use super::writing::{Drain, left_by};

/// Why a wait ends without the lock.
pub(super) struct Leaving {
    pub(super) reason: Reason,
    /// Whether to try the lock once more before the call returns.
    last_try: bool,
}

impl Leaving {
    pub(super) fn at_once(reason: Reason) -> Self {
        Self { reason, last_try: false }
    }
}

/// An acquisition that has come to the slow path.
pub(crate) struct SlowPath<'m> {
    call: LockCall<'m>,
    /// What the faster paths left.
    missed: FastAcquire,
    /// The wait, once it has begun. It is never moved: a record in the thread points to it.
    waiting: Option<Waiting<'m>>,
}

/// The arguments of a lock call.
#[derive(Clone, Copy)]
pub(super) struct LockCall<'m> {
    pub(super) native: &'m Native,
    pub(super) id: u32,
    pub(super) mode: Mode,
    pub(super) deadline: Deadline,
    pub(super) cancel: Option<&'m Cancel>,
}

/// One wait.
pub(super) struct Waiting<'m> {
    pub(super) lock: &'m AtomicU64,
    pub(super) caller: Caller<'m>,
    pub(super) start: Instant,
    pub(super) local_waiters: LocalWaiters<'static>,
    pub(super) counted: waits::RecordedWait,
    pub(super) waiter: WaitState,
    pub(super) slices: Slices,
    /// The lock's note when the last slice ended: it tells whether the lock has changed hands since.
    looked_at: u64,
    pub(super) sleep: Sleep<'m>,
    /// The futex on which the cancel object knows the wait to sleep.
    entered: Option<usize>,
    awake: WakeReason,
    /// Of a writer that has the word and drains.
    pub(super) drain: Option<Drain>,
    /// The word of another thread's drain that made no progress when the last slice ended; 0: there was none.
    pub(super) stuck: u64,
    pub(super) reading: Reading<'m>,
    /// Whether probes were told of the wait: it has come to its first sleep.
    is_shown: bool,
}

/// One sleep, on a lock's word or on a cell.
#[derive(Clone, Copy)]
pub(super) struct Sleep<'m> {
    pub(super) word: &'m AtomicU64,
    pub(super) seen: u64,
    note: u64,
    until: Instant,
    classes: u32,
}

impl Waiting<'_> {
    /// Tells the cancel object that this wait is about to sleep on `word`, unless it knows. Whether its trigger will wake the
    /// wait.
    fn can_be_woken_by(&mut self, cancel: &Cancel, word: &AtomicU64) -> bool {
        let address = futex_of(word).as_ptr().addr();
        if self.entered != Some(address) {
            self.entered = cancel.enter(&self.counted, self.caller.thread, address).then_some(address);
        }
        self.entered.is_some()
    }
}

impl<'m> SlowPath<'m> {
    pub(super) fn new(native: &'m Native, request: Request<'m>) -> Self {
        let Request { id, mode, deadline, cancel, missed } = request;
        Self { call: LockCall { native, id, mode, deadline, cancel }, missed, waiting: None }
    }
}

impl Acquisition for SlowPath<'_> {
    fn step(&mut self) -> Progress {
        match &mut self.waiting {
            None => {
                // Do this first: even if the call fails, it must not keep the word that a faster path took.
                if self.missed == FastAcquire::BackOut {
                    self.call.native.view.back_out(self.call.id);
                }
                self.call.begin(&mut self.waiting)
            }
            Some(waiting) => {
                let outcome = match waiting.drain {
                    Some(_) => self.call.after_drain_sleep(waiting),
                    None => self.call.after_sleep(waiting),
                };
                self.call.end(waiting, outcome)
            }
        }
    }

    extern "C" fn sleep(&mut self) {
        if let Some(Waiting { sleep, awake, .. }) = &mut self.waiting {
            // A signal handler may have triggered the object since the step.
            if self.call.cancel.is_some_and(Cancel::is_triggered) {
                *awake = WakeReason::ValueChanged;
                return;
            }
            *awake = futex::wait_for_classes(futex_of(sleep.word), word::futex(sleep.seen), sleep.until, sleep.classes);
        }
    }
}

impl<'m> LockCall<'m> {
    pub(super) fn lock(self) -> &'m AtomicU64 {
        self.native.pool().word(self.id)
    }

    /// The file of the segment, as probes name it.
    pub(super) fn inode(self) -> u64 {
        self.native.pool().segment.metadata.inode
    }

    /// Tells probes of the end of a slice, and whom the word or cell `named` names.
    pub(super) fn show_slice_end(self, start: Instant, now: Instant, named: u64) {
        let (pid, tid) = self.native.pool().shown_thread(named);
        probe::slice_end(self.inode(), self.id.into(), now.since(start), pid, tid);
    }

    pub(super) fn show_drain_end(self, outcome: DrainEnd) {
        probe::drain_end(self.inode(), self.id.into(), outcome as u64);
    }

    fn begin(self, place: &mut Option<Waiting<'m>>) -> Progress {
        self.native.may_lock(self.id)?;
        self.native.may_share(self.mode)?;
        self.native.view.hear_of_more();
        cancel::check(self.cancel, self.id)?;
        let caller = self.native.enter()?;
        self.native.pool().check_not_retired()?;
        if let Some(acquired) = self.contend_as_asked(&caller)? {
            return Ok(Some(acquired));
        }
        // A call with a cancel object has not taken the mid path.
        if self.cancel.is_some()
            && waiting::spin(self.native.view.slot(self.id), caller.thread)
            && let Some(acquired) = self.contend_as_asked(&caller)?
        {
            return Ok(Some(acquired));
        }
        let waiting = place.insert(self.new_wait(caller));
        let marks = WaitEffects {
            waiting: self.native.view.waiting(),
            cancel: self.cancel.map(Cancel::waits),
            local_waiters: waiting.local_waiters.counter(),
            published_wait: caller.record.map(|record| record.wait_word()),
            futex: futex_of(self.lock()),
            held_word: None,
        };
        waiting.counted.begin(caller.thread, &marks);
        let outcome = match self.mode {
            Mode::Exclusive => self.before_first_sleep(waiting),
            Mode::Shared => self.before_first_shared_sleep(waiting),
        };
        self.end(waiting, outcome)
    }

    fn contend_as_asked(self, caller: &Caller<'m>) -> Progress {
        match self.mode {
            Mode::Shared => self.contend_shared(caller),
            Mode::Exclusive => match self.contend(caller)? {
                Some(acquired) => self.finish_exclusive(caller, acquired),
                None => Ok(None),
            },
        }
    }

    /// Finishes after the swap that took the lock. If the segment was removed, it backs out; if the swap took OWNER_DIED
    /// away, the next holder is told instead.
    fn finish_exclusive(self, caller: &Caller<'_>, acquired: Acquired) -> Progress {
        if let Err(reason) = self.native.pool().check_not_retired() {
            self.native.pool().back_out(self.id, caller.word, acquired);
            return Err(reason);
        }
        self.native.view.remember(self.id);
        if caller.ownership == Ownership::Thread {
            caller.thread.count_native_lock();
        }
        Ok(Some(acquired))
    }

    fn new_wait(self, caller: Caller<'m>) -> Waiting<'m> {
        let start = Instant::now();
        let (local_waiters, looked_at) =
            (self.native.pool().join_local_waiters(self.id), self.native.pool().note(self.id));
        Waiting {
            lock: self.lock(),
            caller,
            start,
            local_waiters,
            counted: waits::RecordedWait::default(),
            waiter: WaitState::default(),
            slices: Slices::new(start, local_waiters.place),
            looked_at,
            sleep: Sleep { word: self.lock(), seen: 0, note: looked_at, until: start, classes: 0 },
            entered: None,
            awake: WakeReason::ValueChanged,
            drain: None,
            stuck: 0,
            reading: Reading::default(),
            is_shown: false,
        }
    }

    /// Ends the wait, if the step has decided.
    fn end(self, waiting: &mut Waiting<'m>, outcome: Progress<Leaving>) -> Progress {
        if matches!(outcome, Ok(None)) {
            return Ok(None);
        }
        let result = self.conclude(waiting, outcome);
        if waiting.is_shown {
            let waited = Instant::now().since(waiting.start);
            probe::wait_end(self.inode(), self.id.into(), waited, acquisition::code(&result));
        }
        result
    }

    fn conclude(self, waiting: &mut Waiting<'m>, outcome: Progress<Leaving>) -> Progress {
        // Clear the published wait after the swap, or without one: a search that runs meanwhile finds that there is no
        // cycle.
        waiting.counted.end(waiting.caller.thread);
        if let Some(record) = waiting.caller.record {
            record.clear_wait();
        }
        let acquired = outcome.or_else(|leaving| match self.mode {
            Mode::Exclusive => self.leave(waiting, leaving),
            Mode::Shared => self.leave_shared(waiting, leaving),
        })?;
        match (acquired, self.mode) {
            (Some(acquired), Mode::Exclusive) => self.finish_exclusive(&waiting.caller, acquired),
            (Some(_), Mode::Shared) => self.finish_shared(&waiting.caller, waiting.reading, waiting.waiter),
            (None, _) => Ok(None),
        }
    }

    /// Leaves the wait, perhaps with the lock after all: see [`Leaving::last_try`].
    fn leave(self, waiting: &mut Waiting<'m>, leaving: Leaving) -> Progress {
        let lock = waiting.lock;
        if waiting.drain.take().is_some() {
            self.show_drain_end(DrainEnd::GaveUp);
            self.end_own_drain(waiting.caller.owner);
            return Err(leaving.reason);
        }
        if leaving.last_try {
            waiting.waiter.is_leaving = true;
            let seen = lock.load(Ordering::Acquire);
            // A lock that readers hold cannot be taken without draining.
            if !word::is_shared(seen)
                && let Step::Take(next) = word::step(seen, waiting.caller.word, waiting.waiter)
                && lock.compare_exchange(seen, next, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                return Ok(Some(left_by(seen)));
            }
        }
        if waiting.waiter.woken {
            // Pass the wake-up on: it was for a thread that takes the lock.
            wake_any(lock);
        }
        Err(leaving.reason)
    }

    /// Prepares a sleep on the word as it was seen. WAITERS is set in it.
    pub(super) fn sleep_on_word(self, waiting: &mut Waiting<'m>, seen: u64) -> std::result::Result<(), Leaving> {
        let classes = match self.mode {
            Mode::Exclusive => classes(Instant::now().since(waiting.start)),
            Mode::Shared => 1 | READERS,
        };
        let lock = waiting.lock;
        self.sleep(waiting, lock, seen, classes)
    }

    /// Prepares a sleep on a cell.
    pub(super) fn sleep_on_cell(
        self,
        waiting: &mut Waiting<'m>,
        cell: &'m AtomicU64,
        seen: u64,
    ) -> std::result::Result<(), Leaving> {
        self.sleep(waiting, cell, seen, 1)
    }

    /// Prepares a sleep. Looks at the cancel object last, after the object knows of the sleep.
    fn sleep(
        self,
        waiting: &mut Waiting<'m>,
        word: &'m AtomicU64,
        seen: u64,
        classes: u32,
    ) -> std::result::Result<(), Leaving> {
        if !std::mem::replace(&mut waiting.is_shown, true) {
            probe::wait_begin(self.inode(), self.id.into(), self.mode as u64, seen);
        }
        let (until, classes) = match self.cancel {
            None => (Instant::NEVER, classes),
            Some(cancel) if waiting.can_be_woken_by(cancel, word) => (Instant::NEVER, classes | cancel.class()),
            Some(_) => (cancel::next_look(self.cancel, Instant::NEVER), classes),
        };
        self.check_wait()?;
        let until = until.min(waiting.slices.end).min(self.deadline.at());
        let until = match self.mode {
            // Wake a reader when it begins to starve, however long its slice is: only the reader itself can ask to be let
            // in.
            Mode::Shared if !waiting.waiter.starves => until.min(waiting::starves_at(waiting.start)),
            _ => until,
        };
        waiting.sleep = Sleep { word, seen, note: self.native.pool().note(self.id), until, classes };
        Ok(())
    }

    fn after_sleep(self, waiting: &mut Waiting<'m>) -> Progress<Leaving> {
        let (pool, lock) = (self.native.pool(), waiting.lock);
        let (now, sleep, awake) = (Instant::now(), waiting.sleep, waiting.awake);
        let waiter = &mut waiting.waiter;
        waiter.slept |= matches!(awake, WakeReason::Woken | WakeReason::TimedOut);
        // If the word had changed, the thread did not sleep, and an earlier wake-up is still to be used.
        waiter.woken = awake == WakeReason::Woken || (waiter.woken && awake == WakeReason::ValueChanged);
        waiter.starves = starves(now.since(waiting.start));
        if now >= waiting.slices.end {
            waiting.slices.next(now, waiting.local_waiters.size());
            let seen = lock.load(Ordering::Acquire);
            self.show_slice_end(waiting.start, now, seen);
            let note = pool.note(self.id);
            let was_reserved = !word::has_owner(sleep.seen);
            waiter.saw_reserved = was_reserved && !word::has_owner(seen) && seen & RESERVED != 0 && note == sleep.note;
            // Check thoroughly only if the lock has not changed hands, and only one of its waiters at a time: a look into
            // /proc costs as much as a turn with the lock.
            let is_time = note == waiting.looked_at && pool.claim_thorough_check(self.id, seen, now);
            waiting.looked_at = note;
            let effort = if is_time { Effort::Thorough } else { Effort::Quick };
            match self.mode {
                Mode::Exclusive => {
                    if let Some(acquired) = self.take_over(waiting, seen, effort)? {
                        return Ok(Some(acquired));
                    }
                    if waiting.drain.is_some() {
                        return Ok(None);
                    }
                }
                Mode::Shared => self.clear_dead_owner(seen, effort),
            }
            self.look_for_stuck_drain(waiting, seen);
            self.look_for_deadlock(waiting)?;
            if let Err(reason) = pool.check_not_removed_lately() {
                return Err(Leaving::at_once(reason));
            }
        }
        match self.mode {
            Mode::Exclusive => self.before_sleep(waiting),
            Mode::Shared => self.before_shared_sleep(waiting),
        }
    }

    pub(super) fn check_wait(self) -> std::result::Result<(), Leaving> {
        let id = self.id;
        cancel::check(self.cancel, id).map_err(Leaving::at_once)?;
        self.native.pool().check_not_retired().map_err(Leaving::at_once)?;
        if Instant::now() >= self.deadline.at() {
            let holder = self.native.pool().holder_thread(self.lock().load(Ordering::Relaxed));
            return Err(Leaving { reason: self.deadline.missed(id, holder), last_try: true });
        }
        Ok(())
    }

    /// Publishes what the caller waits for, and searches for a cycle. `Err`: the wait closes one.
    pub(super) fn look_for_deadlock(self, waiting: &Waiting<'m>) -> std::result::Result<(), Leaving> {
        let caller = &waiting.caller;
        let Some(record) = caller.record else { return Ok(()) };
        if record.waits_for().is_none() {
            record.publish_wait(self.id, waiting.start.nanoseconds());
        }
        // Of two threads that publish at the same time, at least one sees the other's wait.
        fence(Ordering::SeqCst);
        match self.native.pool().deadlock(caller.owner, self.id, &record) {
            None => Ok(()),
            Some(reason) => Err(Leaving { reason, last_try: true }),
        }
    }

    /// Whether to try the lock once more.
    pub(super) fn is_last_try(leaving: &Leaving) -> bool {
        leaving.last_try
    }
}

#[cfg(test)]
mod tests;
