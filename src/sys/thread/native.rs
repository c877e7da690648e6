// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! What a thread keeps about native segments: where it entered last, its serial, how many locks it owns, and the cell of a
//! lock that it is claiming for reading.

use std::ptr;
use std::sync::atomic::AtomicU64;

use super::object::field;
use crate::sys::thread::Thread;

/// What a shared lock adds to the number of locks that a thread owns: as much as fits into one instruction's operand, and more
/// than the number of locks that it can own exclusively.
pub(super) const SHARED: i64 = 1 << 30;

/// No attachment's number.
const NO_ATTACHMENT: u64 = 1;

impl Thread {
    /// Whether `attachment` is the one that the thread entered last. Then the thread has a serial.
    #[inline(always)]
    pub(crate) fn last_entered(self, attachment: u64) -> bool {
        self.load::<{ field::LAST_ATTACHMENT }>() == attachment
    }

    /// Notes that the thread, which has a serial, has entered `attachment`.
    pub(crate) fn note_entered(self, attachment: u64) {
        self.store::<{ field::LAST_ATTACHMENT }>(attachment);
    }

    /// The thread's serial where it stands in a lock word; 0: it has none yet. It stays until the thread ends or forks: a
    /// signal handler that comes between two reads finds the same.
    #[inline(always)]
    pub(crate) fn serial_bits(self) -> u64 {
        self.load::<{ field::SERIAL_BITS }>()
    }

    pub(crate) fn set_serial_bits(self, bits: u64) {
        self.store::<{ field::SERIAL_BITS }>(bits);
    }

    /// How many locks the thread owns, or is about to; 0: none.
    pub(crate) fn held_native(self) -> u64 {
        self.load::<{ field::HELD_NATIVE }>()
    }

    #[inline(always)]
    pub(crate) fn count_native_lock(self) {
        self.add::<{ field::HELD_NATIVE }, 1>();
    }

    #[inline(always)]
    pub(crate) fn count_native_unlock(self) {
        self.add::<{ field::HELD_NATIVE }, { -1 }>();
    }

    #[inline(always)]
    pub(crate) fn count_shared_lock(self) {
        self.add::<{ field::HELD_NATIVE }, SHARED>();
    }

    #[inline(always)]
    pub(crate) fn count_shared_unlock(self) {
        self.add::<{ field::HELD_NATIVE }, { -SHARED }>();
    }

    /// Whether the thread itself owns a shared lock, or is about to.
    #[inline(always)]
    pub(crate) fn is_reading(self) -> bool {
        self.held_native() >= SHARED as u64
    }

    /// How the thread backs off from busy locks, as the native layout's waits keep it; 0 at first.
    pub(crate) fn pace(self) -> u64 {
        self.load::<{ field::PACE }>()
    }

    pub(crate) fn set_pace(self, pace: u64) {
        self.store::<{ field::PACE }>(pace);
    }

    /// Counts that the thread met other readers, and says whether this was one time in `often`, a power of two.
    #[inline(always)]
    pub(crate) fn meets_others(self, often: u64) -> bool {
        self.add::<{ field::MET }, 1>();
        self.load::<{ field::MET }>() & (often - 1) == 0
    }

    /// Forgets all of this, in a forked child or at the end of the thread.
    pub(crate) fn forget_native(self) {
        self.store::<{ field::LAST_ATTACHMENT }>(NO_ATTACHMENT);
        self.store::<{ field::SERIAL_BITS }>(0);
        self.store::<{ field::HELD_NATIVE }>(0);
        self.store::<{ field::CLAIMING }>(0);
        self.store::<{ field::EXIT_ROUND }>(0);
    }
}

/// Claiming a cell.
impl Thread {
    /// Notes that the thread claims that cell from here on. Any earlier claim is over.
    ///
    /// The note stands until the thread has seen that it holds the lock. A signal handler may interrupt the claim, or jump out
    /// of it. So every call of the thread that finds a note releases the cell, and an interrupted claim learns that from
    /// [`end_claim`](Self::end_claim) and starts again.
    #[inline(always)]
    pub(crate) fn begin_claim(self, cell: &AtomicU64, owner: u64) {
        // Count first, so that the call that finds the note can take the count back.
        self.count_shared_lock();
        self.store::<{ field::CLAIMED_AS }>(owner);
        self.store::<{ field::CLAIMING }>(address_of(cell));
    }

    /// Ends the claim. `false`: a call in a signal handler has released the cell meanwhile.
    #[inline(always)]
    pub(crate) fn end_claim(self, cell: &AtomicU64) -> bool {
        let is_claimed = self.subtract::<{ field::CLAIMING }>(address_of(cell));
        if !is_claimed {
            self.store::<{ field::CLAIMING }>(0);
        }
        is_claimed
    }

    /// Ends a claim that has failed.
    #[inline(always)]
    pub(crate) fn abandon_claim(self, cell: &AtomicU64) {
        if self.end_claim(cell) {
            self.count_shared_unlock();
        }
    }

    /// Whether the thread claims that cell, and no other call of it has ended the claim.
    pub(crate) fn claims(self, cell: &AtomicU64) -> bool {
        self.load::<{ field::CLAIMING }>() == address_of(cell)
    }

    /// Whether the thread claims a cell.
    #[inline(always)]
    pub(crate) fn is_claiming(self) -> bool {
        self.load::<{ field::CLAIMING }>() != 0
    }

    /// The address of the cell that the thread claims, and the owner for whom it does.
    pub(crate) fn claim(self) -> Option<(u64, u64)> {
        /// What [`end_claim`](Thread::end_claim) leaves of an address, for an instant, where another call has ended the claim.
        const NO_ADDRESS: u64 = 1 << 63;
        match self.load::<{ field::CLAIMING }>() {
            0 => None,
            left if left & NO_ADDRESS != 0 => {
                self.store::<{ field::CLAIMING }>(0);
                None
            }
            address => Some((address, self.load::<{ field::CLAIMED_AS }>())),
        }
    }

    /// [`abandon_claim`](Self::abandon_claim) of the cell at the address that [`claim`](Self::claim) gave.
    pub(crate) fn forget_claim(self, address: u64) {
        if self.subtract::<{ field::CLAIMING }>(address) {
            self.count_shared_unlock();
        } else {
            self.store::<{ field::CLAIMING }>(0);
        }
    }
}

#[inline(always)]
fn address_of(cell: &AtomicU64) -> u64 {
    ptr::from_ref(cell).addr() as u64
}
