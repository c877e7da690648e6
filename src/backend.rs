// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The seam between the doors (C in `ffi`, Rust in `manager`) and the backends, which keep the locks. The backends are
//! listed here and nowhere else.
//!
//! A lock call goes down three paths, each only where the one before has missed:
//!
//! | path | what it does | what it must not do |
//! | --- | --- | --- |
//! | *fast* | takes a free lock, or releases one, with one swap | fail, panic, allocate, make a system call that sets errno |
//! | *mid* | waits a few microseconds without sleeping; wakes a waiter; refuses a try | fail, panic, allocate, sleep |
//! | *slow* | everything else: first calls, sleeps, dead holders, refusals | let a signal handler into a [step](Acquisition::step) |
//!
//! On the fast and the mid path a signal handler may come at any instruction, and jump away. So these paths take a lock
//! whole or not at all. If they took a word but cannot hold the lock, the slow path [backs out](FastAcquire::BackOut).
//!
//! # A backend of one's own
//!
//! It is one folder that implements [`Backend`] and [`Manager`], and one line in `backends!`, below. The doors need no change.
//!
//! - *It hears of an unlock by notification*: the sleep is the backend's. Its [`Acquisition::sleep`] waits for the
//!   notification, by a futex or a descriptor, until its own deadline, or until the trigger of the cancel object ends it. If
//!   a trigger cannot end its sleeps, it looks at the object every few milliseconds. Nothing else polls.
//! - *It may lose a lock that is held*: it says so at the unlock, from [`Backend::release_slow`], with a [`Reason`] of its own
//!   and an errno for it in `error`. The fast path must answer [`Release::GoSlow`] then. A fast path is optional.
//! - *It lives in another library*: `plugged` calls it by a table of functions that C declares (`lock_manager_backend_t`), so
//!   nothing is added here.

use std::path::PathBuf;
use std::sync::Arc;

use crate::acquisition::{Acquisition, Deadline};
use crate::file::FileManager;
pub(crate) use crate::manager::Mode;
use crate::manager::{Acquired, Manager, Wait};
use crate::plugged::PluggedManager;
use crate::shm::{Libpod, Native};
use crate::{Cancel, Error, Reason, Result};

/// Whether the mid path waits for a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spin {
    /// No: the call is a try, and may be refused by the mid path.
    Try,
    /// No: the call's time is over already.
    Never,
    Briefly,
}

impl Spin {
    /// What the mid path does in a call with this `wait`.
    pub(crate) fn of(wait: Wait) -> Self {
        match wait {
            Wait::Try => Self::Try,
            Wait::Nanoseconds(0) => Self::Never,
            _ => Self::Briefly,
        }
    }
}

/// What came of an attempt to lock by the fast or the mid path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FastAcquire {
    Acquired(Acquired),
    /// Nothing was done.
    GoSlow,
    /// Nothing was done: the call is a try, and a living holder has the lock.
    Held {
        /// The thread id of the holder, 0: unknown.
        holder: u32,
    },
    /// The lock's word was taken, but the lock cannot be held: the storage was removed, or the record lock beside the word
    /// could not be taken at once. The slow path first backs out of the word.
    BackOut,
}

/// What came of an attempt to unlock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    Done,
    /// The calling thread does not hold the lock through this manager, or there is no such lock.
    NotHolder,
    /// The thread held it until now. Its mutex was overwritten, so the libc refused to unlock it.
    Overwritten,
    /// Nothing was done.
    GoSlow,
}

/// What the slow path is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'r> {
    pub(crate) id: u32,
    pub(crate) mode: Mode,
    pub(crate) deadline: Deadline,
    pub(crate) cancel: Option<&'r Cancel>,
    /// What the faster paths left.
    pub(crate) missed: FastAcquire,
}

/// What keeps locks.
pub(crate) trait Backend: Manager + Sized {
    /// An acquisition on the slow path.
    type Slow<'b>: Acquisition
    where
        Self: 'b;

    /// What errors call the storage.
    fn storage(&self) -> &Arc<PathBuf>;

    /// The fast path of locking.
    fn acquire_fast(&self, id: u32, mode: Mode) -> FastAcquire;

    /// The mid path of locking, after [`FastAcquire::GoSlow`].
    fn acquire_mid(&self, _id: u32, _mode: Mode, _spin: Spin) -> FastAcquire {
        FastAcquire::GoSlow
    }

    /// The slow path of locking.
    fn acquire_slow<'b>(&'b self, request: Request<'b>) -> Self::Slow<'b>;

    /// The fast path of unlocking.
    fn release_fast(&self, id: u32, mode: Mode) -> Release;

    /// The mid path of unlocking.
    fn release_mid(&self, _id: u32, _mode: Mode) -> Release {
        Release::GoSlow
    }

    /// The slow path of unlocking, which decides. `missed`: what the fast path said.
    fn release_slow(&self, id: u32, mode: Mode, missed: Release) -> std::result::Result<(), Reason>;

    /// The mid path from an exclusive hold to a shared one.
    fn downgrade_mid(&self, _id: u32) -> Release {
        Release::GoSlow
    }

    /// The slow path from an exclusive hold to a shared one.
    fn downgrade_slow(&self, id: u32) -> std::result::Result<(), Reason>;

    /// Allocates a lock if nothing stands in the way.
    fn allocate_fast(&self) -> Option<u32> {
        None
    }

    /// Frees a lock if nothing stands in the way.
    fn free_fast(&self, _id: u32) -> Option<()> {
        None
    }

    /// How many locks are free, if that can be said at once.
    fn available_fast(&self) -> Option<u32> {
        None
    }

    /// The lock for which a thread waits that sleeps at that byte of the storage's file.
    fn lock_at(&self, _offset: u64) -> Option<u32> {
        None
    }
}

/// A call from C that works on every backend.
pub(crate) trait Call {
    /// Makes the call on the first backend of the list, inlined.
    fn inlined<B: Backend>(self, backend: &B) -> i32;

    /// Makes the call on any other backend, by a function of its own: that keeps the first backend's path short.
    fn apart<B: Backend>(self, backend: &B) -> i32;
}

/// Lists the backends. The first is the one whose fast path is inlined into the exported functions. `$d` is a dollar sign:
/// a macro that makes a macro has no other way to write one.
macro_rules! backends {
    ($d:tt $(#[$of_hot:meta])* $hot:ident($hot_kind:ty), $($(#[$of:meta])* $name:ident($kind:ty),)*) => {
        /// One of the backends.
        #[derive(Debug)]
        pub(crate) enum AnyBackend {
            $(#[$of_hot])*
            $hot($hot_kind),
            $($(#[$of])* $name($kind),)*
        }

        impl AnyBackend {
            /// Hands a call to the backend.
            #[inline(always)]
            pub(crate) fn take(&self, call: impl Call) -> i32 {
                // The first backend costs one comparison.
                if let Self::$hot(backend) = self {
                    return call.inlined(backend);
                }
                std::hint::cold_path();
                match self {
                    Self::$hot(backend) => call.apart(backend),
                    $(Self::$name(backend) => call.apart(backend),)*
                }
            }
        }

        /// Passes a call on to the backend, whichever it is.
        macro_rules! on_backend {
            ($d any:expr, $d backend:ident => $d call:expr) => {
                match &$d any {
                    $crate::backend::AnyBackend::$hot($d backend) => $d call,
                    $($crate::backend::AnyBackend::$name($d backend) => $d call,)*
                }
            };
        }
        pub(crate) use on_backend;
    };
}

backends! { $
    /// The library's own locks: in a segment, or in memory.
    Native(Native),
    /// Podman's.
    Libpod(Libpod),
    /// The library's own, with a record lock beside each that libpod sees.
    File(FileManager),
    /// Those of another library, for several hosts.
    Plugged(PluggedManager),
}
impl AnyBackend {
    /// The backend as a manager.
    pub(crate) fn manager(&self) -> &dyn Manager {
        on_backend!(*self, backend => backend)
    }
}

/// Takes the mid path after the fast path has missed, unless that result goes to the slow path at once.
#[inline(always)]
pub(crate) fn acquire_after<B: Backend>(
    backend: &B,
    id: u32,
    mode: Mode,
    wait: Wait,
    missed: FastAcquire,
) -> FastAcquire {
    match missed {
        FastAcquire::GoSlow => backend.acquire_mid(id, mode, Spin::of(wait)),
        missed => missed,
    }
}

/// Acquires a lock for a caller in Rust.
#[inline(always)]
pub(crate) fn acquire<B: Backend>(
    backend: &B,
    id: u32,
    mode: Mode,
    wait: Wait,
    cancel: Option<&Cancel>,
) -> Result<Acquired> {
    let mut missed = FastAcquire::GoSlow;
    // A triggered cancel object wins over a free lock.
    if cancel.is_none() {
        missed = backend.acquire_fast(id, mode);
        if let FastAcquire::Acquired(acquired) = missed {
            return Ok(acquired);
        }
        missed = acquire_after(backend, id, mode, wait, missed);
        match missed {
            FastAcquire::Acquired(acquired) => return Ok(acquired),
            FastAcquire::Held { holder } => return Err(Error::new(backend.storage(), Reason::Held { id, holder })),
            _ => {}
        }
    }
    acquire_slow(backend, id, mode, wait, cancel, missed)
}

#[cold]
fn acquire_slow<B: Backend>(
    backend: &B,
    id: u32,
    mode: Mode,
    wait: Wait,
    cancel: Option<&Cancel>,
    missed: FastAcquire,
) -> Result<Acquired> {
    let request = Request { id, mode, deadline: Deadline::of(wait), cancel, missed };
    backend.acquire_slow(request).run().map_err(|reason| Error::new(backend.storage(), reason))
}

/// Releases a lock for a caller in Rust.
#[inline(always)]
pub(crate) fn release<B: Backend>(backend: &B, id: u32, mode: Mode) -> Result<()> {
    release_within(backend, id, mode).map_err(|reason| Error::new(backend.storage(), reason))
}

/// The same for a backend that is made of another.
#[inline(always)]
pub(crate) fn release_within<B: Backend>(backend: &B, id: u32, mode: Mode) -> std::result::Result<(), Reason> {
    match backend.release_fast(id, mode) {
        Release::Done => Ok(()),
        missed => match backend.release_mid(id, mode) {
            Release::Done => Ok(()),
            _ => backend.release_slow(id, mode, missed),
        },
    }
}

/// Makes an exclusive hold a shared one, for a caller in Rust.
pub(crate) fn downgrade<B: Backend>(backend: &B, id: u32) -> Result<()> {
    downgrade_within(backend, id).map_err(|reason| Error::new(backend.storage(), reason))
}

/// The same for a backend that is made of another.
pub(crate) fn downgrade_within<B: Backend>(backend: &B, id: u32) -> std::result::Result<(), Reason> {
    match backend.downgrade_mid(id) {
        Release::Done => Ok(()),
        _ => backend.downgrade_slow(id),
    }
}

/// The methods of [`Manager`] that take and release locks, which are the same for each backend.
macro_rules! lock_by_paths {
    () => {
        #[inline(always)]
        fn acquire(
            &self,
            id: u32,
            wait: $crate::Wait,
            cancel: Option<&$crate::Cancel>,
        ) -> $crate::Result<$crate::Acquired> {
            $crate::backend::acquire(self, id, $crate::backend::Mode::Exclusive, wait, cancel)
        }

        #[inline(always)]
        fn unlock(&self, id: u32) -> $crate::Result<()> {
            $crate::backend::release(self, id, $crate::backend::Mode::Exclusive)
        }

        #[inline(always)]
        fn acquire_shared(
            &self,
            id: u32,
            wait: $crate::Wait,
            cancel: Option<&$crate::Cancel>,
        ) -> $crate::Result<$crate::Acquired> {
            $crate::backend::acquire(self, id, $crate::backend::Mode::Shared, wait, cancel)
        }

        #[inline(always)]
        fn unlock_shared(&self, id: u32) -> $crate::Result<()> {
            $crate::backend::release(self, id, $crate::backend::Mode::Shared)
        }

        fn downgrade_lock(&self, id: u32) -> $crate::Result<()> {
            $crate::backend::downgrade(self, id)
        }
    };
}
pub(crate) use lock_by_paths;
