// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Turning a word that names somebody into a dead holder's.

use std::sync::atomic::{AtomicU64, Ordering};

use super::word;

/// How often a word is tried to be changed. Others only set bits, each of them once, or take the lock over: more is a
/// writer that means harm.
pub(super) const ROUNDS: u32 = 16;

/// Marks the lock as abandoned if its word names whom `is_meant` says, and gives the word that it had: waking is the
/// caller's.
pub(super) fn abandon(lock: &AtomicU64, is_meant: impl Fn(u64) -> bool) -> Option<u64> {
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
