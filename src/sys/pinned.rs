// SPDX-License-Identifier: MIT OR Apache-2.0
//! An open file description that neither closing all descriptors nor any child can touch: a mapping that is not
//! inherited keeps it, and the descriptor is closed. What its record locks cover stays locked until this is dropped or
//! the process ends.

use std::fs::File;

use super::Errno;
use super::mapping::Mapping;

/// How descriptions can be kept on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pinning {
    ByMapping,
    /// overlayfs maps another file than the one that was opened.
    ByDescriptor,
}

/// A description that is kept.
#[derive(Debug)]
pub(crate) struct Pinned {
    _kept: Kept,
}

#[derive(Debug)]
#[expect(dead_code, reason = "kept for what their drop does")]
enum Kept {
    Mapping(Mapping),
    Descriptor(File),
}

impl Pinned {
    /// Keeps the description of `file`, which is closed if it can be.
    pub(crate) fn new(file: File, pinning: Pinning) -> Result<Self, Errno> {
        let kept = match pinning {
            Pinning::ByMapping => Kept::Mapping(Mapping::not_inherited(&file)?),
            Pinning::ByDescriptor => Kept::Descriptor(file),
        };
        Ok(Self { _kept: kept })
    }
}
