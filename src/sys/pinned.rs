// SPDX-License-Identifier: MIT OR Apache-2.0
//! An open file description that neither closing all descriptors nor any child can touch: a mapping that is not
//! inherited keeps it, and the descriptor is closed. What its record locks cover stays locked until this is dropped or
//! the process ends.

use std::fs::File;
use std::os::fd::IntoRawFd;

use super::Errno;
use super::file::Facts;
use super::mapping::Mapping;
use super::record_lock;

/// A description that is kept.
#[derive(Debug)]
pub(crate) struct Pinned {
    _kept: Kept,
}

#[derive(Debug)]
#[expect(dead_code, reason = "kept for what their drop does")]
enum Kept {
    Mapping(Mapping),
    Descriptor(Descriptor),
}

impl Pinned {
    /// Keeps the description of `file` by a mapping; its descriptor is left to the caller.
    pub(crate) fn by_mapping(file: &File) -> Result<Self, Errno> {
        Ok(Self { _kept: Kept::Mapping(Mapping::not_inherited(file)?) })
    }

    /// Keeps the description of `file` by its descriptor: overlayfs maps another file than the one that was opened.
    pub(crate) fn by_descriptor(file: File) -> Result<Self, Errno> {
        Ok(Self { _kept: Kept::Descriptor(Descriptor { facts: Facts::of(&file)?, file: Some(file) }) })
    }
}

#[derive(Debug)]
struct Descriptor {
    facts: Facts,
    /// `None` only while it is dropped.
    file: Option<File>,
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        let Some(file) = self.file.take() else { return };
        if Facts::of(&file).is_ok_and(|facts| facts.is_same_file(&self.facts)) {
            // A forked child may have inherited the descriptor; closing ours would leave it the locks. It fails on no
            // descriptor that is open.
            let _ = record_lock::unlock_all(&file);
        } else {
            // The program closed it, and its number may be a file of the program's by now.
            let _not_ours = file.into_raw_fd();
        }
    }
}
