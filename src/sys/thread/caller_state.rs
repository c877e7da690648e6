// SPDX-License-Identifier: MIT OR Apache-2.0
//! The state of the thread that calls: errno, its cancellation state and its signal mask.
//!
//! The library's system calls set errno, and many are cancellation points; the caller must notice neither. While the library
//! changes something, no signal handler of the program may run. A handler may call the library, jump out of it, or end the
//! thread. The last two unwind Rust frames, and Rust allows only a panic to do that.

use std::ffi::c_int;

use crate::sys::Errno;
use crate::sys::platform::SIGNAL_OF_SETXID;

/// PTHREAD_CANCEL_DISABLE of glibc and musl, which the libc crate does not declare for Linux.
const CANCEL_DISABLE: c_int = 1;

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

/// Sets the thread's cancellation state and returns the old one.
#[inline(always)]
fn set_cancel_state(state: c_int) -> c_int {
    let mut old = state;
    // SAFETY: pthread_setcancelstate(3) writes the old state where it is told, and cannot fail for one of its states.
    unsafe { pthread_setcancelstate(state, &raw mut old) };
    old
}

/// A set of signals as the kernel has it: signal 1 is bit 0.
type SignalSet = u64;

const fn bit(signal: c_int) -> SignalSet {
    1 << (signal - 1)
}

/// The signals that are blocked: all but those that a fault of the thread itself raises. If such a signal is blocked, the
/// kernel ends the process. The libc's cancellation signal is blocked, too: its handler may cancel a thread that has just
/// disabled cancellation.
const BLOCKED: SignalSet = !(bit(libc::SIGSEGV)
    | bit(libc::SIGBUS)
    | bit(libc::SIGFPE)
    | bit(libc::SIGILL)
    | bit(libc::SIGTRAP)
    | bit(libc::SIGSYS)
    | bit(libc::SIGABRT)
    | bit(SIGNAL_OF_SETXID));

/// Changes the calling thread's mask and returns the old one. By the system call: the libc's function is several times as
/// large, and every call of the library comes here. Where a sandbox forbids the call, the mask stays as it is.
#[inline(always)]
fn mask(how: c_int, set: SignalSet) -> SignalSet {
    let mut old: SignalSet = 0;
    // SAFETY: rt_sigprocmask(2) reads the one set and writes the other, both of the size it is told.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const set, &raw mut old, size_of::<SignalSet>()) };
    old
}

/// The mask that the calling thread had before its signals were held back.
#[must_use]
pub(crate) struct BlockedSignals(SignalSet);

impl BlockedSignals {
    #[inline(always)]
    pub(crate) fn block() -> Self {
        Self(mask(libc::SIG_BLOCK, BLOCKED))
    }

    /// Gives the thread its own mask again.
    #[inline(always)]
    pub(crate) fn restore(&self) {
        mask(libc::SIG_SETMASK, self.0);
    }

    /// Holds the signals back once more, after [`restore`](Self::restore).
    #[inline(always)]
    pub(crate) fn block_again(&self) {
        mask(libc::SIG_BLOCK, BLOCKED);
    }
}

/// The caller's state while the library works. From [`save_and_block`](Self::save_and_block) to [`restore`](Self::restore)
/// the thread cannot be cancelled, and no signal handler runs except in [`with_signals_delivered`](Self::with_signals_delivered)
/// and [`as_caller`](Self::as_caller). `restore` also puts errno back. Dropping the value does nothing, because a frame that
/// has one may be unwound.
#[must_use]
pub(crate) struct CallerState {
    errno: Errno,
    cancel_state: c_int,
    signals: BlockedSignals,
}

/// Runs `body`, whose system calls may fail, and leaves errno as it was.
#[inline(always)]
pub(crate) fn with_errno_kept<T>(body: impl FnOnce() -> T) -> T {
    let errno = Errno::last();
    let result = body();
    errno.restore();
    result
}

impl CallerState {
    #[inline(always)]
    pub(crate) fn save_and_block() -> Self {
        // Signals are blocked first and restored last: a handler that jumps away finds the cancellation state as it was.
        let signals = BlockedSignals::block();
        let cancel_state = set_cancel_state(CANCEL_DISABLE);
        Self { errno: Errno::last(), cancel_state, signals }
    }

    /// Runs `body` with the caller's signal mask. A handler must not end the thread there.
    #[inline(always)]
    pub(crate) fn with_signals_delivered<T>(&self, body: impl FnOnce() -> T) -> T {
        self.signals.restore();
        let result = body();
        self.signals.block_again();
        result
    }

    /// Runs `sleep` with the caller's signal mask and cancellation state. A handler may end the thread there or jump out of
    /// it: so neither this frame nor `sleep` has anything to clean up. `sleep` contains no cancellation point.
    #[inline(always)]
    pub(crate) fn as_caller(&self, sleep: impl FnOnce()) {
        set_cancel_state(self.cancel_state);
        self.with_signals_delivered(sleep);
        set_cancel_state(CANCEL_DISABLE);
    }

    #[inline(always)]
    pub(crate) fn restore(self) {
        self.errno.restore();
        set_cancel_state(self.cancel_state);
        self.signals.restore();
    }
}
