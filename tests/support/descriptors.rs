// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program that closes descriptors which are not its own, and has files of its own under their numbers.

use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// A file of the program's own, without a name, by a number that nobody else's descriptor gets.
pub fn program_file() -> File {
    // SAFETY: memfd_create(2) reads the name; the number is new.
    out_of_the_way(&unsafe { File::from_raw_fd(libc::memfd_create(c"program".as_ptr(), 0)) })
}

/// The file by a number that nobody else's descriptor gets.
pub fn out_of_the_way(file: &File) -> File {
    // SAFETY: fcntl(2) with this command touches no memory; the number is new.
    unsafe { File::from_raw_fd(libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 100)) }
}

/// Closes whatever has these numbers, and has each be the program's file for an instant, again and again until it is over.
pub fn take_over(numbers: Range<i32>, own: &File, over: &AtomicBool) {
    while !over.load(Ordering::Acquire) {
        for number in numbers.clone() {
            // SAFETY: dup2(2) and close(2) touch no memory; these numbers are nobody's but the library's.
            unsafe {
                libc::dup2(own.as_raw_fd(), number);
                libc::close(number);
            }
        }
    }
}
