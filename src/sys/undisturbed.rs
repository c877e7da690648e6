// SPDX-License-Identifier: MIT OR Apache-2.0
//! A caller's thread as it was: system calls set errno, and many are cancellation points, but the library's calls are to
//! be neither seen nor interrupted there. No signal handler of the program's comes in their midst: it may call the
//! library, jump out, or end the thread, which unwinds what a Rust frame lets nothing but panics through.

use std::ffi::c_int;
use std::ptr;

/// PTHREAD_CANCEL_DISABLE of glibc, which the libc crate does not declare for Linux.
const CANCEL_DISABLE: c_int = 1;

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

/// A set of signals as the kernel has it: signal 1 is bit 0.
type SignalSet = u64;

const fn bit(signal: c_int) -> SignalSet {
    1 << (signal - 1)
}

/// What may wait: not what the thread itself is at fault for, which would end the process if it had to, nor what the libc
/// has for itself (32 to 34), by which it ends threads and changes the user of all.
const BLOCKED: SignalSet = !(bit(libc::SIGSEGV)
    | bit(libc::SIGBUS)
    | bit(libc::SIGFPE)
    | bit(libc::SIGILL)
    | bit(libc::SIGTRAP)
    | bit(libc::SIGSYS)
    | bit(libc::SIGABRT)
    | bit(32)
    | bit(33)
    | bit(34));

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
/// where [`let_signals_come`](Self::let_signals_come) says so; then errno is what it was. Nothing happens where it is
/// dropped: a frame that has one may be unwound.
#[must_use]
pub(crate) struct Undisturbed {
    errno: c_int,
    cancel_state: c_int,
    signals: Signals,
}

/// Runs `body`, whose system calls may fail, and leaves errno as it was.
#[inline(always)]
pub(crate) fn with_errno_kept<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: __errno_location() is the calling thread's own errno.
    let errno = unsafe { *libc::__errno_location() };
    let result = body();
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    result
}

impl Undisturbed {
    #[inline(always)]
    pub(crate) fn begin() -> Self {
        let mut cancel_state = CANCEL_DISABLE;
        // SAFETY: pthread_setcancelstate(3) writes the old state where it is told and cannot fail for a valid state;
        // __errno_location() is the calling thread's own errno.
        let errno = unsafe {
            pthread_setcancelstate(CANCEL_DISABLE, &raw mut cancel_state);
            *libc::__errno_location()
        };
        Self { errno, cancel_state, signals: Signals::hold_back() }
    }

    /// Runs `sleep` with the signals coming. A handler may end the thread there, or jump out of it: nothing is to be done
    /// in that case in this frame or in `sleep`.
    #[inline(always)]
    pub(crate) fn let_signals_come<T>(&self, sleep: impl FnOnce() -> T) -> T {
        self.signals.let_come();
        let slept = sleep();
        self.signals.hold_back_again();
        slept
    }

    #[inline(always)]
    pub(crate) fn end(self) {
        // SAFETY: as in begin(); the state is the one that was found there.
        unsafe {
            *libc::__errno_location() = self.errno;
            self.signals.let_come();
            pthread_setcancelstate(self.cancel_state, ptr::null_mut());
        }
    }
}
