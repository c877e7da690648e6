// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counting bits as fast as the processor can: the default target knows no POPCNT.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

static HAS_POPCNT: AtomicBool = AtomicBool::new(false);

/// Has the processor asked what it can. Until then all is counted the slow way: the counting itself asks nothing, because
/// what asks may unwind, and a signal handler may end the thread while it counts.
pub(crate) fn ask_processor() {
    #[cfg(target_arch = "x86_64")]
    HAS_POPCNT.store(std::arch::is_x86_feature_detected!("popcnt"), Ordering::Relaxed);
}

/// How many bits of the words are set.
pub(crate) fn count_ones(words: &[AtomicU64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if HAS_POPCNT.load(Ordering::Relaxed) {
        // SAFETY: the processor was asked for the one feature that the function needs.
        return unsafe { count_with_popcnt(words) };
    }
    count(words)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "popcnt")]
fn count_with_popcnt(words: &[AtomicU64]) -> u64 {
    count(words)
}

#[inline(always)]
fn count(words: &[AtomicU64]) -> u64 {
    words.iter().map(|word| u64::from(word.load(Ordering::Acquire).count_ones())).sum()
}
