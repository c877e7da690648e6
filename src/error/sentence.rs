// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Each failure as one sentence: the storage, the id, the numbers that disagree, the way out.

use std::fmt::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use super::{Reason, Waits};
use crate::Errno;
use crate::manager::Layout;
use crate::sys::mutex::kind;

/// Writes the sentence for a failure of `storage` for `reason`.
pub(super) fn write(f: &mut fmt::Formatter<'_>, storage: &Path, reason: &Reason) -> fmt::Result {
    if !storage.as_os_str().is_empty() {
        write!(f, "{}: ", Escaped(storage))?;
    }
    match reason {
        Reason::BadArgument(what) | Reason::Unsupported(what) => f.write_str(what),
        Reason::OfBackend { text, .. } => write!(f, "{}", Escaped(Path::new(text))),
        Reason::BadPath(why) => {
            write!(f, "not a valid segment name: {why}; use a POSIX name (\"/name\") or the absolute path of a file")
        }
        Reason::TooManyLocks { asked, most } => {
            write!(f, "{asked} locks were asked for, but at most {most} are possible; ask for fewer")
        }
        Reason::Shrinking { there, asked } => {
            write!(f, "has {there} locks and cannot shrink to {asked}; ask for {there} or more")
        }
        Reason::OutOfRange { id, num_locks } => write!(
            f,
            "there is no lock {id}: the storage has {num_locks} locks, with ids from 0 to {}",
            num_locks.saturating_sub(1)
        ),
        Reason::NotFound => write!(f, "does not exist; create it, or open it with open_or_new"),
        Reason::NoParent => write!(
            f,
            "its parent directory does not exist, or /proc is not mounted; create the directory, or mount /proc"
        ),
        Reason::Exists => write!(f, "already exists; open it, or remove it first if nobody uses it any more"),
        Reason::WrongCount { there, asked } => {
            write!(f, "holds {there} locks, {asked} were asked for; open with 0 to take what is there")
        }
        Reason::NotASegment(why) => write!(f, "does not hold locks of this library: {why}; nothing was changed"),
        Reason::StrayFile { name, is_link } => write!(
            f,
            "its file {} is {}, so this library cannot use it; remove that file (nothing was changed)",
            Escaped(Path::new(name)),
            if *is_link { "a symbolic link" } else { "not a regular file" }
        ),
        Reason::Damaged { what, found, expected } => write!(
            f,
            "is damaged, or was made by another version of this library: {what} is {found}, but should be {expected}; use \
             that version, or remove the storage when nobody uses it and create it anew"
        ),
        Reason::ForeignMutex { id, found, expected } => {
            match id {
                Some(id) => write!(f, "the mutex of lock {id}")?,
                None => write!(f, "the mutex that guards the bitmaps")?,
            }
            write_foreign_kind(f, *found, *expected)
        }
        Reason::OtherLibc { made_by, built_for } => write!(
            f,
            "has the mutexes of {made_by}, and this library was built for {built_for}; the two libcs on one segment would give a \
             lock two holders: use it through a library that was built for {made_by}, or give programs of {built_for} a segment \
             of their own (the native layout is the same for both)"
        ),
        Reason::SymbolicLink => {
            write!(f, "is a symbolic link, which the library does not follow; name its target instead")
        }
        Reason::NotTrusted { owner, caller } if owner == caller => write!(
            f,
            "belongs to a user that this user namespace does not map: its owner reads as user {owner}, as the caller does; \
             use storage of your own, map that user, or open it read only to look at it"
        ),
        Reason::NotTrusted { owner, caller } => write!(
            f,
            "belongs to user {owner}, but only storage of the caller (user {caller}) or of root is trusted; use storage of \
             your own, or open it read only to look at it"
        ),
        Reason::ReadOnly => {
            write!(
                f,
                "is open read only, so this manager cannot change it; open it without read only to change something"
            )
        }
        Reason::NoSpace { bytes } => write!(
            f,
            "the file system has no room for {bytes} bytes; free some space or choose another place (nothing was left behind)"
        ),
        Reason::NetworkFileSystem { magic } => write!(
            f,
            "is on a network or FUSE file system (type {magic:#x}), where hosts do not share memory; use a local file \
             system, such as /dev/shm or /run"
        ),
        Reason::ForkedChild => write!(
            f,
            "these locks belong to the process that created them, and this process is a child of it; create a manager in \
             the child"
        ),
        Reason::ClonedChild => write!(
            f,
            "this child was cloned behind the libc's back, so it would take a mutex in its parent's name; create the child \
             with fork, or call exec first"
        ),
        Reason::Forbidden { call } => write!(
            f,
            "a sandbox of this process (seccomp) forbids {call}, and without that call nobody could tell that a holder \
             died; allow the call, or use the locks from a process outside the sandbox"
        ),
        Reason::Interrupted => write!(
            f,
            "this call was made in a signal handler and would wait for the call of the same thread that the signal \
             interrupted; make it outside the handler"
        ),
        Reason::Exhausted { num_locks } => write!(
            f,
            "all {num_locks} locks are allocated; free some, grow the storage if it can grow, or create a larger one"
        ),
        Reason::NotAllocated { id } => {
            write!(f, "lock {id} is not allocated, so it cannot be freed; lock_info tells which locks are allocated")
        }
        Reason::Allocated { id } => write!(f, "lock {id} is already allocated; retrieve it, or allocate another one"),
        Reason::Held { id, holder } => {
            write!(f, "lock {id} is held by {}; wait for it with lock or timed_lock", holder_name(*holder))
        }
        Reason::TimedOut { id, timeout_ns, holder } => write!(
            f,
            "lock {id} did not become free within {:?}: it is held by {}; wait longer, or find the holder with lock_info",
            Duration::from_nanos(*timeout_ns),
            holder_name(*holder)
        ),
        Reason::Cancelled { id } => write!(
            f,
            "the wait for lock {id} was cancelled, so the lock is not held; use a new cancel object for the next wait, since \
             a triggered one stays triggered"
        ),
        Reason::CancelInUse { waits } => {
            write!(f, "{waits} calls still use this cancel object; trigger it and let them return before freeing it")
        }
        Reason::OwnershipSettled => write!(
            f,
            "this manager has already taken a lock, or tried to; set its ownership before its first lock call"
        ),
        Reason::SelfDeadlock { id } => {
            write!(f, "lock {id} is held by this very thread, so waiting for it would never end; unlock it first")
        }
        Reason::Deadlock { id, cycle } => {
            write!(f, "waiting for lock {id} would never end")?;
            for (place, link) in cycle.iter().enumerate() {
                let before = if place == 0 { ": " } else { "; " };
                write!(f, "{before}lock {} is held by {}, which ", link.id, thread_name(*link))?;
                match cycle.get(place + 1) {
                    Some(next) => write!(f, "waits for lock {}", next.id)?,
                    None => write!(f, "is the caller")?,
                }
            }
            write!(
                f,
                "; unlock what the caller holds and start again, and take locks everywhere in the order of their ids"
            )
        }
        Reason::BeforeBoot => write!(
            f,
            "was made under another boot id, and no process uses it: it is from before this boot, or from a container that \
             has a boot id of its own; open it with open_or_new to replace it, or remove it"
        ),
        Reason::WrongLayout { there, asked } => write!(
            f,
            "has the {} layout, but the {} layout was asked for; open it without naming a layout, or use another name",
            layout(*there),
            layout(*asked)
        ),
        Reason::TooManyManagers => write!(
            f,
            "this process already has 65535 managers open on native segments; close some, or share a manager between threads"
        ),
        Reason::TooManyProcesses { most } => write!(
            f,
            "it has room for {most} processes, and as many use it already; close it in some of them, or give the others a \
             segment of their own"
        ),
        Reason::TooManyReaders { id } => write!(
            f,
            "there is no room for one more reader of lock {id}: each lock has 4 places, and all locks of a segment share \
             8192 more; try again when some readers have unlocked"
        ),
        Reason::NotHolder { id } => write!(
            f,
            "lock {id} is not held through this manager by this thread (or by this process, where the process owns its \
             locks); only the holder can unlock it"
        ),
        Reason::TooManyHeld { most } => write!(
            f,
            "this thread already holds {most} locks, and the kernel may not free more than that when a thread dies; unlock \
             some, or take the others in another thread"
        ),
        Reason::LockLost { id } => write!(
            f,
            "the state of lock {id} is lost: its holder died, and a program unlocked it without repairing it; repair_lock \
             makes it usable again"
        ),
        Reason::BitmapsHeld { holder, waited_ms } => write!(
            f,
            "the mutex that guards the bitmaps has been held for {waited_ms} ms by {}, which cannot be proven dead; end that \
             thread, or create the segment anew when nobody uses it",
            holder_name(*holder)
        ),
        Reason::Removed => write!(
            f,
            "was removed while this manager had it open; close the manager and open the name again, because other processes \
             may use the same ids in the storage that has the name now"
        ),
        Reason::RemovalHeld { waited_ms } => write!(
            f,
            "another process has held a record lock on it for {waited_ms} ms, as if to remove it; look in /proc/locks for \
             that process, and call again"
        ),
        Reason::StillHeld { id } => {
            write!(f, "this process still holds lock {id} through this manager; unlock it before closing the manager")
        }
        Reason::StillWaiting { threads } => {
            write!(f, "{threads} other threads wait in calls on this manager; let those calls return before closing it")
        }
        Reason::HolderLives { id, holder } => write!(
            f,
            "lock {id} is held by {}, which is alive; nothing was changed. Wait for it, or end it",
            holder_name(*holder)
        ),
        Reason::ProcessHolds { id, pid } => {
            let holder = if *pid == 0 { "a process that cannot be seen from here" } else { &format!("process {pid}") };
            write!(
                f,
                "lock {id} is held by {holder}, which is alive, or by a child of it; nothing was changed. Wait for it, or \
                 end it"
            )
        }
        Reason::CannotJudge { id, holder, why } => write!(
            f,
            "lock {id} names {} as its holder, and {why}; nothing was changed. Repair it from the initial PID namespace, \
             while no other PID namespace uses the storage",
            holder_name(*holder)
        ),
        Reason::TableLost => {
            write!(f, "the program closed the library's descriptor of .lock_manager; call again to have it opened anew")
        }
        Reason::Unsettled { id, rounds } => write!(
            f,
            "the files of lock {id} were removed {rounds} times while this call tried to take it; call again when the \
             program that removes them has ended"
        ),
        Reason::Panicked(message) => write!(
            f,
            "internal error of the library: {}; if the call was to take a lock, the lock is not held",
            Escaped(Path::new(message))
        ),
        Reason::System { doing, errno } => write!(f, "{doing}: {errno}{}", way_out(*errno)),
        Reason::SystemAtLock { id, doing, errno } => write!(f, "lock {id}: {doing}: {errno}{}", way_out(*errno)),
    }
}

/// Says what is wrong with a mutex of a kind that this libc does not lock as its own.
fn write_foreign_kind(f: &mut fmt::Formatter<'_>, found: u32, expected: u32) -> fmt::Result {
    let mut faults = kind::faults(found).peekable();
    if faults.peek().is_none() {
        return write!(
            f,
            " was initialised by another libc or architecture, or never (its kind is {found:#x}, this libc writes \
             {expected:#x}); two libcs on one segment would give a lock two holders: give each libc a segment of its own"
        );
    }
    for (number, fault) in faults.enumerate() {
        write!(f, "{} {fault}", if number == 0 { " is" } else { ", and" })?;
    }
    write!(
        f,
        " (its kind is {found:#x}, this libc writes {expected:#x}); such a mutex cannot be a lock of this layout: remove \
         the segment when nobody uses it, and create it anew"
    )
}

/// A path in which everything is escaped that would break the line or upset the terminal that shows it.
struct Escaped<'a>(&'a Path);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.as_os_str().as_bytes().utf8_chunks() {
            for character in chunk.valid().chars() {
                if character.is_control() || is_line_or_direction_mark(character) {
                    write!(f, "{}", character.escape_default())?;
                } else {
                    f.write_char(character)?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Line separators and the marks that reorder text also break a line, though Unicode does not count them as control characters.
fn is_line_or_direction_mark(character: char) -> bool {
    matches!(character, '\u{061c}' | '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn layout(layout: Layout) -> &'static str {
    match layout {
        Layout::Libpod => "libpod",
        Layout::Native => "native",
    }
}

fn thread_name(link: Waits) -> String {
    match link {
        Waits { pid: 0, .. } => "a process of another PID namespace".to_owned(),
        Waits { pid, tid: 0, .. } => format!("process {pid}"),
        Waits { pid, tid, .. } => format!("thread {tid} of process {pid}"),
    }
}

fn holder_name(tid: u32) -> String {
    if tid == 0 { "another holder".to_owned() } else { format!("thread {tid}") }
}

/// What the reader can do about an error of the system, where that is known.
fn way_out(errno: Errno) -> &'static str {
    match errno.0 {
        libc::EMFILE => "; close some descriptors, or raise RLIMIT_NOFILE (ulimit -n)",
        libc::ENFILE => "; the system has reached its limit of open files: end some processes, or raise fs.file-max",
        libc::ENOMEM => "; free some memory, or raise RLIMIT_AS or vm.max_map_count, whichever limit is reached",
        libc::EAGAIN => "; unlock some memory, or raise RLIMIT_MEMLOCK (ulimit -l)",
        libc::EROFS => "; remount the file system for writing, or choose another place",
        libc::EACCES | libc::EPERM => "; check its permissions and those of the directories above it",
        libc::EFBIG => "; raise RLIMIT_FSIZE (ulimit -f)",
        libc::ENOTDIR => "; a part of the path is not a directory",
        libc::ENOLCK => "; the kernel has no room for more record locks: unlock some",
        libc::ENOSPC | libc::EDQUOT => "; free some space or inodes, or choose another place",
        libc::EIO => "; see the kernel log for what is wrong with the device",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_break_the_line() {
        let path = Path::new(std::ffi::OsStr::from_bytes(b"/a\nb\x1b[31m\xff\xe2\x80\xa8z"));
        assert_eq!(Escaped(path).to_string(), "/a\\nb\\u{1b}[31m\\xff\\u{2028}z");
    }
}
