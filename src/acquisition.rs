// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The slow path of an acquisition, whatever the backend: steps, with sleeps between them, until a deadline.

use crate::Reason;
use crate::manager::{Acquired, Wait};
use crate::sys::syscall::clock::Instant;
use crate::sys::thread::caller_state::CallerState;

/// Until when a call waits. The door makes it once, when the faster paths have missed; all that the call passes through
/// goes by it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at: Instant,
    wait: Wait,
}

impl Deadline {
    /// Of a call that waits like that, from now on.
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

    /// Whether the call does not wait at all.
    pub(crate) fn is_try(self) -> bool {
        self.wait.is_try()
    }

    /// What a call is told whose time is over while `holder` has lock `id`; 0: it is not known.
    pub(crate) fn missed(self, id: u32, holder: u32) -> Reason {
        match self.wait {
            Wait::Try => Reason::Held { id, holder },
            Wait::Nanoseconds(timeout_ns) => Reason::TimedOut { id, timeout_ns, holder },
            Wait::Forever => Reason::TimedOut { id, timeout_ns: u64::MAX, holder },
        }
    }

    /// What a call is told that asks for what its own thread, `holder`, has.
    pub(crate) fn held_by_caller(self, id: u32, holder: u32) -> Reason {
        match self.wait {
            Wait::Try => Reason::Held { id, holder },
            _ => Reason::SelfDeadlock { id },
        }
    }
}

/// What a step came to: the lock, or, if there is none yet, a sleep, after which there is another step.
pub(crate) type Progress<E = Reason> = std::result::Result<Option<Acquired>, E>;

/// An acquisition that may have to sleep. It stays in its place from the first step to the last.
///
/// A step runs with signals held back: no signal handler comes in its midst. One may come in a sleep, and end the thread there or jump
/// away. Then neither of the two is called again, and nothing is dropped: what the wait has counted elsewhere is noted in
/// the thread's own memory, see `waits`.
pub(crate) trait Acquisition {
    fn step(&mut self) -> Progress;

    /// Sleeps as the last step said. Does nothing that is to be undone, and nothing that could panic: by the C convention,
    /// so that its caller has nothing to be undone, either.
    extern "C" fn sleep(&mut self);

    /// All of it, for callers in Rust.
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

/// Ends what it has, also where a step panics.
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
