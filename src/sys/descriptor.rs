// SPDX-License-Identifier: MIT OR Apache-2.0
//! File descriptors that the program may close under the library.

pub(crate) mod guarded;
pub(crate) mod pinned;
pub(crate) mod record_lock;
pub(in crate::sys) mod standard_fds;
