// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether another thread or process still lives, as the kernel and /proc tell.
//!
//! A thread is called dead only if nothing else is possible. A file that is missing in /proc proves nothing: /proc may be hidden,
//! not mounted, or another PID namespace's. So a check sends signal 0 first: ESRCH says "gone". It believes /proc only if
//! that shows this process's own PID namespace.

pub(crate) mod file_locks;
pub(crate) mod mapped_file;
pub(in crate::sys) mod proc_file;
mod stat;

use crate::sys::Errno;
use crate::sys::process;
use crate::sys::process::namespaces::proc_shows_this_namespace;

use proc_file::ProcPath;
use stat::Stat;

/// PF_EXITING and PF_SIGNALED of the kernel's sched.h: such a thread never runs code of its own again.
const EXITING: u64 = 0x4 | 0x400;

/// The most threads of a process that are looked at. A process with more counts as dead only when it is gone.
const MOST_THREADS: usize = 1024;

/// A thread, by numbers of this PID namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ThreadRef {
    pub(crate) pid: i32,
    /// 0: only the process is asked about.
    pub(crate) tid: i32,
    /// The thread had started by this time: the low half of clock ticks since boot. `None`: it is unknown, or the times do not
    /// compare.
    pub(crate) started_by: Option<u32>,
}

impl ThreadRef {
    /// Whether there is no such thread any more.
    pub(crate) fn is_gone(self) -> bool {
        // SAFETY: tgkill(2) with signal 0 sends nothing and touches no memory.
        self.pid > 0 && self.tid > 0 && is_unknown(unsafe { libc::syscall(libc::SYS_tgkill, self.pid, self.tid, 0) })
    }

    /// Whether the thread is exiting and runs no more code of its own, or another thread has its number by now.
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
        self.pid > 0 && is_unknown(unsafe { libc::kill(self.pid, 0) })
    }

    /// Whether every thread of the process is exiting.
    pub(crate) fn process_is_exiting(self) -> bool {
        if self.pid <= 0 || !proc_shows_this_namespace() {
            return false;
        }
        // The list alone is not enough: a live thread may start another behind the reader's back and end. So all threads of
        // the list must be exiting, then the process must have that many threads, and then all must still be exiting.
        let (mut threads, mut count) = ([0; MOST_THREADS], 0);
        let task = ProcPath::new(format_args!("/proc/{}/task", self.pid));
        let listed = proc_file::for_each_number(task.as_str(), |tid| {
            if let Some(place) = threads.get_mut(count) {
                *place = tid;
            }
            count += 1;
        });
        let Some(threads) = threads.get(..count).filter(|_| listed.is_some()) else { return false };
        let exiting = |tid: &i32| stat(self.pid, *tid).is_some_and(|stat| is_exiting(&stat));
        let Some(first) = threads.first().filter(|_| threads.iter().all(exiting)) else { return false };
        let confirmed = stat(self.pid, *first).is_some_and(|stat| stat.num_threads == count as u64);
        confirmed && threads.iter().all(exiting)
    }
}

/// Whether one time is later than another, by their low halves: they are less than eight months apart.
fn is_later(time: u32, than: u32) -> bool {
    time.wrapping_sub(than).cast_signed() > 0
}

fn is_exiting(stat: &Stat) -> bool {
    stat.flags & EXITING != 0
}

fn stat(pid: i32, tid: i32) -> Option<Stat> {
    Stat::read(format_args!("/proc/{pid}/task/{tid}/stat"), tid)
}

/// Whether thread `tid` of this PID namespace may hold a robust mutex: it can still run code of its own, or the kernel has not
/// walked its list of held mutexes yet. Stopped, frozen and traced threads can run. Only a zombie cannot: an exiting thread
/// is still about to give its mutexes up.
pub(crate) fn thread_lives(tid: u32) -> bool {
    let Some(id) = i32::try_from(tid).ok().filter(|&id| id != 0) else { return false };
    // SAFETY: tkill(2) with signal 0 sends nothing and touches no memory.
    let is_there = || !is_unknown(unsafe { libc::syscall(libc::SYS_tkill, id, 0) });
    is_there()
        && match Stat::read(format_args!("/proc/{id}/stat"), id) {
            Some(stat) => !matches!(stat.state, b'Z' | b'X'),
            // /proc may be hidden. Or the thread ended between the two questions: ask the first again.
            None => is_there(),
        }
}

/// Whether a call that sends a signal, or signal 0, found no target. EPERM means that there is one.
fn is_unknown(code: impl Into<i64>) -> bool {
    code.into() != 0 && Errno::last().0 == libc::ESRCH
}

/// Whether `tid` is a thread of the calling process.
pub(crate) fn is_own_thread(tid: u32) -> bool {
    // SAFETY: tgkill(2) with signal 0 sends nothing and touches no memory.
    unsafe { libc::syscall(libc::SYS_tgkill, process::pid(), tid as i32, 0) == 0 }
}

/// Whether a thread of this process sleeps in a system call, as far as can be seen.
pub(crate) fn own_thread_sleeps(tid: i32) -> bool {
    let stat = Stat::read(format_args!("/proc/self/task/{tid}/stat"), tid);
    stat.is_some_and(|stat| matches!(stat.state, b'S' | b'D'))
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
}
