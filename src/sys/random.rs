// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random numbers of the kernel's.

/// An id that no other is likely to have; zeros if the kernel has no random bytes to give yet.
pub(crate) fn id() -> [u8; 16] {
    let mut bytes = [0u8; 16];
    // SAFETY: getrandom(2) writes at most as many bytes as it is told there are.
    let count = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK) };
    if count == bytes.len() as isize { bytes } else { [0; 16] }
}
