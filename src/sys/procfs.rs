// SPDX-License-Identifier: MIT OR Apache-2.0
//! What /proc and the kernel say of other threads and processes. Absence of a file proves nothing by itself: /proc may
//! be hidden, missing, or another PID namespace's.

use std::fs;
use std::path::Path;

use super::{Errno, glance, process};

/// The inode of the PID namespace that the machine boots into (PROC_PID_INIT_INO in the kernel's proc_ns.h). From it
/// every process is seen.
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Whether a thread of this PID namespace can still run code of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thread {
    Lives,
    Gone,
}

/// Whether thread `tid` of this PID namespace lives. Stopped, frozen and traced ones do.
pub(crate) fn thread(tid: u32) -> Thread {
    let Ok(id) = i32::try_from(tid) else {
        return Thread::Gone;
    };
    if id == 0 {
        return Thread::Gone;
    }
    // SAFETY: tkill(2) with signal 0 sends nothing and touches no memory.
    let is_unknown = || unsafe { libc::syscall(libc::SYS_tkill, id, 0) } != 0 && Errno::last().0 == libc::ESRCH;
    if is_unknown() {
        return Thread::Gone;
    }
    match state(tid) {
        // Zombie: the kernel has walked its robust list already, and it runs no more.
        Some('Z' | 'X') => Thread::Gone,
        // /proc may be hidden, or it went in between.
        None if is_unknown() => Thread::Gone,
        _ => Thread::Lives,
    }
}

/// Whether `tid` is a thread of the calling process.
pub(crate) fn is_own_thread(tid: u32) -> bool {
    // SAFETY: tgkill(2) with signal 0 sends nothing and touches no memory.
    unsafe { libc::syscall(libc::SYS_tgkill, process::pid(), tid as i32, 0) == 0 }
}

/// The state letter of /proc/TID/stat.
fn state(tid: u32) -> Option<char> {
    let stat = glance::stat(&format!("/proc/{tid}/stat"), i32::try_from(tid).ok()?)?;
    // The command, in parentheses, may contain anything, parentheses too; nothing after the last one does.
    let after = stat.iter().rposition(|&byte| byte == b')')? + 2;
    stat.get(after).map(|&byte| char::from(byte))
}

/// When a process ("self" or a number) started, in clock ticks since boot; 0 if it cannot be seen. With the id it names
/// a process for good, where the id alone is used again.
pub(crate) fn start_time(process: &str) -> u64 {
    const FIELD: usize = 22;
    let Some(stat) = glance::file(&["/proc/", process, "/stat"].concat()) else { return 0 };
    // The command, in parentheses, may contain anything; the third field follows it.
    let Some(after) = stat.iter().rposition(|&byte| byte == b')') else { return 0 };
    let mut fields = stat[after + 1..].split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    let field = fields.nth(FIELD - 3).and_then(|field| std::str::from_utf8(field).ok());
    field.and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// The process that thread `tid` belongs to, 0 if it cannot be seen.
pub(crate) fn process_of(tid: u32) -> i32 {
    status_field(&tid.to_string(), "Tgid:").and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

fn status_field(process: &str, field: &str) -> Option<String> {
    let status = glance::file(&format!("/proc/{process}/status"))?;
    // As bytes: the command, which is in it as well, may be cut in the midst of a character.
    let value = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(field.as_bytes()))?;
    std::str::from_utf8(value).ok().map(str::to_owned)
}

/// The PID namespace of a process ("self" or a number), as the inode of its /proc/PID/ns/pid; 0 if it cannot be seen.
pub(crate) fn pid_namespace(process: &str) -> u64 {
    namespace(process, "pid")
}

/// A namespace of a process, as the inode of its file in /proc; 0 if it cannot be seen.
pub(super) fn namespace(process: &str, kind: &str) -> u64 {
    // By what the link says, "pid:[4026531836]": following it costs twice as much.
    let link = fs::read_link(["/proc/", process, "/ns/", kind].concat()).unwrap_or_default();
    let inode = link.to_str().and_then(|link| link.strip_prefix(kind)?.strip_prefix(":[")?.strip_suffix(']'));
    inode.and_then(|inode| inode.parse().ok()).unwrap_or(0)
}

/// What a process is known to map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Maps {
    Yes,
    No,
    Unknown,
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
        let maps = glance::whole("/proc/thread-self/maps")?;
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

    /// Whether process `process` ("self" or a number) maps it, too.
    pub(crate) fn is_mapped_by(&self, process: &str) -> Maps {
        let wanted = (self.device.as_slice(), self.inode.as_slice());
        let shows = |maps: &[u8]| maps.split(|&byte| byte == b'\n').any(|line| Self::fields(line) == Some(wanted));
        match fs::read(format!("/proc/{process}/maps")) {
            Err(_) => return Maps::Unknown,
            Ok(maps) if shows(&maps) => return Maps::Yes,
            Ok(maps) if !maps.is_empty() => return Maps::No,
            Ok(_) => {}
        }
        // Nothing at all: the main thread has ended. Its other threads go on with the memory that they shared.
        let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else {
            return Maps::Unknown;
        };
        for thread in threads {
            match thread.and_then(|thread| fs::read(thread.path().join("maps"))) {
                Ok(maps) if shows(&maps) => return Maps::Yes,
                Ok(_) => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {}
                Err(_) => return Maps::Unknown,
            }
        }
        Maps::No
    }
}

/// Why it cannot be excluded that somebody outside of this PID namespace uses a segment.
pub(crate) type Doubt = &'static str;

/// Whether every process that maps the file mapped at `address` has its thread ids from this PID namespace: only then
/// does a thread id found in the file mean the thread of that number here.
pub(crate) fn only_this_namespace_maps(address: usize) -> Result<(), Doubt> {
    if pid_namespace("self") != INITIAL_PID_NAMESPACE {
        return Err("a holder outside of this PID namespace could not be seen from here");
    }
    // A /proc that hides processes, or that belongs to an inner namespace, does not show process 1 as process 1.
    if namespace_ids("1").as_deref() != Some(&[1]) || namespace_ids("self").as_deref() != Some(&[process::pid()]) {
        return Err("/proc does not show all processes");
    }
    let Some(file) = MappedFile::at(address) else {
        return Err("/proc does not show what this process maps");
    };
    let Some(processes) = glance::numbers("/proc") else {
        return Err("/proc cannot be read");
    };
    for id in processes {
        let process = id.to_string();
        let ids = namespace_ids(&process).filter(|ids| ids.first() == Some(&id));
        // One number: its threads are numbered as seen from here.
        if ids.as_ref().is_some_and(|ids| ids.len() == 1) {
            continue;
        }
        let maps = if ids.is_some() { file.is_mapped_by(&process) } else { Maps::Unknown };
        match maps {
            Maps::No => {}
            Maps::Yes => return Err("a process of another PID namespace has the segment mapped"),
            Maps::Unknown if has_ended(&process) => {}
            Maps::Unknown => return Err("a process, maybe of another PID namespace, cannot be looked into"),
        }
    }
    Ok(())
}

/// Whether a process that could not be looked into is no more: only its absence says so, and no other failure does.
fn has_ended(process: &str) -> bool {
    let seen = fs::metadata(Path::new("/proc").join(process));
    seen.is_err_and(|error| matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)))
}

/// The first bytes of all write locks of open file descriptions on a file, as /proc/locks shows them.
pub(crate) fn locked_offsets(device: u64, inode: u64) -> Option<Vec<u64>> {
    let (major, minor) = (libc::major(device), libc::minor(device));
    let file = format!("{major:02x}:{minor:02x}:{inode}");
    let locks = String::from_utf8(glance::at_rest("/proc/locks")?).ok()?;
    // Number: kind, mandatory or advisory, type, pid, file, start, end. Waiters have an arrow behind the number.
    let of_the_file = locks.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let kind = fields.next()?;
        let lock_type = fields.nth(1)?;
        let locked = fields.nth(1)?;
        (kind == "OFDLCK" && lock_type == "WRITE" && locked == file).then(|| fields.next()?.parse().ok())?
    });
    Some(of_the_file.collect())
}

/// The ids of a process in the PID namespaces it is in, from that of /proc inwards.
pub(super) fn namespace_ids(process: &str) -> Option<Vec<i32>> {
    let field = status_field(process, "NSpid:")?;
    field.split_ascii_whitespace().map(|id| id.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the calling thread, which is to end after this: the tests share the process.
    fn own_ids() -> Option<Vec<i32>> {
        namespace_ids("thread-self")
    }

    #[test]
    fn a_command_that_is_cut_in_the_midst_of_a_character_hides_nothing() {
        let ids = std::thread::spawn(|| {
            // SAFETY: prctl(2) with PR_SET_NAME reads the string, and names the calling thread alone.
            assert_eq!(unsafe { libc::prctl(libc::PR_SET_NAME, c"\xd0\xbb\xd0".as_ptr()) }, 0);
            assert!(std::str::from_utf8(&glance::file("/proc/thread-self/status").unwrap()).is_err());
            // SAFETY: gettid(2) cannot fail.
            (own_ids(), unsafe { libc::gettid() })
        });
        let (ids, tid) = ids.join().unwrap();
        assert_eq!(ids.unwrap().last(), Some(&tid));
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
            assert_eq!(ids.unwrap().last(), Some(&tid));
        }
    }

    #[test]
    fn who_has_ended_is_known_by_its_absence() {
        assert!(!has_ended("self"));
        assert!(has_ended(&i32::MAX.to_string()));
    }
}
