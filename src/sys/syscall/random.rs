// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random numbers from the kernel.

/// A random id; zeros if the kernel has no random bytes yet, early in the boot.
pub(crate) fn id() -> [u8; 16] {
    let mut bytes = [0u8; 16];
    // SAFETY: getrandom(2) writes at most as many bytes as it is told there are.
    let count = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK) };
    if count == bytes.len() as isize { bytes } else { [0; 16] }
}

/// A random number of at most `bits` bits; 0 as above.
pub(crate) fn number(bits: u32) -> u64 {
    let id = id();
    u64::from_ne_bytes([id[0], id[1], id[2], id[3], id[4], id[5], id[6], id[7]]) >> (u64::BITS - bits)
}
