// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel says of the end of a thread or process whose numbers are of this PID namespace. Only what cannot be
//! otherwise is an end: a missing file of /proc is nothing, since /proc may be hidden, missing, or another namespace's.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Errno, file, glance, process, procfs};

/// PF_EXITING and PF_SIGNALED of the kernel's sched.h: such a thread never runs code of its own again.
const ENDING: u64 = 0x4 | 0x400;

/// Fields of /proc/PID/task/TID/stat, counted from the one behind the command, which is the third.
const FLAGS: usize = 9 - 3;
const NUM_THREADS: usize = 20 - 3;
const START: usize = 22 - 3;

/// Where this process looks from; 0 is what cannot be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// Numbers of threads and processes compare only within it.
    pub(crate) pid_namespace: u64,
    /// Start times compare only within it.
    pub(crate) time_namespace: u64,
}

impl Surroundings {
    pub(crate) fn here() -> Self {
        Self { pid_namespace: procfs::pid_namespace("self"), time_namespace: time_namespace() }
    }
}

/// The time namespace of this process. Unlike that of its PIDs, a process of one thread may change it (setns).
pub(crate) fn time_namespace() -> u64 {
    procfs::namespace("self", "time")
}

/// Whether the files of /proc are the kernel's and number processes as this one's namespace does.
pub(crate) fn proc_shows_this_namespace() -> bool {
    file::is_procfs(c"/proc") && procfs::namespace_ids("self").as_deref() == Some(&[process::pid()])
}

/// A thread, by numbers of this PID namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Suspect {
    pub(crate) pid: i32,
    pub(crate) tid: i32,
    /// When it started, in clock ticks since boot, the low half. `None`: the times do not compare.
    pub(crate) start: Option<u32>,
}

impl Suspect {
    /// Whether there is no such thread any more.
    pub(crate) fn is_gone(self) -> bool {
        // SAFETY: tgkill(2) with signal 0 sends nothing and touches no memory.
        self.pid > 0 && self.tid > 0 && is_unknown(unsafe { libc::syscall(libc::SYS_tgkill, self.pid, self.tid, 0) })
    }

    /// Whether the thread can do nothing more than end, or another has its number by now.
    pub(crate) fn is_ending(self) -> bool {
        if self.pid <= 0 || self.tid <= 0 || !proc_shows_this_namespace() {
            return false;
        }
        let Some(fields) = stat(self.pid, self.tid) else { return false };
        let started_later = match (self.start, fields.get(START)) {
            (Some(then), Some(&now)) => then != now as u32,
            _ => false,
        };
        started_later || is_ending(&fields)
    }

    /// Whether there is no such process any more.
    pub(crate) fn process_is_gone(self) -> bool {
        // SAFETY: kill(2) with signal 0 sends nothing and touches no memory.
        self.pid > 0 && is_unknown(unsafe { libc::kill(self.pid, 0) }.into())
    }

    /// Whether each thread of the process can do nothing more than end.
    pub(crate) fn process_is_ending(self) -> bool {
        if self.pid <= 0 || !proc_shows_this_namespace() {
            return false;
        }
        // A list alone would bury a live process whose threads hand over to each other: all must still be there, and
        // ending, after their number was confirmed.
        let Some(threads) = threads(self.pid) else { return false };
        let ending = |tid: &i32| stat(self.pid, *tid).is_some_and(|fields| is_ending(&fields));
        let Some(first) = threads.first().filter(|_| threads.iter().all(ending)) else { return false };
        let count = stat(self.pid, *first).and_then(|fields| fields.get(NUM_THREADS).copied());
        count == Some(threads.len() as u64) && threads.iter().all(ending)
    }
}

/// What a call that sends a signal, or none, said of its target. EPERM means that there is one.
fn is_unknown(code: libc::c_long) -> bool {
    code != 0 && Errno::last().0 == libc::ESRCH
}

fn is_ending(fields: &[u64]) -> bool {
    fields.get(FLAGS).is_some_and(|flags| flags & ENDING != 0)
}

fn threads(pid: i32) -> Option<Vec<i32>> {
    glance::numbers(&format!("/proc/{pid}/task"))
}

/// The numbers of a stat file from the third field on; what is no number, such as the state's letter, is 0.
fn stat(pid: i32, tid: i32) -> Option<Vec<u64>> {
    parse(&glance::stat(&format!("/proc/{pid}/task/{tid}/stat"), tid)?)
}

fn parse(stat: &[u8]) -> Option<Vec<u64>> {
    // The command, in parentheses, may contain anything, parentheses too; nothing after the last one does.
    let after = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let text = std::str::from_utf8(&stat[after..]).ok()?;
    Some(text.split_ascii_whitespace().map(|field| field.parse().unwrap_or(0)).collect())
}

/// When the calling thread started, in clock ticks since boot, the low half; 0 if it cannot be seen.
pub(crate) fn own_thread_start() -> u32 {
    // The number that this /proc gives the thread: it may be one of an outer PID namespace.
    let number = fs::read_link("/proc/thread-self").ok().and_then(|link| link.file_name()?.to_str()?.parse().ok());
    let stat = number.and_then(|number| glance::stat("/proc/thread-self/stat", number));
    stat.and_then(|stat| parse(&stat)?.get(START).copied()).unwrap_or(0) as u32
}

/// The id of this boot. A process that cannot read it, for want of a descriptor or of /proc, must not take it for another.
pub(crate) fn boot() -> Result<[u8; 16], Errno> {
    // Once a process: it does not change.
    static KNOWN: AtomicBool = AtomicBool::new(false);
    static HALVES: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
    let mut id = [0; 16];
    if KNOWN.load(Ordering::Acquire) {
        for (place, half) in id.as_chunks_mut::<8>().0.iter_mut().zip(&HALVES) {
            *place = half.load(Ordering::Relaxed).to_ne_bytes();
        }
        return Ok(id);
    }
    let text = glance::file("/proc/sys/kernel/random/boot_id").ok_or_else(|| match Errno::last() {
        short @ Errno(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => short,
        // Not as it is: what is missing is not the segment.
        _ => Errno(libc::EOPNOTSUPP),
    })?;
    id = String::from_utf8(text).ok().and_then(|text| uuid(&text)).ok_or(Errno(libc::EOPNOTSUPP))?;
    for (half, place) in HALVES.iter().zip(id.as_chunks::<8>().0) {
        half.store(u64::from_ne_bytes(*place), Ordering::Relaxed);
    }
    KNOWN.store(true, Ordering::Release);
    Ok(id)
}

fn uuid(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> =
        text.bytes().filter_map(|byte| char::from(byte).to_digit(16).map(|digit| digit as u8)).collect();
    let pairs: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    pairs.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calling_thread_has_not_ended() {
        let (pid, tid) = (process::pid(), process::pid());
        let me = Suspect { pid, tid, start: None };
        assert!(!me.is_gone() && !me.is_ending() && !me.process_is_gone() && !me.process_is_ending());
    }

    #[test]
    fn a_command_may_contain_anything() {
        let fields = parse(b"7 (a ) S 1) R 1 2 3 4 5 4194308 0").unwrap();
        assert!(is_ending(&fields));
    }

    #[test]
    fn a_namespace_is_the_inode_of_its_file() {
        use std::os::unix::fs::MetadataExt;
        let inode = |kind| std::fs::metadata(format!("/proc/self/ns/{kind}")).unwrap().ino();
        let here = Surroundings::here();
        assert_eq!((here.pid_namespace, here.time_namespace), (inode("pid"), inode("time")));
        assert_eq!(procfs::namespace("self", "no such kind"), 0);
    }

    #[test]
    fn a_boot_has_an_id() {
        assert_ne!(boot().unwrap(), [0; 16]);
        assert_eq!(uuid("not an id"), None);
    }
}
