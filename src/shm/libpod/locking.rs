// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The slow path of lock and unlock.

use std::sync::atomic::Ordering;

use crate::Reason;
use crate::acquisition::{self, Acquisition, Deadline, Progress};
use crate::backend::{Mode, Release, Request};
use crate::cancel::{self, Cancel};
use crate::manager::Acquired;
use crate::sys::Errno;
use crate::sys::liveness;
use crate::sys::mutex::{Attempt, RobustMutex};
use crate::sys::probe;
use crate::sys::syscall::clock::Instant;
use crate::sys::thread::waits::{self, WaitEffects};
use crate::sys::thread::{LOCAL_ID_MASK, NotEntered, Thread};

use super::super::Outcome;
use super::super::native::watch_thread_end;
use super::fast::MOST_HELD;
use super::judgement::{SLICE_NS, Watch};
use super::{Libpod, NO_READERS};

/// An acquisition that has come to the slow path: first calls, waits, refusals.
pub(crate) struct SlowPath<'m> {
    call: LockCall<'m>,
    mode: Mode,
    /// It is never moved: a record in the thread points to it.
    waiting: Option<Waiting<'m>>,
}

impl<'m> SlowPath<'m> {
    pub(super) fn new(libpod: &'m Libpod, request: Request<'m>) -> Self {
        let Request { id, mode, deadline, cancel, .. } = request;
        Self { call: LockCall { libpod, id, deadline, cancel }, mode, waiting: None }
    }
}

/// What is asked for.
#[derive(Clone, Copy)]
struct LockCall<'m> {
    libpod: &'m Libpod,
    id: u32,
    deadline: Deadline,
    cancel: Option<&'m Cancel>,
}

/// One wait.
struct Waiting<'m> {
    mutex: RobustMutex<'m>,
    thread: Thread,
    counted: waits::RecordedWait,
    watch: Watch,
    start: Instant,
    /// When to judge next. Two judgements have to be a slice apart, and a wait with a cancel object wakes more often.
    judgement: Instant,
    /// When this sleep ends.
    until: Instant,
    /// What the libc returned at its end.
    answer: Option<i32>,
}

impl Acquisition for SlowPath<'_> {
    fn step(&mut self) -> Progress {
        match &mut self.waiting {
            None if self.mode == Mode::Shared => Err(NO_READERS),
            None => self.call.begin(&mut self.waiting),
            Some(waiting) => {
                let attempt = self.call.after_sleep(waiting);
                if !matches!(attempt, Ok(Attempt::Held)) {
                    waiting.counted.end(waiting.thread);
                }
                let progress = attempt.and_then(|attempt| self.call.finish(attempt));
                if !matches!(progress, Ok(None)) {
                    let waited = Instant::now().since(waiting.start);
                    probe::wait_end(self.call.inode(), self.call.id.into(), waited, acquisition::code(&progress));
                }
                progress
            }
        }
    }

    extern "C" fn sleep(&mut self) {
        if let Some(Waiting { mutex, until, answer, .. }) = &mut self.waiting {
            *answer = self.call.libpod.pool.wait_mutex(*mutex, *until);
        }
    }
}

impl<'m> LockCall<'m> {
    fn mutex(self) -> RobustMutex<'m> {
        self.libpod.pool.mutex(self.id)
    }

    /// The file of the segment, as probes name it.
    fn inode(self) -> u64 {
        self.libpod.pool.segment.metadata.inode
    }

    fn begin(self, place: &mut Option<Waiting<'m>>) -> Progress {
        let Self { libpod, id, deadline, cancel } = self;
        libpod.may_change(id)?;
        cancel::check(cancel, id)?;
        let thread = libpod.enter()?;
        waits::undo_abandoned(thread);
        let mutex = self.mutex();
        if libpod.is_held_by(thread, id) && mutex.holder() != 0 {
            return Err(deadline.held_by_caller(id, mutex.holder()));
        }
        if thread.held() >= MOST_HELD {
            return Err(Reason::TooManyHeld { most: MOST_HELD as u32 });
        }
        let attempt = libpod.pool.try_mutex(mutex);
        if attempt != Attempt::Held {
            return self.finish(attempt);
        }
        if deadline.is_try() {
            return Err(deadline.missed(id, mutex.holder()));
        }
        let now = Instant::now();
        let waiting = place.insert(Waiting {
            mutex,
            thread,
            counted: waits::RecordedWait::default(),
            watch: Watch::default(),
            start: now,
            judgement: now.after(SLICE_NS),
            until: now,
            answer: None,
        });
        // If the library cannot hear of the thread's end, count nothing that would have to be undone then.
        if watch_thread_end(thread).is_ok() {
            let (local_waiters, published_wait, cancel) = (None, None, cancel.map(Cancel::waits));
            let marks = WaitEffects {
                waiting: libpod.waiting.word(0),
                cancel,
                local_waiters,
                published_wait,
                futex: mutex.word(),
                held_word: None,
            };
            waiting.counted.begin(thread, &marks);
        }
        probe::wait_begin(self.inode(), id.into(), Mode::Exclusive as u64, mutex.word().load(Ordering::Relaxed).into());
        if cancel.is_some() {
            // A call with a cancel object has not taken the mid path.
            mutex.spin();
        }
        self.sleep_on(waiting);
        Ok(None)
    }

    fn sleep_on(self, waiting: &mut Waiting<'m>) {
        waiting.until = cancel::next_look(self.cancel, Instant::now().after(SLICE_NS)).min(self.deadline.at());
    }

    /// The result of the sleep; `Held`: there will be another.
    fn after_sleep(self, waiting: &mut Waiting<'m>) -> Outcome<Attempt> {
        let (segment, mutex) = (&self.libpod.pool.segment, waiting.mutex);
        let attempt = mutex.conclude(waiting.answer);
        if attempt != Attempt::Held {
            return Ok(attempt);
        }
        if Instant::now() >= self.deadline.at() {
            // Try once more: a wake-up may have been lost.
            return match self.libpod.pool.try_mutex(mutex) {
                Attempt::Held => Err(self.deadline.missed(self.id, mutex.holder())),
                attempt => Ok(attempt),
            };
        }
        cancel::check(self.cancel, self.id)?;
        if segment.is_removed_lately() {
            return Err(Reason::Removed);
        }
        if Instant::now() >= waiting.judgement {
            let now = Instant::now();
            probe::slice_end(self.inode(), self.id.into(), now.since(waiting.start), 0, mutex.holder().into());
            waiting.judgement = now.after(SLICE_NS);
            waiting.watch.judge(mutex, segment, Some(self.id));
        }
        self.sleep_on(waiting);
        Ok(Attempt::Held)
    }

    fn finish(self, attempt: Attempt) -> Progress {
        let acquired = match attempt {
            Attempt::Acquired => Acquired::Clean,
            Attempt::OwnerDied => Acquired::OwnerDied,
            Attempt::Held => return Ok(None),
            Attempt::NotRecoverable => return Err(Reason::LockLost { id: self.id }),
            Attempt::Foreign { found, expected } => {
                return Err(Reason::ForeignMutex { id: Some(self.id), found, expected });
            }
            Attempt::Refused(code) => return Err(refused(code)),
        };
        self.libpod.remember(self.id);
        Ok(Some(acquired))
    }
}

pub(super) fn refused(code: i32) -> Reason {
    Reason::System { doing: "locking a robust mutex", errno: Errno(code) }
}

impl Libpod {
    /// The calling thread, checked so that it may take mutexes.
    pub(super) fn enter(&self) -> Outcome<Thread> {
        Thread::enter(self.process).map_err(|refusal| match refusal {
            NotEntered::ClonedChild => Reason::ClonedChild,
            NotEntered::Forbidden => Reason::Forbidden { call: "get_robust_list(2)" },
        })
    }

    /// Why an unlock failed.
    #[cold]
    pub(super) fn refuse_release(&self, id: u32, missed: Release) -> Outcome<()> {
        self.may_change(id)?;
        Err(match missed {
            Release::Done => return Ok(()),
            Release::NotHolder | Release::GoSlow => Reason::NotHolder { id },
            Release::Overwritten => {
                // The thread's robust list still points into the segment.
                self.pool.keep_forever();
                let found = u64::from(self.pool.mutex(id).word().load(Ordering::Relaxed));
                Reason::Damaged { what: "the word in the mutex of a lock that this thread holds", found, expected: 0 }
            }
        })
    }

    fn is_held_by(&self, thread: Thread, id: u32) -> bool {
        // Through any manager: its number is left out.
        self.pool.holder(id).load(Ordering::Relaxed) & LOCAL_ID_MASK == thread.local_id()
    }

    /// Checks that no thread waits in a call on the manager, and that this process holds nothing through it.
    pub(super) fn is_idle(&self) -> Outcome<()> {
        waits::undo_abandoned(Thread::calling());
        match self.waiting.word(0).load(Ordering::Relaxed) {
            0 => {}
            threads => return Err(Reason::StillWaiting { threads: threads as u32 }),
        }
        for id in 0..self.pool.geometry.num_locks() {
            let holder = self.pool.holder(id).load(Ordering::Relaxed);
            if holder & !LOCAL_ID_MASK != self.manager {
                continue;
            }
            // A thread that ended with the lock left this word behind; then the kernel has marked the mutex.
            let tid = self.pool.mutex(id).holder();
            if tid != 0 && liveness::is_own_thread(tid) {
                return Err(Reason::StillHeld { id });
            }
        }
        Ok(())
    }
}
