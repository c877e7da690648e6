// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Which ids are taken. Each id has a bit, and one atomic operation on that bit decides. The summary above only guides the
//! search. A search that finds it wrong mends it, so a process that dies between the two changes loses no id.

use super::atomic::{AtomicU32, AtomicU64, Ordering};

const BITS: u32 = u64::BITS;

/// How often the whole bitmap is searched again because ids were freed meanwhile.
const SEARCHES: u32 = 3;

/// The bitmap as one process sees it: it covers the locks that the process knows of.
pub struct Bitmap<'s> {
    /// Set: allocated.
    pub words: &'s [AtomicU64],
    /// Set: that word of the bitmap is full, or was.
    pub summary: &'s [AtomicU64],
    /// Counts frees, so that a search that found nothing knows whether it missed an id.
    pub frees: &'s AtomicU64,
    /// The word in which this process looks first.
    pub hint: &'s AtomicU32,
}

/// All ids are allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted;

impl Bitmap<'_> {
    /// Takes a free id. The search begins at the word where this process found one last, and takes the lowest id of the first
    /// word that has one.
    pub fn allocate(&self) -> Result<u32, Exhausted> {
        let first = self.hint.load(Ordering::Relaxed);
        if let Some(id) = self.take_from(first) {
            return Ok(id);
        }
        for _ in 0..SEARCHES {
            let freed = self.frees.load(Ordering::Acquire);
            if let Some(id) = self.search_by_summary(first).or_else(|| self.search_all()) {
                self.hint.store(id / BITS, Ordering::Relaxed);
                return Ok(id);
            }
            if self.frees.load(Ordering::Acquire) == freed {
                break;
            }
        }
        Err(Exhausted)
    }

    /// Takes a free id of the word where this process looks first, if there is one. Never panics.
    #[inline]
    pub fn allocate_at_hint(&self) -> Option<u32> {
        self.take_from(self.hint.load(Ordering::Relaxed))
    }

    /// Takes the lowest free id of a word.
    #[inline]
    fn take_from(&self, index: u32) -> Option<u32> {
        let word = self.words.get(index as usize)?;
        // Acquire, also where nothing is taken: who finds a word full because somebody moved there from another is to
        // see that something was freed.
        let mut bits = word.load(Ordering::Acquire);
        while bits != u64::MAX {
            let bit = bits.trailing_ones();
            match word.compare_exchange(bits, bits | 1 << bit, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    if bits | 1 << bit == u64::MAX {
                        self.mark_full(index);
                    }
                    return Some(index * BITS + bit);
                }
                Err(now) => bits = now,
            }
        }
        None
    }

    /// Notes that a word is full, unless it is not any more.
    fn mark_full(&self, index: u32) {
        let Some((summary, bit)) = self.summary_of(index) else { return };
        summary.fetch_or(bit, Ordering::AcqRel);
        // A free in between cleared the bit before it was set: then it is cleared again here.
        if self.words.get(index as usize).is_some_and(|word| word.load(Ordering::Acquire) != u64::MAX) {
            summary.fetch_and(!bit, Ordering::AcqRel);
        }
    }

    fn summary_of(&self, index: u32) -> Option<(&AtomicU64, u64)> {
        Some((self.summary.get((index / BITS) as usize)?, 1 << (index % BITS)))
    }

    /// Searches the words that may have a free id by the summary: from a word to the end, and then from the start.
    fn search_by_summary(&self, first: u32) -> Option<u32> {
        let count = self.summary.len() as u32;
        let start = (first / BITS).min(count);
        for index in (start..count).chain(0..start) {
            let mut candidates = !self.summary[index as usize].load(Ordering::Acquire);
            if index == start {
                // Begin at `first`. search_all() finds what lies before it in this word of the summary.
                candidates &= u64::MAX << (first % BITS);
            }
            while candidates != 0 {
                let word = index * BITS + candidates.trailing_zeros();
                candidates &= candidates - 1;
                if word as usize >= self.words.len() {
                    break;
                }
                if let Some(id) = self.take_from(word) {
                    return Some(id);
                }
                self.mark_full(word);
            }
        }
        None
    }

    /// Searches every word, and mends the summary if it hides a free id.
    fn search_all(&self) -> Option<u32> {
        for index in 0..self.words.len() as u32 {
            if self.words[index as usize].load(Ordering::Acquire) == u64::MAX {
                continue;
            }
            if let Some((summary, bit)) = self.summary_of(index) {
                summary.fetch_and(!bit, Ordering::AcqRel);
            }
            if let Some(id) = self.take_from(index) {
                return Some(id);
            }
        }
        None
    }

    /// Takes the id; false if it is taken already.
    pub fn allocate_given(&self, id: u32) -> bool {
        let Some(word) = self.words.get((id / BITS) as usize) else { return false };
        let bit = 1 << (id % BITS);
        let before = word.fetch_or(bit, Ordering::AcqRel);
        if before & bit != 0 {
            return false;
        }
        if before | bit == u64::MAX {
            self.mark_full(id / BITS);
        }
        true
    }

    /// Frees an id; false if it is not taken.
    pub fn free(&self, id: u32) -> bool {
        let Some(word) = self.words.get((id / BITS) as usize) else { return false };
        let bit = 1 << (id % BITS);
        let before = word.fetch_and(!bit, Ordering::AcqRel);
        if before & bit == 0 {
            return false;
        }
        if let Some((summary, full)) = self.summary_of(id / BITS)
            && before == u64::MAX
        {
            summary.fetch_and(!full, Ordering::AcqRel);
        }
        self.frees.fetch_add(1, Ordering::AcqRel);
        self.hint.store(id / BITS, Ordering::Relaxed);
        true
    }

    /// Frees every id, in a segment of `num_locks`. What somebody else allocates meanwhile may be freed as well.
    pub fn free_all(&self, num_locks: u32) {
        for (index, word) in (0..).zip(self.words) {
            // In one step: another thread that allocates must not get a bit that stands for no lock.
            let tail = if index == num_locks / BITS { tail(num_locks) } else { None };
            word.store(tail.unwrap_or(0), Ordering::Release);
        }
        for word in self.summary {
            word.store(0, Ordering::Release);
        }
        self.frees.fetch_add(1, Ordering::AcqRel);
        self.hint.store(0, Ordering::Relaxed);
    }

    /// Takes the bits of the last word that stand for no lock, in a segment of `num_locks`.
    pub fn keep_tail(&self, num_locks: u32) {
        if let (Some(word), Some(tail)) = (self.words.get((num_locks / BITS) as usize), tail(num_locks)) {
            word.fetch_or(tail, Ordering::AcqRel);
        }
    }

    /// Frees the bits that `keep_tail` took when there were `before` locks, and that stand for locks now that there are
    /// `num_locks`.
    pub fn release_tail(&self, before: u32, num_locks: u32) {
        let Some(old) = tail(before) else { return };
        let still = if before / BITS == num_locks / BITS { tail(num_locks).unwrap_or(0) } else { 0 };
        let index = before / BITS;
        if let Some(word) = self.words.get(index as usize) {
            word.fetch_and(!(old & !still), Ordering::AcqRel);
            if let Some((summary, full)) = self.summary_of(index) {
                summary.fetch_and(!full, Ordering::AcqRel);
            }
            self.frees.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Whether that id is taken.
    #[must_use]
    pub fn is_allocated(&self, id: u32) -> bool {
        let word = self.words.get((id / BITS) as usize);
        word.is_some_and(|word| word.load(Ordering::Acquire) & 1 << (id % BITS) != 0)
    }
}

/// The bits of the last word that stand for no lock, in a segment of `num_locks`. `None`: there are none.
fn tail(num_locks: u32) -> Option<u64> {
    (!num_locks.is_multiple_of(BITS)).then(|| u64::MAX << (num_locks % BITS))
}
