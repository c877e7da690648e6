// SPDX-License-Identifier: MIT OR Apache-2.0
//! The namespaces and the boot that numbers belong to: a process id, a thread id or a start time means something only within
//! its own.

use std::fmt;

use super::once_box::OnceBox;
use crate::sys::Errno;
use crate::sys::liveness::proc_file::{self, ProcPath};
use crate::sys::process;
use crate::sys::syscall::file_system;

/// The namespaces of a process; 0: cannot be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Namespaces {
    /// Ids of threads and processes compare only within it.
    pub(crate) pid_namespace: u64,
    /// Start times compare only within it.
    pub(crate) time_namespace: u64,
}

impl Namespaces {
    /// Those of the calling process.
    pub(crate) fn current() -> Self {
        Self { pid_namespace: pid_namespace("self"), time_namespace: time_namespace() }
    }
}

/// The time namespace of this process. Unlike the PID namespace, a process of one thread may change it (setns(2)).
pub(crate) fn time_namespace() -> u64 {
    namespace("self", "time")
}

/// The PID namespace of a process ("self" or a number), as the inode of its /proc/PID/ns/pid; 0 if it cannot be seen.
pub(crate) fn pid_namespace(process: &str) -> u64 {
    namespace(process, "pid")
}

/// A namespace of a process, as the inode of its file in /proc; 0 if it cannot be seen.
fn namespace(process: &str, kind: &str) -> u64 {
    // The link's text has the inode: "pid:[4026531836]". Following the link costs twice as much.
    let mut link = [0; 64];
    let link = proc_file::read_link(ProcPath::new(format_args!("/proc/{process}/ns/{kind}")).as_str(), &mut link);
    let inode = link.and_then(|link| link.strip_prefix(kind)?.strip_prefix(":[")?.strip_suffix(']')?.parse().ok());
    inode.unwrap_or(0)
}

/// Whether /proc is the kernel's, and numbers processes as this process's own PID namespace does.
pub(crate) fn proc_shows_this_namespace() -> bool {
    file_system::is_procfs(c"/proc") && namespace_pids("self") == Some(NamespacePids::only(process::pid()))
}

/// The process that thread `tid` belongs to; 0: it cannot be seen.
pub(crate) fn process_of(tid: u32) -> i32 {
    status_field(format_args!("/proc/{tid}/status"), b"Tgid:", |value| value.trim().parse().ok()).unwrap_or(0)
}

/// What `read` makes of the value of a line of a status file.
fn status_field<T>(path: fmt::Arguments<'_>, field: &[u8], read: impl Fn(&str) -> Option<T>) -> Option<T> {
    // As bytes: the command's name, which is in the file, too, may be cut in the middle of a character.
    proc_file::find_line(ProcPath::new(path).as_str(), |line| {
        read(std::str::from_utf8(line.strip_prefix(field)?).ok()?)
    })
}

/// The ids of one process in the PID namespaces that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sys) struct NamespacePids {
    /// In the namespace of /proc.
    pub(in crate::sys) outermost: i32,
    /// In its own.
    innermost: i32,
    count: usize,
}

impl NamespacePids {
    /// Of a process whose own namespace is that of /proc.
    pub(in crate::sys) fn only(id: i32) -> Self {
        Self { outermost: id, innermost: id, count: 1 }
    }
}

/// The ids of a process ("self" or a number).
pub(in crate::sys) fn namespace_pids(process: &str) -> Option<NamespacePids> {
    status_field(format_args!("/proc/{process}/status"), b"NSpid:", |value| {
        let mut ids = value.split_ascii_whitespace().map(|id| id.parse().ok());
        let first = NamespacePids::only(ids.next()??);
        ids.try_fold(first, |ids, innermost| Some(NamespacePids { innermost: innermost?, count: ids.count + 1, ..ids }))
    })
}

/// The id of this boot. A process that cannot read it, because it has no free descriptor or no /proc, gets an error: it must
/// not take this boot for another.
pub(crate) fn boot_id() -> Result<[u8; 16], Errno> {
    // Read once in a process: it does not change.
    static KNOWN: OnceBox<[u8; 16]> = OnceBox::new();
    let read = || {
        let mut text = [0; 64];
        let text =
            proc_file::read("/proc/sys/kernel/random/boot_id", &mut text).ok_or_else(|| match Errno::last() {
                short @ Errno(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => short,
                // Not ENOENT: it would say that the segment is missing.
                _ => Errno(libc::EOPNOTSUPP),
            })?;
        std::str::from_utf8(text).ok().and_then(uuid).ok_or(Errno(libc::EOPNOTSUPP))
    };
    KNOWN.get_or_make(read).copied()
}

fn uuid(text: &str) -> Option<[u8; 16]> {
    let digits = text.trim_end().replace('-', "");
    let number = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32)?;
    Some(number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the calling thread, which is to end after this: the tests share the process.
    fn own_ids() -> Option<NamespacePids> {
        namespace_pids("thread-self")
    }

    #[test]
    fn a_command_that_is_cut_in_the_midst_of_a_character_hides_nothing() {
        let ids = std::thread::spawn(|| {
            // SAFETY: prctl(2) with PR_SET_NAME reads the string, and names the calling thread alone.
            assert_eq!(unsafe { libc::prctl(libc::PR_SET_NAME, c"\xd0\xbb\xd0".as_ptr()) }, 0);
            assert!(std::str::from_utf8(&proc_file::read_all("/proc/thread-self/status").unwrap()).is_err());
            // SAFETY: gettid(2) cannot fail.
            (own_ids(), unsafe { libc::gettid() })
        });
        let (ids, tid) = ids.join().unwrap();
        assert_eq!(ids.unwrap().innermost, tid);
    }

    #[test]
    fn more_groups_than_a_page_can_list_hide_nothing() {
        let ids = std::thread::spawn(|| {
            let groups: Vec<libc::gid_t> = (4_000_000_000..).take(65_536).collect();
            // SAFETY: setgroups(2) reads that many numbers. Not by the libc, which would do it to every thread.
            if unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) } != 0 {
                return None;
            }
            // SAFETY: as above.
            Some((own_ids(), unsafe { libc::gettid() }))
        });
        // Only root may.
        if let Some((ids, tid)) = ids.join().unwrap() {
            assert_eq!(ids.unwrap().innermost, tid);
        }
    }

    #[test]
    fn a_namespace_is_the_inode_of_its_file() {
        use std::os::unix::fs::MetadataExt;
        let inode = |kind| std::fs::metadata(format!("/proc/self/ns/{kind}")).unwrap().ino();
        let here = Namespaces::current();
        assert_eq!((here.pid_namespace, here.time_namespace), (inode("pid"), inode("time")));
        assert_eq!(namespace("self", "no such kind"), 0);
    }

    #[test]
    fn a_boot_has_an_id() {
        assert_ne!(boot_id().unwrap(), [0; 16]);
        assert_eq!(uuid("not an id"), None);
    }
}
