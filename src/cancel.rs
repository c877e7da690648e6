// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Cancel objects, which end waits from another thread.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::sys::syscall::clock::Instant;
use crate::sys::thread::Thread;
use crate::sys::thread::waits;
use crate::{Error, Reason, Result};

/// The longest sleep of a wait that can be cancelled: half of the 10 ms within which it must end. The waiter polls and is not
/// woken, because it may sleep on a mutex in shared memory or wait for a record lock.
const LOOK_INTERVAL_NS: u64 = 5_000_000;

/// A cancel object. Once triggered, it ends every wait that uses it within 10 ms, and every later one at once. It stays
/// triggered.
///
/// ```
/// use lock_manager::{Cancel, InMemoryManager, Manager};
///
/// let manager = InMemoryManager::new(1)?;
/// let cancel = Cancel::new();
/// cancel.trigger();
/// assert_eq!(manager.cancellable_lock(0, None, &cancel).unwrap_err().errno(), libc::ECANCELED);
/// # Ok::<(), lock_manager::Error>(())
/// ```
#[derive(Debug, Default)]
#[repr(C)]
pub struct Cancel {
    triggered: AtomicBool,
    waits: AtomicU32,
}

impl Cancel {
    /// Creates a cancel object that is not triggered.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the waits. A signal handler may call it: it is one atomic store.
    pub fn trigger(&self) {
        self.triggered.store(true, Ordering::Release);
    }

    /// Whether it was triggered.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        self.triggered.load(Ordering::Acquire)
    }

    /// The number of waits that use it.
    pub(crate) fn waits(&self) -> &AtomicU32 {
        &self.waits
    }

    /// Checks that it could be freed now.
    pub(crate) fn check_unused(&self) -> Result<()> {
        waits::undo_abandoned(Thread::calling());
        match self.waits.load(Ordering::Acquire) {
            0 => Ok(()),
            waits => Err(Error::without_storage(Reason::CancelInUse { waits })),
        }
    }
}

/// Fails if `cancel` ends the wait for lock `id`.
pub(crate) fn check(cancel: Option<&Cancel>, id: u32) -> std::result::Result<(), Reason> {
    match cancel {
        Some(cancel) if cancel.is_triggered() => Err(Reason::Cancelled { id }),
        _ => Ok(()),
    }
}

/// The instant to look again: `otherwise`, or sooner if there is a cancel object.
pub(crate) fn next_look(cancel: Option<&Cancel>, otherwise: Instant) -> Instant {
    match cancel {
        Some(_) => otherwise.min(Instant::now().after(LOOK_INTERVAL_NS)),
        None => otherwise,
    }
}
