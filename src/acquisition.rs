// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The slow path of an acquisition, the same for every backend: steps, with sleeps between them, until a deadline.

use crate::Reason;
use crate::manager::{Acquired, Wait};
use crate::sys::syscall::clock::Instant;
use crate::sys::thread::caller_state::CallerState;

/// The instant until which a call waits. The door makes it once, when the faster paths have missed, and every part of the
/// call uses it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at: Instant,
    wait: Wait,
}

impl Deadline {
    /// The deadline of a wait that begins now.
    pub(crate) fn of(wait: Wait) -> Self {
        let at = match wait {
            Wait::Try | Wait::Nanoseconds(0) => Instant::BOOT,
            Wait::Nanoseconds(u64::MAX) | Wait::Forever => Instant::NEVER,
            Wait::Nanoseconds(timeout) => Instant::now().after(timeout),
        };
        Self { at, wait }
    }

    pub(crate) fn at(self) -> Instant {
        self.at
    }

    /// How the caller said it.
    pub(crate) fn wait(self) -> Wait {
        self.wait
    }

    /// Whether the call does not wait at all.
    pub(crate) fn is_try(self) -> bool {
        self.wait.is_try()
    }

    /// Why a call fails whose time is over. `holder` has lock `id`; 0: the holder is unknown.
    pub(crate) fn missed(self, id: u32, holder: u32) -> Reason {
        match self.wait {
            Wait::Try => Reason::Held { id, holder },
            Wait::Nanoseconds(timeout_ns) => Reason::TimedOut { id, timeout_ns, holder },
            Wait::Forever => Reason::TimedOut { id, timeout_ns: u64::MAX, holder },
        }
    }

    /// Why a call fails that asks for a lock of its own thread, which is `holder`.
    pub(crate) fn held_by_caller(self, id: u32, holder: u32) -> Reason {
        match self.wait {
            Wait::Try => Reason::Held { id, holder },
            _ => Reason::SelfDeadlock { id },
        }
    }
}

/// The result of a step: the lock, or `None`: sleep, then take another step.
pub(crate) type Progress<E = Reason> = std::result::Result<Option<Acquired>, E>;

/// LOCK_MANAGER_OWNER_DIED of the C interface.
const OWNER_DIED: i64 = 1;

/// What a call returns to C for such a result, for probes.
pub(crate) fn code(result: &Progress) -> i64 {
    match result {
        Ok(Some(Acquired::OwnerDied)) => OWNER_DIED,
        Ok(_) => 0,
        Err(reason) => -i64::from(reason.errno()),
    }
}

/// An acquisition that may have to sleep. It is not moved from the first step to the last.
///
/// Signals are blocked during a step, so no handler interrupts it. A handler may come in a sleep, and end the thread or
/// jump away. Then neither function is called again, and nothing is dropped. So whatever the wait has counted is recorded
/// in the thread's own memory (see `waits`).
pub(crate) trait Acquisition {
    fn step(&mut self) -> Progress;

    /// Sleeps as the last step has prepared. It does nothing that would have to be undone, and cannot panic. It has the C
    /// calling convention, so its caller has nothing to undo either.
    extern "C" fn sleep(&mut self);

    /// Runs all steps, for callers in Rust.
    fn run(&mut self) -> std::result::Result<Acquired, Reason> {
        let caller = Restored(Some(CallerState::save_and_block()));
        loop {
            match self.step()? {
                Some(acquired) => return Ok(acquired),
                None => caller.with_signals_delivered(|| self.sleep()),
            }
        }
    }
}

/// Restores the caller's state, also if a step panics.
struct Restored(Option<CallerState>);

impl Restored {
    fn with_signals_delivered(&self, sleep: impl FnOnce()) {
        if let Some(caller) = &self.0 {
            caller.with_signals_delivered(sleep);
        }
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        if let Some(caller) = self.0.take() {
            caller.restore();
        }
    }
}
