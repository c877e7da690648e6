// SPDX-License-Identifier: MIT OR Apache-2.0
//! Words that a process shares with the children it forks, to talk through.

use std::ptr;
use std::slice;
use std::sync::atomic::AtomicU32;

/// That many words, all 0, shared with every child forked from here on. They stay for the life of the process.
pub fn board(words: usize) -> &'static [AtomicU32] {
    let bytes = words * size_of::<AtomicU32>();
    // SAFETY: a fresh anonymous mapping, which no reference points into yet.
    let address = unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        libc::mmap(ptr::null_mut(), bytes, protection, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0)
    };
    assert_ne!(address, libc::MAP_FAILED);
    // SAFETY: page aligned, zeroed, as long as asked for, never unmapped, and reached only as atomics.
    unsafe { slice::from_raw_parts(address.cast(), words) }
}
