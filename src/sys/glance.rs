// SPDX-License-Identifier: MIT OR Apache-2.0
//! A look into a small file of /proc, or at a directory's names. The program may close all descriptors at any instant
//! (closefrom), and the number of the one that is looked through may be another file's a moment later, be it another
//! thread's of /proc. So a file is read in one call, and whoever looks must find in what was read of whom it speaks.

use std::ffi::{CStr, CString};

/// More than a stat or status file has.
const MOST_BYTES: usize = 8192;

/// What one read(2) gives of a file, as far as [`MOST_BYTES`] reach.
pub(crate) fn file(path: &str) -> Option<Vec<u8>> {
    let path = CString::new(path).ok()?;
    let mut bytes = Vec::<u8>::with_capacity(MOST_BYTES);
    // SAFETY: open(2) reads the path; read(2) writes into the buffer, within its capacity, and says how much; close(2)
    // touches no memory. If the number is not ours any more, what is read is for the caller to see through.
    unsafe {
        let number = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if number == -1 {
            return None;
        }
        let length = libc::read(number, bytes.as_mut_ptr().cast(), bytes.capacity());
        libc::close(number);
        bytes.set_len(usize::try_from(length).ok()?);
    }
    Some(bytes)
}

/// A file that takes more than one read, read twice alike: its lines may change between two reads, and some be skipped
/// then. `None` also if they do not stand still.
pub(crate) fn at_rest(path: &str) -> Option<Vec<u8>> {
    const TRIES: u32 = 4;
    let mut last = whole(path)?;
    for _ in 1..TRIES {
        let now = whole(path)?;
        if now == last {
            return Some(now);
        }
        last = now;
    }
    None
}

/// All of a file, however many reads it takes.
pub(crate) fn whole(path: &str) -> Option<Vec<u8>> {
    let path = CString::new(path).ok()?;
    let (mut bytes, mut length) = (vec![0; MOST_BYTES], 0);
    // SAFETY: as in file(); the buffer is longer than what was read.
    unsafe {
        let number = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if number == -1 {
            return None;
        }
        let is_whole = loop {
            match libc::read(number, bytes.as_mut_ptr().add(length).cast(), bytes.len() - length) {
                ..0 => break false,
                0 => break true,
                more => length += more as usize,
            }
            bytes.resize(length + MOST_BYTES, 0);
        };
        libc::close(number);
        bytes.truncate(length);
        is_whole.then_some(bytes)
    }
}

/// The stat file of a thread, if it is that thread's.
pub(crate) fn stat(path: &str, tid: i32) -> Option<Vec<u8>> {
    file(path).filter(|stat| stat.starts_with(format!("{tid} (").as_bytes()))
}

/// The numbers that are names in a directory. `None` if it cannot be read to its end.
pub(crate) fn numbers(path: &str) -> Option<Vec<i32>> {
    let path = CString::new(path).ok()?;
    let mut numbers = Vec::new();
    // SAFETY: opendir(3) reads the path; readdir(3) gives entries that are good until the next call, with a name that ends
    // with NUL; closedir(3) ends the directory's life. errno is set to 0 before each entry to tell the end from a failure.
    unsafe {
        let directory = libc::opendir(path.as_ptr());
        if directory.is_null() {
            return None;
        }
        let is_whole = loop {
            libc::__errno_location().write(0);
            let entry = libc::readdir(directory);
            if entry.is_null() {
                break libc::__errno_location().read() == 0;
            }
            let name = CStr::from_ptr((*entry).d_name.as_ptr());
            numbers.extend(name.to_str().ok().and_then(|name| name.parse::<i32>().ok()));
        };
        libc::closedir(directory);
        is_whole.then_some(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_file_is_believed_of_its_own_thread_only() {
        let own = std::process::id() as i32;
        assert!(stat("/proc/self/stat", own).is_some());
        assert_eq!(stat("/proc/self/stat", own + 1), None);
        assert_eq!(stat("/proc/self/no such file", own), None);
    }

    #[test]
    fn the_threads_of_a_process_are_listed() {
        assert!(numbers("/proc/self/task").unwrap().contains(&(std::process::id() as i32)));
        assert_eq!(numbers("/no such directory"), None);
    }
}
