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

/// What every fallible call of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed: the storage, the reason with its numbers, and through [`Display`](fmt::Display) a sentence
/// that says the way out.
///
/// One pointer wide, so that a `Result` of the lock calls travels in registers; the sentence is composed only when
/// somebody asks for it.
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

    /// A failure that concerns no storage, such as a NULL manager.
    pub(crate) fn without_storage(reason: Reason) -> Self {
        Self(Box::new(Failure { storage: Arc::default(), reason }))
    }

    /// The storage as it was named by the caller; empty where none is concerned.
    #[must_use]
    pub fn storage(&self) -> &Path {
        &self.0.storage
    }

    /// What went wrong, with the numbers that disagree.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        &self.0.reason
    }

    /// The same, for whoever names the storage.
    pub(crate) fn into_reason(self) -> Reason {
        self.0.reason
    }

    /// The positive errno value of this failure, as the C interface returns it negated.
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
    /// Keeps the errno, so that `kind()` answers; the sentence is in the `Display` of the original.
    fn from(error: Error) -> Self {
        Self::from_raw_os_error(error.errno())
    }
}

/// A link of a deadlock: a lock and the thread that holds it.
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
    /// `EINVAL`: an argument that no storage could accept.
    BadArgument(&'static str),
    /// `EINVAL`: the name of the storage cannot be one.
    BadPath(&'static str),
    /// `EINVAL`: more locks than a segment may have.
    TooManyLocks {
        /// How many were asked for.
        asked: u32,
        /// How many a segment may have.
        most: u32,
    },
    /// `EINVAL`: growing to fewer locks than there are.
    Shrinking {
        /// How many there are.
        there: u32,
        /// How many were asked for.
        asked: u32,
    },
    /// `EINVAL`: there is no lock of that id.
    OutOfRange {
        /// The id that was asked for.
        id: u32,
        /// How many locks there are; ids go from 0 to one less.
        num_locks: u32,
    },
    /// `ENOENT`: nothing of that name.
    NotFound,
    /// `ENOENT`: the directory that something is to be made in is missing.
    NoParent,
    /// `EEXIST`: creating what exists.
    Exists,
    /// `ERANGE`: the segment has another number of locks.
    WrongCount {
        /// How many it has.
        there: u32,
        /// How many were asked for, rounded as creation would.
        asked: u32,
    },
    /// `EPROTO`: no segment of ours.
    NotASegment(&'static str),
    /// `EPROTO`: a segment of ours whose parts disagree.
    Damaged {
        /// Which part.
        what: &'static str,
        /// What stands there.
        found: u64,
        /// What should.
        expected: u64,
    },
    /// `EPROTO`: mutexes that lock in another way than those of this libc, by the flags of their kind, or that another
    /// libc or architecture initialised.
    ForeignMutex {
        /// The lock; `None` for the mutex that guards the bitmaps.
        id: Option<u32>,
        /// The word by which this libc knows its kind of mutex, as found.
        found: u32,
        /// As this libc writes it.
        expected: u32,
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
    /// `EACCES`: the manager was opened only to look.
    ReadOnly,
    /// `ENOSPC`: the file system is full.
    NoSpace {
        /// How many bytes were to be reserved.
        bytes: u64,
    },
    /// `EOPNOTSUPP`: a network or FUSE file system, whose shared memory is not shared between hosts.
    NetworkFileSystem {
        /// The magic number of statfs(2).
        magic: u64,
    },
    /// `EOPNOTSUPP`: what this manager or layout cannot do.
    Unsupported(&'static str),
    /// `EOPNOTSUPP`: an in-memory manager of the parent's, in a forked child.
    ForkedChild,
    /// `EOPNOTSUPP`: a child made behind the libc's back, whose locks would be taken in its parent's name.
    ClonedChild,
    /// `EOPNOTSUPP`: a sandbox, such as seccomp(2), forbids a system call that the library cannot do without.
    Forbidden {
        /// The call.
        call: &'static str,
    },
    /// `EDEADLK`: a call in a signal handler would have to wait for the call of the same thread in whose midst the handler
    /// came.
    Interrupted,
    /// `ENOLCK`: every lock is allocated.
    Exhausted {
        /// How many there are.
        num_locks: u32,
    },
    /// `ENOENT`: freeing a lock that is not allocated.
    NotAllocated {
        /// The lock.
        id: u32,
    },
    /// `EEXIST`: allocating a given id that is allocated.
    Allocated {
        /// The lock.
        id: u32,
    },
    /// `EBUSY`: trying a lock that is held.
    Held {
        /// The lock.
        id: u32,
        /// The thread that holds it as the storage names it; 0 where it does not say.
        holder: u32,
    },
    /// `ETIMEDOUT`: the time was up before the lock was free.
    TimedOut {
        /// The lock.
        id: u32,
        /// How long was to be waited.
        timeout_ns: u64,
        /// The thread that holds it as the storage names it; 0 where it does not say.
        holder: u32,
    },
    /// `ECANCELED`: the wait was ended by its cancel object.
    Cancelled {
        /// The lock.
        id: u32,
    },
    /// `EBUSY`: freeing a cancel object that waits still use.
    CancelInUse {
        /// How many.
        waits: u32,
    },
    /// `EBUSY`: changing who owns the locks of a manager that has taken some.
    OwnershipSettled,
    /// `EDEADLK`: the calling thread holds the lock it asks for.
    SelfDeadlock {
        /// The lock.
        id: u32,
    },
    /// `EDEADLK`: the call closed a cycle of threads that wait for each other's locks.
    Deadlock {
        /// The lock that was asked for.
        id: u32,
        /// The cycle, from that lock on: each holder waits for the next lock, and the caller holds the last.
        cycle: Vec<Waits>,
    },
    /// `EAGAIN`: there is no room for one more reader.
    TooManyReaders {
        /// The lock.
        id: u32,
    },
    /// `EPERM`: unlocking what the caller does not hold.
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
    /// `ENOTRECOVERABLE`: the mutex that guards the bitmaps stays taken, and nobody can say that its holder is gone.
    BitmapsHeld {
        /// The thread that its word names; 0 where it names none.
        holder: u32,
        /// How long it was waited for.
        waited_ms: u64,
    },
    /// `ESTALE`: the storage was removed under this manager.
    Removed,
    /// `ESTALE`: the segment was made under another boot's id, and no process uses it.
    BeforeBoot,
    /// `EPROTO`: the segment has another layout than the one that was asked for.
    WrongLayout {
        /// What it has.
        there: Layout,
        /// What was asked for.
        asked: Layout,
    },
    /// `EMFILE`: this process has as many managers open on native segments as there can be.
    TooManyManagers,
    /// `EUSERS`: more processes use the segment than it has room for.
    TooManyProcesses {
        /// How many it has room for.
        most: u32,
    },
    /// `EBUSY`: somebody keeps a record lock on the segment, as its remover would.
    RemovalHeld {
        /// How long it was waited for.
        waited_ms: u64,
    },
    /// `EBUSY`: closing while this process holds a lock through the manager.
    StillHeld {
        /// One such lock.
        id: u32,
    },
    /// `EBUSY`: closing while another thread waits in a call on the manager.
    StillWaiting {
        /// How many threads.
        threads: u32,
    },
    /// `EBUSY`: repairing a lock whose holder lives.
    HolderLives {
        /// The lock.
        id: u32,
        /// The thread that holds it.
        holder: u32,
    },
    /// `EBUSY`: repairing a lock of whose holder nothing certain can be said.
    CannotJudge {
        /// The lock.
        id: u32,
        /// The thread that its word names.
        holder: u32,
        /// What stands in the way.
        why: &'static str,
    },
    /// `EBADF`: the program closed the descriptor of the table file; the next call opens it anew.
    TableLost,
    /// `EAGAIN`: the files of a lock were removed as often as they were opened.
    Unsettled {
        /// The lock.
        id: u32,
        /// How often.
        rounds: u32,
    },
    /// `EIO`: a panic inside the library was caught at the C boundary.
    Panicked(String),
    /// `EACCES` for a symbolic link, `EPROTO` for what else is no regular file: where the file of a lock, or the table, would
    /// be.
    StrayFile {
        /// Its name in the directory.
        name: String,
        /// Whether it is a symbolic link.
        is_link: bool,
    },
    /// `EBUSY`: repairing a lock that a living process has.
    ProcessHolds {
        /// The lock.
        id: u32,
        /// The process; 0 where it cannot be seen from here.
        pid: u32,
    },
    /// A system call failed; its errno passes through.
    System {
        /// What was being done.
        doing: &'static str,
        /// The errno.
        errno: Errno,
    },
    /// A system call failed in a call that one lock was the matter of; its errno passes through.
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
    /// What a failure of fcntl(2) on a descriptor that is open means: it has no permissions of a file to ask for.
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

    /// Whether it owns no memory.
    pub(crate) fn is_plain(&self) -> bool {
        !matches!(self, Self::Deadlock { .. } | Self::Panicked(_) | Self::StrayFile { .. })
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
            Self::System { errno, .. } | Self::SystemAtLock { errno, .. } => errno.0,
        }
    }
}
