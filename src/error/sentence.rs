// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Each failure as one sentence: the storage, the id, the numbers that disagree, the way out.

use std::fmt::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Reason, Waits};
use crate::Errno;
use crate::manager::Layout;
use crate::sys::mutex::kind;

/// Writes the sentence of `reason`, which befell `storage`.
pub(super) fn write(f: &mut fmt::Formatter<'_>, storage: &Path, reason: &Reason) -> fmt::Result {
    if !storage.as_os_str().is_empty() {
        write!(f, "{}: ", Escaped(storage))?;
    }
    match reason {
        Reason::BadArgument(what) => write!(f, "{what}"),
        Reason::BadPath(why) => {
            write!(f, "not a name for a segment: {why}; give a POSIX name (\"/name\") or the absolute path of a file")
        }
        Reason::TooManyLocks { asked, most } => {
            write!(f, "{asked} locks were asked for, but there can be {most} at most; ask for fewer")
        }
        Reason::Shrinking { there, asked } => {
            write!(f, "has {there} locks and cannot shrink to {asked}; ask for {there} or more")
        }
        Reason::OutOfRange { id, num_locks } => write!(
            f,
            "there is no lock {id}: the storage has {num_locks}, with ids from 0 to {}",
            num_locks.saturating_sub(1)
        ),
        Reason::NotFound => write!(f, "does not exist; if it is to be used, create it, or open it with open_or_new"),
        Reason::NoParent => write!(
            f,
            "the directory that it is to be made in does not exist, or /proc is not mounted; see to that first"
        ),
        Reason::Exists => {
            write!(f, "exists already; open it, or remove it first if nobody uses it any more")
        }
        Reason::WrongCount { there, asked } => {
            write!(f, "holds {there} locks, {asked} were asked for; open with 0 to take what is there")
        }
        Reason::NotASegment(why) => write!(f, "does not hold locks of this library: {why}; nothing was changed"),
        Reason::StrayFile { name, is_link } => write!(
            f,
            "its file {} is {}, which no lock is; remove that file, nothing was changed",
            Escaped(Path::new(name)),
            if *is_link { "a symbolic link" } else { "no regular file" }
        ),
        Reason::Damaged { what, found, expected } => write!(
            f,
            "is damaged, or made by another version of this library: {what} is {found}, {expected} was expected; use that \
             version, or remove it and create it anew when nobody uses it"
        ),
        Reason::ForeignMutex { id, found, expected } => {
            match id {
                Some(id) => write!(f, "the mutex of lock {id}")?,
                None => write!(f, "the mutex that guards the bitmaps")?,
            }
            write_foreign_kind(f, *found, *expected)
        }
        Reason::SymbolicLink => write!(f, "is a symbolic link, which is not followed; name what it points to"),
        Reason::NotTrusted { owner, caller } if owner == caller => write!(
            f,
            "belongs to a user that is unknown in this user namespace, and so reads as user {owner}, which the caller is; \
             use storage of your own, map that user, or open it read only to look"
        ),
        Reason::NotTrusted { owner, caller } => write!(
            f,
            "belongs to user {owner}, but only storage of the caller (user {caller}) or of root is trusted; use one \
             of your own, or open it read only to look"
        ),
        Reason::ReadOnly => write!(f, "was opened read only; open it for use to change anything"),
        Reason::NoSpace { bytes } => write!(
            f,
            "the file system has no room for {bytes} bytes; free some or choose another place, nothing was left behind"
        ),
        Reason::NetworkFileSystem { magic } => write!(
            f,
            "is on a network or FUSE file system (type {magic:#x}), where memory is not shared between hosts; use a \
             local one such as /dev/shm or /run"
        ),
        Reason::Unsupported(what) => write!(f, "{what}"),
        Reason::ForkedChild => write!(
            f,
            "the locks are of the process that made them, and this is a child of it; make a manager of its own"
        ),
        Reason::ClonedChild => write!(
            f,
            "this child was cloned behind the libc's back, so a mutex would be taken in its parent's name; use fork, \
             or exec first"
        ),
        Reason::Forbidden { call } => write!(
            f,
            "a sandbox of this process (seccomp) forbids {call}, without which it could not be told when a holder dies; \
             allow the call, or use the locks from a process outside of the sandbox"
        ),
        Reason::Interrupted => write!(
            f,
            "this call, in a signal handler, would wait for the call of this same thread that the signal interrupted; \
             call it outside of the handler"
        ),
        Reason::Exhausted { num_locks } => {
            write!(
                f,
                "all {num_locks} locks are allocated; free some, grow the storage if it can, or create a larger one"
            )
        }
        Reason::NotAllocated { id } => {
            write!(f, "lock {id} is not allocated, so there is nothing to free; lock_info tells which are")
        }
        Reason::Allocated { id } => write!(f, "lock {id} is allocated already; retrieve it, or allocate another"),
        Reason::Held { id, holder } => {
            write!(f, "lock {id} is held by {}; wait for it with lock or timed_lock", Holder(*holder))
        }
        Reason::TimedOut { id, timeout_ns, holder } => {
            write!(
                f,
                "lock {id} was not free within {}: it is held by {}; wait longer, or see lock_info for who that is",
                Nanoseconds(*timeout_ns),
                Holder(*holder)
            )
        }
        Reason::Cancelled { id } => {
            write!(f, "the wait for lock {id} was cancelled; the lock is not held. A triggered cancel object stays so")
        }
        Reason::CancelInUse { waits } => {
            write!(f, "{waits} calls still use this cancel object; trigger it and let them end before freeing it")
        }
        Reason::OwnershipSettled => {
            write!(
                f,
                "locks were taken, or asked for, through this manager already; say who owns them before the first"
            )
        }
        Reason::SelfDeadlock { id } => {
            write!(f, "lock {id} is held by this very thread; waiting for it would never end, unlock it first")
        }
        Reason::Deadlock { id, cycle } => {
            write!(f, "waiting for lock {id} would never end: ")?;
            for (place, link) in cycle.iter().enumerate() {
                let wait = if place + 1 == cycle.len() { ", which is the caller" } else { ", which waits for " };
                write!(f, "lock {} is held by {}{wait}", link.id, Thread(link))?;
            }
            write!(f, "; unlock what the caller holds and begin again, always in one order of ids")
        }
        Reason::BeforeBoot => write!(
            f,
            "was made under another boot's id, and no process uses it: it is from before this boot, or of a container that \
             has an id of its own; open it with open_or_new to replace it, or remove it"
        ),
        Reason::WrongLayout { there, asked } => write!(
            f,
            "is in the {} layout, the {} one was asked for; open it without a layout to take what is there, or use \
             another name",
            layout(*there),
            layout(*asked)
        ),
        Reason::TooManyManagers => {
            write!(f, "this process has 65535 managers open on native segments already; close some, or share them")
        }
        Reason::TooManyProcesses { most } => write!(
            f,
            "{most} processes use it already, for more there is no room; close it in some, or give others a segment \
             of their own"
        ),
        Reason::TooManyReaders { id } => write!(
            f,
            "there is no room for one more reader of lock {id}: each lock has 4 places and all of a segment have 8192 in \
             common; try again when some have left"
        ),
        Reason::NotHolder { id } => write!(
            f,
            "lock {id} is not held through this manager by this thread or, where the process owns it, by this process; \
             only its holder can unlock it"
        ),
        Reason::TooManyHeld { most } => write!(
            f,
            "this thread holds {most} locks already, and the kernel frees no more than that reliably when a thread \
             dies; unlock some, or hold the others in another thread"
        ),
        Reason::LockLost { id } => write!(
            f,
            "the state of lock {id} is lost (unlocked by a program that did not repair it after its holder died); \
             repair_lock makes it usable again"
        ),
        Reason::BitmapsHeld { holder, waited_ms } => write!(
            f,
            "the mutex that guards the bitmaps has been held for {waited_ms} ms by {}, of which it cannot be said \
             that it is gone; end that thread, or recreate the segment when nobody uses it",
            Holder(*holder)
        ),
        Reason::Removed => write!(
            f,
            "was removed under this manager; close it and open the name again, or others will take the same ids \
             elsewhere"
        ),
        Reason::RemovalHeld { waited_ms } => write!(
            f,
            "somebody has kept a record lock on it for {waited_ms} ms, as another remover would; see /proc/locks for who \
             that is, and call again"
        ),
        Reason::StillHeld { id } => {
            write!(f, "lock {id} is still held through this manager; unlock it before closing")
        }
        Reason::StillWaiting { threads } => {
            write!(f, "{threads} other threads wait in calls on this manager; let them end before closing")
        }
        Reason::HolderLives { id, holder } => {
            write!(
                f,
                "lock {id} is held by {}, which lives; nothing was changed. Wait for it, or end it",
                Holder(*holder)
            )
        }
        Reason::ProcessHolds { id, pid } => {
            write!(f, "lock {id} is held by ")?;
            match pid {
                0 => write!(f, "a process that cannot be seen from here")?,
                pid => write!(f, "process {pid}")?,
            }
            write!(f, ", which lives, or by a child of it; nothing was changed. Wait for it, or end it")
        }
        Reason::CannotJudge { id, holder, why } => {
            write!(
                f,
                "lock {id} names {} as its holder, and {why}; nothing was changed. Repair it from the initial PID \
                 namespace when no other uses the storage",
                Holder(*holder)
            )
        }
        Reason::TableLost => {
            write!(f, "the descriptor of .lock_manager was closed by the program; call again, and it is opened anew")
        }
        Reason::Unsettled { id, rounds } => write!(
            f,
            "the files of lock {id} were removed {rounds} times while it was being taken; call again when whoever \
             removes them has ended"
        ),
        Reason::Panicked(message) => write!(
            f,
            "a fault of the library itself: {}; if a lock was asked for, it is not held",
            Escaped(Path::new(message))
        ),
        Reason::System { doing, errno } => write!(f, "{doing}: {errno}{}", WayOut(*errno)),
        Reason::SystemAtLock { id, doing, errno } => write!(f, "lock {id}: {doing}: {errno}{}", WayOut(*errno)),
    }
}

/// What is the matter with a mutex whose kind is not one that this libc locks as its own.
fn write_foreign_kind(f: &mut fmt::Formatter<'_>, found: u32, expected: u32) -> fmt::Result {
    let mut faults = kind::faults(found).peekable();
    if faults.peek().is_none() {
        return write!(
            f,
            " was initialised by another libc or architecture, or never (its kind is {found:#x}, this libc writes \
             {expected:#x}); two libcs on one segment would let two holders in: give each a segment of its own"
        );
    }
    for (number, fault) in faults.enumerate() {
        write!(f, "{} {fault}", if number == 0 { " is" } else { ", and" })?;
    }
    write!(
        f,
        " (its kind is {found:#x}, this libc writes {expected:#x}); such a mutex is no lock of this layout: remove the \
         segment when nobody uses it, and create it anew"
    )
}

/// A path with everything escaped that would break the line or the terminal it is shown on.
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

/// Line separators and the marks that reorder text are no control characters by Unicode, yet one line they break.
fn is_line_or_direction_mark(character: char) -> bool {
    matches!(character, '\u{061c}' | '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn layout(layout: Layout) -> &'static str {
    match layout {
        Layout::Libpod => "libpod",
        Layout::Native => "native",
    }
}

struct Thread<'a>(&'a Waits);

impl fmt::Display for Thread<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self.0 {
            Waits { pid: 0, .. } => write!(f, "a process of another PID namespace"),
            Waits { pid, tid: 0, .. } => write!(f, "process {pid}"),
            Waits { pid, tid, .. } => write!(f, "thread {tid} of process {pid}"),
        }
    }
}

/// What can be done about an error of the system's, where that is known.
struct WayOut(Errno);

impl fmt::Display for WayOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.0 {
            libc::EMFILE => write!(f, "; close some descriptors, or raise RLIMIT_NOFILE (ulimit -n)"),
            libc::ENFILE => write!(f, "; the system has no more open files: end some processes, or raise fs.file-max"),
            libc::ENOMEM => {
                write!(f, "; free some memory, or raise RLIMIT_AS or vm.max_map_count, whichever is used up")
            }
            libc::EAGAIN => write!(f, "; unlock some memory, or raise RLIMIT_MEMLOCK (ulimit -l)"),
            libc::EROFS => write!(f, "; remount the file system for writing, or choose another place"),
            libc::EACCES | libc::EPERM => write!(f, "; see the permissions of it and of the directories above it"),
            libc::EFBIG => write!(f, "; raise RLIMIT_FSIZE (ulimit -f)"),
            libc::ENOTDIR => write!(f, "; a part of the path is no directory"),
            libc::ENOLCK => write!(f, "; the kernel has no room for more record locks: unlock some"),
            libc::ENOSPC | libc::EDQUOT => write!(f, "; free some space or inodes, or choose another place"),
            libc::EIO => write!(f, "; see the kernel's log for what ails the device"),
            _ => Ok(()),
        }
    }
}

struct Holder(u32);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => write!(f, "another holder"),
            tid => write!(f, "thread {tid}"),
        }
    }
}

struct Nanoseconds(u64);

impl fmt::Display for Nanoseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", std::time::Duration::from_nanos(self.0))
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
