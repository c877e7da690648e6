// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! What a program may ask of a new segment.

use crate::Layout;

/// The most locks that a segment may have.
pub const MAX_LOCKS: u32 = 16_777_216;

/// Options for a new segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SegmentOptions {
    /// The layout. `None` means the native layout for a new segment, and any layout for an existing one.
    pub layout: Option<Layout>,
    /// The number of locks that a native segment may grow to. 0 means 1,048,576, or the first number of locks if that is
    /// more. The libpod layout cannot grow and ignores this field.
    pub max_locks: u32,
    /// The permission bits; 0 means 0600. The umask does not apply.
    pub mode: u32,
}

impl SegmentOptions {
    /// Sets the layout.
    #[must_use]
    pub fn layout(mut self, layout: Layout) -> Self {
        self.layout = Some(layout);
        self
    }

    /// Sets the number of locks that the segment may grow to.
    #[must_use]
    pub fn max_locks(mut self, max_locks: u32) -> Self {
        self.max_locks = max_locks;
        self
    }

    /// Sets the permission bits.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }
}
