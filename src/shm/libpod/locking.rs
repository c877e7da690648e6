// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Taking and giving back the locks.

use std::sync::atomic::Ordering;

use crate::cancel::{Cancel, Cancellable};
use crate::manager::{Acquired, Wait};

use crate::sys::Errno;
use crate::sys::arena::Line;
use crate::sys::clock::Instant;
use crate::sys::mutex::{Attempt, RobustMutex};
use crate::sys::procfs;
use crate::sys::thread::Thread;

use crate::{Error, Reason, Result};

use super::super::Release;
use super::Libpod;
use super::judgement::{Verdict, Watch};
use super::view::MOST_HELD;
use super::waiting::{SLICE_NS, spin};

impl Libpod {
    /// All that [`View::acquire_at_once`] leaves: first calls, waits, refusals.
    #[cold]
    pub(super) fn acquire_slowly(&self, id: u32, wait: Wait, cancel: Option<&Cancel>) -> Result<Acquired> {
        self.check_range(id)?;
        self.check_writable()?;
        let cancellable = Cancellable::new(cancel);
        cancellable.check(id).map_err(|reason| self.error(reason))?;
        let Ok(thread) = Thread::enter(self.process) else {
            return Err(self.error(Reason::ClonedChild));
        };
        let mutex = self.pool().mutex(id);
        if self.is_held_by(thread, id) && mutex.holder() != 0 {
            return Err(self.error(match wait {
                Wait::Try => Reason::Held { id, holder: mutex.holder() },
                _ => Reason::SelfDeadlock { id },
            }));
        }
        if thread.held() >= MOST_HELD {
            return Err(self.error(Reason::TooManyHeld { most: MOST_HELD as u32 }));
        }
        let mut attempt = self.pool().try_mutex(mutex);
        if attempt == Attempt::Held {
            attempt = match wait {
                Wait::Try => return Err(self.error(Reason::Held { id, holder: mutex.holder() })),
                Wait::Forever => self.wait_for(mutex, id, u64::MAX, &cancellable)?,
                Wait::Nanoseconds(timeout) => self.wait_for(mutex, id, timeout, &cancellable)?,
            };
        }
        let acquired = match attempt {
            Attempt::Acquired => Acquired::Clean,
            Attempt::OwnerDied => Acquired::OwnerDied,
            Attempt::Held => return Err(self.error(Reason::Held { id, holder: mutex.holder() })),
            Attempt::Lost => return Err(self.error(Reason::LockLost { id })),
            Attempt::Foreign { found, expected } => {
                return Err(self.error(Reason::ForeignMutex { id: Some(id), found, expected }));
            }
            Attempt::Refused(code) => return Err(self.refused(code)),
        };
        self.view.remember(id);
        Ok(acquired)
    }

    /// Waits in slices until the mutex can be had, or says why it cannot: never `Held`.
    fn wait_for(
        &self,
        mutex: RobustMutex<'_>,
        id: u32,
        timeout_ns: u64,
        cancellable: &Cancellable<'_>,
    ) -> Result<Attempt> {
        let timed_out = || self.error(Reason::TimedOut { id, timeout_ns, holder: mutex.holder() });
        if timeout_ns == 0 {
            return Err(timed_out());
        }
        let _inside = self.count_waiter();
        let deadline = if timeout_ns == u64::MAX { Instant::NEVER } else { Instant::now().after(timeout_ns) };
        let mut watch = Watch::new();
        let mut judgement = Instant::now().after(SLICE_NS);
        spin(mutex);
        loop {
            let slice = cancellable.next_look(Instant::now().after(SLICE_NS));
            let attempt = self.pool().wait_mutex(mutex, deadline.min(slice));
            if attempt != Attempt::Held {
                return Ok(attempt);
            }
            if Instant::now() >= deadline {
                // Once more: the wake-up may be one of those that get lost.
                return match self.pool().try_mutex(mutex) {
                    Attempt::Held => Err(timed_out()),
                    attempt => Ok(attempt),
                };
            }
            cancellable.check(id).map_err(|reason| self.error(reason))?;
            if self.pool().segment.is_removed_lately() {
                return Err(self.error(Reason::Removed));
            }
            // Not at each look for a cancellation: two judgements are to be a slice apart.
            if Instant::now() >= judgement {
                judgement = Instant::now().after(SLICE_NS);
                if let Verdict::Gone(word) = watch.look(mutex, &self.pool().segment) {
                    watch.bury(mutex, word);
                }
            }
        }
    }

    /// Why an unlock did nothing, or could not end as it should.
    #[cold]
    pub(crate) fn release_slowly(&self, id: u32, release: Release) -> Result<()> {
        self.check_range(id)?;
        self.check_writable()?;
        Err(self.error(match release {
            Release::Done => return Ok(()),
            Release::NotHolder | Release::Undecided => Reason::NotHolder { id },
            Release::Overwritten => {
                // The thread's robust list still points there.
                self.pool().pin();
                let found = u64::from(self.pool().mutex(id).word().load(Ordering::Relaxed));
                Reason::Damaged { what: "the mutex of a lock that this thread holds, whose word", found, expected: 0 }
            }
        }))
    }

    fn is_held_by(&self, thread: Thread, id: u32) -> bool {
        // Through whichever manager: the token is left out.
        self.pool().holder(id).load(Ordering::Relaxed) & SERIAL_MASK == thread.serial()
    }

    pub(super) fn refused(&self, code: i32) -> Error {
        self.error(Reason::System { doing: "locking a robust mutex", errno: Errno(code) })
    }

    /// Counts the calling thread among those that wait on this manager, until the guard is dropped.
    pub(super) fn count_waiter(&self) -> Waiting<'_> {
        self.waiting.word(0).fetch_add(1, Ordering::Relaxed);
        Waiting(&self.waiting)
    }

    pub(super) fn check_nobody_inside(&self) -> Result<()> {
        match self.waiting.word(0).load(Ordering::Relaxed) {
            0 => Ok(()),
            threads => Err(self.error(Reason::StillWaiting { threads: threads as u32 })),
        }
    }

    pub(super) fn check_nothing_held(&self) -> Result<()> {
        for id in 0..self.pool().geometry.num_locks() {
            let holder = self.pool().holder(id).load(Ordering::Relaxed);
            if holder & !SERIAL_MASK != self.token {
                continue;
            }
            // A thread that ended with the lock left its entry behind; then the kernel has marked the mutex.
            let tid = self.pool().mutex(id).holder();
            if tid != 0 && procfs::is_own_thread(tid) {
                return Err(self.error(Reason::StillHeld { id }));
            }
        }
        Ok(())
    }
}

const SERIAL_MASK: u64 = (1 << crate::sys::thread::SERIAL_BITS) - 1;

/// See [`Libpod::count_waiter`].
pub(super) struct Waiting<'m>(&'m Line);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.word(0).fetch_sub(1, Ordering::Relaxed);
    }
}
