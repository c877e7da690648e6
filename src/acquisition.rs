// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! How a lock is acquired that is not to be had at once: in steps, with sleeps between them.

use crate::Reason;
use crate::manager::Acquired;
use crate::sys::thread::undisturbed::Undisturbed;

/// What a step came to: the lock, or, if there is none yet, a sleep, after which there is another step.
pub(crate) type Progress<E = Reason> = std::result::Result<Option<Acquired>, E>;

/// An acquisition that may have to sleep. It stays in its place from the first step to the last.
///
/// A step runs undisturbed: no signal handler comes in its midst. One may come in a sleep, and end the thread there or jump
/// away. Then neither of the two is called again, and nothing is dropped: what the wait has counted elsewhere is noted in
/// the thread's own memory, see `waits`.
pub(crate) trait Acquisition {
    fn step(&mut self) -> Progress;

    /// Sleeps as the last step said. Does nothing that is to be undone, and nothing that could panic: by the C convention,
    /// so that its caller has nothing to be undone, either.
    extern "C" fn sleep(&mut self);

    /// All of it, for callers in Rust.
    fn run(&mut self) -> std::result::Result<Acquired, Reason> {
        let undisturbed = Restored(Some(Undisturbed::begin()));
        loop {
            match self.step()? {
                Some(acquired) => return Ok(acquired),
                None => undisturbed.let_signals_come(|| self.sleep()),
            }
        }
    }
}

/// Ends what it has, also where a step panics.
struct Restored(Option<Undisturbed>);

impl Restored {
    fn let_signals_come(&self, sleep: impl FnOnce()) {
        if let Some(undisturbed) = &self.0 {
            undisturbed.let_signals_come(sleep);
        }
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        if let Some(undisturbed) = self.0.take() {
            undisturbed.end();
        }
    }
}
