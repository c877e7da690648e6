// SPDX-License-Identifier: MIT OR Apache-2.0
//! Short numbers for the threads of this process, none used by two at a time. A thread that ends by the raw system call
//! keeps its number for good, so that what it held is never taken for another's.

use std::sync::atomic::AtomicU32;

use super::numbers::Numbers;
use super::{Errno, arena};

/// Inherited by children on purpose: a thread that was named before the fork may still remember its tag.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// A bit for each tag in use. A child finds none set.
fn tags() -> Result<Numbers<'static>, Errno> {
    Ok(Numbers { in_use: arena::tags()?, next: &NEXT })
}

/// A tag, not 0, that no living thread has. `EAGAIN` if all are in use.
pub(crate) fn claim() -> Result<u32, Errno> {
    tags()?.claim().ok_or(Errno(libc::EAGAIN))
}

/// Gives a tag back. Nothing names it any more.
pub(crate) fn release(tag: u32) {
    if let Ok(tags) = tags() {
        tags.release(tag);
    }
}
