// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Giving locks back: by who holds them, or, of those who died, by who finds out.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Reason;
use crate::manager::Acquired;
use crate::sys::futex;
use crate::sys::thread::Thread;
use crate::sys::waits::GiveBack;

use super::Native;
use super::abandoning::{ROUNDS, abandon};
use super::judgement::{Look, Verdict};
use super::note;
use super::pool::Pool;
use super::waiting::{CLASSES, futex_of};
use super::word::{self, D, OWNER, R, S, W};

impl Native {
    /// Gives back what the calling thread, or this process, holds.
    #[cold]
    pub(crate) fn release_slowly(&self, id: u32) -> std::result::Result<(), Reason> {
        self.may_lock(id)?;
        let holder = self.holder_here().ok_or(Reason::NotHolder { id })?;
        let lock = self.pool().word(id);
        for _ in 0..ROUNDS {
            let seen = lock.load(Ordering::Relaxed);
            let owner = seen & OWNER;
            let is_threads = Some(owner) == holder.thread_word;
            if !is_threads && owner != holder.process_word {
                return Err(Reason::NotHolder { id });
            }
            if note::manager(self.pool().note(id)) != self.view.token {
                return Err(Reason::NotHolder { id });
            }
            if lock.compare_exchange(seen, word::released(seen), Ordering::Release, Ordering::Relaxed).is_ok() {
                if is_threads {
                    holder.thread.count_word_given_back();
                }
                wake(lock, seen);
                return Ok(());
            }
        }
        let found = lock.load(Ordering::Relaxed);
        Err(Reason::Damaged { what: "the word of a lock that this thread holds", found, expected: 0 })
    }
}

/// Whether the word was that owner's, and is not any more.
fn hand_back(lock: &AtomicU64, me: u64, acquired: Acquired) -> bool {
    for _ in 0..ROUNDS {
        let seen = lock.load(Ordering::Relaxed);
        if seen & OWNER != me {
            return false;
        }
        let next = word::handed_back(seen, acquired == Acquired::OwnerDied);
        if lock.compare_exchange(seen, next, Ordering::Release, Ordering::Relaxed).is_ok() {
            wake(lock, seen);
            return true;
        }
    }
    false
}

/// How a word that the calling thread took is given back from a wait that was left.
pub(super) fn of_left_wait(acquired: Acquired) -> GiveBack {
    fn give_back(lock: &AtomicU64, owner: u64, acquired: Acquired) {
        if hand_back(lock, owner, acquired) && word::serial(owner) != 0 {
            Thread::calling().count_word_given_back();
        }
    }
    match acquired {
        Acquired::Clean => |lock, owner| give_back(lock, owner, Acquired::Clean),
        Acquired::OwnerDied => |lock, owner| give_back(lock, owner, Acquired::OwnerDied),
    }
}

impl Pool {
    /// Gives a lock back that was taken though the segment was retired.
    #[cold]
    #[inline(never)]
    pub(super) fn hand_back(&self, id: u32, me: u64, acquired: Acquired) {
        hand_back(self.word(id), me, acquired);
    }

    /// Marks whatever a thread or process holds as a dead holder's.
    pub(super) fn abandon_all_of(&self, owner: u64) {
        for id in 0..self.num_locks() {
            let lock = self.word(id);
            if let Some(beside) = self.beside.get()
                && lock.load(Ordering::Relaxed) & OWNER == owner
            {
                // First: whoever takes the lock over takes that next.
                beside.release(id);
            }
            if abandon(lock, |seen| seen & OWNER == owner).is_some_and(|seen| seen & W != 0) {
                wake_any(lock);
            }
        }
        // A victim that ends in the midst of its decision leaves the detector to the next.
        let _not_its = self.detector().compare_exchange(owner, 0, Ordering::Release, Ordering::Relaxed);
    }

    /// Marks a dead holder's lock, so that the next to take it is told. `Err`: it lives, or cannot be judged.
    pub(super) fn repair(&self, id: u32) -> std::result::Result<(), Reason> {
        let lock = self.word(id);
        let seen = lock.load(Ordering::Acquire);
        if !word::has_owner(seen) {
            return Ok(());
        }
        // A process that has no place of its own cannot tell whose answer "free" is.
        self.attached()?;
        let holder = self.holder_thread(seen);
        match self.judge(seen, Look::Thorough) {
            Verdict::Alive => Err(Reason::HolderLives { id, holder }),
            Verdict::Unknown => {
                let why = "whether its process lives cannot be asked: the segment's descriptor and name are gone";
                Err(Reason::CannotJudge { id, holder, why })
            }
            Verdict::Dead => {
                if lock.compare_exchange(seen, D | W, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                    wake_any(lock);
                }
                Ok(())
            }
        }
    }
}

/// Wakes whoever is to have the lock that was unlocked from `seen`.
pub(super) fn wake(lock: &AtomicU64, seen: u64) {
    if seen & S != 0 {
        // Those who have waited longest first.
        let found = CLASSES.into_iter().any(|class| futex::wake_one_of(futex_of(lock), class));
        if !found {
            unreserve(lock);
        }
    } else if seen & W != 0 {
        futex::wake_one(futex_of(lock));
    }
}

/// Wakes one sleeper; where there is none, nobody is there for whom the lock could be reserved.
pub(super) fn wake_any(lock: &AtomicU64) {
    if !futex::wake_one_of(futex_of(lock), futex::EVERY_CLASS) {
        unreserve(lock);
    }
}

fn unreserve(lock: &AtomicU64) {
    if lock.compare_exchange(R | W, 0, Ordering::Release, Ordering::Relaxed).is_ok() {
        futex::wake_one(futex_of(lock));
    }
}
