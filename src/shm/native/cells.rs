// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Where the readers of a lock stand: a reader holds it because its owner's word stands in a cell, and by nothing else.
//! There is no count that could be wrong after a death.
//!
//! Four cells are in the lock's slot. Others are places of a table that all locks share: a lock's window begins at a place
//! of its own, and its `level`, which only grows, says how long it is. A place belongs to the lock whose number stands
//! behind its cell.

use super::atomic::{AtomicU64, Ordering, in_sequence};
use super::format::{self, PLACES};
use super::word::{self, OWNER, STARVING, UNFINISHED};

/// Places that a reader looks at before it makes its lock's window longer (S17).
const PROBES: usize = 16;
/// Odd, so that they are all different in a window whose length is a power of two.
const STRIDE: usize = 5;
/// Places on a cache line: readers begin a line apart.
const ON_A_LINE: usize = 4;

/// The window of a lock on whose cells readers keep meeting: eight lines (S18a).
pub const LEVEL_OF_A_BUSY_LOCK: u64 = 3;

/// One place of the table: a cell, and the lock's number.
pub type Place = [AtomicU64; 2];

/// The table, as this process may touch it.
#[derive(Clone, Copy)]
pub struct Table<'s> {
    pub places: &'s [Place; PLACES],
    /// The pages that this process may touch, a bit each.
    pub usable: &'s AtomicU64,
    /// The pages that somebody has needed.
    pub ready: &'s AtomicU64,
}

/// The cells of one lock.
#[derive(Clone, Copy)]
pub struct Cells<'s> {
    pub word: &'s AtomicU64,
    pub own: &'s [AtomicU64; format::CELLS],
    pub level: &'s AtomicU64,
    pub table: Table<'s>,
    pub id: u32,
}

/// What a claim asks of the segment.
pub trait Surroundings {
    /// Whether a page of the table can be touched, reserved if need be.
    fn make_usable(&self, page: u32) -> bool;

    /// Whether the entry that a cell names has another tenant by now, or none.
    fn is_past(&self, cell: u64) -> bool;

    /// Wakes the writer that sleeps on a cell.
    fn wake(&self, cell: &AtomicU64);
}

/// What stands where a writer looks.
pub enum Seen<'s> {
    /// A cell of the lock, and what is in it; 0 also where it is another lock's or not valid yet.
    Cell(&'s AtomicU64, u64),
    /// Nobody ever was there: look on at that one.
    Nothing(usize),
    /// Somebody was, but this process cannot touch that page yet.
    Unusable(u32),
    /// That was all.
    End,
}

/// How far a look at all cells goes. Taken behind the swap that keeps new readers out: the level first, then the pages, as
/// a reader raises the one and then makes the other ready, before it claims (S7, S17).
#[derive(Clone, Copy)]
pub struct Extent {
    end: usize,
    ready: u64,
}

/// How many places of the table belong to a lock of that level.
const fn window(level: u64) -> usize {
    const LAST_DOUBLED: u64 = 10;
    match level {
        0 => 0,
        1..=LAST_DOUBLED => 8 << (level - 1),
        _ => PLACES,
    }
}

/// Where the window of a lock begins.
const fn window_start(id: u32) -> usize {
    id.wrapping_mul(0x9E37_79B1) as usize % PLACES
}

/// Spreads readers over cells and lines: owners whose entries or whose serials follow each other, as those of a program's
/// processes and of a process's threads do, never begin on one line.
#[inline(always)]
const fn spread(owner: u64) -> usize {
    const SERIAL_STRIDE: u32 = 3;
    word::entry(owner).wrapping_add(word::serial(owner).wrapping_mul(SERIAL_STRIDE)) as usize
}

/// A reader's cell is somebody's hold if it is neither starving nor being written.
const fn is_of(cell: u64, owner: u64) -> bool {
    cell & OWNER == owner && word::is_reader(cell)
}

/// Whether an owner starves in a cell.
pub const fn is_starving_claim_of(cell: u64, owner: u64) -> bool {
    cell & (OWNER | STARVING) == owner | STARVING
}

impl<'s> Table<'s> {
    #[inline(always)]
    fn can_touch(&self, place: usize) -> bool {
        self.usable.load(Ordering::Relaxed) & 1 << format::table_page_of(place) != 0
    }

    #[inline(always)]
    fn at(&self, place: usize) -> (&'s AtomicU64, &'s AtomicU64) {
        let [cell, lock] = &self.places[place % PLACES];
        (cell, lock)
    }
}

impl<'s> Cells<'s> {
    /// The place of the table at which an owner looks, for the `probe`th time.
    #[inline(always)]
    fn place(&self, owner: u64, window: usize, probe: usize) -> usize {
        (window_start(self.id) + ((spread(owner) * ON_A_LINE + probe * STRIDE) & (window - 1))) % PLACES
    }

    /// The four cells of the slot, the owner's own first.
    #[inline(always)]
    fn own_from(&self, owner: u64) -> impl Iterator<Item = &'s AtomicU64> {
        let (own, first) = (self.own, word::entry(owner).wrapping_add(word::serial(owner)) as usize);
        (0..format::CELLS).map(move |step| &own[first.wrapping_add(step) % format::CELLS])
    }

    /// The cell of the slot that an owner tries first.
    #[inline(always)]
    pub fn first_own(&self, owner: u64) -> &'s AtomicU64 {
        &self.own[word::entry(owner).wrapping_add(word::serial(owner)) as usize % format::CELLS]
    }

    /// The place that an owner tries first, if it is the lock's and can be had without more ado.
    #[inline(always)]
    pub fn first_place(&self, owner: u64) -> Option<&'s AtomicU64> {
        let place = self.place(owner, window(self.level.load(Ordering::Relaxed)), 0);
        if !self.table.can_touch(place) {
            return None;
        }
        let (cell, lock) = self.table.at(place);
        (lock.load(Ordering::Relaxed) == u64::from(self.id)).then_some(cell)
    }

    /// Whether a cell of those that [`first_place`](Self::first_place) and [`claimable`](Self::claimable) gave is of this lock still, now
    /// that it is claimed: a place may have been another lock's in between (S17).
    #[inline(always)]
    pub fn has(&self, cell: &AtomicU64) -> bool {
        if self.has_in_slot(cell) {
            return true;
        }
        let first = self.table.places.as_ptr().addr();
        let place = (std::ptr::from_ref(cell).addr() - first) / size_of::<Place>();
        self.table.at(place).1.load(Ordering::Relaxed) == u64::from(self.id)
    }

    /// Whether a cell is one of the slot's.
    #[inline(always)]
    pub fn has_in_slot(&self, cell: &AtomicU64) -> bool {
        let distance = std::ptr::from_ref(cell).addr().wrapping_sub(self.own.as_ptr().addr());
        distance < size_of_val(self.own)
    }

    /// Whether others stand in the slot's cells beside `owner`.
    #[inline(always)]
    pub fn has_others(&self, owner: u64) -> bool {
        let all = self.own.iter().fold(0, |all, cell| all | cell.load(Ordering::Relaxed));
        all & OWNER != 0 && all & OWNER != owner
    }

    /// The cells that an owner may claim, if they are empty, by a swap and no more: those of the slot, or, once the lock has
    /// places, those that are its already.
    pub fn claimable(&self, owner: u64) -> impl Iterator<Item = &'s AtomicU64> {
        let (cells, window) = (*self, window(self.level.load(Ordering::Acquire)));
        let own = self.own_from(owner).filter(move |_| window == 0);
        let places = (0..PROBES.min(window)).filter_map(move |probe| {
            let place = cells.place(owner, window, probe);
            if !cells.table.can_touch(place) {
                return None;
            }
            let (cell, lock) = cells.table.at(place);
            (lock.load(Ordering::Relaxed) == u64::from(cells.id)).then_some(cell)
        });
        own.chain(places).filter(|cell| cell.load(Ordering::Relaxed) == 0)
    }

    /// Claims a cell as `claim`: an owner, with STARVING if its reader starves (S1, S17). `None`: there is no room for one more.
    /// The caller is not interrupted by a signal handler of its own.
    pub fn claim(&self, claim: u64, around: &impl Surroundings) -> Option<&'s AtomicU64> {
        if self.level.load(Ordering::Acquire) == 0
            && let Some(cell) = self.claim_own(claim, around)
        {
            return Some(cell);
        }
        loop {
            let level = self.level.load(Ordering::Acquire);
            let window = window(level);
            let probes = if window < PLACES { PROBES.min(window) } else { PLACES };
            for probe in 0..probes {
                let place = self.place(claim, window, probe);
                if let Some(cell) = self.claim_place(place, claim, around) {
                    return Some(cell);
                }
            }
            if window == PLACES {
                return self.claim_own(claim, around);
            }
            // Before the claim, and never back: a writer that has drained would miss the reader that has just read it (S18).
            let _by_another = self.level.compare_exchange(level, level + 1, Ordering::SeqCst, Ordering::Relaxed);
        }
    }

    fn claim_own(&self, claim: u64, around: &impl Surroundings) -> Option<&'s AtomicU64> {
        self.own_from(claim).find(|cell| {
            let seen = cell.load(Ordering::Relaxed);
            // What a dead reader left is as good as free.
            (seen == 0 || around.is_past(seen))
                && cell.compare_exchange(seen, claim, Ordering::SeqCst, Ordering::Relaxed).is_ok()
        })
    }

    fn claim_place(&self, place: usize, claim: u64, around: &impl Surroundings) -> Option<&'s AtomicU64> {
        if !self.table.can_touch(place) && !around.make_usable(format::table_page_of(place)) {
            return None;
        }
        let (cell, lock) = self.table.at(place);
        let seen = cell.load(Ordering::Relaxed);
        if seen == 0 && lock.load(Ordering::Relaxed) == u64::from(self.id) {
            if cell.compare_exchange(0, claim, Ordering::SeqCst, Ordering::Relaxed).is_err() {
                return None;
            }
            if lock.load(Ordering::Relaxed) == u64::from(self.id) {
                return Some(cell);
            }
            // Another lock's by now, whose writer took the claim for a reader's.
            if release_cell(cell, claim & OWNER) == CellRelease::Awaited {
                around.wake(cell);
            }
            return None;
        }
        if seen != 0 && !around.is_past(seen) {
            return None;
        }
        // UNFINISHED until the number is written: nobody takes the claim for one of another lock.
        if cell.compare_exchange(seen, claim | UNFINISHED, Ordering::SeqCst, Ordering::Relaxed).is_err() {
            return None;
        }
        lock.store(self.id.into(), Ordering::Relaxed);
        cell.store(claim, Ordering::SeqCst);
        Some(cell)
    }

    /// The cell in which an owner holds the lock.
    pub fn find(&self, owner: u64) -> Option<&'s AtomicU64> {
        let is_its = |cell: &&AtomicU64| is_of(cell.load(Ordering::Relaxed), owner);
        if let Some(cell) = self.own_from(owner).find(is_its) {
            return Some(cell);
        }
        // Where it may have stood when the window was shorter, too.
        let level = self.level.load(Ordering::Relaxed).min(MOST_LEVELS);
        (1..=level).rev().find_map(|level| {
            let window = window(level);
            let probes = if window < PLACES { PROBES.min(window) } else { PLACES };
            (0..probes).find_map(|probe| self.mine_at(self.place(owner, window, probe), owner))
        })
    }

    /// The same of a process, each of whose threads has claimed its cell where that thread looks.
    pub fn find_of_process(&self, owner: u64) -> Option<&'s AtomicU64> {
        let is_its = |cell: &&AtomicU64| is_of(cell.load(Ordering::Relaxed), owner);
        self.own.iter().find(is_its).or_else(|| {
            let window = window(self.level.load(Ordering::Relaxed));
            (0..window).find_map(|step| self.mine_at(window_start(self.id) + step, owner))
        })
    }

    /// A place of the lock's that an owner of this process has, which then may touch it.
    fn mine_at(&self, place: usize, owner: u64) -> Option<&'s AtomicU64> {
        let place = place % PLACES;
        if !self.table.can_touch(place) {
            return None;
        }
        let (cell, lock) = self.table.at(place);
        let is_its = is_of(cell.load(Ordering::Relaxed), owner) && lock.load(Ordering::Relaxed) == u64::from(self.id);
        is_its.then_some(cell)
    }

    /// What there is to be looked at now.
    #[inline]
    pub fn extent(&self) -> Extent {
        in_sequence();
        let window = window(self.level.load(Ordering::SeqCst));
        let ready = if window == 0 { 0 } else { self.table.ready.load(Ordering::SeqCst) };
        Extent { end: format::CELLS + window, ready }
    }

    /// What stands at the `index`th cell.
    #[inline]
    pub fn at(&self, extent: &Extent, index: usize) -> Seen<'s> {
        if let Some(cell) = self.own.get(index) {
            return Seen::Cell(cell, cell.load(Ordering::SeqCst));
        }
        if index >= extent.end {
            return Seen::End;
        }
        let place = (window_start(self.id) + index - format::CELLS) % PLACES;
        let page = format::table_page_of(place);
        if !self.table.can_touch(place) {
            if extent.ready & 1 << page != 0 {
                return Seen::Unusable(page);
            }
            return Seen::Nothing(index + 1);
        }
        let (cell, lock) = self.table.at(place);
        let seen = cell.load(Ordering::SeqCst);
        let counts = seen != 0 && seen & UNFINISHED == 0 && lock.load(Ordering::Acquire) == u64::from(self.id);
        Seen::Cell(cell, if counts { seen } else { 0 })
    }

    /// Whether a reader starves, as far as this process can look. `Err`: a page that it cannot touch yet.
    pub fn has_starving(&self) -> Result<bool, u32> {
        self.any(|seen| word::has_owner(seen) && seen & STARVING != 0)
    }

    /// Whether a cell is such. `Err`: a page that this process cannot touch yet.
    pub fn any(&self, is_such: impl Fn(u64) -> bool) -> Result<bool, u32> {
        let (extent, mut index) = (self.extent(), 0);
        loop {
            match self.at(&extent, index) {
                Seen::Cell(_, seen) if is_such(seen) => return Ok(true),
                Seen::Cell(..) => index += 1,
                Seen::Nothing(next) => index = next,
                Seen::Unusable(page) => return Err(page),
                Seen::End => return Ok(false),
            }
        }
    }

    /// Looks at the word behind a claim: the word as it was when its reader came in, if it is. What made it wait it finds
    /// out anew.
    pub fn look_again(&self, waiter: word::WaitState) -> Option<u64> {
        // S1: the claim first, then the word again, both sequentially consistent, as are a writer's swap and its look at the
        // cells: of the two at least one sees the other (S2).
        in_sequence();
        for _ in 0..super::abandoning::ROUNDS {
            let seen = self.word.load(Ordering::SeqCst);
            if word::is_shared(seen) {
                return Some(seen);
            }
            if !word::may_enter(seen, waiter) {
                return None;
            }
            let next = word::opened(seen);
            if self.word.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Some(seen);
            }
        }
        None
    }
}

/// Levels beyond that mean the same.
const MOST_LEVELS: u64 = 11;

/// What came of giving a cell back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellRelease {
    /// A writer sleeps on it, and is to be woken.
    Awaited,
    Unnoticed,
    /// It was not that owner's.
    NotIts,
}

/// Gives back a cell that an owner has, whatever else is in it (S3). Not a blind store: it may be another's by now.
#[inline(always)]
pub fn release_cell(cell: &AtomicU64, owner: u64) -> CellRelease {
    change(cell, owner, Ordering::Release, |_| 0)
}

/// Swaps what an owner has in a cell for what `next` makes of it.
#[inline(always)]
pub fn change(cell: &AtomicU64, owner: u64, order: Ordering, next: impl Fn(u64) -> u64) -> CellRelease {
    // Others only set WAITERS, once, or take the cell away: more is a writer that means harm.
    for _ in 0..super::abandoning::ROUNDS {
        let seen = cell.load(Ordering::Relaxed);
        if seen & OWNER != owner {
            return CellRelease::NotIts;
        }
        if cell.compare_exchange(seen, next(seen), order, Ordering::Relaxed).is_ok() {
            return if seen & word::WAITERS != 0 { CellRelease::Awaited } else { CellRelease::Unnoticed };
        }
    }
    CellRelease::NotIts
}
