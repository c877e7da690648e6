// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's error numbers.

use std::{fmt, io};

/// An errno value, as a system call left it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// Of the system call that has just failed in this thread.
    pub(crate) fn last() -> Self {
        // SAFETY: __errno_location() is the calling thread's own errno.
        Self(unsafe { *libc::__errno_location() })
    }
}

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", io::Error::from_raw_os_error(self.0))
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({})", self.0)
    }
}
