// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Ending waits from another thread.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::sys::syscall::clock::Instant;
use crate::sys::thread::Thread;
use crate::sys::thread::waits;
use crate::{Error, Reason, Result};

/// How long a wait that can be cancelled sleeps at most before it looks again: half of the 10 ms within which it must
/// end. Looked at, not woken: the waiter may sleep on a mutex in shared memory, or on a record lock.
const LOOK_INTERVAL_NS: u64 = 5_000_000;

/// Ends every wait that was given it, within 10 ms, and each later one at once. Stays triggered.
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
    /// One that is not triggered.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the waits. One store, so that a signal handler may call it.
    pub fn trigger(&self) {
        self.triggered.store(true, Ordering::Release);
    }

    /// Whether it was triggered.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        self.triggered.load(Ordering::Acquire)
    }

    /// How many waits it may end.
    pub(crate) fn waits(&self) -> &AtomicU32 {
        &self.waits
    }

    /// Whether it could be freed now.
    pub(crate) fn check_unused(&self) -> Result<()> {
        waits::sweep(Thread::calling());
        match self.waits.load(Ordering::Acquire) {
            0 => Ok(()),
            waits => Err(Error::without_storage(Reason::CancelInUse { waits })),
        }
    }
}

/// Whether the wait for lock `id` goes on as far as `cancel` is concerned.
pub(crate) fn check(cancel: Option<&Cancel>, id: u32) -> std::result::Result<(), Reason> {
    match cancel {
        Some(cancel) if cancel.is_triggered() => Err(Reason::Cancelled { id }),
        _ => Ok(()),
    }
}

/// When to look again: at `otherwise`, or sooner if `cancel` may end the wait.
pub(crate) fn next_look(cancel: Option<&Cancel>, otherwise: Instant) -> Instant {
    match cancel {
        Some(_) => otherwise.min(Instant::now().after(LOOK_INTERVAL_NS)),
        None => otherwise,
    }
}
