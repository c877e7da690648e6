// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random numbers that can be had again: the seed is printed when a test fails.

use std::time::{SystemTime, UNIX_EPOCH};

/// Gives the seed of an earlier run.
const SEED: &str = "LOCK_MANAGER_TEST_SEED";

/// SplitMix64.
#[derive(Debug)]
pub struct Random {
    state: u64,
    seed: u64,
}

impl Random {
    /// Seeded by the environment, else by the clock.
    pub fn seeded() -> Self {
        let by_clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(by_clock);
        Self::from_seed(seed)
    }

    pub fn from_seed(seed: u64) -> Self {
        Self { state: seed, seed }
    }

    /// How to run the test again as it was.
    pub fn recipe(&self) -> String {
        format!("{SEED}={}", self.seed)
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `end`, which is left out.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// One of the values.
    pub fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize]
    }
}
