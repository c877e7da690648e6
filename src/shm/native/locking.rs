// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The slow path: first calls, waits, dead holders, refusals. It goes in steps, in which no signal handler comes, with
//! sleeps in between, in which one may end the thread or jump away; what a wait has counted is noted for that (`waits`).

use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::acquisition::{Acquisition, Progress};
use crate::cancel::{self, Cancel};
use crate::manager::{Acquired, Ownership, Wait};
use crate::sys::clock::Instant;
use crate::sys::futex::{self, Awake};
use crate::sys::waits::{self, Marks};
use crate::{Reason, Result};

use super::Native;
use super::abandoning::ROUNDS;
use super::crowd::Crowd;
use super::judgement::{Look, Verdict};
use super::member::Member;
use super::releasing::wake_any;
use super::waiting::{self, Slices, classes, futex_of, starves};
use super::word::{self, D, OWNER, R, Step, Waiter};

/// Why a wait ends without the lock.
struct Leaving {
    reason: Reason,
    /// Whether to take the lock after all if nobody holds it at the end.
    last_try: bool,
}

impl Leaving {
    fn at_once(reason: Reason) -> Self {
        Self { reason, last_try: false }
    }
}

/// An acquisition that has come to the slow path.
pub(crate) struct SlowPath<'m> {
    request: Request<'m>,
    /// Never moved once it is there: it is noted where it stands.
    waiting: Option<Waiting<'m>>,
}

/// What is asked for.
#[derive(Clone, Copy)]
struct Request<'m> {
    native: &'m Native,
    id: u32,
    wait: Wait,
    cancel: Option<&'m Cancel>,
}

/// One wait.
struct Waiting<'m> {
    lock: &'m AtomicU64,
    member: Member<'m>,
    start: Instant,
    deadline: Instant,
    timeout_ns: u64,
    crowd: Crowd<'static>,
    counted: waits::Wait,
    waiter: Waiter,
    slices: Slices,
    /// The lock's note when its holder was looked after last.
    looked_at: u64,
    sleep: Sleep,
    awake: Awake,
}

/// One sleep on a lock's word.
#[derive(Clone, Copy)]
struct Sleep {
    seen: u64,
    note: u64,
    until: Instant,
    classes: u32,
}

impl Native {
    /// Acquires a lock that the short ways did not.
    #[inline]
    pub(crate) fn slow_path<'m>(&'m self, id: u32, wait: Wait, cancel: Option<&'m Cancel>) -> SlowPath<'m> {
        SlowPath { request: Request { native: self, id, wait, cancel }, waiting: None }
    }

    #[cold]
    pub(super) fn acquire_slowly(&self, id: u32, wait: Wait, cancel: Option<&Cancel>) -> Result<Acquired> {
        self.slow_path(id, wait, cancel).run().map_err(|reason| self.error(reason))
    }

    /// Takes a dead holder's lock over, with one swap of exactly the word that was judged.
    fn take_over(&self, lock: &AtomicU64, seen: u64, member: &Member<'_>, look: Look) -> bool {
        word::has_owner(seen)
            && self.pool().judge(seen, look) == Verdict::Dead
            && lock.compare_exchange(seen, word::taken_over(member.word), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}

impl Acquisition for SlowPath<'_> {
    fn step(&mut self) -> Progress {
        match &mut self.waiting {
            None => self.request.begin(&mut self.waiting),
            Some(waiting) => {
                let outcome = self.request.after_sleep(waiting);
                self.request.end(waiting, outcome)
            }
        }
    }

    extern "C" fn sleep(&mut self) {
        if let Some(Waiting { lock, sleep, awake, .. }) = &mut self.waiting {
            *awake = futex::sleep_until(futex_of(lock), word::futex(sleep.seen), sleep.until, sleep.classes);
        }
    }
}

impl<'m> Request<'m> {
    fn lock(self) -> &'m AtomicU64 {
        self.native.pool().word(self.id)
    }

    fn begin(self, place: &mut Option<Waiting<'m>>) -> Progress {
        self.native.may_lock(self.id)?;
        self.native.view.hear_of_more();
        cancel::check(self.cancel, self.id)?;
        let member = self.native.enter()?;
        self.native.pool().check_not_retired()?;
        if let Some(acquired) = self.contend(&member)? {
            return self.settle(&member, acquired);
        }
        // What can be cancelled has not come by the mid path.
        if self.cancel.is_some()
            && waiting::spin(self.lock())
            && let Some(acquired) = self.contend(&member)?
        {
            return self.settle(&member, acquired);
        }
        let waiting = place.insert(self.new_wait(member));
        let marks = Marks {
            waiting: self.native.view.waiting(),
            cancel: self.cancel.map(Cancel::waits),
            crowd: waiting.crowd.counter(),
            wants: member.record.map(|record| record.wants()),
            futex: futex_of(self.lock()),
            in_hand: None,
        };
        waiting.counted.begin(member.thread, &marks);
        let outcome = self.before_first_sleep(waiting);
        self.end(waiting, outcome)
    }

    /// Takes the lock if nobody holds it who lives.
    fn contend(self, member: &Member<'_>) -> Progress {
        let Self { native, id, wait, .. } = self;
        let (lock, pool) = (self.lock(), native.pool());
        let is_try = wait.is_try();
        // Bounded: each round means that somebody else changed the word.
        for _ in 0..ROUNDS {
            let seen = lock.load(Ordering::Acquire);
            if let Some(reason) = refusal(seen, id, member, wait) {
                return Err(reason);
            }
            let waiter = Waiter { is_leaving: is_try, ..Waiter::default() };
            let next = match word::step(seen, member.word, waiter) {
                Step::Take(next) => next,
                _ if is_try && word::has_owner(seen) && pool.is_dead_at_once(seen) => word::taken_over(member.word),
                _ => break,
            };
            if lock.compare_exchange(seen, next, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return Ok(Some(left_by(seen)));
            }
        }
        let holder = || pool.holder_thread(lock.load(Ordering::Relaxed));
        match wait {
            Wait::Try => Err(Reason::Held { id, holder: holder() }),
            Wait::Nanoseconds(0) => Err(Reason::TimedOut { id, timeout_ns: 0, holder: holder() }),
            _ => Ok(None),
        }
    }

    /// What comes after the swap that took a lock. It cannot fail but by giving the lock back, with the death that the
    /// swap told of.
    fn settle(self, member: &Member<'_>, acquired: Acquired) -> Progress {
        if let Err(reason) = self.native.pool().check_not_retired() {
            self.native.pool().hand_back(self.id, member.word, acquired);
            return Err(reason);
        }
        self.native.view.remember(self.id);
        if member.ownership == Ownership::Thread {
            member.thread.count_word_taken();
        }
        Ok(Some(acquired))
    }

    fn new_wait(self, member: Member<'m>) -> Waiting<'m> {
        let timeout_ns = match self.wait {
            Wait::Try => 0,
            Wait::Nanoseconds(timeout) => timeout,
            Wait::Forever => u64::MAX,
        };
        let start = Instant::now();
        let deadline = start.after(timeout_ns);
        let (crowd, looked_at) = (self.native.pool().join_crowd(self.id), self.native.pool().note(self.id));
        Waiting {
            lock: self.lock(),
            member,
            start,
            deadline,
            timeout_ns,
            crowd,
            counted: waits::Wait::default(),
            waiter: Waiter::default(),
            slices: Slices::new(start, crowd.place),
            looked_at,
            sleep: Sleep { seen: 0, note: looked_at, until: start, classes: 0 },
            awake: Awake::Changed,
        }
    }

    /// The end of a wait, if this is one.
    fn end(self, waiting: &mut Waiting<'m>, outcome: Progress<Leaving>) -> Progress {
        if matches!(outcome, Ok(None)) {
            return Ok(None);
        }
        // After the swap, or instead of it: whoever walks meanwhile finds that the cycle is none.
        waiting.counted.end(waiting.member.thread);
        if let Some(record) = waiting.member.record {
            record.withdraw();
        }
        match outcome.or_else(|leaving| self.leave(waiting, leaving))? {
            Some(acquired) => self.settle(&waiting.member, acquired),
            None => Ok(None),
        }
    }

    fn leave(self, waiting: &mut Waiting<'m>, leaving: Leaving) -> Progress {
        let lock = waiting.lock;
        if leaving.last_try {
            waiting.waiter.is_leaving = true;
            let seen = lock.load(Ordering::Acquire);
            if let Step::Take(next) = word::step(seen, waiting.member.word, waiting.waiter)
                && lock.compare_exchange(seen, next, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                return Ok(Some(left_by(seen)));
            }
        }
        if waiting.waiter.woken {
            // The wake-up was for whoever takes the lock, and that is not this one.
            wake_any(lock);
        }
        Err(leaving.reason)
    }

    /// The holder may be one that died long ago.
    fn before_first_sleep(self, waiting: &mut Waiting<'m>) -> Progress<Leaving> {
        let seen = self.lock().load(Ordering::Acquire);
        if self.native.take_over(self.lock(), seen, &waiting.member, Look::Quick) {
            return Ok(Some(Acquired::OwnerDied));
        }
        self.before_sleep(waiting)
    }

    /// Takes the lock, or shows that it is waited for and says how to sleep.
    fn before_sleep(self, waiting: &mut Waiting<'m>) -> Progress<Leaving> {
        let (lock, me) = (waiting.lock, waiting.member.word);
        loop {
            let mut seen = lock.load(Ordering::Acquire);
            match word::step(seen, me, waiting.waiter) {
                Step::Take(next) => {
                    if lock.compare_exchange(seen, next, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                        return Ok(Some(left_by(seen)));
                    }
                    // Whoever changes the word all the while does not make this one wait for ever.
                    self.check_wait(waiting)?;
                    continue;
                }
                Step::Announce(next) => {
                    if lock.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed).is_err() {
                        self.check_wait(waiting)?;
                        continue;
                    }
                    seen = next;
                }
                Step::Sleep => {}
            }
            self.check_wait(waiting)?;
            let until = cancel::next_look(self.cancel, waiting.slices.end.min(waiting.deadline));
            let classes = classes(Instant::now().since(waiting.start));
            waiting.sleep = Sleep { seen, note: self.native.pool().note(self.id), until, classes };
            return Ok(None);
        }
    }

    fn after_sleep(self, waiting: &mut Waiting<'m>) -> Progress<Leaving> {
        let (pool, lock, member) = (self.native.pool(), waiting.lock, waiting.member);
        let (now, sleep, awake) = (Instant::now(), waiting.sleep, waiting.awake);
        let waiter = &mut waiting.waiter;
        waiter.slept |= matches!(awake, Awake::Woken | Awake::Timeout);
        // Where the word had changed, nobody slept, and a wake-up that came before is still to be used.
        waiter.woken = awake == Awake::Woken || (waiter.woken && awake == Awake::Changed);
        waiter.starves = starves(now.since(waiting.start));
        if now >= waiting.slices.end {
            waiting.slices.next(now, waiting.crowd.size());
            let seen = lock.load(Ordering::Acquire);
            let note = pool.note(self.id);
            let was_reserved = !word::has_owner(sleep.seen);
            waiter.saw_reserved = was_reserved && !word::has_owner(seen) && seen & R != 0 && note == sleep.note;
            // Where the lock changed hands, its holder has not had it for long; a look into /proc costs as much as a turn,
            // and one of many waiters is enough to have it.
            let is_time = note == waiting.looked_at && pool.begin_thorough_look(self.id, seen, now);
            waiting.looked_at = note;
            let look = if is_time { Look::Thorough } else { Look::Quick };
            if self.native.take_over(lock, seen, &member, look) {
                return Ok(Some(Acquired::OwnerDied));
            }
            self.look_for_deadlock(waiting)?;
            if let Err(reason) = pool.check_not_removed_lately() {
                return Err(Leaving::at_once(reason));
            }
        }
        self.before_sleep(waiting)
    }

    fn check_wait(self, waiting: &Waiting<'m>) -> std::result::Result<(), Leaving> {
        let id = self.id;
        cancel::check(self.cancel, id).map_err(Leaving::at_once)?;
        self.native.pool().check_not_retired().map_err(Leaving::at_once)?;
        if Instant::now() >= waiting.deadline {
            let holder = self.native.pool().holder_thread(self.lock().load(Ordering::Relaxed));
            let reason = Reason::TimedOut { id, timeout_ns: waiting.timeout_ns, holder };
            return Err(Leaving { reason, last_try: true });
        }
        Ok(())
    }

    /// Publishes what the caller waits for, and ends its wait if that closes a cycle.
    fn look_for_deadlock(self, waiting: &Waiting<'m>) -> std::result::Result<(), Leaving> {
        let member = &waiting.member;
        let Some(record) = member.record else { return Ok(()) };
        if record.wish().is_none() {
            record.wish_for(self.id, waiting.start.nanoseconds());
        }
        // Of two who publish at the same time, at least one sees the other's.
        fence(Ordering::SeqCst);
        match self.native.pool().deadlock(member.owner, self.id, &record) {
            None => Ok(()),
            Some(reason) => Err(Leaving { reason, last_try: true }),
        }
    }
}

/// How the last holder left a lock that was taken from this word.
fn left_by(seen: u64) -> Acquired {
    if word::has_owner(seen) || seen & D != 0 { Acquired::OwnerDied } else { Acquired::Clean }
}

/// What the caller itself holds it does not wait for.
fn refusal(seen: u64, id: u32, member: &Member<'_>, wait: Wait) -> Option<Reason> {
    if seen & OWNER != member.owner {
        return None;
    }
    Some(match wait {
        Wait::Try => Reason::Held { id, holder: member.thread.id() as u32 },
        _ => Reason::SelfDeadlock { id },
    })
}
