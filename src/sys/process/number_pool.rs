// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Small numbers that are given out and taken back. No two users have the same one at a time.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A bit for each number, set while the number is in use. 0 is never given.
pub(crate) struct NumberPool<'n> {
    pub(crate) in_use: &'n [AtomicU64],
    /// Where the search starts, so that a number is not used again right after it was given back.
    pub(crate) next: &'n AtomicU32,
}

impl NumberPool<'_> {
    fn place(&self, number: u32) -> Option<(&AtomicU64, u64)> {
        Some((self.in_use.get((number / u64::BITS) as usize)?, 1 << (number % u64::BITS)))
    }

    /// Takes a number that nobody uses. `None`: all are in use.
    pub(crate) fn claim(&self) -> Option<u32> {
        let count = self.in_use.len() as u32 * u64::BITS;
        (0..count).find_map(|_| {
            let number = self.next.fetch_add(1, Ordering::Relaxed) % count;
            let (word, bit) = self.place(number)?;
            (number != 0 && word.fetch_or(bit, Ordering::AcqRel) & bit == 0).then_some(number)
        })
    }

    /// Gives a number back. The caller guarantees that nothing names it any more.
    pub(crate) fn release(&self, number: u32) {
        if let Some((word, bit)) = self.place(number) {
            word.fetch_and(!bit, Ordering::AcqRel);
        }
    }
}

/// A pool for a static, with 64 numbers for each word. Children inherit it, with the users.
#[repr(C)]
pub(crate) struct StaticNumberPool<const WORDS: usize> {
    // It stands beside the first numbers, so a process that needs few numbers touches one page.
    next: AtomicU32,
    in_use: [AtomicU64; WORDS],
}

impl<const WORDS: usize> StaticNumberPool<WORDS> {
    pub(crate) const fn new() -> Self {
        Self { next: AtomicU32::new(1), in_use: [const { AtomicU64::new(0) }; WORDS] }
    }

    pub(crate) fn pool(&self) -> NumberPool<'_> {
        NumberPool { in_use: &self.in_use, next: &self.next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_given_once_until_it_comes_back() {
        let (in_use, next) = ([const { AtomicU64::new(0) }; 1], AtomicU32::new(60));
        let numbers = NumberPool { in_use: &in_use, next: &next };
        let mut given: Vec<u32> = std::iter::from_fn(|| numbers.claim()).collect();
        given.sort_unstable();
        assert_eq!(given, (1..64).collect::<Vec<_>>());
        numbers.release(7);
        assert_eq!((numbers.claim(), numbers.claim()), (Some(7), None));
    }
}
