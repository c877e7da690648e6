// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! What /proc says of other processes. Everything in it comes and goes while it is read, and some of it only root may
//! read; whoever asks is told which of the two it was.

/// Waiters in /proc/locks.
pub mod file_locks;
/// Waiters in futex(2).
pub mod futex;
/// Which file is which.
pub mod identity;
/// Processes: their names, states and threads.
pub mod process;
/// Who has a storage open.
pub mod users;

use std::io;

/// What came of a look into one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked<T> {
    Seen(T),
    /// It has ended meanwhile.
    Gone,
    /// The kernel does not let the caller look.
    Hidden,
}

impl<T> Looked<T> {
    /// Of a read of one of its files.
    pub fn from_read(read: io::Result<T>) -> Self {
        match read {
            Ok(value) => Self::Seen(value),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Self::Hidden,
            Err(_) => Self::Gone,
        }
    }
}
