// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counting bits by the POPCNT instruction, if the processor has it. The compiler's default target does not use it.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Whether the processor has the instruction.
static POPCNT: AtomicU8 = AtomicU8::new(NOT_DETECTED);
const NOT_DETECTED: u8 = 0;
const AVAILABLE: u8 = 1;
const MISSING: u8 = 2;

/// Asks the processor, unless that was done. This takes 60 µs in a virtual machine, so only a call that counts does it. It may
/// unwind, so no path does it on which a signal handler may end the thread.
pub(crate) fn detect() {
    if is_detected() {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    let knows = std::arch::is_x86_feature_detected!("popcnt");
    #[cfg(not(target_arch = "x86_64"))]
    let knows = false;
    POPCNT.store(if knows { AVAILABLE } else { MISSING }, Ordering::Relaxed);
}

/// Whether the processor was asked.
pub(crate) fn is_detected() -> bool {
    POPCNT.load(Ordering::Relaxed) != NOT_DETECTED
}

/// How many bits of the words are set.
pub(crate) fn count_ones(words: &[AtomicU64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if POPCNT.load(Ordering::Relaxed) == AVAILABLE {
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
