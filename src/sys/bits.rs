// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counting bits as fast as the processor can: the default target knows no POPCNT.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many bits of the words are set.
pub(crate) fn count_ones(words: &[AtomicU64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("popcnt") {
        // SAFETY: the processor was just asked for the one feature that the function needs.
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
