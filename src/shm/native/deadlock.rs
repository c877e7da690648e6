// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The detector of deadlocks: the graph that `waits_for` searches, made of the segment's words and records, and which
//! thread of a cycle gives way.

use std::sync::atomic::Ordering;

use crate::Reason;
use crate::error::Waits;
use crate::sys::probe;

use super::cells::Seen;
use super::judgement::{Effort, Verdict};
use super::pool::Pool;
use super::records::Record;
use super::waits_for::{self, Graph, Link};
use super::word::{self, OWNER};

impl Graph for Pool {
    fn blockers(&self, waiter: u64, lock: u32, visit: &mut dyn FnMut(u64)) {
        if !self.has_lock(lock) {
            return;
        }
        let seen = self.word(lock).load(Ordering::Acquire);
        // A lock of a process ends the way: any thread of the process may unlock it.
        let is_threads = |seen: u64| word::has_owner(seen) && word::serial(seen) != 0 && !self.is_past(seen);
        if seen & OWNER != waiter {
            if is_threads(seen) {
                visit(seen & OWNER);
            }
            return;
        }
        let Some(cells) = self.cells(lock).filter(|_| word::is_draining(seen)) else { return };
        let (extent, mut index) = (cells.extent(), 0);
        loop {
            match cells.at(&extent, index) {
                Seen::Cell(_, seen) => {
                    // A thread that waits for this same lock does not read it: its cell is a claim that may come to
                    // nothing (S24).
                    let is_hold = word::is_reader(seen)
                        && is_threads(seen)
                        && seen & OWNER != waiter
                        && self.waits_for(seen & OWNER).is_none_or(|(wanted, _)| wanted != lock);
                    if is_hold {
                        visit(seen & OWNER);
                    }
                    index += 1;
                }
                Seen::Nothing(next) => index = next,
                Seen::Unusable(page) if self.make_table_page_usable(page).is_ok() => {}
                Seen::Unusable(_) => index += 1,
                Seen::End => return,
            }
        }
    }

    fn waits_for(&self, holder: u64) -> Option<(u32, u64)> {
        let record = self.record_of(holder)?;
        let wait = record.waits_for()?;
        (record.key() == holder).then_some((wait.lock, wait.raw))
    }
}

impl Pool {
    /// Why the wait of `me` for `wanted` would never end. If so, the published wait in `record` was cleared.
    pub(super) fn deadlock(&self, me: u64, wanted: u32, record: &Record<'_>) -> Option<Reason> {
        let (inode, lock) = (self.segment.metadata.inode, u64::from(wanted));
        probe::deadlock_walk(inode, lock, me);
        if waits_for::search(self, me, wanted).is_none() || !self.try_detector(me) {
            return None;
        }
        // A dead thread waits for nobody, but its word and record stay until it is found dead. Check this last: a thread
        // that is alive now was alive at both searches.
        let lives = |link: &Link| link.holder == me || self.judge(link.holder, Effort::Thorough) != Verdict::Dead;
        let cycle = waits_for::confirm(self, me, wanted).filter(|links| links.iter().all(lives));
        if let Some(links) = &cycle {
            probe::deadlock_found(inode, lock, me, links.len() as u64);
            // Clear the wait before the detector is released: the next victim then finds this cycle broken.
            record.clear_wait();
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

    /// Takes the detector if no living thread has it. Never waits: the thread that has it may be about to give way.
    fn try_detector(&self, me: u64) -> bool {
        let detector = self.detector();
        let seen = detector.load(Ordering::Acquire);
        let is_free = !word::has_owner(seen) || self.judge(seen, Effort::Quick) == Verdict::Dead;
        is_free && detector.compare_exchange(seen, me, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}
