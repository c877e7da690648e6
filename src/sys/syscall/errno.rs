// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's error numbers.

#[cfg(target_os = "linux")]
use std::mem::MaybeUninit;
use std::{fmt, io};

/// An errno value, as a system call left it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

#[cfg(target_os = "linux")]
impl Errno {
    /// The calling thread's errno: that of the system call that has just failed.
    #[inline]
    pub(crate) fn last() -> Self {
        // SAFETY: the calling thread's own errno.
        Self(unsafe { *libc::__errno_location() })
    }

    /// Sets the calling thread's errno to it.
    #[inline]
    pub(in crate::sys) fn restore(self) {
        // SAFETY: as above.
        unsafe { *libc::__errno_location() = self.0 };
    }

    /// What a system call returned; an error if that is -1.
    #[inline]
    pub(crate) fn check(returned: i32) -> Result<i32, Self> {
        if returned == -1 { Err(Self::last()) } else { Ok(returned) }
    }

    /// The value that a system call writes.
    ///
    /// # Safety
    /// `call` fills the value at the address that it is given, unless it returns -1.
    pub(super) unsafe fn filled_by<T>(call: impl FnOnce(*mut T) -> i32) -> Result<T, Self> {
        let mut value = MaybeUninit::uninit();
        Self::check(call(value.as_mut_ptr()))?;
        // SAFETY: this function's own contract.
        Ok(unsafe { value.assume_init() })
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
