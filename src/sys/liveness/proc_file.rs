// SPDX-License-Identifier: MIT OR Apache-2.0
//! A look into a file of /proc, or at a directory's names. The program may close all descriptors at any instant
//! (closefrom), and the number of the one that is looked through may be another file's a moment later, be it another
//! file of /proc. So nothing that was read is believed unless it names whom it speaks of, or the descriptor still is of the
//! file of that path afterwards.
//!
//! What a lock call needs that does not wait is read onto the stack: a signal handler may be here, in the midst of
//! malloc(3).

use std::ffi::CStr;
use std::fmt::{self, Write as _};
use std::os::fd::RawFd;

use crate::sys::Errno;
use crate::sys::descriptor::CheckedFd;
use crate::sys::syscall::file::{Metadata, with_c_string};

/// How much is read at a time.
const CHUNK: usize = 4096;

/// The longest beginning of a line that is looked at: that of NSpid has a number for each of at most 32 namespaces.
const LONGEST_LINE: usize = 512;

/// What is looked through is opened to append, too, which has no sense for who only reads: nobody else has such a
/// descriptor, and to ask for its flags costs a fraction of asking what file it is.
const FLAGS: libc::c_int = libc::O_RDONLY | libc::O_APPEND;

/// A path, put together on the stack.
pub(crate) struct ProcPath {
    bytes: [u8; Self::MOST],
    length: usize,
}

impl ProcPath {
    const MOST: usize = 64;

    /// Of what `format_args!` gives. What would be longer than any path that is asked for here names nothing.
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

/// A descriptor to look through. Closed only if it still has the flags.
struct ProcFile<'p> {
    number: libc::c_int,
    path: &'p str,
}

impl<'p> ProcFile<'p> {
    fn open(path: &'p str) -> Option<Self> {
        // SAFETY: open(2) reads the path.
        let open = |path| unsafe { libc::open(path, FLAGS | libc::O_CLOEXEC) };
        let number = with_c_string(path.as_bytes(), open).ok()?;
        // Not made where there is none: its end would leave another error number.
        (number != -1).then(|| Self { number, path })
    }

    /// What one read(2) gives; 0 at the end.
    fn read(&self, buffer: &mut [u8]) -> Option<usize> {
        loop {
            // SAFETY: read(2) writes into the buffer, within its length, and says how much. If the number is not ours any
            // more, is_intact() finds out.
            match unsafe { libc::read(self.number, buffer.as_mut_ptr().cast(), buffer.len()) } {
                -1 if Errno::last().0 == libc::EINTR => {}
                -1 => return None,
                length => return usize::try_from(length).ok(),
            }
        }
    }

    /// Whether what was read is of the file of that path: its number was not another file's in between.
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
                // In some sandboxes it cannot be asked.
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

/// The same of a file whose contents say of whom they are: the caller believes them for that, and it is not asked again
/// what file they are of.
pub(super) fn read_self_describing<'b>(path: &str, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let length = ProcFile::open(path)?.read(buffer)?;
    buffer.get(..length)
}

/// What `find` makes of the first line of which it makes anything. It sees of each line as much as [`LONGEST_LINE`].
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

/// A file that takes more than one read, read twice alike: its lines may change between two reads, and some be skipped
/// then. `None` also if they do not stand still.
pub(crate) fn read_stable(path: &str) -> Option<Vec<u8>> {
    let mut readings = read_until_stable(path)?;
    let last = readings.pop()?;
    (readings.last() == Some(&last)).then_some(last)
}

/// What each look at such a file showed. If two are alike, they are the last two.
pub(crate) fn read_until_stable(path: &str) -> Option<Vec<Vec<u8>>> {
    const MOST: usize = 16;
    // A line is skipped where one read ends and the next begins. Each look's reads end elsewhere, so that no two skip the
    // same one, and are alike for all that.
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

/// All of a file, however many reads it takes.
pub(crate) fn read_all(path: &str) -> Option<Vec<u8>> {
    read_all_by(path, CHUNK)
}

/// The same by reads of at most so many bytes.
fn read_all_by(path: &str, most: usize) -> Option<Vec<u8>> {
    let file = ProcFile::open(path)?;
    let (mut bytes, mut chunk) = (Vec::new(), [0; CHUNK]);
    let chunk = &mut chunk[..most];
    loop {
        match file.read(chunk)? {
            0 => break,
            count => bytes.extend_from_slice(&chunk[..count]),
        }
    }
    file.is_intact().then_some(bytes)
}

/// What a symbolic link says.
pub(crate) fn read_link<'b>(path: &str, buffer: &'b mut [u8]) -> Option<&'b str> {
    let (start, size) = (buffer.as_mut_ptr().cast(), buffer.len());
    // SAFETY: readlink(2) reads the path and writes at most as many bytes as the buffer has.
    let read = |path| unsafe { libc::readlink(path, start, size) };
    let length = usize::try_from(with_c_string(path.as_bytes(), read).ok()?).ok()?;
    std::str::from_utf8(buffer.get(..length).filter(|_| length < size)?).ok()
}

/// Shows each number that is a name in a directory. `None` if it cannot be read to its end.
pub(crate) fn for_each_number(path: &str, mut show: impl FnMut(i32)) -> Option<()> {
    let file = ProcFile::open(path)?;
    let number_in = |name: &CStr| name.to_str().ok()?.parse().ok();
    for_each_entry(file.number, |name| _ = number_in(name).map(&mut show)).ok()?;
    file.is_intact().then_some(())
}

/// Shows each name in a directory, by a descriptor that has read nothing yet. Nothing of it is to be believed before the
/// number is known to have been the directory's to here.
pub(in crate::sys) fn for_each_entry(directory: RawFd, mut show: impl FnMut(&CStr)) -> Result<(), Errno> {
    /// Of the fixed part of a linux_dirent64: inode, offset, length of the entry, kind; the name follows.
    const LENGTH_AT: usize = 16;
    const NAME_AT: usize = 19;
    #[repr(align(8))]
    struct Entries([u8; CHUNK]);
    let mut entries = Entries([0; CHUNK]);
    loop {
        // SAFETY: getdents64(2) writes at most as many bytes as the buffer has, and says how many.
        let count = unsafe { libc::syscall(libc::SYS_getdents64, directory, entries.0.as_mut_ptr(), CHUNK) };
        let mut rest = match usize::try_from(count) {
            Ok(0) => return Ok(()),
            Ok(count) => entries.0.get(..count).unwrap_or_default(),
            Err(_) => return Err(Errno::last()),
        };
        while let Some(length) = rest.get(LENGTH_AT..).and_then(|bytes| bytes.first_chunk()) {
            let entry = rest.split_at_checked(u16::from_ne_bytes(*length).into());
            let (entry, others) = entry.ok_or(Errno(libc::EIO))?;
            let name = CStr::from_bytes_until_nul(entry.get(NAME_AT..).unwrap_or_default());
            show(name.map_err(|_| Errno(libc::EIO))?);
            rest = others;
        }
    }
}

/// The numbers that are names in a directory. `None` if it cannot be read to its end.
pub(crate) fn list_numbers(path: &str) -> Option<Vec<i32>> {
    let mut numbers = Vec::new();
    for_each_number(path, |number| numbers.push(number))?;
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    /// The program closes all descriptors while one is looked through, and opens a file of its own: that one stays open,
    /// and nothing is believed.
    #[test]
    fn a_descriptor_that_is_the_programs_by_now_is_neither_closed_nor_believed() {
        let path = format!("/tmp/lock_manager-proc-file-{}", std::process::id());
        let name = CString::new(path.as_str()).unwrap();
        // SAFETY: mkfifo(3) and unlink(2) read the name, open(2) and memfd_create(2) theirs; the number that is replaced is
        // the reader's, which reads from the pipe until the writer is closed.
        unsafe {
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
