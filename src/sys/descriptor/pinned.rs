// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! An open file description that neither closing all descriptors nor any child can touch. A mapping that no child inherits
//! keeps it, and the descriptor is closed. Its record locks stay until the value is dropped or the process ends.

use std::fs::File;

use super::{GuardedFd, record_lock};
use crate::sys::Errno;
use crate::sys::syscall::mapping::Mapping;

/// A description that is kept.
#[derive(Debug)]
#[expect(dead_code, reason = "a mapping is kept for what its drop does")]
pub(crate) enum Pinned {
    Mapping(Mapping),
    /// Kept by its descriptor, on overlayfs: that maps another file than the one that was opened.
    Descriptor(GuardedFd),
}

impl Pinned {
    /// Keeps the description of `file` by a mapping; its descriptor is left to the caller.
    pub(crate) fn by_mapping(file: &File) -> Result<Self, Errno> {
        Ok(Self::Mapping(Mapping::not_inherited(file)?))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Self::Descriptor(file) = self
            && file.is_intact()
        {
            // Unlock, and not only close: a forked child may have inherited the descriptor, and would keep the locks. An
            // unlock fails on no open descriptor.
            let _ = record_lock::unlock_all(file);
        }
    }
}
