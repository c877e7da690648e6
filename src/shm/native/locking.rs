// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Taking the locks, wherever the fast path does not reach.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::cancel::{Cancel, Cancellable};
use crate::manager::{Acquired, Ownership, Wait};
use crate::sys::clock::Instant;
use crate::sys::futex::{self, Awake};
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

impl Native {
    /// All that the fast path leaves: first calls, waits, dead holders, refusals.
    #[cold]
    pub(super) fn acquire_slowly(&self, id: u32, wait: Wait, cancel: Option<&Cancel>) -> Result<Acquired> {
        self.check_range(id)?;
        self.check_writable()?;
        self.view.hear_of_more();
        let cancellable = Cancellable::new(cancel);
        let acquire = || {
            cancellable.check(id)?;
            let member = self.enter()?;
            if self.pool().is_retired() {
                return Err(Reason::Removed);
            }
            let acquired = self.contend(id, &member, wait, &cancellable)?;
            self.settle(id, &member, acquired)
        };
        acquire().map_err(|reason| self.error(reason))
    }

    /// What comes after the swap that took a lock. It cannot fail but by giving the lock back, with the death that the
    /// swap told of.
    fn settle(&self, id: u32, member: &Member<'_>, acquired: Acquired) -> std::result::Result<Acquired, Reason> {
        if self.pool().is_retired() {
            self.pool().hand_back(id, member.word, acquired);
            return Err(Reason::Removed);
        }
        self.view.remember(id);
        if member.ownership == Ownership::Thread {
            member.thread.count_word_taken();
        }
        Ok(acquired)
    }

    fn contend(
        &self,
        id: u32,
        member: &Member<'_>,
        wait: Wait,
        cancellable: &Cancellable<'_>,
    ) -> std::result::Result<Acquired, Reason> {
        let lock = self.pool().word(id);
        let timeout_ns = match wait {
            Wait::Try => 0,
            Wait::Nanoseconds(timeout) => timeout,
            Wait::Forever => u64::MAX,
        };
        // Bounded: each round means that somebody else changed the word.
        for _ in 0..ROUNDS {
            let seen = lock.load(Ordering::Acquire);
            if let Some(reason) = refusal(seen, id, member, wait) {
                return Err(reason);
            }
            let waiter = Waiter { is_leaving: timeout_ns == 0, ..Waiter::default() };
            let next = match word::step(seen, member.word, waiter) {
                Step::Take(next) => next,
                _ if timeout_ns == 0 && word::has_owner(seen) && self.pool().is_dead_at_once(seen) => {
                    word::taken_over(member.word)
                }
                _ => break,
            };
            if lock.compare_exchange(seen, next, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return Ok(left_by(seen));
            }
        }
        let holder = || self.pool().holder_thread(lock.load(Ordering::Relaxed));
        match wait {
            Wait::Try => Err(Reason::Held { id, holder: holder() }),
            Wait::Nanoseconds(0) => Err(Reason::TimedOut { id, timeout_ns: 0, holder: holder() }),
            _ => self.wait_for(id, member, timeout_ns, cancellable),
        }
    }

    fn is_dead(&self, seen: u64, look: Look) -> bool {
        word::has_owner(seen) && self.pool().judge(seen, look) == Verdict::Dead
    }

    fn wait_for(
        &self,
        id: u32,
        member: &Member<'_>,
        timeout_ns: u64,
        cancellable: &Cancellable<'_>,
    ) -> std::result::Result<Acquired, Reason> {
        let lock = self.pool().word(id);
        let _inside = Counted::new(self.view.waiting());
        let mut waiter = Waiter::default();
        if waiting::spin(lock)
            && let Step::Take(next) = word::step(0, member.word, waiter)
            && lock.compare_exchange(0, next, Ordering::Acquire, Ordering::Relaxed).is_ok()
        {
            return Ok(Acquired::Clean);
        }
        let start = Instant::now();
        let deadline = if timeout_ns == u64::MAX { Instant::NEVER } else { start.after(timeout_ns) };
        let crowd = self.pool().join_crowd(id);
        let wait = Waited { id, member, start, deadline, timeout_ns, crowd };
        let ended = self.wait_in_slices(&wait, &mut waiter, cancellable);
        // After the swap, or instead of it: whoever walks meanwhile finds that the cycle is none.
        if let Some(record) = member.record {
            record.withdraw();
        }
        ended.or_else(|leaving| {
            if leaving.last_try {
                waiter.is_leaving = true;
                let seen = lock.load(Ordering::Acquire);
                if let Step::Take(next) = word::step(seen, member.word, waiter)
                    && lock.compare_exchange(seen, next, Ordering::Acquire, Ordering::Relaxed).is_ok()
                {
                    return Ok(left_by(seen));
                }
            }
            if waiter.woken {
                // The wake-up was for whoever takes the lock, and that is not this one.
                wake_any(lock);
            }
            Err(leaving.reason)
        })
    }

    fn wait_in_slices(
        &self,
        wait: &Waited<'_>,
        waiter: &mut Waiter,
        cancellable: &Cancellable<'_>,
    ) -> std::result::Result<Acquired, Leaving> {
        let &Waited { id, member, start, deadline, .. } = wait;
        let (pool, lock) = (self.pool(), self.pool().word(id));
        let mut slices = Slices::new(start, wait.crowd.place);
        let mut is_first = true;
        let mut noted = pool.note(id);
        loop {
            let mut seen = lock.load(Ordering::Acquire);
            match word::step(seen, member.word, *waiter) {
                Step::Take(next) => {
                    if lock.compare_exchange(seen, next, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                        return Ok(left_by(seen));
                    }
                    // Whoever changes the word all the while does not make this one wait for ever.
                    self.check_wait(wait, cancellable)?;
                    continue;
                }
                Step::Announce(next) => {
                    if lock.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed).is_err() {
                        self.check_wait(wait, cancellable)?;
                        continue;
                    }
                    seen = next;
                }
                Step::Sleep => {}
            }
            if std::mem::take(&mut is_first) && self.take_over(lock, seen, member, Look::Quick) {
                return Ok(Acquired::OwnerDied);
            }
            self.check_wait(wait, cancellable)?;
            let was_reserved = !word::has_owner(seen);
            let noted_before = pool.note(id);
            let until = cancellable.next_look(slices.end.min(deadline));
            let awake =
                futex::sleep_until(futex_of(lock), word::futex(seen), until, classes(Instant::now().since(start)));
            let now = Instant::now();
            waiter.slept |= matches!(awake, Awake::Woken | Awake::Timeout);
            // Where the word had changed, nobody slept, and a wake-up that came before is still to be used.
            waiter.woken = awake == Awake::Woken || (waiter.woken && awake == Awake::Changed);
            waiter.starves = starves(now.since(start));
            if now < slices.end {
                continue;
            }
            slices.next(now, wait.crowd.size());
            let seen = lock.load(Ordering::Acquire);
            let note = pool.note(id);
            waiter.saw_reserved = was_reserved && !word::has_owner(seen) && seen & R != 0 && note == noted_before;
            // Where the lock changed hands, its holder has not had it for long; a look into /proc costs as much as a turn,
            // and one of many waiters is enough to have it.
            let look = if note == noted && pool.begin_thorough_look(id, now) { Look::Thorough } else { Look::Quick };
            noted = note;
            if self.take_over(lock, seen, member, look) {
                return Ok(Acquired::OwnerDied);
            }
            self.look_for_deadlock(wait)?;
            if pool.is_removed_lately() {
                return Err(Leaving { reason: Reason::Removed, last_try: false });
            }
        }
    }

    /// Takes a dead holder's lock over, with one swap of exactly the word that was judged.
    fn take_over(&self, lock: &AtomicU64, seen: u64, member: &Member<'_>, look: Look) -> bool {
        self.is_dead(seen, look)
            && lock.compare_exchange(seen, word::taken_over(member.word), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn check_wait(&self, wait: &Waited<'_>, cancellable: &Cancellable<'_>) -> std::result::Result<(), Leaving> {
        let &Waited { id, timeout_ns, .. } = wait;
        cancellable.check(id).map_err(|reason| Leaving { reason, last_try: false })?;
        if self.pool().is_retired() {
            return Err(Leaving { reason: Reason::Removed, last_try: false });
        }
        if Instant::now() >= wait.deadline {
            let holder = self.pool().holder_thread(self.pool().word(id).load(Ordering::Relaxed));
            return Err(Leaving { reason: Reason::TimedOut { id, timeout_ns, holder }, last_try: true });
        }
        Ok(())
    }

    /// Publishes what the caller waits for, and ends its wait if that closes a cycle.
    fn look_for_deadlock(&self, wait: &Waited<'_>) -> std::result::Result<(), Leaving> {
        let Some(record) = wait.member.record else { return Ok(()) };
        if record.wish().is_none() {
            record.wish_for(wait.id, wait.start.nanoseconds());
        }
        // Of two who publish at the same time, at least one sees the other's.
        fence(Ordering::SeqCst);
        match self.pool().deadlock(wait.member.owner, wait.id, &record) {
            None => Ok(()),
            Some(reason) => Err(Leaving { reason, last_try: true }),
        }
    }
}

/// One wait.
struct Waited<'w> {
    id: u32,
    member: &'w Member<'w>,
    start: Instant,
    deadline: Instant,
    timeout_ns: u64,
    crowd: Crowd<'static>,
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

/// Counts the calling thread in a word until it is dropped.
struct Counted<'w> {
    word: &'w AtomicU64,
}

impl<'w> Counted<'w> {
    fn new(word: &'w AtomicU64) -> Self {
        word.fetch_add(1, Ordering::Relaxed);
        Self { word }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.word.fetch_sub(1, Ordering::Relaxed);
    }
}
