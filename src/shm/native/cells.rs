// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The cells of readers. A reader holds a lock because its word is in one of the lock's cells, and by nothing else. There
//! is no count that could be wrong after a death.
//!
//! Four cells are in the lock's slot. All others are in a table that all locks share. A place of the table has a cell and
//! the id of the lock that the cell belongs to. A lock uses a window of the table: where it begins depends on the lock's
//! id, and how long it is on the lock's `level`, which only grows.

use super::atomic::{AtomicU64, Ordering, in_sequence};
use super::format::{self, PLACES};
use super::word::{self, OWNER, STARVING, UNFINISHED};

/// How many places a reader tries before it makes the window of its lock longer (S17).
const PROBES: usize = 16;
/// The distance between two of these places. It is odd, so they all differ: a window's length is a power of two.
const STRIDE: usize = 5;
/// How many places are on a cache line. Readers begin a line apart.
const ON_A_LINE: usize = 4;

/// The level of a lock whose readers keep meeting: a window of eight cache lines (S18a).
pub const LEVEL_OF_A_BUSY_LOCK: u64 = 3;

/// A place of the table: a cell, and the id of its lock.
pub type Place = [AtomicU64; 2];

/// The table of cells.
#[derive(Clone, Copy)]
pub struct Table<'s> {
    pub places: &'s [Place; PLACES],
    /// The pages that this process may touch, a bit each.
    pub usable: &'s AtomicU64,
    /// The pages that any process has needed, a bit each.
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

/// What a claim needs from the segment.
pub trait Surroundings {
    /// Makes a page of the table usable. `false`: that is not possible.
    fn make_usable(&self, page: u32) -> bool;

    /// Whether the process that a cell names has lost its entry, and so is dead or detached.
    fn is_past(&self, cell: u64) -> bool;

    /// Wakes the writer that sleeps on a cell.
    fn wake(&self, cell: &AtomicU64);
}

/// What is at an index, for a look at all cells of a lock.
pub enum Seen<'s> {
    /// A cell and its value: 0 also if the cell belongs to another lock or is unfinished.
    Cell(&'s AtomicU64, u64),
    /// A page that was never used: continue at this index.
    Nothing(usize),
    /// A page that this process has to make usable first.
    Unusable(u32),
    /// There are no more cells.
    End,
}

/// How far a look at all cells goes. A writer reads this after the swap that keeps new readers out, the level before the
/// pages: a reader raises the level, then makes the page ready, then claims (S7, S17).
#[derive(Clone, Copy)]
pub struct Extent {
    end: usize,
    ready: u64,
}

/// The length of the window of a lock with this level.
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

/// Spreads readers over cells and cache lines. Owners with consecutive entries or consecutive serials, as the processes of a
/// program and the threads of a process have, never begin on the same line.
#[inline(always)]
const fn spread(owner: u64) -> usize {
    const SERIAL_STRIDE: u32 = 3;
    word::entry(owner).wrapping_add(word::serial(owner).wrapping_mul(SERIAL_STRIDE)) as usize
}

/// Whether a cell is a hold, or a claim, of `owner`: neither starving nor unfinished.
const fn is_of(cell: u64, owner: u64) -> bool {
    cell & OWNER == owner && word::is_reader(cell)
}

/// Whether `owner` starves in a cell.
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
    /// The place of the table that an owner tries at its `probe`th try.
    #[inline(always)]
    fn place(&self, owner: u64, window: usize, probe: usize) -> usize {
        // A writer that means harm may have made the window 0 since the caller looked.
        let mask = window.wrapping_sub(1);
        (window_start(self.id) + ((spread(owner) * ON_A_LINE + probe * STRIDE) & mask)) % PLACES
    }

    /// The four cells of the slot, in the order in which an owner tries them.
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

    /// The place that an owner tries first, if it already belongs to the lock and can be touched.
    #[inline(always)]
    pub fn first_place(&self, owner: u64) -> Option<&'s AtomicU64> {
        let place = self.place(owner, window(self.level.load(Ordering::Relaxed)), 0);
        if !self.table.can_touch(place) {
            return None;
        }
        let (cell, lock) = self.table.at(place);
        (lock.load(Ordering::Relaxed) == u64::from(self.id)).then_some(cell)
    }

    /// Whether a cell that was just claimed, of those that [`first_place`](Self::first_place) and
    /// [`claimable`](Self::claimable) give, still belongs to this lock: its place may have gone to another lock in
    /// between (S17).
    #[inline(always)]
    pub fn has(&self, cell: &AtomicU64) -> bool {
        if self.has_in_slot(cell) {
            return true;
        }
        let first = self.table.places.as_ptr().addr();
        let place = (std::ptr::from_ref(cell).addr() - first) / size_of::<Place>();
        self.table.at(place).1.load(Ordering::Relaxed) == u64::from(self.id)
    }

    /// Whether a cell is one of the four in the slot.
    #[inline(always)]
    pub fn has_in_slot(&self, cell: &AtomicU64) -> bool {
        let distance = std::ptr::from_ref(cell).addr().wrapping_sub(self.own.as_ptr().addr());
        distance < size_of_val(self.own)
    }

    /// The bits by which the owners in the slot's cells differ from `owner`; 0: perhaps there is no other. Of two owners that
    /// look at each other, at least one has a bit that the other lacks.
    #[inline(always)]
    pub fn others(&self, owner: u64) -> u64 {
        let all = self.own.iter().fold(0, |all, cell| all | cell.load(Ordering::Relaxed));
        all & OWNER & !owner
    }

    /// The empty cells that an owner can claim by one swap: those of the slot or, once the lock has a window, the places
    /// in it that already belong to the lock.
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

    /// Claims a cell as `claim`: an owner, with STARVING if its reader starves (S1, S17). `None`: there is no room. No
    /// signal handler may interrupt the caller.
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
            // Raise the level before the claim, and never lower it: a writer that read a lower level would miss the
            // reader (S18).
            let _by_another = self.level.compare_exchange(level, level + 1, Ordering::SeqCst, Ordering::Relaxed);
        }
    }

    fn claim_own(&self, claim: u64, around: &impl Surroundings) -> Option<&'s AtomicU64> {
        self.own_from(claim).find(|cell| {
            let seen = cell.load(Ordering::Relaxed);
            // A cell of a past process is as good as free.
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
            // The place belongs to another lock by now, and its writer may have taken the claim for a reader.
            if release_cell(cell, claim & OWNER) == CellRelease::Awaited {
                around.wake(cell);
            }
            return None;
        }
        if seen != 0 && !around.is_past(seen) {
            return None;
        }
        // The cell is UNFINISHED until the id is written: no writer takes the claim for a reader of another lock.
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
        // Try every shorter window as well: the cell may have been claimed then.
        let level = self.level.load(Ordering::Relaxed).min(MOST_LEVELS);
        (1..=level).rev().find_map(|level| {
            let window = window(level);
            let probes = if window < PLACES { PROBES.min(window) } else { PLACES };
            (0..probes).find_map(|probe| self.mine_at(self.place(owner, window, probe), owner))
        })
    }

    /// The cell in which a process holds the lock. Each of its threads claims where that thread looks, so all cells are
    /// tried.
    pub fn find_of_process(&self, owner: u64) -> Option<&'s AtomicU64> {
        let is_its = |cell: &&AtomicU64| is_of(cell.load(Ordering::Relaxed), owner);
        self.own.iter().find(is_its).or_else(|| {
            let window = window(self.level.load(Ordering::Relaxed));
            (0..window).find_map(|step| self.mine_at(window_start(self.id) + step, owner))
        })
    }

    /// The cell at a place if `owner`, of this process, holds the lock by it. This process can touch the page then.
    fn mine_at(&self, place: usize, owner: u64) -> Option<&'s AtomicU64> {
        let place = place % PLACES;
        if !self.table.can_touch(place) {
            return None;
        }
        let (cell, lock) = self.table.at(place);
        let is_its = is_of(cell.load(Ordering::Relaxed), owner) && lock.load(Ordering::Relaxed) == u64::from(self.id);
        is_its.then_some(cell)
    }

    /// How far a look at all cells goes now.
    #[inline]
    pub fn extent(&self) -> Extent {
        in_sequence();
        let window = window(self.level.load(Ordering::SeqCst));
        let ready = if window == 0 { 0 } else { self.table.ready.load(Ordering::SeqCst) };
        Extent { end: format::CELLS + window, ready }
    }

    /// What is at `index`.
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

    /// Whether a reader of the lock starves. `Err`: a page that this process has to make usable first.
    pub fn has_starving(&self) -> Result<bool, u32> {
        self.any(|seen| word::has_owner(seen) && seen & STARVING != 0)
    }

    /// Whether `is_such` is true for any cell. `Err`: a page that this process has to make usable first.
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

    /// Looks at the word again after a claim. `Some`: the reader holds the lock; the value is the word before that. `None`:
    /// the reader does not hold it.
    pub fn look_again(&self, waiter: word::WaitState) -> Option<u64> {
        // S1: first the claim, then the word, both sequentially consistent. So are a writer's swap and its look at the
        // cells. Of the reader and the writer, at least one sees the other (S2).
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

/// Every level above this one means the whole table.
const MOST_LEVELS: u64 = 11;

/// What a change of a cell met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellRelease {
    /// Done. A writer sleeps on the cell and has to be woken.
    Awaited,
    /// Done. No writer sleeps on the cell.
    Unnoticed,
    /// Nothing was done: the cell was not the owner's.
    NotIts,
}

/// Empties the cell of an owner, by a swap (S3). A plain store could empty a cell that another reader has by now.
#[inline(always)]
pub fn release_cell(cell: &AtomicU64, owner: u64) -> CellRelease {
    change(cell, owner, Ordering::Release, |_| 0)
}

/// Swaps the value of an owner's cell for what `next` makes of it.
#[inline(always)]
pub fn change(cell: &AtomicU64, owner: u64, order: Ordering, next: impl Fn(u64) -> u64) -> CellRelease {
    // Other threads only set WAITERS, once, or empty the cell. More failures mean a hostile writer.
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
