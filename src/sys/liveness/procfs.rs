// SPDX-License-Identifier: MIT OR Apache-2.0
//! What /proc and the kernel say of other threads and processes. Absence of a file proves nothing by itself: /proc may
//! be hidden, missing, or another PID namespace's.

use std::fmt;

use crate::sys::Errno;
use crate::sys::liveness::proc_file;
use crate::sys::liveness::proc_file::ProcPath;
use crate::sys::process;
use crate::sys::syscall::file::Metadata;

/// The inode of the PID namespace that the machine boots into (PROC_PID_INIT_INO in the kernel's proc_ns.h). From it
/// every process is seen.
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Whether thread `tid` of this PID namespace can still run code of its own. Stopped, frozen and traced ones can.
pub(crate) fn thread_lives(tid: u32) -> bool {
    let Some(id) = i32::try_from(tid).ok().filter(|&id| id != 0) else { return false };
    // SAFETY: tkill(2) with signal 0 sends nothing and touches no memory.
    let is_there = || !is_unknown(unsafe { libc::syscall(libc::SYS_tkill, id, 0) });
    is_there()
        && match Stat::read(format_args!("/proc/{id}/stat"), id) {
            // Zombie: the kernel has walked its robust list already, and it runs no more.
            Some(stat) => !matches!(stat.state, b'Z' | b'X'),
            // /proc may be hidden, or it went in between.
            None => is_there(),
        }
}

/// What a call that sends a signal, or none, said of its target. EPERM means that there is one.
pub(super) fn is_unknown(code: libc::c_long) -> bool {
    code != 0 && Errno::last().0 == libc::ESRCH
}

/// Whether `tid` is a thread of the calling process.
pub(crate) fn is_own_thread(tid: u32) -> bool {
    // SAFETY: tgkill(2) with signal 0 sends nothing and touches no memory.
    unsafe { libc::syscall(libc::SYS_tgkill, process::pid(), tid as i32, 0) == 0 }
}

/// What a stat file of a process or thread says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// A letter.
    pub(super) state: u8,
    /// Those of the kernel's sched.h.
    pub(super) flags: u64,
    pub(super) num_threads: u64,
    /// When it started, in clock ticks since boot.
    pub(super) start: u64,
}

impl Stat {
    /// More than the fields that are looked for can take.
    const BYTES: usize = 1024;
    // The fields by their places behind the command, the third of which is the first there.
    const STATE: usize = 0;
    const FLAGS: usize = 9 - 3;
    const NUM_THREADS: usize = 20 - 3;
    const START: usize = 22 - 3;

    /// Of the stat file of that path, if it speaks of the thread of that number.
    pub(super) fn read(path: fmt::Arguments<'_>, number: i32) -> Option<Self> {
        let mut stat = [0; Self::BYTES];
        Self::parse(proc_file::read_self_describing(ProcPath::new(path).as_str(), &mut stat)?, number)
    }

    fn parse(stat: &[u8], number: i32) -> Option<Self> {
        // The command, in parentheses, may contain anything, parentheses too; nothing after the last one does.
        let end = stat.iter().rposition(|&byte| byte == b')')?;
        let named = std::str::from_utf8(&stat[..stat.iter().position(|&byte| byte == b'(')?]).ok()?;
        if named.trim_end().parse() != Ok(number) {
            return None;
        }
        let text = std::str::from_utf8(&stat[end + 1..]).ok()?;
        let field = |index| text.split_ascii_whitespace().nth(index);
        let numeric = |index| field(index)?.parse().ok();
        Some(Self {
            state: *field(Self::STATE)?.as_bytes().first()?,
            flags: numeric(Self::FLAGS)?,
            num_threads: numeric(Self::NUM_THREADS)?,
            start: numeric(Self::START)?,
        })
    }
}

/// Whether a thread of this process sleeps in a call of the kernel, as far as can be seen.
pub(crate) fn own_thread_sleeps(tid: i32) -> bool {
    let stat = Stat::read(format_args!("/proc/self/task/{tid}/stat"), tid);
    stat.is_some_and(|stat| matches!(stat.state, b'S' | b'D'))
}

/// The process that thread `tid` belongs to, 0 if it cannot be seen.
pub(crate) fn process_of(tid: u32) -> i32 {
    status_field(format_args!("/proc/{tid}/status"), b"Tgid:", |value| value.trim().parse().ok()).unwrap_or(0)
}

/// What `read` makes of the value of a line of a status file.
fn status_field<T>(path: fmt::Arguments<'_>, field: &[u8], read: impl Fn(&str) -> Option<T>) -> Option<T> {
    // As bytes: the command, which is in it as well, may be cut in the midst of a character.
    proc_file::find_line(ProcPath::new(path).as_str(), |line| {
        read(std::str::from_utf8(line.strip_prefix(field)?).ok()?)
    })
}

/// The PID namespace of a process ("self" or a number), as the inode of its /proc/PID/ns/pid; 0 if it cannot be seen.
pub(crate) fn pid_namespace(process: &str) -> u64 {
    namespace(process, "pid")
}

/// A namespace of a process, as the inode of its file in /proc; 0 if it cannot be seen.
pub(super) fn namespace(process: &str, kind: &str) -> u64 {
    // By what the link says, "pid:[4026531836]": following it costs twice as much.
    let mut link = [0; 64];
    let link = proc_file::read_link(ProcPath::new(format_args!("/proc/{process}/ns/{kind}")).as_str(), &mut link);
    let inode = link.and_then(|link| link.strip_prefix(kind)?.strip_prefix(":[")?.strip_suffix(']')?.parse().ok());
    inode.unwrap_or(0)
}

/// A file that this process maps, as the lines of /proc/PID/maps name it: by a device and an inode. The device is not
/// that of stat(2) on every file system, so it is taken from there, too.
pub(crate) struct MappedFile {
    device: Vec<u8>,
    inode: Vec<u8>,
    is_deleted: bool,
}

impl MappedFile {
    /// What is mapped at that address in this process. `None` if it cannot be seen.
    pub(crate) fn at(address: usize) -> Option<Self> {
        // Not /proc/self: it shows nothing once the main thread has ended, though others go on.
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

    /// Inode and process of each write lock that a process has (POSIX, not a description's) on a file of the same file
    /// system. The process is 0 where /proc is another PID namespace's, which numbers it otherwise. Where locks come and go
    /// all the while, each look may miss some of those that stay: there it is what any look showed.
    pub(crate) fn process_locks_beside(&self) -> Option<Vec<(u64, i32)>> {
        let numbers_as_here = namespace_ids("self") == Some(Ids::only(process::pid()));
        let see = |lock: FileLock<'_>| {
            let (_, inode) = lock.file.rsplit_once(':').filter(|(device, _)| device.as_bytes() == self.device)?;
            Some((inode.parse().ok()?, if numbers_as_here { lock.pid.max(0) } else { 0 }))
        };
        let mut looks = proc_file::read_until_stable(LOCKS)?;
        let last = looks.pop()?;
        let is_at_rest = looks.last() == Some(&last);
        let earlier = if is_at_rest { &[] } else { looks.as_slice() };
        Some(earlier.iter().chain([&last]).filter_map(|look| write_locks_in(look, "POSIX", see)).flatten().collect())
    }

    /// Whether process `process` ("self" or a number) maps it, too. `None`: it cannot be seen.
    pub(crate) fn is_mapped_by(&self, process: &str) -> Option<bool> {
        let wanted = (self.device.as_slice(), self.inode.as_slice());
        let shows = |maps: &[u8]| maps.split(|&byte| byte == b'\n').any(|line| Self::fields(line) == Some(wanted));
        match proc_file::read_all(&format!("/proc/{process}/maps")) {
            None => return None,
            Some(maps) if shows(&maps) => return Some(true),
            Some(maps) if !maps.is_empty() => return Some(false),
            Some(_) => {}
        }
        // Nothing at all: the main thread has ended. Its other threads go on with the memory that they shared.
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

/// Why it cannot be excluded that somebody outside of this PID namespace uses a segment.
pub(crate) type Doubt = &'static str;

/// Whether every process that maps the file mapped at `address` has its thread ids from this PID namespace: only then
/// does a thread id found in the file mean the thread of that number here.
pub(crate) fn only_this_namespace_maps(address: usize) -> Result<(), Doubt> {
    if pid_namespace("self") != INITIAL_PID_NAMESPACE {
        return Err("a holder outside this PID namespace cannot be seen from here");
    }
    // A /proc that hides processes, or that belongs to an inner namespace, does not show process 1 as process 1.
    if namespace_ids("1") != Some(Ids::only(1)) || namespace_ids("self") != Some(Ids::only(process::pid())) {
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
        let ids = namespace_ids(&process).filter(|ids| ids.outermost == id);
        // One number: its threads are numbered as seen from here.
        if ids == Some(Ids::only(id)) {
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

/// Whether a process that could not be looked into is no more: only its absence says so, and no other failure does.
fn has_ended(process: &str) -> bool {
    is_missing(&format!("/proc/{process}"))
}

fn is_missing(path: &str) -> bool {
    matches!(Metadata::of_path_followed(path.as_bytes()), Err(Errno(libc::ENOENT | libc::ESRCH)))
}

/// The first bytes of all write locks of open file descriptions on a file, as /proc/locks shows them.
pub(crate) fn locked_offsets(device: u64, inode: u64) -> Option<Vec<u64>> {
    let (major, minor) = (libc::major(device), libc::minor(device));
    let file = format!("{major:02x}:{minor:02x}:{inode}");
    write_locks("OFDLCK", |lock| (lock.file == file).then_some(lock.start))
}

const LOCKS: &str = "/proc/locks";

/// What `see` makes of the write locks of that kind.
fn write_locks<T>(kind: &str, see: impl Fn(FileLock<'_>) -> Option<T>) -> Option<Vec<T>> {
    write_locks_in(&proc_file::read_stable(LOCKS)?, kind, see)
}

fn write_locks_in<T>(locks: &[u8], kind: &str, see: impl Fn(FileLock<'_>) -> Option<T>) -> Option<Vec<T>> {
    let locks = std::str::from_utf8(locks).ok()?;
    Some(locks.lines().filter_map(|line| see(FileLock::parse(line, kind)?)).collect())
}

/// A line of /proc/locks that tells of a write lock, and not of one that waits.
struct FileLock<'l> {
    /// 0 or less where it is no process's, or one that cannot be seen from here.
    pid: i32,
    file: &'l str,
    start: u64,
}

impl<'l> FileLock<'l> {
    fn parse(line: &'l str, kind: &str) -> Option<Self> {
        // Number: kind, mandatory or advisory, type, pid, file, start, end. Waiters have an arrow behind the number.
        let mut fields = line.split_ascii_whitespace().skip(1);
        fields.next().filter(|&found| found == kind)?;
        fields.nth(1).filter(|&lock_type| lock_type == "WRITE")?;
        let (pid, file) = (fields.next()?.parse().ok()?, fields.next()?);
        Some(Self { pid, file, start: fields.next()?.parse().ok()? })
    }
}

/// The ids of a process in the PID namespaces that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ids {
    /// In that of /proc.
    outermost: i32,
    /// In its own.
    innermost: i32,
    count: usize,
}

impl Ids {
    /// Of a process whose own namespace is that of /proc.
    pub(super) fn only(id: i32) -> Self {
        Self { outermost: id, innermost: id, count: 1 }
    }
}

/// The ids of a process ("self" or a number).
pub(super) fn namespace_ids(process: &str) -> Option<Ids> {
    status_field(format_args!("/proc/{process}/status"), b"NSpid:", |value| {
        let mut ids = value.split_ascii_whitespace().map(|id| id.parse().ok());
        let first = Ids::only(ids.next()??);
        ids.try_fold(first, |ids, innermost| Some(Ids { innermost: innermost?, count: ids.count + 1, ..ids }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the calling thread, which is to end after this: the tests share the process.
    fn own_ids() -> Option<Ids> {
        namespace_ids("thread-self")
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
    fn a_stat_file_is_believed_of_its_own_thread_only() {
        let own = process::pid();
        let stat = Stat::read(format_args!("/proc/self/stat"), own).unwrap();
        assert_eq!(Stat::read(format_args!("/proc/self/stat"), own + 1), None);
        assert_eq!(Stat::read(format_args!("/proc/1/stat"), own), None);
        assert_eq!(Stat::read(format_args!("/proc/self/no such file"), own), None);
        assert!(stat.start <= crate::sys::syscall::clock::ticks_since_boot() && stat.start != 0);
    }

    #[test]
    fn a_command_may_contain_anything() {
        let stat = Stat::parse(b"7 (a ) S 1) R 1 2 3 4 5 4194308 0 0 0 0 0 0 0 0 20 0 3 0 99 ", 7).unwrap();
        assert_eq!(stat, Stat { state: b'R', flags: 4_194_308, num_threads: 3, start: 99 });
    }

    #[test]
    fn who_has_ended_is_known_by_its_absence() {
        assert!(!has_ended("self"));
        assert!(has_ended(&i32::MAX.to_string()));
    }
}
