// SPDX-License-Identifier: MIT OR Apache-2.0
//! A lock of the models. The steps of its word are the library's; who makes them in which order is written down here a
//! second time, without clocks, spinning and the rest that decides nothing.

use std::sync::Mutex as Ghostly;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::AtomicBool;

use super::atomic::{AtomicU64, Ordering};
use super::futex::{Awake, Futex};
use super::word::{self, OWNER_DIED, RESERVED, STARVING, Step, WAITERS, WaitState};

const THREADS: usize = 4;

/// How threads keep to the rules.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub unlock: Ordering,
    /// Who unlocks wakes one of those who sleep.
    pub wakes: bool,
    /// Who leaves without the lock passes on the wake-up that it had.
    pub passes_on: bool,
    /// Who has slept says, on taking the lock, that others may sleep.
    pub says_that_others_sleep: bool,
    /// Where nobody was there to be woken for whom the lock is reserved, it is not.
    pub unreserves: bool,
    /// A takeover swaps exactly the word that was judged.
    pub takes_over_what_was_judged: bool,
}

pub const RULES: Rules = Rules {
    unlock: Ordering::Release,
    wakes: true,
    passes_on: true,
    says_that_others_sleep: true,
    unreserves: true,
    takes_over_what_was_judged: true,
};

/// What is true, whatever the word says. Not seen by loom: between two of its steps nothing else happens.
#[derive(Debug, Default)]
struct Truth {
    holder: Option<usize>,
    /// A holder died, and nobody was told yet.
    untold: bool,
}

/// A lock, and what it protects.
pub struct Lock {
    rules: Rules,
    word: AtomicU64,
    pub futex: Futex,
    dead: Vec<AtomicBool>,
    pub late: Vec<AtomicBool>,
    truth: Ghostly<Truth>,
    protected: UnsafeCell<u32>,
}

fn name(thread: usize) -> u64 {
    word::of_thread(word::of_process(thread as u32 + 1, 1), 1)
}

impl Lock {
    pub fn new(rules: Rules) -> Arc<Self> {
        let flags = || (0..THREADS).map(|_| AtomicBool::new(false)).collect();
        Arc::new(Self {
            rules,
            word: AtomicU64::new(0),
            futex: Futex::of(THREADS),
            dead: flags(),
            late: flags(),
            truth: Ghostly::default(),
            protected: UnsafeCell::new(0),
        })
    }

    pub fn taken(&self, thread: usize, seen: u64) {
        let told = word::has_owner(seen) || seen & OWNER_DIED != 0;
        let mut truth = self.truth.lock().unwrap();
        assert_eq!(truth.holder, None, "two holders");
        assert_eq!(told, truth.untold, "of a death one hears once, and of none never");
        *truth = Truth { holder: Some(thread), untold: false };
        drop(truth);
        // SAFETY: of the lock's holder; loom fails the model if that is not so.
        self.protected.with_mut(|protected| unsafe { *protected += 1 });
    }

    pub fn given_back(&self, thread: usize) {
        assert_eq!(self.truth.lock().unwrap().holder.take(), Some(thread));
    }

    pub fn swap(&self, seen: u64, next: u64, success: Ordering) -> bool {
        self.word.compare_exchange(seen, next, success, Ordering::Relaxed).is_ok()
    }

    pub fn is_dead(&self, seen: u64) -> bool {
        word::has_owner(seen) && self.dead[word::entry(seen) as usize - 1].load(Ordering::Acquire)
    }

    pub fn take_over(&self, thread: usize) -> bool {
        loop {
            let seen = self.word.load(Ordering::Acquire);
            if !self.is_dead(seen) {
                return false;
            }
            if !self.rules.takes_over_what_was_judged {
                let found = self.word.swap(word::taken_over(seen, name(thread)), Ordering::AcqRel);
                self.taken(thread, found);
                return true;
            }
            if self.swap(seen, word::taken_over(seen, name(thread)), Ordering::Acquire) {
                self.taken(thread, seen);
                return true;
            }
        }
    }

    /// Waits for the lock. False: it is late, and leaves.
    pub fn lock(&self, thread: usize) -> bool {
        let me = name(thread);
        if self.swap(0, me, Ordering::Acquire) {
            self.taken(thread, 0);
            return true;
        }
        let mut waiter = WaitState::default();
        let mut is_first = true;
        loop {
            let mut seen = self.word.load(Ordering::Acquire);
            match word::step(seen, me, waiter) {
                Step::Take(next) => {
                    let next = if self.rules.says_that_others_sleep { next } else { next & !WAITERS };
                    if self.swap(seen, next, Ordering::Acquire) {
                        self.taken(thread, seen);
                        return true;
                    }
                    continue;
                }
                Step::Announce(next) => {
                    if !self.swap(seen, next, Ordering::Relaxed) {
                        continue;
                    }
                    seen = next;
                }
                Step::Sleep => {}
            }
            if std::mem::take(&mut is_first) && self.take_over(thread) {
                return true;
            }
            if self.late[thread].load(Ordering::Relaxed) {
                return self.leave(thread, waiter);
            }
            let was_reserved = !word::has_owner(seen);
            let awake = self.futex.sleep(thread, &self.word, seen);
            waiter.slept |= awake != Awake::Changed;
            waiter.woken = awake == Awake::Woken || (waiter.woken && awake == Awake::Changed);
            waiter.starves = waiter.slept;
            // A deadlock's victim leaves here, before it has said again that it waits.
            if self.late[thread].load(Ordering::Relaxed) {
                return self.leave(thread, waiter);
            }
            if awake == Awake::SliceOver {
                let seen = self.word.load(Ordering::Acquire);
                waiter.saw_reserved = was_reserved && !word::has_owner(seen) && seen & RESERVED != 0;
                if self.take_over(thread) {
                    return true;
                }
            }
        }
    }

    pub fn leave(&self, thread: usize, waiter: WaitState) -> bool {
        let seen = self.word.load(Ordering::Acquire);
        if let Step::Take(next) = word::step(seen, name(thread), WaitState { is_leaving: true, ..waiter })
            && self.swap(seen, next, Ordering::Acquire)
        {
            self.taken(thread, seen);
            return true;
        }
        if waiter.woken && self.rules.passes_on {
            self.wake_any();
        }
        false
    }

    pub fn unlock(&self, thread: usize) {
        let me = name(thread);
        if self.swap(me, 0, self.rules.unlock) {
            return self.given_back(thread);
        }
        loop {
            let seen = self.word.load(Ordering::Relaxed);
            assert_eq!(seen & word::OWNER, me, "who unlocks holds it");
            if self.swap(seen, word::released(seen), self.rules.unlock) {
                self.given_back(thread);
                if self.rules.wakes && seen & (STARVING | WAITERS) != 0 {
                    self.wake_any();
                }
                return;
            }
        }
    }

    pub fn wake_any(&self) {
        if !self.futex.wake_one() && self.rules.unreserves && self.swap(RESERVED | WAITERS, 0, Ordering::Release) {
            self.futex.wake_one();
        }
    }

    /// Locks and unlocks.
    pub fn turn(&self, thread: usize) {
        if self.lock(thread) {
            self.unlock(thread);
        }
    }

    /// Whoever is killed while it holds the lock; then time passes for those who wait.
    pub fn die_holding(&self, thread: usize, waiting: &[usize]) {
        self.given_back(thread);
        self.truth.lock().unwrap().untold = true;
        self.dead[thread].store(true, Ordering::Release);
        self.futex.end_slices_of(waiting);
    }

    /// A thread that ends with the lock held, in a process that lives.
    pub fn end_holding(&self, thread: usize) {
        loop {
            let seen = self.word.load(Ordering::Relaxed);
            assert_eq!(seen & word::OWNER, name(thread));
            if self.swap(seen, word::abandoned(seen), self.rules.unlock) {
                self.given_back(thread);
                self.truth.lock().unwrap().untold = true;
                if seen & WAITERS != 0 {
                    self.wake_any();
                }
                return;
            }
        }
    }

    /// Marks a dead holder's lock, as repair_lock does.
    pub fn repair(&self) {
        let seen = self.word.load(Ordering::Acquire);
        if self.is_dead(seen) && self.swap(seen, OWNER_DIED | WAITERS, Ordering::AcqRel) {
            self.wake_any();
        }
    }

    /// At rest: nobody holds it, and every death has been told of, or will be.
    pub fn assert_at_rest(&self) {
        let word = self.word.load(Ordering::Acquire);
        let truth = self.truth.lock().unwrap();
        assert_eq!(truth.holder, None);
        assert_eq!(truth.untold, word & OWNER_DIED != 0 || self.is_dead(word));
        assert!(!word::has_owner(word) || self.is_dead(word));
    }
}
