// SPDX-License-Identifier: MIT OR Apache-2.0
//! The system calls themselves, one module for each kind. Nothing here knows about the library's locks.

pub(crate) mod clock;
pub(crate) mod directory;
pub(crate) mod errno;
pub(crate) mod file;
pub(in crate::sys) mod file_system;
pub(crate) mod futex;
pub(in crate::sys) mod large;
pub(crate) mod mapping;
pub(crate) mod random;
