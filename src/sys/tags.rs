// SPDX-License-Identifier: MIT OR Apache-2.0
//! Short numbers for the threads of this process, none used by two at a time. A thread that ends by the raw system call
//! keeps its number for good, so that what it held is never taken for another's.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use super::Errno;
use super::mapping::WipedOnFork;

/// How many bits a tag has.
pub(crate) const TAG_BITS: u32 = 22;

const COUNT: u32 = 1 << TAG_BITS;
const WORDS: usize = COUNT as usize / u64::BITS as usize;

/// Inherited by children on purpose: a thread that was named before the fork may still remember its tag.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// A bit for each tag in use. A child finds none set.
static IN_USE: AtomicPtr<u64> = AtomicPtr::new(ptr::null_mut());

fn table() -> Result<*mut u64, Errno> {
    let known = IN_USE.load(Ordering::Acquire);
    if !known.is_null() {
        return Ok(known);
    }
    let fresh = WipedOnFork::new(WORDS)?;
    let address = fresh.as_ptr().cast::<u64>();
    match IN_USE.compare_exchange(ptr::null_mut(), address, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            fresh.leak();
            Ok(address)
        }
        Err(winner) => Ok(winner),
    }
}

fn place(table: *mut u64, tag: u32) -> (&'static AtomicU64, u64) {
    let index = (tag / u64::BITS) as usize;
    assert!(index < WORDS);
    // SAFETY: within the table, which is never unmapped and reached as atomics only.
    (unsafe { AtomicU64::from_ptr(table.add(index)) }, 1 << (tag % u64::BITS))
}

/// A tag, not 0, that no living thread has. `EAGAIN` if all are in use.
pub(crate) fn claim() -> Result<u32, Errno> {
    let table = table()?;
    for _ in 0..COUNT {
        let tag = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        if tag == 0 {
            continue;
        }
        let (word, bit) = place(table, tag);
        if word.fetch_or(bit, Ordering::AcqRel) & bit == 0 {
            return Ok(tag);
        }
    }
    Err(Errno(libc::EAGAIN))
}

/// Gives a tag back. Nothing names it any more.
pub(crate) fn release(tag: u32) {
    if let Ok(table) = table()
        && tag < COUNT
    {
        let (word, bit) = place(table, tag);
        word.fetch_and(!bit, Ordering::AcqRel);
    }
}
