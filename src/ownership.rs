// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Who owns the locks of a manager. The user may choose before the first lock; the first lock fixes it.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::{Ownership, Reason};

const BY_PROCESS: u8 = 1;
const FIXED: u8 = 2;

/// The ownership of one manager.
#[derive(Debug, Default)]
pub(crate) struct OwnershipCell(AtomicU8);

impl OwnershipCell {
    /// Chooses who owns the locks.
    pub(crate) fn choose(&self, ownership: Ownership) -> Result<(), Reason> {
        let chosen = match ownership {
            Ownership::Thread => 0,
            Ownership::Process => BY_PROCESS,
        };
        let change = |now| (now & FIXED == 0).then_some(chosen);
        match self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, change) {
            Ok(_) => Ok(()),
            Err(_) => Err(Reason::OwnershipSettled),
        }
    }

    /// Whether the first lock was taken.
    pub(crate) fn is_fixed(&self) -> bool {
        self.0.load(Ordering::Acquire) & FIXED != 0
    }

    /// Who owns the locks, or would own them.
    pub(crate) fn chosen(&self) -> Ownership {
        if self.0.load(Ordering::Acquire) & BY_PROCESS == 0 { Ownership::Thread } else { Ownership::Process }
    }

    /// Who owns the lock that is about to be taken. From here on this cannot be changed.
    pub(crate) fn fix(&self) -> Ownership {
        let now = self.0.load(Ordering::Acquire);
        let now = if now & FIXED == 0 { self.0.fetch_or(FIXED, Ordering::AcqRel) } else { now };
        if now & BY_PROCESS == 0 { Ownership::Thread } else { Ownership::Process }
    }
}
