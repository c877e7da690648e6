// SPDX-License-Identifier: MIT OR Apache-2.0
//! A look into a small file of /proc, or at a directory's names. The program may close all descriptors at any instant
//! (closefrom), and the number of the one that is looked through may be another file's a moment later, be it another
//! thread's of /proc. So a file is read in one call, and whoever looks must find in what was read of whom it speaks.

use std::ffi::CStr;
use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;

use super::file::{Facts, with_c_string};

/// More than a stat or status file has, mostly.
const USUAL_BYTES: usize = 8192;

/// More than any: a status file lists the groups of its thread, of which there may be 65536.
const MOST_BYTES: usize = USUAL_BYTES << 8;

/// What is looked through is opened to append, too, which has no sense for who only reads: nobody else has such a
/// descriptor, and to ask for its flags costs a fraction of asking what file it is.
const FLAGS: libc::c_int = libc::O_RDONLY | libc::O_APPEND;

/// A descriptor to look through. Closed only if it still has the flags.
struct Glance(libc::c_int);

impl Glance {
    fn open(path: &str) -> Option<Self> {
        // SAFETY: open(2) reads the path.
        let open = |path| unsafe { libc::open(path, FLAGS | libc::O_CLOEXEC) };
        let number = with_c_string(path.as_bytes(), open).ok()?;
        // Not made where there is none: its end would leave another error number.
        (number != -1).then(|| Self(number))
    }
}

impl Drop for Glance {
    fn drop(&mut self) {
        // SAFETY: fcntl(2) with this command and close(2) touch no memory.
        unsafe {
            let flags = libc::fcntl(self.0, libc::F_GETFL);
            if flags != -1 && flags & (libc::O_ACCMODE | libc::O_APPEND) == FLAGS {
                libc::close(self.0);
            }
        }
    }
}

/// What one read(2) gives of a file, as far as [`MOST_BYTES`] reach.
pub(crate) fn file(path: &str) -> Option<Vec<u8>> {
    let mut capacity = USUAL_BYTES;
    loop {
        let bytes = one_read(path, capacity)?;
        if bytes.len() < capacity || capacity == MOST_BYTES {
            return Some(bytes);
        }
        // From the start again: what a second read would give may be of another moment, or another file.
        capacity = MOST_BYTES;
    }
}

fn one_read(path: &str, capacity: usize) -> Option<Vec<u8>> {
    let opened = Glance::open(path)?;
    let mut bytes = Vec::<u8>::with_capacity(capacity);
    // SAFETY: read(2) writes into the buffer, within its capacity, and says how much. If the number is not ours any more,
    // what is read is for the caller to see through.
    unsafe {
        let length = libc::read(opened.0, bytes.as_mut_ptr().cast(), capacity);
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
    let opened = Glance::open(path)?;
    let (mut bytes, mut length) = (vec![0; USUAL_BYTES], 0);
    loop {
        // SAFETY: as in file(); the buffer is longer than what was read.
        match unsafe { libc::read(opened.0, bytes.as_mut_ptr().add(length).cast(), bytes.len() - length) } {
            ..0 => return None,
            0 => break,
            more => length += more as usize,
        }
        bytes.resize(length + USUAL_BYTES, 0);
    }
    bytes.truncate(length);
    Some(bytes)
}

/// The stat file of a thread, if it is that thread's.
pub(crate) fn stat(path: &str, tid: i32) -> Option<Vec<u8>> {
    file(path).filter(|stat| stat.starts_with(format!("{tid} (").as_bytes()))
}

/// The numbers that are names in a directory. `None` if it cannot be read to its end.
pub(crate) fn numbers(path: &str) -> Option<Vec<i32>> {
    let mut numbers = Vec::new();
    // SAFETY: opendir(3) reads the path; readdir(3) gives entries that are good until the next call, with a name that ends
    // with NUL; dirfd(3) gives the directory's number; closedir(3) ends its life. errno is set to 0 before each entry to
    // tell the end from a failure.
    unsafe {
        let directory = with_c_string(path.as_bytes(), |path| libc::opendir(path)).ok()?;
        if directory.is_null() {
            return None;
        }
        // Only looked at, closed with the directory.
        let opened = ManuallyDrop::new(File::from_raw_fd(libc::dirfd(directory)));
        let facts = Facts::of(&opened);
        let is_whole = loop {
            libc::__errno_location().write(0);
            let entry = libc::readdir(directory);
            if entry.is_null() {
                break libc::__errno_location().read() == 0;
            }
            let name = CStr::from_ptr((*entry).d_name.as_ptr());
            numbers.extend(name.to_str().ok().and_then(|name| name.parse::<i32>().ok()));
        };
        let is_it = facts.is_ok_and(|facts| Facts::of(&opened).is_ok_and(|now| now.is_same_file(&facts)));
        // Else it stays, without its descriptor: the number may be the program's.
        if is_it {
            libc::closedir(directory);
        }
        (is_whole && is_it).then_some(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    #[test]
    fn a_stat_file_is_believed_of_its_own_thread_only() {
        let own = std::process::id() as i32;
        assert!(stat("/proc/self/stat", own).is_some());
        assert_eq!(stat("/proc/self/stat", own + 1), None);
        assert_eq!(stat("/proc/self/no such file", own), None);
    }

    /// The program closes all descriptors while one is looked through, and opens a file of its own.
    #[test]
    fn a_descriptor_that_is_the_programs_by_now_stays_open() {
        let path = format!("/tmp/lock_manager-glance-{}", std::process::id());
        let name = CString::new(path.as_str()).unwrap();
        // SAFETY: mkfifo(3) and unlink(2) read the name, open(2) and memfd_create(2) theirs; the number that is replaced is
        // the glance's, which reads from the pipe until the writer is closed.
        unsafe {
            assert_eq!(libc::mkfifo(name.as_ptr(), 0o600), 0);
            let (say, hear) = std::sync::mpsc::channel();
            let looker = std::thread::spawn(move || {
                say.send(libc::gettid()).unwrap();
                file(&path)
            });
            let state = format!("/proc/self/task/{}/syscall", hear.recv().unwrap());
            let writer = libc::open(name.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            let facts = Facts::of_path(std::path::Path::new(name.to_str().unwrap())).unwrap();
            let is_it = |number: i32| {
                let file = ManuallyDrop::new(File::from_raw_fd(number));
                Facts::of(&file).is_ok_and(|found| found.is_same_file(&facts))
            };
            let reads = format!("{} ", libc::SYS_read);
            while !std::fs::read_to_string(&state).unwrap().starts_with(&reads) {
                std::thread::yield_now();
            }
            let number = (3..1000).find(|&number| number != writer && is_it(number)).unwrap();
            let own = libc::memfd_create(c"program".as_ptr(), libc::MFD_CLOEXEC);
            assert_eq!(libc::dup3(own, number, libc::O_CLOEXEC), number);
            libc::close(writer);
            assert_eq!(looker.join().unwrap(), Some(Vec::new()));
            assert_ne!(libc::fcntl(number, libc::F_GETFD), -1);
            libc::close(number);
            libc::close(own);
            libc::unlink(name.as_ptr());
        }
    }

    #[test]
    fn the_threads_of_a_process_are_listed() {
        assert!(numbers("/proc/self/task").unwrap().contains(&(std::process::id() as i32)));
        assert_eq!(numbers("/no such directory"), None);
    }
}
