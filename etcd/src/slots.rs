// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! What a process knows by itself of each lock, for the turns of one host that need no thread of the manager's. A forked child
//! finds nothing here.
//!
//! All but [`Slot::set_held`] is changed by who has locked the manager's shared part.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::failure::{Failure, Outcome};
use crate::sys::Words;

const SLOT_WORDS: usize = 4;

/// The words of a slot.
mod word {
    /// The create revision of a key that the process has heard of, and whose lease it renews; 0: none.
    pub(super) const REVISION: usize = 0;
    /// Until when that lease is good.
    pub(super) const GOOD_UNTIL: usize = 1;
    /// Whether this process holds the lock.
    pub(super) const HELD: usize = 2;
    /// Whether the key is one that goes from hand to hand on this host.
    pub(super) const SHARED: usize = 3;
}

pub(crate) struct Slots(Words);

/// The slot of one lock.
#[derive(Clone, Copy)]
pub(crate) struct Slot<'s> {
    revision: &'s AtomicU64,
    good_until: &'s AtomicU64,
    held: &'s AtomicU64,
    shared: &'s AtomicU64,
}

impl Slots {
    pub(crate) fn new(num_locks: u32) -> Outcome<Self> {
        let words = Words::private(num_locks as usize * SLOT_WORDS);
        words.map(Self).map_err(|error| Failure::of_system("mapping memory", &error))
    }

    #[inline]
    pub(crate) fn of(&self, id: u32) -> Option<Slot<'_>> {
        let word = |word| self.0.get(id as usize * SLOT_WORDS + word);
        Some(Slot {
            revision: word(word::REVISION)?,
            good_until: word(word::GOOD_UNTIL)?,
            held: word(word::HELD)?,
            shared: word(word::SHARED)?,
        })
    }

    pub(crate) fn is_held(&self, id: u32) -> bool {
        self.of(id).is_some_and(Slot::is_held)
    }

    pub(crate) fn set_held(&self, id: u32, held: Held) {
        if let Some(slot) = self.of(id) {
            slot.set_held(held);
        }
    }
}

/// Whether this process holds a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    Yes,
    No,
}

impl Slot<'_> {
    /// Whether the key is the one of that create revision, and goes from hand to hand. If so: until when its lease is good.
    #[inline]
    pub(crate) fn good_until_if_shared(self, revision: i64) -> Option<u64> {
        let is_it =
            self.revision.load(Ordering::Relaxed) == revision as u64 && self.shared.load(Ordering::Relaxed) != 0;
        (is_it && revision != 0).then(|| self.good_until.load(Ordering::Relaxed))
    }

    pub(crate) fn is_held(self) -> bool {
        self.held.load(Ordering::Acquire) != 0
    }

    #[inline]
    pub(crate) fn set_held(self, held: Held) {
        self.held.store(u64::from(held == Held::Yes), Ordering::Release);
    }

    /// What the process has heard of a key.
    pub(crate) fn know(self, revision: i64, good_until: u64, is_shared: Shared) {
        self.good_until.store(good_until, Ordering::Relaxed);
        self.shared.store(u64::from(is_shared == Shared::Yes), Ordering::Relaxed);
        self.revision.store(revision as u64, Ordering::Release);
    }

    pub(crate) fn forget(self) {
        self.revision.store(0, Ordering::Relaxed);
        self.good_until.store(0, Ordering::Relaxed);
        self.shared.store(0, Ordering::Relaxed);
        self.set_held(Held::No);
    }
}

/// Whether a key goes from hand to hand on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shared {
    Yes,
    No,
}
