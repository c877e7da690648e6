// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The note in a slot: the low 16 bits say through which manager the lock was taken, the others how often the lock was
//! taken. Only the holder writes it. No other process depends on it.

use crate::sys::process::number_pool::{NumberPool, StaticNumberPool};

const MANAGER_BITS: u32 = 16;
const MANAGER_MASK: u64 = (1 << MANAGER_BITS) - 1;

/// The note of the next holder.
#[inline(always)]
pub(super) const fn taken(note: u64, manager: u64) -> u64 {
    with_manager(note.wrapping_add(1 << MANAGER_BITS), manager)
}

/// The same note with another manager, or with none: 0.
#[inline(always)]
pub(super) const fn with_manager(note: u64, manager: u64) -> u64 {
    (note & !MANAGER_MASK) | manager
}

/// The manager, by its number in the holder's process, through which the lock was taken.
#[inline(always)]
pub(super) const fn manager(note: u64) -> u64 {
    note & MANAGER_MASK
}

/// How often the lock was taken.
pub(super) const fn acquisitions(note: u64) -> u64 {
    note >> MANAGER_BITS
}

/// The numbers of this process's managers. A child inherits them with the managers.
pub(super) fn managers() -> NumberPool<'static> {
    static MANAGERS: StaticNumberPool<{ (1 << MANAGER_BITS) / u64::BITS as usize }> = StaticNumberPool::new();
    MANAGERS.pool()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_counts_and_names() {
        let note = taken(taken(taken(0, 7), 9), 0xffff);
        assert_eq!((acquisitions(note), manager(note)), (3, 0xffff));
        assert_eq!(manager(taken(u64::MAX, 5)), 5);
    }
}
