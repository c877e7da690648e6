// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Taking names out of words and cells: of dead holders, of threads that end, of entries that start again.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Reason;
use crate::sys::probe;
use crate::sys::syscall::futex;

use super::cells::{self, CellRelease, Cells, Seen};
use super::format;
use super::judgement::{Effort, Verdict};
use super::pool::Pool;
use super::releasing::{wake_any, wake_cell};
use super::space::Space;
use super::waiting::futex_of;
use super::word::{self, OWNER, WAITERS};

/// How often to try a swap. Other threads only set bits, each once, or take the lock over. More failures mean a hostile
/// writer.
pub(super) const ROUNDS: u32 = 16;

/// Makes a lock abandoned if `is_meant` is true for its word. Returns the word that it had: the caller wakes.
fn abandon(lock: &AtomicU64, is_meant: impl Fn(u64) -> bool) -> Option<u64> {
    for _ in 0..ROUNDS {
        let seen = lock.load(Ordering::Acquire);
        if !is_meant(seen) {
            return None;
        }
        if lock.compare_exchange(seen, word::abandoned(seen), Ordering::Release, Ordering::Relaxed).is_ok() {
            return Some(seen);
        }
    }
    None
}

/// Empties a cell if `is_meant` is true for it, whether it is a hold, a starving claim or unfinished (S20). Nobody is told
/// of a dead reader: it changed nothing.
fn empty(cell: &AtomicU64, is_meant: impl Fn(u64) -> bool) {
    let seen = cell.load(Ordering::Acquire);
    if word::has_owner(seen) && is_meant(seen) && cells::release_cell(cell, seen & OWNER) == CellRelease::Awaited {
        wake_cell(cell);
    }
}

impl Space {
    /// Goes through the segment: makes every word abandoned, and empties every cell, for which `is_meant` is true.
    pub(super) fn forget_all(&self, is_meant: impl Fn(u64) -> bool) {
        let forget = |lock| {
            if abandon(lock, &is_meant).is_some() {
                futex::wake_one(futex_of(lock));
            }
        };
        for id in self.touched_ids(self.num_locks_now()) {
            forget(self.word(id));
            let own = self.cells(id).into_iter().flat_map(|cells| cells.own);
            own.for_each(|cell| empty(cell, &is_meant));
        }
        forget(self.detector());
        self.places().for_each(|(cell, _)| empty(cell, &is_meant));
    }

    /// The places of the table that were ever used and that this process can touch.
    pub(super) fn places(&self) -> impl Iterator<Item = (&AtomicU64, &AtomicU64)> {
        let table = self.table();
        let (places, ready) =
            table.map_or((&[][..], 0), |table| (&table.places[..], table.ready.load(Ordering::SeqCst)));
        places.iter().enumerate().filter_map(move |(index, [cell, lock])| {
            let page = format::table_page_of(index);
            let is_there = ready & 1 << page != 0 && self.can_touch_table_page(page);
            is_there.then_some((cell, lock))
        })
    }
}

impl Pool {
    /// Makes every lock of a thread or process abandoned. The caller excludes other threads.
    pub(super) fn abandon_all_of(&self, owner: u64) {
        let is_its = |seen: u64| seen & OWNER == owner;
        for id in self.touched_ids(self.num_locks()) {
            let lock = self.word(id);
            if let Some(companion) = self.companion.get()
                && is_its(lock.load(Ordering::Relaxed))
            {
                // Release the companion first: a thread that takes the word over takes the companion next.
                companion.release(id);
            }
            if abandon(lock, is_its).is_some_and(|seen| seen & WAITERS != 0) {
                wake_any(lock);
            }
            for cell in self.cells(id).into_iter().flat_map(|cells| cells.own) {
                self.abandon_cell(cell, id, owner);
            }
        }
        for (cell, lock) in self.places() {
            self.abandon_cell(cell, lock.load(Ordering::Relaxed) as u32, owner);
        }
        // A thread may end while it has the detector.
        let _not_its = self.detector().compare_exchange(owner, 0, Ordering::Release, Ordering::Relaxed);
    }

    fn abandon_cell(&self, cell: &AtomicU64, id: u32, owner: u64) {
        let seen = cell.load(Ordering::Relaxed);
        if seen & OWNER != owner {
            return;
        }
        if let Some(companion) = self.companion.get()
            && word::is_reader(seen)
            && id < self.num_locks()
            && self.cells(id).is_some_and(|cells| !self.is_read_here_beside(&cells, cell))
        {
            companion.release(id);
        }
        empty(cell, |seen| seen & OWNER == owner);
    }

    /// Claims a cell of a lock as `claim` (S1). If there is no room, it empties the cell of a dead reader: without
    /// writers, nobody else does.
    pub(super) fn claim_cell<'p>(
        &'p self,
        cells: &Cells<'p>,
        claim: u64,
    ) -> std::result::Result<&'p AtomicU64, Reason> {
        let claimed = cells.claim(claim, &**self);
        let claimed =
            claimed.or_else(|| self.clear_a_dead_reader(cells).then(|| cells.claim(claim, &**self)).flatten());
        claimed.ok_or_else(|| self.why_no_room(cells.id))
    }

    /// Finds a dead reader in the lock's cells or in the table, and empties its cell. If its process is dead, all cells of
    /// the process can be claimed then. Returns whether it found one.
    #[cold]
    fn clear_a_dead_reader(&self, cells: &Cells<'_>) -> bool {
        let mut living = BTreeSet::new();
        cells.own.iter().chain(self.places().map(|(cell, _)| cell)).any(|cell| {
            let seen = cell.load(Ordering::Acquire);
            if !word::has_owner(seen) || living.contains(&(seen & OWNER)) {
                return false;
            }
            let is_dead = self.judge(seen, Effort::Quick) == Verdict::Dead;
            if is_dead {
                clear_dead(cell, seen);
            } else {
                living.insert(seen & OWNER);
            }
            is_dead
        })
    }

    /// Whether this process reads a lock, or has claimed a cell to read it, in another cell than `own`. A starving reader
    /// does not count: a writer comes first.
    pub(super) fn is_read_here_beside(&self, cells: &Cells<'_>, own: &AtomicU64) -> bool {
        self.is_read_here(cells, |cell| !std::ptr::eq(cell, own))
    }

    /// The same for the cells for which `is_meant` is true.
    pub(super) fn is_read_here(&self, cells: &Cells<'_>, is_meant: impl Fn(&AtomicU64) -> bool) -> bool {
        let Some(attachment) = self.attachment.peek() else { return false };
        let (extent, mut index) = (cells.extent(), 0);
        loop {
            match cells.at(&extent, index) {
                Seen::Cell(cell, seen)
                    if is_meant(cell) && word::is_reader(seen) && word::process(seen) == attachment.process_word =>
                {
                    return true;
                }
                Seen::Cell(..) | Seen::Unusable(_) => index += 1,
                Seen::Nothing(next) => index = next,
                Seen::End => return false,
            }
        }
    }

    /// Makes the lock of a dead holder abandoned, and empties the cells of dead readers (S21). `Err`: a holder is alive
    /// or cannot be judged, and nothing was changed.
    pub(super) fn repair(&self, id: u32) -> std::result::Result<(), Reason> {
        let lock = self.word(id);
        let seen = lock.load(Ordering::Acquire);
        let readers = self.cells(id).filter(|_| !word::has_owner(seen) || word::is_draining(seen));
        if !word::has_owner(seen) && readers.is_none() {
            return Ok(());
        }
        // Attach first: without an entry of its own, a process cannot check that the answer "free" is about this file.
        self.attached()?;
        let mut refusal = None;
        let mut has_mended = false;
        let mut judge = |named: u64| {
            let verdict = self.judge(named, Effort::Thorough);
            let holder = self.holder_thread(named);
            let why = "whether its process lives cannot be asked: the segment's descriptor and name are gone";
            match verdict {
                Verdict::Dead => return true,
                Verdict::Alive => refusal = Some(Reason::HolderLives { id, holder }),
                Verdict::Unknown => refusal = Some(Reason::CannotJudge { id, holder, why }),
            }
            false
        };
        if word::has_owner(seen) && judge(seen) {
            has_mended = true;
            let next = word::found_dead(seen);
            if lock.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                probe::takeover(self.segment.metadata.inode, id.into(), seen, next);
                wake_any(lock);
            }
        }
        if let Some(cells) = readers {
            let (extent, mut index) = (cells.extent(), 0);
            loop {
                match cells.at(&extent, index) {
                    Seen::Cell(cell, named) if word::is_reader(named) => {
                        if judge(named) {
                            has_mended = true;
                            clear_dead(cell, named);
                        }
                        index += 1;
                    }
                    Seen::Cell(..) => index += 1,
                    Seen::Nothing(next) => index = next,
                    Seen::Unusable(page) => self.make_table_page_usable(page)?,
                    Seen::End => break,
                }
            }
        }
        refusal.filter(|_| !has_mended).map_or(Ok(()), Err)
    }
}

/// Empties the cell of a dead reader, by a swap of exactly the value that was judged (S7). A plain store could empty a
/// living reader's cell.
pub(super) fn clear_dead(cell: &AtomicU64, judged: u64) {
    let is_cleared = cell.compare_exchange(judged, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    if is_cleared && judged & WAITERS != 0 {
        wake_cell(cell);
    }
}
