// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! /proc/locks: the write locks on a file, and their owners.

use super::proc_file;

const LOCKS: &str = "/proc/locks";

/// The first bytes of all write locks of open file descriptions on a file. `None`: it cannot be seen.
pub(crate) fn locked_offsets(device: u64, inode: u64) -> Option<Vec<u64>> {
    let (major, minor) = (libc::major(device), libc::minor(device));
    let file = format!("{major:02x}:{minor:02x}:{inode}");
    let locks = proc_file::read_stable(LOCKS)?;
    write_locks(&locks, "OFDLCK", |lock| (lock.file == file).then_some(lock.start))
}

/// Inode and process of each write lock that a process has (POSIX, not a description's) on a file of a device. `device` is
/// written as in /proc. If locks come and go all the time, a single reading may miss some that stay. Then the result has every
/// lock that any reading showed.
pub(super) fn process_locks(device: &[u8]) -> Option<Vec<(u64, i32)>> {
    let see = |lock: FileLock<'_>| {
        let (_, inode) = lock.file.rsplit_once(':').filter(|(on, _)| on.as_bytes() == device)?;
        Some((inode.parse().ok()?, lock.pid))
    };
    let mut readings = proc_file::read_until_stable(LOCKS)?;
    let last = readings.pop()?;
    let is_stable = readings.last() == Some(&last);
    let earlier = if is_stable { &[] } else { readings.as_slice() };
    Some(earlier.iter().chain([&last]).filter_map(|reading| write_locks(reading, "POSIX", see)).flatten().collect())
}

/// The results of `see` for the write locks of one kind.
fn write_locks<T>(locks: &[u8], kind: &str, see: impl Fn(FileLock<'_>) -> Option<T>) -> Option<Vec<T>> {
    let locks = std::str::from_utf8(locks).ok()?;
    Some(locks.lines().filter_map(|line| see(FileLock::parse(line, kind)?)).collect())
}

/// A line of /proc/locks about a write lock that is held.
struct FileLock<'l> {
    /// 0 or less: of no process, or of one that cannot be seen from here.
    pid: i32,
    file: &'l str,
    start: u64,
}

impl<'l> FileLock<'l> {
    fn parse(line: &'l str, kind: &str) -> Option<Self> {
        // Number: kind, mandatory or advisory, type, pid, file, start, end. A waiter's line has an arrow behind the number.
        let mut fields = line.split_ascii_whitespace().skip(1);
        fields.next().filter(|&found| found == kind)?;
        fields.nth(1).filter(|&lock_type| lock_type == "WRITE")?;
        let (pid, file) = (fields.next()?.parse().ok()?, fields.next()?);
        Some(Self { pid, file, start: fields.next()?.parse().ok()? })
    }
}
