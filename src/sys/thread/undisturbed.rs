// SPDX-License-Identifier: MIT OR Apache-2.0
//! A caller's thread as it was: system calls set errno, and many are cancellation points, but the library's calls are to
//! be neither seen nor interrupted there. No signal handler of the program's comes in their midst: it may call the
//! library, jump out, or end the thread, which unwinds what a Rust frame lets nothing but panics through.

use std::ffi::c_int;

use crate::sys::Errno;

/// PTHREAD_CANCEL_DISABLE of glibc, which the libc crate does not declare for Linux.
const CANCEL_DISABLE: c_int = 1;

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

/// Gives the old one.
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

/// SIGSETXID of glibc, by which it has each thread change its user: whoever calls setuid(3) waits for all of them.
const OF_ALL_THREADS: c_int = 33;

/// What may wait: not what the thread itself is at fault for, which would end the process if it had to. The libc's signal
/// of cancellation is among it, which does not always heed that a thread has just said not to be cancelled.
const BLOCKED: SignalSet = !(bit(libc::SIGSEGV)
    | bit(libc::SIGBUS)
    | bit(libc::SIGFPE)
    | bit(libc::SIGILL)
    | bit(libc::SIGTRAP)
    | bit(libc::SIGSYS)
    | bit(libc::SIGABRT)
    | bit(OF_ALL_THREADS));

/// Changes the calling thread's mask, and gives the one that it had. By the system call: the libc's function is several
/// times as large, and this is in every call. Where it is forbidden, nothing changes.
#[inline(always)]
fn mask(how: c_int, set: SignalSet) -> SignalSet {
    let mut old: SignalSet = 0;
    // SAFETY: rt_sigprocmask(2) reads the one set and writes the other, both of the size it is told.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const set, &raw mut old, size_of::<SignalSet>()) };
    old
}

/// Signals of the calling thread, held back.
#[must_use]
pub(crate) struct Signals(SignalSet);

impl Signals {
    #[inline(always)]
    pub(crate) fn hold_back() -> Self {
        Self(mask(libc::SIG_BLOCK, BLOCKED))
    }

    /// Lets them come again.
    #[inline(always)]
    pub(crate) fn let_come(&self) {
        mask(libc::SIG_SETMASK, self.0);
    }

    /// Holds them back once more.
    #[inline(always)]
    pub(crate) fn hold_back_again(&self) {
        mask(libc::SIG_BLOCK, BLOCKED);
    }
}

/// From [`begin`](Self::begin) to [`end`](Self::end) the calling thread is not cancelled, and no signal handler comes but
/// where [`let_signals_come`](Self::let_signals_come) or [`let_all_come`](Self::let_all_come) says so; then errno is what
/// it was. Nothing happens where it is dropped: a frame that has one may be unwound.
#[must_use]
pub(crate) struct Undisturbed {
    errno: Errno,
    cancel_state: c_int,
    signals: Signals,
}

/// Runs `body`, whose system calls may fail, and leaves errno as it was.
#[inline(always)]
pub(crate) fn with_errno_kept<T>(body: impl FnOnce() -> T) -> T {
    let errno = Errno::last();
    let result = body();
    errno.put_back();
    result
}

impl Undisturbed {
    #[inline(always)]
    pub(crate) fn begin() -> Self {
        // The signals first and, at the end, last: a handler that jumps away leaves the thread to be cancelled as it was.
        let signals = Signals::hold_back();
        let cancel_state = set_cancel_state(CANCEL_DISABLE);
        Self { errno: Errno::last(), cancel_state, signals }
    }

    /// Runs `body` with the signals coming. A handler may not end the thread there.
    #[inline(always)]
    pub(crate) fn let_signals_come<T>(&self, body: impl FnOnce() -> T) -> T {
        self.signals.let_come();
        let result = body();
        self.signals.hold_back_again();
        result
    }

    /// Runs `sleep` with the thread as its caller has it: it is interrupted and cancelled as the caller lets it be. A
    /// handler may end the thread there, or jump out of it: nothing is to be done in that case in this frame or in `sleep`,
    /// which has no cancellation point.
    #[inline(always)]
    pub(crate) fn let_all_come(&self, sleep: impl FnOnce()) {
        set_cancel_state(self.cancel_state);
        self.let_signals_come(sleep);
        set_cancel_state(CANCEL_DISABLE);
    }

    #[inline(always)]
    pub(crate) fn end(self) {
        self.errno.put_back();
        set_cancel_state(self.cancel_state);
        self.signals.let_come();
    }
}
