// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading a file or a directory of /proc. The program may close the descriptor meanwhile (see
//! [`descriptor`](crate::sys::descriptor)), and the number may become another file's, even of /proc. So what was read counts only
//! if it names its subject itself, or if the descriptor still is of the file of that path afterwards.
//!
//! A call that does not wait reads onto the stack: it may come from a signal handler that interrupted malloc(3).

use std::ffi::CStr;
use std::fmt::{self, Write as _};

use crate::sys::Errno;
use crate::sys::descriptor::CheckedFd;
use crate::sys::syscall::directory;
use crate::sys::syscall::file::{Metadata, with_c_string};

/// How much is read at a time.
const CHUNK: usize = 4096;

/// How many bytes of a line are looked at. The line of NSpid has one number for each of at most 32 namespaces.
const LONGEST_LINE: usize = 512;

/// The mark by which a descriptor is known to be ours: O_APPEND. It makes no sense for a reader, so hardly any program has such
/// a descriptor. Asking for the flags costs a fraction of asking for the file's identity.
const FLAGS: libc::c_int = libc::O_RDONLY | libc::O_APPEND;

/// A path, formatted on the stack.
pub(crate) struct ProcPath {
    bytes: [u8; Self::MOST],
    length: usize,
}

impl ProcPath {
    const MOST: usize = 64;

    /// Formats a path. One that is too long becomes the empty path, which names nothing.
    pub(crate) fn new(path: fmt::Arguments<'_>) -> Self {
        let mut fresh = Self { bytes: [0; Self::MOST], length: 0 };
        if fresh.write_fmt(path).is_err() {
            fresh.length = 0;
        }
        fresh
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

impl fmt::Write for ProcPath {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// An open file of /proc. It is closed only if the number still has the flags.
struct ProcFile<'p> {
    number: libc::c_int,
    path: &'p str,
}

impl<'p> ProcFile<'p> {
    fn open(path: &'p str) -> Option<Self> {
        // SAFETY: open(2) reads the path.
        let open = |path| unsafe { libc::open(path, FLAGS | libc::O_CLOEXEC) };
        let number = with_c_string(path.as_bytes(), open).ok()?;
        // Constructed only on success: Drop would change errno.
        (number != -1).then(|| Self { number, path })
    }

    /// What one read(2) gives; 0 at the end.
    fn read(&self, buffer: &mut [u8]) -> Option<usize> {
        loop {
            // SAFETY: read(2) writes into the buffer, within its length, and says how much. If the number is another file's by
            // now, is_intact() finds out.
            match unsafe { libc::read(self.number, buffer.as_mut_ptr().cast(), buffer.len()) } {
                -1 if Errno::last().0 == libc::EINTR => {}
                -1 => return None,
                length => return usize::try_from(length).ok(),
            }
        }
    }

    /// Whether what was read is of the file of that path.
    fn is_intact(&self) -> bool {
        Metadata::of_path_followed(self.path.as_bytes())
            .is_ok_and(|named| CheckedFd::new(self.number, named.id()).is_intact())
    }
}

impl Drop for ProcFile<'_> {
    fn drop(&mut self) {
        // SAFETY: fcntl(2) with this command and close(2) touch no memory.
        unsafe {
            let is_own = match libc::fcntl(self.number, libc::F_GETFL) {
                // Some sandboxes forbid the question.
                -1 => self.is_intact(),
                flags => flags & (libc::O_ACCMODE | libc::O_APPEND) == FLAGS,
            };
            if is_own {
                libc::close(self.number);
            }
        }
    }
}

/// What one read(2) gives of a file, at most as much as the buffer holds.
pub(crate) fn read<'b>(path: &str, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let file = ProcFile::open(path)?;
    let length = file.read(buffer)?;
    file.is_intact().then_some(())?;
    buffer.get(..length)
}

/// The same of a file whose contents name their subject. The caller checks that, so the descriptor is not checked.
pub(super) fn read_self_describing<'b>(path: &str, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let length = ProcFile::open(path)?.read(buffer)?;
    buffer.get(..length)
}

/// The first result of `find`, which sees the lines one by one, at most [`LONGEST_LINE`] bytes of each.
pub(crate) fn find_line<T>(path: &str, mut find: impl FnMut(&[u8]) -> Option<T>) -> Option<T> {
    let file = ProcFile::open(path)?;
    let (mut line, mut length, mut found) = ([0; LONGEST_LINE], 0, None);
    let mut chunk = [0; CHUNK];
    while found.is_none() {
        let count = file.read(&mut chunk)?;
        if count == 0 {
            break;
        }
        for &byte in &chunk[..count] {
            if byte == b'\n' {
                found = found.or_else(|| find(&line[..length]));
                length = 0;
            } else if let Some(place) = line.get_mut(length) {
                *place = byte;
                length += 1;
            }
        }
    }
    found.filter(|_| file.is_intact())
}

/// A file that takes more than one read(2), read until two readings agree: its lines may change between two reads, and the
/// kernel then skips some. `None` also if no two agree.
pub(crate) fn read_stable(path: &str) -> Option<Vec<u8>> {
    let mut readings = read_until_stable(path)?;
    let last = readings.pop()?;
    (readings.last() == Some(&last)).then_some(last)
}

/// All readings of such a file. If two agree, they are the last two.
pub(crate) fn read_until_stable(path: &str) -> Option<Vec<Vec<u8>>> {
    const MOST: usize = 16;
    // A line is skipped where one read ends and the next begins. The reads of each reading end at other places, so that no
    // two readings skip the same line and agree.
    const STEP: usize = 200;
    let mut readings = vec![read_all(path)?];
    while readings.len() < MOST {
        let now = read_all_by(path, CHUNK - readings.len() * STEP)?;
        let is_alike = readings.last() == Some(&now);
        readings.push(now);
        if is_alike {
            break;
        }
    }
    Some(readings)
}

/// A whole file, however many reads it takes.
pub(crate) fn read_all(path: &str) -> Option<Vec<u8>> {
    read_all_by(path, CHUNK)
}

/// The same by reads of at most `most` bytes.
fn read_all_by(path: &str, most: usize) -> Option<Vec<u8>> {
    let file = ProcFile::open(path)?;
    let (mut bytes, mut chunk) = (Vec::new(), [0; CHUNK]);
    let chunk = &mut chunk[..most];
    loop {
        match file.read(chunk)? {
            0 => break,
            // A list of mappings may be long because there is no room for another mapping.
            count => {
                bytes.try_reserve(count).ok()?;
                bytes.extend_from_slice(&chunk[..count]);
            }
        }
    }
    file.is_intact().then_some(bytes)
}

/// The target of a symbolic link.
pub(crate) fn read_link<'b>(path: &str, buffer: &'b mut [u8]) -> Option<&'b str> {
    let (start, size) = (buffer.as_mut_ptr().cast(), buffer.len());
    // SAFETY: readlink(2) reads the path and writes at most as many bytes as the buffer has.
    let read = |path| unsafe { libc::readlink(path, start, size) };
    let length = usize::try_from(with_c_string(path.as_bytes(), read).ok()?).ok()?;
    std::str::from_utf8(buffer.get(..length).filter(|_| length < size)?).ok()
}

/// Calls `show` with each name in a directory that is a number. `None` if the directory cannot be read to its end.
pub(crate) fn for_each_number(path: &str, mut show: impl FnMut(i32)) -> Option<()> {
    let file = ProcFile::open(path)?;
    let number_in = |name: &CStr| name.to_str().ok()?.parse().ok();
    directory::for_each_entry(file.number, |name| _ = number_in(name).map(&mut show)).ok()?;
    file.is_intact().then_some(())
}

/// The names in a directory that are numbers. `None` if the directory cannot be read to its end.
pub(crate) fn list_numbers(path: &str) -> Option<Vec<i32>> {
    let mut numbers = Vec::new();
    for_each_number(path, |number| numbers.push(number))?;
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    /// The program closes all descriptors during a read and opens a file of its own: that one stays open, and nothing that
    /// was read counts.
    #[test]
    fn a_descriptor_that_is_the_programs_by_now_is_neither_closed_nor_believed() {
        let path = format!("/tmp/lock_manager-proc-file-{}", std::process::id());
        let name = CString::new(path.as_str()).unwrap();
        // SAFETY: mkfifo(3) and unlink(2) read the name, open(2) and memfd_create(2) theirs; the number that is replaced is
        // the reader's, which reads from the pipe until the writer is closed.
        unsafe {
            // Of an earlier process with the same id, which was killed.
            libc::unlink(name.as_ptr());
            assert_eq!(libc::mkfifo(name.as_ptr(), 0o600), 0);
            let (say, hear) = std::sync::mpsc::channel();
            let reader = std::thread::spawn(move || {
                say.send(libc::gettid()).unwrap();
                read(&path, &mut [0; 64]).map(<[u8]>::to_vec)
            });
            let state = format!("/proc/self/task/{}/syscall", hear.recv().unwrap());
            let writer = libc::open(name.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            let id = Metadata::of_path(std::path::Path::new(name.to_str().unwrap())).unwrap().id();
            let is_it = |number| CheckedFd::new(number, id).is_intact();
            let reads = format!("{} ", libc::SYS_read);
            while !std::fs::read_to_string(&state).unwrap().starts_with(&reads) {
                std::thread::yield_now();
            }
            let number = (3..1000).find(|&number| number != writer && is_it(number)).unwrap();
            let own = libc::memfd_create(c"program".as_ptr(), libc::MFD_CLOEXEC);
            assert_eq!(libc::dup3(own, number, libc::O_CLOEXEC), number);
            libc::close(writer);
            assert_eq!(reader.join().unwrap(), None);
            assert_ne!(libc::fcntl(number, libc::F_GETFD), -1);
            libc::close(number);
            libc::close(own);
            libc::unlink(name.as_ptr());
        }
    }

    #[test]
    fn the_threads_of_a_process_are_listed() {
        assert!(list_numbers("/proc/self/task").unwrap().contains(&(std::process::id() as i32)));
        assert_eq!(list_numbers("/no such directory"), None);
    }

    #[test]
    fn a_line_is_found_behind_one_that_is_longer_than_a_chunk() {
        let path = format!("/dev/shm/lock_manager-proc-file-{}", std::process::id());
        std::fs::write(&path, format!("Groups:{}\nNSpid:\t5\n", " 4000000000".repeat(1000))).unwrap();
        let nspid = find_line(&path, |line| line.strip_prefix(b"NSpid:\t").map(<[u8]>::to_vec));
        assert_eq!((nspid, find_line(&path, |line| line.strip_prefix(b"no").map(drop))), (Some(b"5".to_vec()), None));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_path_that_is_too_long_names_nothing() {
        assert_eq!(ProcPath::new(format_args!("/proc/{}", 7)).as_str(), "/proc/7");
        assert_eq!(ProcPath::new(format_args!("{:0100}", 7)).as_str(), "");
    }
}
