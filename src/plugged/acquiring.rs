// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Acquiring a lock of a backend in another library: the native lock of the host first, then the backend's.

use std::path::PathBuf;
use std::sync::Arc;

use crate::acquisition::{self, Acquisition, Progress};
use crate::backend::{self, Backend, FastAcquire, Mode, Release, Request, Spin};
use crate::cancel::{self, Cancel};
use crate::manager::{Acquired, Wait};
use crate::shm::{Outcome, SlowPath};
use crate::sys::probe;
use crate::sys::syscall::clock::Instant;
use crate::sys::syscall::futex;
use crate::sys::thread::Thread;
use crate::sys::thread::waits::{self, WaitEffects};
use crate::{Reason, sys};

use super::PluggedManager;
use super::calls::{BackendSleep, Begun, Step};
use super::table::{LOCK_MANAGER_REQUEST_OWNER_DIED, LOCK_MANAGER_REQUEST_TRY, lock_manager_request_t};

/// An acquisition in two steps.
pub(crate) struct HostFirst<'m> {
    manager: &'m PluggedManager,
    request: Request<'m>,
    stage: Stage<'m>,
}

#[allow(clippy::large_enum_variant, reason = "there is one, on the stack of the call")]
enum Stage<'m> {
    Fresh,
    Host(SlowPath<'m>),
    Backend(InBackend),
}

/// The wait for the backend, with the native lock in hand.
struct InBackend {
    begun: Option<Begun>,
    acquired: Acquired,
    sleep: Option<BackendSleep>,
    until: Instant,
    /// Since when; `None`: nobody slept yet.
    since: Option<Instant>,
    thread: Thread,
    counted: waits::RecordedWait,
}

impl Backend for PluggedManager {
    type Slow<'b> = HostFirst<'b>;

    fn storage(&self) -> &Arc<PathBuf> {
        &self.storage
    }

    fn acquire_fast(&self, _id: u32, _mode: Mode) -> FastAcquire {
        FastAcquire::GoSlow
    }

    /// Takes a lock that the host has kept. If the host does not have it, the native lock stays taken: the slow path goes on
    /// from there.
    fn acquire_mid(&self, id: u32, mode: Mode, spin: Spin) -> FastAcquire {
        if mode != Mode::Exclusive || id >= self.num_locks || !self.calls.keeps() {
            return FastAcquire::GoSlow;
        }
        let native = match self.host.acquire_fast(id, mode) {
            FastAcquire::GoSlow if spin == Spin::Briefly => self.host.acquire_mid(id, mode, spin),
            attempt => attempt,
        };
        match native {
            FastAcquire::Acquired(Acquired::Clean) if self.calls.take_kept(id) => native,
            FastAcquire::Acquired(Acquired::Clean) => FastAcquire::BackOut,
            FastAcquire::Acquired(acquired) => {
                back_out_of(self, id, Some(acquired));
                FastAcquire::GoSlow
            }
            FastAcquire::BackOut => {
                back_out_of(self, id, None);
                FastAcquire::GoSlow
            }
            FastAcquire::GoSlow | FastAcquire::Held { .. } => FastAcquire::GoSlow,
        }
    }

    fn acquire_slow<'b>(&'b self, request: Request<'b>) -> HostFirst<'b> {
        HostFirst { manager: self, request, stage: Stage::Fresh }
    }

    fn release_fast(&self, _id: u32, _mode: Mode) -> Release {
        Release::GoSlow
    }

    /// Keeps a lock on the host that another thread or process of it wants.
    fn release_mid(&self, id: u32, mode: Mode) -> Release {
        let may_keep = mode == Mode::Exclusive && self.calls.keeps() && self.host.holds_surely(id);
        if !may_keep || !self.calls.keep(id, is_waited_for(self, id).into()) {
            return Release::GoSlow;
        }
        match self.host.release_fast(id, mode) {
            Release::Done => Release::Done,
            _ => self.host.release_mid(id, mode),
        }
    }

    fn release_slow(&self, id: u32, mode: Mode, _missed: Release) -> Outcome<()> {
        waits::undo_abandoned(Thread::calling());
        self.is_exclusive(mode)?;
        self.is_in_range(id)?;
        if !self.host.holds(id) {
            return Err(Reason::NotHolder { id });
        }
        // First: whoever has the native lock may ask the backend.
        let released = self.calls.release(id, self.host.is_waited_for(id).into());
        backend::release_within(&self.host, id, Mode::Exclusive)?;
        released
    }

    fn downgrade_slow(&self, _id: u32) -> Outcome<()> {
        self.is_exclusive(Mode::Shared)
    }
}

/// Backs out of a native lock that was just taken; `None`: of its word alone. With the C calling convention, here and below: nothing unwinds out of it, so
/// the mid path has nothing to undo.
#[cold]
#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "called from here alone")]
extern "C" fn back_out_of(manager: &PluggedManager, id: u32, acquired: Option<Acquired>) {
    match acquired {
        Some(acquired) => manager.host.back_out_of(id, acquired),
        None => manager.host.back_out(id),
    }
}

/// Whether another thread of this host may sleep on the native lock, which the caller holds.
#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "called from here alone")]
extern "C" fn is_waited_for(manager: &PluggedManager, id: u32) -> bool {
    manager.host.is_waited_for(id)
}

impl Acquisition for HostFirst<'_> {
    fn step(&mut self) -> Progress {
        match &mut self.stage {
            Stage::Fresh => self.begin(),
            Stage::Host(path) => match path.step()? {
                None => Ok(None),
                Some(acquired) => self.begin_in_backend(acquired),
            },
            Stage::Backend(_) => self.go_on_in_backend(),
        }
    }

    extern "C" fn sleep(&mut self) {
        match &mut self.stage {
            Stage::Fresh => {}
            Stage::Host(path) => path.sleep(),
            Stage::Backend(InBackend { sleep, until, .. }) => {
                if let Some(sleep) = sleep {
                    futex::wait(sleep.word(), sleep.value, *until);
                }
            }
        }
    }
}

impl HostFirst<'_> {
    fn begin(&mut self) -> Progress {
        let Request { id, mode, deadline, cancel, missed } = self.request;
        waits::undo_abandoned(Thread::calling());
        if missed == FastAcquire::BackOut {
            // The mid path has the native lock, and the host does not have the backend's.
            return self.begin_in_backend(Acquired::Clean);
        }
        self.manager.is_exclusive(mode)?;
        self.manager.is_in_range(id)?;
        cancel::check(cancel, id)?;
        let spin = if deadline.is_try() { Spin::Never } else { Spin::Briefly };
        let host = &self.manager.host;
        let missed = match host.acquire_fast(id, mode) {
            FastAcquire::GoSlow => host.acquire_mid(id, mode, spin),
            attempt => attempt,
        };
        if let FastAcquire::Acquired(acquired) = missed {
            return self.begin_in_backend(acquired);
        }
        self.stage = Stage::Host(host.acquire_slow(Request { missed, ..self.request }));
        self.step()
    }

    /// The second step begins, with the native lock in hand.
    fn begin_in_backend(&mut self, acquired: Acquired) -> Progress {
        let (manager, id) = (self.manager, self.request.id);
        let begun =
            manager.calls.begin(&self.asked(acquired)).inspect_err(|_| manager.host.back_out_of(id, acquired))?;
        let (thread, counted) = (Thread::calling(), waits::RecordedWait::default());
        let until = Instant::BOOT;
        self.stage = Stage::Backend(InBackend {
            begun: Some(begun),
            acquired,
            sleep: None,
            until,
            since: None,
            thread,
            counted,
        });
        self.go_on_in_backend()
    }

    fn asked(&self, acquired: Acquired) -> lock_manager_request_t {
        let Request { id, deadline, .. } = self.request;
        let is_try = if deadline.is_try() { LOCK_MANAGER_REQUEST_TRY } else { 0 };
        let died = if acquired == Acquired::OwnerDied { LOCK_MANAGER_REQUEST_OWNER_DIED } else { 0 };
        lock_manager_request_t {
            size: size_of::<lock_manager_request_t>(),
            id,
            flags: is_try | died,
            ownership: super::number_of(self.manager.host.ownership()),
            tid: sys::thread::kernel_thread_id() as i32,
            timeout_ns: match deadline.wait() {
                Wait::Try => 0,
                Wait::Nanoseconds(timeout) => timeout,
                Wait::Forever => u64::MAX,
            },
            deadline_ns: deadline.at().nanoseconds(),
        }
    }

    fn go_on_in_backend(&mut self) -> Progress {
        let (manager, Request { id, cancel, .. }) = (self.manager, self.request);
        let Stage::Backend(waiting) = &mut self.stage else { return Ok(None) };
        let Some(begun) = &waiting.begun else { return Ok(None) };
        let stepped = cancel::check(cancel, id).and_then(|()| manager.calls.step(begun));
        let outcome = match stepped {
            Ok(Step::Sleep(sleep)) => {
                if waiting.sleep.is_none() {
                    manager.count_wait(waiting, &sleep, id, cancel);
                    waiting.since = Some(Instant::now());
                    probe::backend_wait(manager.host.inode(), id.into());
                }
                waiting.until = cancel::next_look(cancel, sleep.until);
                waiting.sleep = Some(sleep);
                return Ok(None);
            }
            Ok(Step::Acquired(acquired)) => Ok(Some(acquired)),
            Err(reason) => Err(reason),
        };
        waiting.counted.end(waiting.thread);
        if let Some(since) = waiting.since {
            let waited = Instant::now().since(since);
            probe::backend_wait_end(manager.host.inode(), id.into(), waited, acquisition::code(&outcome));
        }
        // What the word is of goes with it.
        waiting.sleep = None;
        if let Some(begun) = waiting.begun.take() {
            manager.calls.leave(begun);
        }
        match outcome {
            Ok(_) => manager.host.hold(id),
            Err(_) => manager.host.back_out_of(id, waiting.acquired),
        }
        outcome
    }
}

impl PluggedManager {
    /// Notes what is to be undone if a signal handler leaves the wait: the native lock is given back. The backend learns of
    /// that from the native lock.
    fn count_wait(&self, waiting: &mut InBackend, sleep: &BackendSleep, id: u32, cancel: Option<&Cancel>) {
        let effects = WaitEffects {
            waiting: self.host.waiting(),
            cancel: cancel.map(Cancel::waits),
            local_waiters: None,
            published_wait: None,
            futex: sleep.word(),
            held_word: Some(self.host.word_to_release(id, waiting.acquired)),
        };
        waiting.counted.begin(waiting.thread, &effects);
    }
}
