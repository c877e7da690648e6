// SPDX-License-Identifier: MIT OR Apache-2.0
//! The calling thread's list of the robust mutexes that it holds, as the kernel knows it.

use crate::sys::Errno;

/// The head of a list, which the kernel reads (linux/futex.h: struct robust_list_head).
#[repr(C)]
pub(super) struct Head {
    /// The first node, in the mutex that was taken last. The last node points to the head.
    pub(super) first: *mut Node,
    /// How far the word of a mutex stands from its node, which may be a negative number.
    pub(super) word_from_node: isize,
    _pending: *mut Node,
}

/// A mutex's place in the list.
#[repr(C)]
pub(super) struct Node {
    pub(super) next: *mut Node,
}

/// Where the kernel knows the caller's list; null: it knows of none, and nobody would hear of the caller's death. `Err`: it does
/// not say.
pub(super) fn of_caller() -> Result<*mut Head, Errno> {
    let (mut head, mut length) = (std::ptr::null_mut::<Head>(), 0usize);
    // SAFETY: get_robust_list(2) writes the two values, both alive; 0 is the caller.
    match unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut length) } {
        0 => Ok(head),
        _ => Err(Errno::last()),
    }
}
