// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! How a lock is acquired that is not to be had at once: in steps, with sleeps between them.

use crate::Reason;
use crate::manager::Acquired;
use crate::sys::thread::caller_state::CallerState;

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
