// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Deadlocks of a segment: the walk through its words and records, and who of a cycle gives way.

use std::sync::atomic::Ordering;

use crate::Reason;
use crate::error::Waits;

use super::deadlock::{self, Graph, Link};
use super::judgement::{Look, Verdict};
use super::pool::Pool;
use super::records::Record;
use super::word;

impl Graph for Pool {
    fn holder(&self, lock: u32) -> Option<u64> {
        if !self.has_lock(lock) {
            return None;
        }
        let seen = self.word(lock).load(Ordering::Acquire);
        // A process that owns a lock may unlock it from any thread: there the way ends.
        let is_threads = word::has_owner(seen) && word::serial(seen) != 0;
        (is_threads && !self.is_past(seen)).then_some(seen & word::OWNER)
    }

    fn wish(&self, holder: u64) -> Option<(u32, u64)> {
        let record = self.record_of(holder)?;
        let wish = record.wish()?;
        (record.key() == holder).then_some((wish.lock, wish.raw))
    }
}

impl Pool {
    /// Why the wait of `me` for `wanted` would never end. Then its wish, which is in `record`, has been withdrawn.
    pub(super) fn deadlock(&self, me: u64, wanted: u32, record: &Record<'_>) -> Option<Reason> {
        if !deadlock::comes_back(self, me, wanted) || !self.try_detector(me) {
            return None;
        }
        // The dead wait for nobody, though until somebody has found them dead their words and records say so. Asked last:
        // whoever lives now lived at both looks.
        let lives = |link: &Link| link.holder == me || self.judge(link.holder, Look::Thorough) != Verdict::Dead;
        let cycle = deadlock::confirm(self, me, wanted).filter(|links| links.iter().all(lives));
        if cycle.is_some() {
            // Before the detector is free: the next victim finds that this cycle is broken.
            record.withdraw();
        }
        let _taken_over = self.detector().compare_exchange(me, 0, Ordering::Release, Ordering::Relaxed);
        cycle.map(|links| Reason::Deadlock {
            id: wanted,
            cycle: links.iter().map(|link| self.describe_link(link)).collect(),
        })
    }

    fn describe_link(&self, link: &Link) -> Waits {
        let (pid, tid) = self.named_thread(link.holder).unwrap_or_default();
        Waits { id: link.lock, pid, tid }
    }

    /// Takes the detector if nobody who lives has it; never waits, since whoever has it may be about to give way.
    fn try_detector(&self, me: u64) -> bool {
        let detector = self.detector();
        let seen = detector.load(Ordering::Acquire);
        let is_free = !word::has_owner(seen) || self.judge(seen, Look::Quick) == Verdict::Dead;
        is_free && detector.compare_exchange(seen, me, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}
