// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The descriptor of an id's file, kept from one lock to the next. One word has its number and its state:
//!
//! ```text
//!   0 ──open──▶ KEPT + IN_USE ──unlock──▶ KEPT ──lock──▶ KEPT + IN_USE (+ SHARED, for reading)
//!   ▲                                      │                     │
//!   └──────────────────── CLOSING ◀────────┴─────────────────────┘ to make room; nobody reads
//! ```
//!
//! A descriptor that has to make room while it is in use is DISPLACED: the thread that puts it down closes it.

use std::fs::File;
use std::os::fd::{IntoRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::descriptor::CheckedFd;
use crate::sys::process::{Exclusion, Process};
use crate::sys::syscall::file::{FileId, Metadata};

const KEPT: u64 = 1 << 32;
const IN_USE: u64 = 1 << 33;
/// Readers use it.
const SHARED: u64 = 1 << 35;
/// It has to make room, and is closed when it is put down. It no longer counts as kept.
const DISPLACED: u64 = 1 << 36;
/// It is being closed. No thread may open the file until that is done: the close would release its lock.
const CLOSING: u64 = 1 << 34;

/// The descriptor of one id's file, and what is known of that file.
#[derive(Default)]
pub(super) struct KeptFd {
    /// The descriptor in the low half, and its state above. 0: there is none.
    state: AtomicU64,
    device: AtomicU64,
    inode: AtomicU64,
    /// Its file position, by which it is recognised; 0: it has none that another descriptor could not have.
    pub(super) position: AtomicU64,
    /// The directory's time of last change, as it was when the id was seen to have no file. While the time is the same, the
    /// id has no file. 0: never seen.
    pub(super) no_file_as_of: AtomicU64,
}

/// Whether a call has to exclude the other threads of the process itself.
#[derive(Clone, Copy)]
pub(super) enum Threads<'p> {
    /// It does.
    OfProcess(&'p Process),
    /// The caller already excludes them.
    Excluded,
}

impl<'p> Threads<'p> {
    fn exclude(self) -> Option<Exclusion<'p>> {
        match self {
            Self::OfProcess(process) => Some(process.exclude_other_threads()),
            Self::Excluded => None,
        }
    }
}

impl KeptFd {
    /// The descriptor of `state`, if there is one, and the file that it must be of. It does not change while it is in
    /// use.
    fn fd(&self, state: u64) -> Option<CheckedFd> {
        let (device, inode) = (self.device.load(Ordering::Relaxed), self.inode.load(Ordering::Relaxed));
        (state & KEPT != 0).then(|| CheckedFd::new(state as RawFd, FileId { device, inode }))
    }

    /// Takes the descriptor up: no thread closes it from here on.
    pub(super) fn take_up(&self, threads: Threads<'_>) -> Option<CheckedFd> {
        loop {
            let state = self.state.load(Ordering::Acquire);
            if state == CLOSING {
                let _alone = threads.exclude();
                // If the close is still not done, a thread of the parent process began it.
                let _was_done = self.state.compare_exchange(CLOSING, 0, Ordering::AcqRel, Ordering::Relaxed);
                continue;
            }
            if state & KEPT == 0 {
                return None;
            }
            let taken = (state | IN_USE) & !SHARED;
            if self.state.compare_exchange(state, taken, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return self.fd(taken);
            }
        }
    }

    /// The same, but only if no lock uses it.
    pub(super) fn take_up_unused(&self) -> Option<CheckedFd> {
        let state = self.state.load(Ordering::Acquire);
        if state & KEPT == 0 || state & (IN_USE | CLOSING) != 0 {
            return None;
        }
        let taken = self.state.compare_exchange(state, state | IN_USE, Ordering::AcqRel, Ordering::Relaxed);
        taken.ok().and_then(|_| self.fd(state))
    }

    pub(super) fn file_that_is_in_use(&self) -> Option<CheckedFd> {
        let state = self.state.load(Ordering::Acquire);
        if state & IN_USE != 0 { self.fd(state) } else { None }
    }

    /// Keeps a descriptor that was just opened, in use.
    pub(super) fn keep(&self, file: File, metadata: &Metadata, position: Option<u64>) -> CheckedFd {
        self.position.store(position.unwrap_or(0), Ordering::Relaxed);
        self.device.store(metadata.device, Ordering::Relaxed);
        self.inode.store(metadata.inode, Ordering::Relaxed);
        let number = file.into_raw_fd();
        self.state.store(u64::from(number as u32) | KEPT | IN_USE, Ordering::Release);
        CheckedFd::new(number, metadata.id())
    }

    /// Notes that readers use it.
    pub(super) fn share(&self) {
        self.state.fetch_or(SHARED, Ordering::AcqRel);
    }

    /// Notes that a writer uses it.
    pub(super) fn unshare(&self) {
        self.state.fetch_and(!SHARED, Ordering::AcqRel);
    }

    /// Puts the descriptor down. The caller has no lock on the file any more.
    pub(super) fn put_down(&self) {
        let mut state = self.state.load(Ordering::Acquire);
        while state & DISPLACED == 0 {
            let down = state & !(IN_USE | SHARED);
            match self.state.compare_exchange_weak(state, down, Ordering::Release, Ordering::Acquire) {
                Ok(_) => return,
                Err(now) => state = now,
            }
        }
        self.close_and_forget();
    }

    /// Closes the descriptor in use, if it is still of its file, and forgets it.
    pub(super) fn close_and_forget(&self) {
        let state = self.state.load(Ordering::Acquire);
        if let Some(file) = self.fd(state) {
            file.close_if_intact();
        }
        self.state.store(0, Ordering::Release);
    }

    pub(super) fn close_unless_in_use(&self, threads: Threads<'_>) {
        let _alone = threads.exclude();
        let state = self.state.load(Ordering::Acquire);
        if state & IN_USE == 0 {
            self.close(state);
        }
    }

    /// Closes it, now or when it is put down.
    pub(super) fn displace(&self, threads: Threads<'_>) {
        let _alone = threads.exclude();
        let displace = |state| (state & IN_USE != 0).then_some(state | DISPLACED);
        if let Err(state) = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, displace) {
            self.close(state);
        }
    }

    /// Closes it, and with it the process's locks on its file, if its state is still `state`. The caller excludes other
    /// threads.
    fn close(&self, state: u64) {
        if state & KEPT == 0 {
            return;
        }
        if self.state.compare_exchange(state, CLOSING, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            if let Some(file) = self.fd(state) {
                file.close_if_intact();
            }
            self.state.store(0, Ordering::Release);
        }
    }

    /// Closes it if readers use it and `may_close` says so. The caller excludes other threads.
    pub(super) fn close_if_shared(&self, may_close: impl FnOnce() -> bool) {
        // A writer excludes no threads, but its descriptor is not shared.
        let state = self.state.load(Ordering::Acquire);
        if state & SHARED != 0 && may_close() {
            self.close(state);
        }
    }

    /// Closes it, if no lock uses it. No other thread has it any more.
    pub(super) fn forget_unless_in_use(&self) {
        if self.state.load(Ordering::Acquire) & IN_USE == 0 {
            self.close_and_forget();
        }
    }
}
