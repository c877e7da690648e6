// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the bytes of a native segment are kept: full and limited file systems, growth beside everything else, creation
//! beside removal, overlays, readers of another user.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing helper is a failing test")]

#[path = "native_storage/boots.rs"]
mod boots;
#[path = "native_storage/file_systems.rs"]
mod file_systems;
#[path = "native_storage/full.rs"]
mod full;
#[path = "native_storage/growing.rs"]
mod growing;
#[path = "native_storage/looking.rs"]
mod looking;
#[cfg(target_arch = "x86_64")]
#[path = "native_storage/removers.rs"]
mod removers;
#[path = "native_storage/removing.rs"]
mod removing;
#[path = "native_storage/standard_descriptors.rs"]
mod standard_descriptors;

mod support;

use lock_manager::{Layout, SegmentOptions};

fn options() -> SegmentOptions {
    SegmentOptions::default().layout(Layout::Native)
}

/// The names in a directory.
fn names_in(directory: impl AsRef<std::path::Path>) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
