// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The error type: why a call failed, on which storage, with which numbers. The only place where failures meet
//! errno values ([`Reason::errno`]); the sentences are in `error/sentence.rs`.

mod sentence;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::manager::Layout;
use crate::sys::Errno;

/// The result of every call of this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed: the storage and the reason with its numbers. [`Display`](fmt::Display) writes them as one sentence
/// that also says what to do.
///
/// It is one pointer wide, so a `Result` of a lock call travels in registers. The sentence is composed when it is asked
/// for.
#[must_use]
pub struct Error(Box<Failure>);

struct Failure {
    storage: Arc<PathBuf>,
    reason: Reason,
}

impl Error {
    /// A failure of `storage` for `reason`.
    pub(crate) fn new(storage: &Arc<PathBuf>, reason: Reason) -> Self {
        Self(Box::new(Failure { storage: Arc::clone(storage), reason }))
    }

    /// A failure that concerns no storage: for example, the manager is NULL.
    pub(crate) fn without_storage(reason: Reason) -> Self {
        Self(Box::new(Failure { storage: Arc::default(), reason }))
    }

    /// The storage, as the caller named it. Empty if the failure concerns no storage.
    #[must_use]
    pub fn storage(&self) -> &Path {
        &self.0.storage
    }

    /// What went wrong, with its numbers.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        &self.0.reason
    }

    /// The reason alone, for a caller that adds the storage itself.
    pub(crate) fn into_reason(self) -> Reason {
        self.0.reason
    }

    /// The errno value of this failure, positive. The C interface returns it negated.
    #[must_use]
    pub fn errno(&self) -> i32 {
        self.0.reason.errno()
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error").field("storage", &self.0.storage).field("reason", &self.0.reason).finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        sentence::write(f, &self.0.storage, &self.0.reason)
    }
}

impl std::error::Error for Error {}

impl From<Error> for std::io::Error {
    /// Keeps the errno, so that `kind()` works. The sentence is lost: take it from the original's `Display` first.
    fn from(error: Error) -> Self {
        Self::from_raw_os_error(error.errno())
    }
}

/// One link of a deadlock: a lock and the thread that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// The lock.
    pub id: u32,
    /// The holder's process as the caller's PID namespace sees it, else 0.
    pub pid: i32,
    /// The holder's thread as the caller's PID namespace sees it, else 0.
    pub tid: i32,
}

/// The ways a call can fail. Each has one errno and one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// `EINVAL`: an argument is invalid for every storage.
    BadArgument(&'static str),
    /// `EINVAL`: the path is not a valid name for a storage.
    BadPath(&'static str),
    /// `EINVAL`: more locks were asked for than a segment may have.
    TooManyLocks {
        /// How many were asked for.
        asked: u32,
        /// How many a segment may have.
        most: u32,
    },
    /// `EINVAL`: growth to fewer locks than there are.
    Shrinking {
        /// How many there are.
        there: u32,
        /// How many were asked for.
        asked: u32,
    },
    /// `EINVAL`: no lock has that id.
    OutOfRange {
        /// The id that was asked for.
        id: u32,
        /// How many locks there are. Ids go from 0 to one less.
        num_locks: u32,
    },
    /// `ENOENT`: no storage has that name.
    NotFound,
    /// `ENOENT`: the parent directory does not exist.
    NoParent,
    /// `EEXIST`: the storage to be created exists already.
    Exists,
    /// `ERANGE`: the segment has another number of locks.
    WrongCount {
        /// How many it has.
        there: u32,
        /// How many were asked for, rounded up as at creation.
        asked: u32,
    },
    /// `EPROTO`: the storage is not one of this library.
    NotASegment(&'static str),
    /// `EPROTO`: the segment is damaged: its parts disagree.
    Damaged {
        /// Which part.
        what: &'static str,
        /// Its value.
        found: u64,
        /// The value that it should have.
        expected: u64,
    },
    /// `EPROTO`: a mutex that this libc cannot use: the flags of its kind make it lock in another way, or another libc or
    /// architecture initialised it.
    ForeignMutex {
        /// The lock; `None` for the mutex that guards the bitmaps.
        id: Option<u32>,
        /// The word in which this libc keeps the kind of a mutex, as found.
        found: u32,
        /// The same word as this libc writes it.
        expected: u32,
    },
    /// `EPROTO`: the mutexes of the segment are another libc's, as in a Podman of that libc.
    OtherLibc {
        /// The libc that initialised them.
        made_by: &'static str,
        /// The libc that this library was built for.
        built_for: &'static str,
    },
    /// `EACCES`: the last component of the path is a symbolic link.
    SymbolicLink,
    /// `EACCES`: the owner is neither the caller nor root.
    NotTrusted {
        /// The user id that owns the storage.
        owner: u32,
        /// The caller's effective user id.
        caller: u32,
    },
    /// `EACCES`: the manager was opened read only.
    ReadOnly,
    /// `ENOSPC`: the file system is full.
    NoSpace {
        /// How many bytes were needed.
        bytes: u64,
    },
    /// `EOPNOTSUPP`: a network or FUSE file system, where hosts do not share memory.
    NetworkFileSystem {
        /// The magic number of statfs(2).
        magic: u64,
    },
    /// `EOPNOTSUPP`: this manager or layout cannot do that.
    Unsupported(&'static str),
    /// `EOPNOTSUPP`: a forked child used an in-memory manager of its parent.
    ForkedChild,
    /// `EOPNOTSUPP`: a child that was cloned behind the libc's back would take a lock in its parent's name.
    ClonedChild,
    /// `EOPNOTSUPP`: a sandbox, such as seccomp(2), forbids a system call that the library needs.
    Forbidden {
        /// The call.
        call: &'static str,
    },
    /// `EDEADLK`: a call in a signal handler would have to wait for the call of the same thread that the signal
    /// interrupted.
    Interrupted,
    /// `ENOLCK`: every lock is allocated.
    Exhausted {
        /// How many there are.
        num_locks: u32,
    },
    /// `ENOENT`: the lock to be freed is not allocated.
    NotAllocated {
        /// The lock.
        id: u32,
    },
    /// `EEXIST`: the id to be allocated is allocated already.
    Allocated {
        /// The lock.
        id: u32,
    },
    /// `EBUSY`: a try found the lock held.
    Held {
        /// The lock.
        id: u32,
        /// The thread that holds it, as the storage names it; 0 if the storage does not say.
        holder: u32,
    },
    /// `ETIMEDOUT`: the lock did not become free in time.
    TimedOut {
        /// The lock.
        id: u32,
        /// The timeout, in nanoseconds.
        timeout_ns: u64,
        /// The thread that holds it, as the storage names it; 0 if the storage does not say.
        holder: u32,
    },
    /// `ECANCELED`: the cancel object ended the wait.
    Cancelled {
        /// The lock.
        id: u32,
    },
    /// `EBUSY`: waits still use the cancel object that was to be freed.
    CancelInUse {
        /// How many.
        waits: u32,
    },
    /// `EBUSY`: the ownership of a manager was set after its first lock call.
    OwnershipSettled,
    /// `EDEADLK`: the calling thread already holds the lock that it asks for.
    SelfDeadlock {
        /// The lock.
        id: u32,
    },
    /// `EDEADLK`: the call would close a cycle of threads that wait for each other's locks.
    Deadlock {
        /// The lock that was asked for.
        id: u32,
        /// The cycle, beginning with that lock: each holder waits for the next lock, and the caller holds the last.
        cycle: Vec<Waits>,
    },
    /// `EAGAIN`: there is no room for one more reader.
    TooManyReaders {
        /// The lock.
        id: u32,
    },
    /// `EPERM`: the caller does not hold the lock that it unlocks.
    NotHolder {
        /// The lock.
        id: u32,
    },
    /// `ENOLCK`: this thread holds as many locks as the kernel can free when it dies.
    TooManyHeld {
        /// The most that one thread may hold.
        most: u32,
    },
    /// `ENOTRECOVERABLE`: the state of the lock is lost.
    LockLost {
        /// The lock.
        id: u32,
    },
    /// `ENOTRECOVERABLE`: the mutex that guards the bitmaps stays held, and its holder cannot be proven dead.
    BitmapsHeld {
        /// The thread that its word names; 0 if it names none.
        holder: u32,
        /// How long the call waited for it, in milliseconds.
        waited_ms: u64,
    },
    /// `ESTALE`: the storage was removed under this manager.
    Removed,
    /// `ESTALE`: the segment was made under another boot id, and no process uses it.
    BeforeBoot,
    /// `EPROTO`: the segment has another layout than the one that was asked for.
    WrongLayout {
        /// The layout that it has.
        there: Layout,
        /// The layout that was asked for.
        asked: Layout,
    },
    /// `EMFILE`: this process has too many managers open on native segments.
    TooManyManagers,
    /// `EUSERS`: the segment has no room for one more process.
    TooManyProcesses {
        /// How many it has room for.
        most: u32,
    },
    /// `EBUSY`: another process holds the record lock that the remover of a segment needs.
    RemovalHeld {
        /// How long the call waited for it, in milliseconds.
        waited_ms: u64,
    },
    /// `EBUSY`: the process holds a lock through the manager that was to be closed.
    StillHeld {
        /// One such lock.
        id: u32,
    },
    /// `EBUSY`: another thread waits in a call on the manager that was to be closed.
    StillWaiting {
        /// How many threads.
        threads: u32,
    },
    /// `EBUSY`: the holder of the lock to be repaired is alive.
    HolderLives {
        /// The lock.
        id: u32,
        /// The thread that holds it.
        holder: u32,
    },
    /// `EBUSY`: the holder of the lock to be repaired can neither be proven dead nor alive.
    CannotJudge {
        /// The lock.
        id: u32,
        /// The thread that its word names.
        holder: u32,
        /// Why it cannot be judged.
        why: &'static str,
    },
    /// A backend in another library failed; its errno passes through.
    OfBackend {
        /// The errno.
        errno: Errno,
        /// What the backend says.
        text: String,
    },
    /// `EBADF`: the program closed the descriptor of the lock directory's table. The next call opens it anew.
    TableLost,
    /// `EAGAIN`: the file of a lock was removed each time that the call opened it.
    Unsettled {
        /// The lock.
        id: u32,
        /// How often.
        rounds: u32,
    },
    /// `EIO`: a panic inside the library was caught at the C boundary.
    Panicked(String),
    /// Something else is in the place of a lock's file or of the table: `EACCES` if it is a symbolic link, `EPROTO` if it is
    /// any other file that is not regular.
    StrayFile {
        /// Its name in the directory.
        name: String,
        /// Whether it is a symbolic link.
        is_link: bool,
    },
    /// `EBUSY`: a living process holds the record lock of the lock to be repaired.
    ProcessHolds {
        /// The lock.
        id: u32,
        /// The process; 0 if it cannot be seen from here.
        pid: u32,
    },
    /// A system call failed; its errno passes through.
    System {
        /// What was being done.
        doing: &'static str,
        /// The errno.
        errno: Errno,
    },
    /// A system call failed in a call that concerned one lock; its errno passes through.
    SystemAtLock {
        /// The lock.
        id: u32,
        /// What was being done.
        doing: &'static str,
        /// The errno.
        errno: Errno,
    },
}

impl Reason {
    /// The reason for a failure to have memory that no child inherits. `EOPNOTSUPP` comes from the library's own probe.
    pub(crate) fn of_reserving(errno: Errno) -> Self {
        match errno.0 {
            libc::EOPNOTSUPP => Self::Unsupported(
                "this system accepts madvise(MADV_WIPEONFORK) and does not do it, as qemu-user does, so a child would take its \
                 parent's locks for its own; run the program on a real kernel, which may be one in qemu-system",
            ),
            _ => Self::System { doing: "reserving memory", errno },
        }
    }

    /// The reason for a failure of fcntl(2) on an open descriptor. File permissions play no part there, so `EPERM` comes from
    /// a sandbox.
    pub(crate) fn of_fcntl(doing: &'static str, errno: Errno) -> Self {
        match errno.0 {
            libc::EPERM | libc::ENOSYS => Self::Forbidden { call: "fcntl(2)" },
            _ => Self::System { doing, errno },
        }
    }

    /// The same, of a call that lock `id` is the matter of.
    pub(crate) fn at_lock(self, id: u32) -> Self {
        match self {
            Self::System { doing, errno } => Self::SystemAtLock { id, doing, errno },
            reason => reason,
        }
    }

    /// Whether the reason owns no memory.
    pub(crate) fn is_plain(&self) -> bool {
        !matches!(self, Self::Deadlock { .. } | Self::Panicked(_) | Self::StrayFile { .. } | Self::OfBackend { .. })
    }

    /// The positive errno value that stands for this reason.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::BadArgument(_)
            | Self::BadPath(_)
            | Self::TooManyLocks { .. }
            | Self::Shrinking { .. }
            | Self::OutOfRange { .. } => libc::EINVAL,
            Self::NotFound | Self::NoParent | Self::NotAllocated { .. } => libc::ENOENT,
            Self::Exists | Self::Allocated { .. } => libc::EEXIST,
            Self::WrongCount { .. } => libc::ERANGE,
            Self::NotASegment(_)
            | Self::Damaged { .. }
            | Self::ForeignMutex { .. }
            | Self::OtherLibc { .. }
            | Self::WrongLayout { .. }
            | Self::StrayFile { is_link: false, .. } => libc::EPROTO,
            Self::TooManyProcesses { .. } => libc::EUSERS,
            Self::TooManyManagers => libc::EMFILE,
            Self::SymbolicLink | Self::StrayFile { .. } | Self::NotTrusted { .. } | Self::ReadOnly => libc::EACCES,
            Self::NoSpace { .. } => libc::ENOSPC,
            Self::NetworkFileSystem { .. }
            | Self::Unsupported(_)
            | Self::ForkedChild
            | Self::ClonedChild
            | Self::Forbidden { .. } => libc::EOPNOTSUPP,
            Self::Exhausted { .. } | Self::TooManyHeld { .. } => libc::ENOLCK,
            Self::Held { .. }
            | Self::RemovalHeld { .. }
            | Self::StillHeld { .. }
            | Self::StillWaiting { .. }
            | Self::HolderLives { .. }
            | Self::ProcessHolds { .. }
            | Self::CancelInUse { .. }
            | Self::OwnershipSettled
            | Self::CannotJudge { .. } => libc::EBUSY,
            Self::TimedOut { .. } => libc::ETIMEDOUT,
            Self::Cancelled { .. } => libc::ECANCELED,
            Self::SelfDeadlock { .. } | Self::Deadlock { .. } | Self::Interrupted => libc::EDEADLK,
            Self::NotHolder { .. } => libc::EPERM,
            Self::LockLost { .. } | Self::BitmapsHeld { .. } => libc::ENOTRECOVERABLE,
            Self::Removed | Self::BeforeBoot => libc::ESTALE,
            Self::TableLost => libc::EBADF,
            Self::Unsettled { .. } | Self::TooManyReaders { .. } => libc::EAGAIN,
            Self::Panicked(_) => libc::EIO,
            Self::System { errno, .. } | Self::SystemAtLock { errno, .. } | Self::OfBackend { errno, .. } => errno.0,
        }
    }
}
