// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Taking and giving back the locks.

use std::hint;
use std::sync::atomic::Ordering;

use crate::manager::{Acquired, Wait};
use crate::sys::Errno;
use crate::sys::clock::Instant;
use crate::sys::mapping::WipedOnFork;
use crate::sys::mutex::{Attempt, RobustMutex};
use crate::sys::procfs;
use crate::sys::thread::Thread;
use crate::{Error, Reason, Result};

use super::Libpod;
use super::judgement::{Verdict, Watch};

/// The longest sleep in one go. A plain wait can be stranded for ever on a free mutex when another waiter is killed
/// between its wake-up and its turn, because the kernel then wakes nobody else; and whether the storage was removed
/// must be noticed within 100 ms.
pub(super) const SLICE_NS: u64 = 50_000_000;

/// The most mutexes that a thread may hold. The kernel frees 2048 of a dead thread (ROBUST_LIST_LIMIT) and forgets the
/// rest; the difference is for mutexes of others.
const MOST_HELD: u64 = 2000;

/// How often a held mutex is read before its waiter sleeps: some microseconds, as long as a short section takes.
const SPIN_READS: u32 = 40;
const PAUSES_PER_READ: u32 = 8;

impl Libpod {
    #[inline(always)]
    pub(super) fn acquire_lock(&self, id: u32, wait: Wait) -> Result<Acquired> {
        self.check_range(id)?;
        self.check_writable()?;
        let Ok(thread) = Thread::enter(self.process) else {
            return Err(self.error(Reason::ClonedChild));
        };
        if thread.held() >= MOST_HELD {
            return Err(self.refuse_one_more(thread, id, wait));
        }
        let attempt = self.pool.try_mutex(self.pool.mutex(id));
        if attempt == Attempt::Acquired {
            self.remember(thread, id);
            return Ok(Acquired::Clean);
        }
        self.acquire_slowly(thread, id, wait, attempt)
    }

    /// Notes that the thread holds the lock now. Nothing between the mutex and this can fail.
    #[inline(always)]
    fn remember(&self, thread: Thread, id: u32) {
        self.pool.holder(id).store(self.token | thread.serial(), Ordering::Relaxed);
        thread.count_acquired();
    }

    #[cold]
    fn acquire_slowly(&self, thread: Thread, id: u32, wait: Wait, mut attempt: Attempt) -> Result<Acquired> {
        let mutex = self.pool.mutex(id);
        if attempt == Attempt::Held {
            let timeout = match wait {
                Wait::Try => {
                    return Err(self.error(Reason::Held { id, holder: mutex.holder() }));
                }
                Wait::Forever => u64::MAX,
                Wait::Nanoseconds(timeout) => timeout,
            };
            if self.is_held_by(thread, id) {
                return Err(self.error(Reason::SelfDeadlock { id }));
            }
            attempt = self.wait_for(mutex, id, timeout)?;
        }
        match attempt {
            Attempt::Acquired | Attempt::OwnerDied => {
                self.remember(thread, id);
                Ok(if attempt == Attempt::Acquired { Acquired::Clean } else { Acquired::OwnerDied })
            }
            Attempt::Held => Err(self.error(Reason::Held { id, holder: mutex.holder() })),
            Attempt::Lost => Err(self.error(Reason::LockLost { id })),
            Attempt::Foreign { found, expected } => {
                Err(self.error(Reason::ForeignMutex { id: Some(id), found, expected }))
            }
            Attempt::Refused(code) => Err(self.refused(code)),
        }
    }

    /// Waits in slices until the mutex can be had, or says why it cannot: never `Held`.
    fn wait_for(&self, mutex: RobustMutex<'_>, id: u32, timeout_ns: u64) -> Result<Attempt> {
        let timed_out = || self.error(Reason::TimedOut { id, timeout_ns, holder: mutex.holder() });
        if timeout_ns == 0 {
            return Err(timed_out());
        }
        let _inside = self.count_waiter();
        let deadline = if timeout_ns == u64::MAX { Instant::NEVER } else { Instant::now().after(timeout_ns) };
        let mut watch = Watch::new();
        spin(mutex);
        loop {
            let attempt = self.pool.wait_mutex(mutex, deadline.min(Instant::now().after(SLICE_NS)));
            if attempt != Attempt::Held {
                return Ok(attempt);
            }
            if Instant::now() >= deadline {
                return Err(timed_out());
            }
            if self.pool.segment.is_removed_lately() {
                return Err(self.error(Reason::Removed));
            }
            if let Verdict::Gone(word) = watch.look(mutex, &self.pool.segment) {
                watch.bury(mutex, word);
            }
        }
    }

    #[inline(always)]
    pub(super) fn release_lock(&self, id: u32) -> Result<()> {
        self.check_range(id)?;
        self.check_writable()?;
        let thread = Thread::calling();
        let holder = self.pool.holder(id);
        // Whether or not the thread has entered since a fork: a child's table is empty, and serials are not used again.
        if holder.load(Ordering::Relaxed) != self.token | thread.serial() {
            return Err(self.error(Reason::NotHolder { id }));
        }
        // Before the mutex is free: after it, another thread of this process may write its own.
        holder.store(0, Ordering::Relaxed);
        thread.count_released();
        if self.pool.unlock_mutex(self.pool.mutex(id)) { Ok(()) } else { Err(self.overwritten(id)) }
    }

    /// Somebody wrote over a mutex that this thread holds. Its robust list still points there.
    #[cold]
    fn overwritten(&self, id: u32) -> Error {
        self.pool.pin();
        let found = u64::from(self.pool.mutex(id).word().load(Ordering::Relaxed));
        self.error(Reason::Damaged {
            what: "the mutex of a lock that this thread holds, whose word",
            found,
            expected: 0,
        })
    }

    fn is_held_by(&self, thread: Thread, id: u32) -> bool {
        // Through whichever manager: the token is left out.
        self.pool.holder(id).load(Ordering::Relaxed) & SERIAL_MASK == thread.serial()
    }

    #[cold]
    fn refuse_one_more(&self, thread: Thread, id: u32, wait: Wait) -> Error {
        if self.is_held_by(thread, id) {
            return self.error(match wait {
                Wait::Try => Reason::Held { id, holder: self.pool.mutex(id).holder() },
                _ => Reason::SelfDeadlock { id },
            });
        }
        self.error(Reason::TooManyHeld { most: MOST_HELD as u32 })
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
        for id in 0..self.pool.geometry.num_locks() {
            let holder = self.pool.holder(id).load(Ordering::Relaxed);
            if holder & !SERIAL_MASK != self.token {
                continue;
            }
            // A thread that ended with the lock left its entry behind; then the kernel has marked the mutex.
            let tid = self.pool.mutex(id).holder();
            if tid != 0 && procfs::is_own_thread(tid) {
                return Err(self.error(Reason::StillHeld { id }));
            }
        }
        Ok(())
    }
}

const SERIAL_MASK: u64 = (1 << crate::sys::thread::SERIAL_BITS) - 1;

/// Reads until the mutex looks free or a short section would have ended; taking it is the caller's.
pub(super) fn spin(mutex: RobustMutex<'_>) {
    for _ in 0..SPIN_READS {
        if mutex.holder() == 0 {
            return;
        }
        for _ in 0..PAUSES_PER_READ {
            hint::spin_loop();
        }
    }
}

/// See [`Libpod::count_waiter`].
pub(super) struct Waiting<'m>(&'m WipedOnFork);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.word(0).fetch_sub(1, Ordering::Relaxed);
    }
}
