// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keeping off the numbers 0, 1 and 2. A program writes to them without asking what is there. If it has closed one, the next
//! file that is opened gets that number. Moving the file to another number afterwards would be too late: another thread may
//! have written to it. So placeholders take the free numbers first.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};

use crate::sys::Errno;

const STANDARD: std::ops::RangeInclusive<libc::c_int> = libc::STDIN_FILENO..=libc::STDERR_FILENO;

/// While this lives, no file that is opened gets the number of a standard file, unless the program closes one meanwhile.
#[derive(Debug)]
pub(in crate::sys) struct Placeholders {
    /// The numbers that were free and have a placeholder, a bit each.
    numbers: u32,
}

impl Placeholders {
    pub(in crate::sys) fn open() -> Result<Self, Errno> {
        let mut placeholders = Self { numbers: 0 };
        if are_open() {
            return Ok(placeholders);
        }
        loop {
            let number = open_placeholder()?;
            if !STANDARD.contains(&number) {
                // SAFETY: close(2) of the number that open_placeholder() has just got.
                unsafe { libc::close(number) };
                return Ok(placeholders);
            }
            placeholders.numbers |= 1 << number;
        }
    }
}

impl Drop for Placeholders {
    fn drop(&mut self) {
        if self.numbers == 0 {
            return;
        }
        for number in STANDARD {
            // The program may have put a file of its own there: only a placeholder is closed.
            if self.numbers & 1 << number != 0 && is_placeholder(number) {
                // SAFETY: close(2) of a number that open_placeholder() got, and that still is of what it opened.
                unsafe { libc::close(number) };
            }
        }
    }
}

/// The same file by another number, if it has the number of a standard file.
pub(in crate::sys) fn move_away(file: &File) -> Result<Option<File>, Errno> {
    if !STANDARD.contains(&file.as_raw_fd()) {
        return Ok(None);
    }
    // SAFETY: fcntl(2) with this command touches no memory; the number it returns is this call's own.
    let moved = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, STANDARD.end() + 1) };
    // SAFETY: as above.
    Errno::check(moved).map(|number| Some(unsafe { File::from_raw_fd(number) }))
}

/// Whether all three are open. By one call, because each opening pays for it.
fn are_open() -> bool {
    let mut asked = [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO].map(|fd| libc::pollfd {
        fd,
        events: 0,
        revents: 0,
    });
    // SAFETY: poll(2) writes into these three structs; without a time to wait it returns at once.
    let _ready = unsafe { libc::poll(asked.as_mut_ptr(), asked.len() as libc::nfds_t, 0) };
    asked.iter().all(|told| told.revents & libc::POLLNVAL == 0)
}

/// A placeholder: it can be neither read nor written, and the root directory exists in every process.
fn open_placeholder() -> Result<libc::c_int, Errno> {
    // SAFETY: open(2) reads the path.
    Errno::check(unsafe { libc::open(c"/".as_ptr(), libc::O_PATH | libc::O_CLOEXEC) })
}

fn is_placeholder(number: libc::c_int) -> bool {
    // SAFETY: fcntl(2) with this command touches no memory.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFL) };
    flags != -1 && flags & libc::O_PATH != 0
}
