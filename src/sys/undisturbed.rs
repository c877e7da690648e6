// SPDX-License-Identifier: MIT OR Apache-2.0
//! A caller's thread as it was: system calls set errno, and many are cancellation points, but the library's calls
//! are to be neither seen nor interrupted there.

use std::ffi::c_int;

/// PTHREAD_CANCEL_DISABLE of glibc, which the libc crate does not declare for Linux.
const CANCEL_DISABLE: c_int = 1;

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

/// While it lives, the calling thread is not cancelled; when it is dropped, errno is what it was.
pub(crate) struct Undisturbed {
    errno: c_int,
    cancel_state: c_int,
}

impl Undisturbed {
    pub(crate) fn begin() -> Self {
        let mut cancel_state = CANCEL_DISABLE;
        // SAFETY: pthread_setcancelstate(3) writes the old state where it is told and cannot fail for a valid state;
        // __errno_location() is the calling thread's own errno.
        let errno = unsafe {
            pthread_setcancelstate(CANCEL_DISABLE, &raw mut cancel_state);
            *libc::__errno_location()
        };
        Self { errno, cancel_state }
    }
}

impl Drop for Undisturbed {
    fn drop(&mut self) {
        // SAFETY: as in begin(); the state is the one that was found there.
        unsafe {
            *libc::__errno_location() = self.errno;
            pthread_setcancelstate(self.cancel_state, std::ptr::null_mut());
        }
    }
}
