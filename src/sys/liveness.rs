// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel says of the end of a thread or process whose numbers are of this PID namespace. Only what cannot be
//! otherwise is an end: a missing file of /proc is nothing, since /proc may be hidden, missing, or another namespace's.

pub(crate) mod proc_file;
pub(crate) mod procfs;

use crate::sys::Errno;
use crate::sys::liveness::proc_file::ProcPath;
use crate::sys::liveness::procfs::{Ids, Stat, is_unknown};
use crate::sys::process;
use crate::sys::process::once_box::OnceBox;
use crate::sys::syscall::file;

/// PF_EXITING and PF_SIGNALED of the kernel's sched.h: such a thread never runs code of its own again.
const EXITING: u64 = 0x4 | 0x400;

/// The most threads that are looked at one by one. A process of more is known by its end alone.
const MOST_THREADS: usize = 1024;

/// Where this process looks from; 0 is what cannot be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Namespaces {
    /// Numbers of threads and processes compare only within it.
    pub(crate) pid_namespace: u64,
    /// Start times compare only within it.
    pub(crate) time_namespace: u64,
}

impl Namespaces {
    pub(crate) fn current() -> Self {
        Self { pid_namespace: procfs::pid_namespace("self"), time_namespace: time_namespace() }
    }
}

/// The time namespace of this process. Unlike that of its PIDs, a process of one thread may change it (setns).
pub(crate) fn time_namespace() -> u64 {
    procfs::namespace("self", "time")
}

/// Whether the files of /proc are the kernel's and number processes as this one's namespace does.
pub(crate) fn proc_shows_this_namespace() -> bool {
    file::is_procfs(c"/proc") && procfs::namespace_ids("self") == Some(Ids::only(process::pid()))
}

/// A thread, by numbers of this PID namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ThreadRef {
    pub(crate) pid: i32,
    pub(crate) tid: i32,
    /// A time by which it had started, in clock ticks since boot, the low half. `None`: it is unknown, or the times do not
    /// compare.
    pub(crate) started_by: Option<u32>,
}

impl ThreadRef {
    /// Whether there is no such thread any more.
    pub(crate) fn is_gone(self) -> bool {
        // SAFETY: tgkill(2) with signal 0 sends nothing and touches no memory.
        self.pid > 0 && self.tid > 0 && is_unknown(unsafe { libc::syscall(libc::SYS_tgkill, self.pid, self.tid, 0) })
    }

    /// Whether the thread can do nothing more than end, or another has its number by now.
    pub(crate) fn is_exiting(self) -> bool {
        if self.pid <= 0 || self.tid <= 0 || !proc_shows_this_namespace() {
            return false;
        }
        let Some(stat) = stat(self.pid, self.tid) else { return false };
        self.started_by.is_some_and(|then| is_later(stat.start as u32, then)) || is_exiting(&stat)
    }

    /// Whether there is no such process any more.
    pub(crate) fn process_is_gone(self) -> bool {
        // SAFETY: kill(2) with signal 0 sends nothing and touches no memory.
        self.pid > 0 && is_unknown(unsafe { libc::kill(self.pid, 0) }.into())
    }

    /// Whether each thread of the process can do nothing more than end.
    pub(crate) fn process_is_exiting(self) -> bool {
        if self.pid <= 0 || !proc_shows_this_namespace() {
            return false;
        }
        // A list alone would bury a live process whose threads hand over to each other: all must still be there, and
        // ending, after their number was confirmed.
        let (mut threads, mut count) = ([0; MOST_THREADS], 0);
        let task = ProcPath::new(format_args!("/proc/{}/task", self.pid));
        let listed = proc_file::for_each_number(task.as_str(), |tid| {
            if let Some(place) = threads.get_mut(count) {
                *place = tid;
            }
            count += 1;
        });
        let Some(threads) = threads.get(..count).filter(|_| listed.is_some()) else { return false };
        let ending = |tid: &i32| stat(self.pid, *tid).is_some_and(|stat| is_exiting(&stat));
        let Some(first) = threads.first().filter(|_| threads.iter().all(ending)) else { return false };
        let confirmed = stat(self.pid, *first).is_some_and(|stat| stat.num_threads == count as u64);
        confirmed && threads.iter().all(ending)
    }
}

/// Of two times whose high halves are lost, and which are less than eight months apart.
fn is_later(time: u32, than: u32) -> bool {
    time.wrapping_sub(than).cast_signed() > 0
}

fn is_exiting(stat: &Stat) -> bool {
    stat.flags & EXITING != 0
}

fn stat(pid: i32, tid: i32) -> Option<Stat> {
    Stat::read(format_args!("/proc/{pid}/task/{tid}/stat"), tid)
}

/// The id of this boot. A process that cannot read it, for want of a descriptor or of /proc, must not take it for another.
pub(crate) fn boot_id() -> Result<[u8; 16], Errno> {
    // Once a process: it does not change.
    static KNOWN: OnceBox<[u8; 16]> = OnceBox::new();
    let read = || {
        let mut text = [0; 64];
        let text =
            proc_file::read("/proc/sys/kernel/random/boot_id", &mut text).ok_or_else(|| match Errno::last() {
                short @ Errno(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => short,
                // Not as it is: what is missing is not the segment.
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

    #[test]
    fn the_calling_thread_has_not_ended() {
        let (pid, tid) = (process::pid(), process::pid());
        let me = ThreadRef { pid, tid, started_by: None };
        assert!(!me.is_gone() && !me.is_exiting() && !me.process_is_gone() && !me.process_is_exiting());
    }

    #[test]
    fn a_thread_that_started_later_is_another_one_of_that_number() {
        let (pid, tid) = (process::pid(), process::pid());
        let start = stat(pid, tid).unwrap().start as u32;
        let known_from = |started_by| ThreadRef { pid, tid, started_by: Some(started_by) };
        for by in [start, start + 1, crate::sys::syscall::clock::ticks_since_boot() as u32] {
            assert!(!known_from(by).is_exiting(), "{by}");
        }
        assert!(known_from(start.wrapping_sub(1)).is_exiting());
        assert!(is_later(0, u32::MAX) && !is_later(u32::MAX, 0));
    }

    #[test]
    fn a_namespace_is_the_inode_of_its_file() {
        use std::os::unix::fs::MetadataExt;
        let inode = |kind| std::fs::metadata(format!("/proc/self/ns/{kind}")).unwrap().ino();
        let here = Namespaces::current();
        assert_eq!((here.pid_namespace, here.time_namespace), (inode("pid"), inode("time")));
        assert_eq!(procfs::namespace("self", "no such kind"), 0);
    }

    #[test]
    fn a_boot_has_an_id() {
        assert_ne!(boot_id().unwrap(), [0; 16]);
        assert_eq!(uuid("not an id"), None);
    }
}
