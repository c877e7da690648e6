// SPDX-License-Identifier: MIT OR Apache-2.0
//! Short numbers for the threads of this process, none used by two at a time. A thread that ends by the raw system call
//! keeps its number for good, so that what it held is never taken for another's.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use super::Errno;
use super::mapping::WipedOnFork;
use super::numbers::Numbers;

/// How many bits a tag has.
const TAG_BITS: u32 = 22;

const WORDS: usize = (1 << TAG_BITS) / u64::BITS as usize;

/// Inherited by children on purpose: a thread that was named before the fork may still remember its tag.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// A bit for each tag in use. A child finds none set.
static IN_USE: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());

fn tags() -> Result<Numbers<'static>, Errno> {
    let mut table = IN_USE.load(Ordering::Acquire);
    if table.is_null() {
        let fresh = WipedOnFork::new(WORDS)?;
        let address = fresh.as_ptr().cast::<AtomicU64>();
        match IN_USE.compare_exchange(ptr::null_mut(), address, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                fresh.leak();
                table = address;
            }
            Err(winner) => table = winner,
        }
    }
    // SAFETY: a page-aligned mapping of that many words, never unmapped, reached as atomics only.
    Ok(Numbers { in_use: unsafe { std::slice::from_raw_parts(table, WORDS) }, next: &NEXT })
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
