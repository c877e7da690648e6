// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! /proc/PID/maps: which processes map the file that this process maps.

use super::{file_locks, proc_file};
use crate::sys::Errno;
use crate::sys::process;
use crate::sys::process::namespaces::{NamespacePids, namespace_pids, pid_namespace};
use crate::sys::syscall::file::Metadata;

/// The inode of the PID namespace in which the machine boots (PROC_PID_INIT_INO in the kernel's proc_ns.h). Every process is
/// visible from it.
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// A file that this process maps, by device and inode as /proc/PID/maps writes them: on some file systems the device differs
/// from that of stat(2).
pub(crate) struct MappedFile {
    device: Vec<u8>,
    inode: Vec<u8>,
    is_deleted: bool,
}

impl MappedFile {
    /// The file that is mapped at `address` in this process. `None`: /proc does not show it.
    pub(crate) fn at(address: usize) -> Option<Self> {
        // /proc/self shows nothing once the main thread has ended, even if other threads go on.
        let maps = proc_file::read_all("/proc/thread-self/maps")?;
        let start = format!("{address:08x}-");
        let line = maps.split(|&byte| byte == b'\n').find(|line| line.starts_with(start.as_bytes()))?;
        let (device, inode) = Self::fields(line)?;
        Some(Self { device: device.to_vec(), inode: inode.to_vec(), is_deleted: line.ends_with(b" (deleted)") })
    }

    /// Device and inode of a line: address permissions offset device inode path.
    fn fields(line: &[u8]) -> Option<(&[u8], &[u8])> {
        let mut fields = line.split(|&byte| byte == b' ').skip(3);
        Some((fields.next()?, fields.next()?))
    }

    /// Whether the file has lost its last name.
    pub(crate) fn is_deleted(&self) -> bool {
        self.is_deleted
    }

    /// Inode and process of each write lock that a process has on a file of the same file system. The process is 0 where
    /// /proc is another PID namespace's, which numbers it otherwise.
    pub(crate) fn process_locks_beside(&self) -> Option<Vec<(u64, i32)>> {
        let numbers_as_here = namespace_pids("self") == Some(NamespacePids::only(process::pid()));
        let locks = file_locks::process_locks(&self.device)?;
        Some(locks.into_iter().map(|(inode, pid)| (inode, if numbers_as_here { pid.max(0) } else { 0 })).collect())
    }

    /// Whether a process ("self" or a number) maps the file, too. `None`: it cannot be seen.
    pub(crate) fn is_mapped_by(&self, process: &str) -> Option<bool> {
        let wanted = (self.device.as_slice(), self.inode.as_slice());
        let shows = |maps: &[u8]| maps.split(|&byte| byte == b'\n').any(|line| Self::fields(line) == Some(wanted));
        match proc_file::read_all(&format!("/proc/{process}/maps")) {
            None => return None,
            Some(maps) if shows(&maps) => return Some(true),
            Some(maps) if !maps.is_empty() => return Some(false),
            Some(_) => {}
        }
        // An empty file: the main thread has ended. The other threads go on with the memory that they share.
        for thread in proc_file::list_numbers(&format!("/proc/{process}/task"))? {
            let thread = format!("/proc/{process}/task/{thread}");
            match proc_file::read_all(&format!("{thread}/maps")) {
                Some(maps) if shows(&maps) => return Some(true),
                Some(_) => {}
                None if is_missing(&thread) => {}
                None => return None,
            }
        }
        Some(false)
    }
}

/// Why a process outside of this PID namespace may be using a segment.
pub(crate) type Doubt = &'static str;

/// Checks that every process that maps the file at `address` has its thread ids from this PID namespace. Only then does a
/// thread id in the file mean the thread with that number here.
pub(crate) fn only_this_namespace_maps(address: usize) -> Result<(), Doubt> {
    if pid_namespace("self") != INITIAL_PID_NAMESPACE {
        return Err("a holder outside this PID namespace cannot be seen from here");
    }
    // A /proc that hides processes, or that belongs to an inner namespace, does not show process 1 as process 1.
    if namespace_pids("1") != Some(NamespacePids::only(1))
        || namespace_pids("self") != Some(NamespacePids::only(process::pid()))
    {
        return Err("/proc does not show all processes");
    }
    let Some(file) = MappedFile::at(address) else {
        return Err("/proc does not show what this process maps");
    };
    let Some(processes) = proc_file::list_numbers("/proc") else {
        return Err("/proc cannot be read");
    };
    for id in processes {
        let process = id.to_string();
        let ids = namespace_pids(&process).filter(|ids| ids.outermost == id);
        // It has one id, so its threads are numbered as seen from here.
        if ids == Some(NamespacePids::only(id)) {
            continue;
        }
        match ids.and_then(|_| file.is_mapped_by(&process)) {
            Some(false) => {}
            Some(true) => return Err("a process of another PID namespace has the segment mapped"),
            None if has_ended(&process) => {}
            None => return Err("some process, perhaps of another PID namespace, may not be examined"),
        }
    }
    Ok(())
}

/// Whether a process that could not be looked into has ended. Only its absence from /proc shows that; no other failure does.
fn has_ended(process: &str) -> bool {
    is_missing(&format!("/proc/{process}"))
}

fn is_missing(path: &str) -> bool {
    matches!(Metadata::of_path_followed(path.as_bytes()), Err(Errno(libc::ENOENT | libc::ESRCH)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_ended_is_known_by_its_absence() {
        assert!(!has_ended("self"));
        assert!(has_ended(&i32::MAX.to_string()));
    }
}
