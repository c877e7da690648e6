// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The trait that every manager implements, and the types of its arguments and results.

use std::time::Duration;

use crate::{Cancel, Error, Reason, Result};

/// The count that [`Manager::available_locks`] and [`Manager::num_locks`] return if there is no maximum.
pub const UNLIMITED: u32 = u32::MAX;

const ONE_HOST: &str = "these locks are those of one host, where a holder keeps its lock for as long as it lives: there are no \
                        fencing tokens, and no lock is lost";

/// How a lock was acquired. Either way, the caller **holds it**.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "after OwnerDied, what the lock protects may be half written"]
pub enum Acquired {
    /// The last holder unlocked it, or there was none.
    Clean,
    /// The last holder died holding it, so what the lock protects may be half written. The next exclusive holder is told
    /// once; until then, each reader is told.
    OwnerDied,
}

/// How long a call waits for a lock that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Not at all. If the lock is held, the call returns `EBUSY`.
    Try,
    /// At most this many nanoseconds of CLOCK_MONOTONIC, then the call returns `ETIMEDOUT`. 0 takes a free lock and does not
    /// wait; `u64::MAX` waits without limit.
    Nanoseconds(u64),
    /// Without limit.
    Forever,
}

impl Wait {
    /// Whether the call does not wait at all.
    pub(crate) fn is_try(self) -> bool {
        matches!(self, Self::Try | Self::Nanoseconds(0))
    }

    /// At most `duration`. More than 584 years means without limit.
    #[must_use]
    pub fn at_most(duration: Duration) -> Self {
        u64::try_from(duration.as_nanos()).map_or(Self::Forever, Self::Nanoseconds)
    }
}

/// Who owns a lock, and so who may unlock it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ownership {
    /// Only the thread that took it.
    #[default]
    Thread,
    /// Any thread of the process that took it.
    Process,
}

/// The kind of storage in which a manager keeps its locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A shared memory segment.
    Shm,
    /// A lock directory.
    File,
    /// The memory of this process.
    InMemory,
    /// Whatever a backend in another library keeps, such as the keys of an etcd cluster.
    Backend,
}

/// The layout of a shared memory segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layout {
    /// The libpod layout, which Podman uses: POSIX robust mutexes and bitmaps.
    Libpod,
    /// The native layout, this library's own: it grows, reports deadlocks, and does not depend on the kernel's robust lists.
    Native,
}

/// The state of one lock, read without touching it. A field is zero or false if the storage does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LockInfo {
    /// The id of the lock.
    pub id: u32,
    /// Whether the lock is allocated.
    pub allocated: bool,
    /// Whether somebody holds the lock, shared or exclusively.
    pub held: bool,
    /// Whether the last exclusive holder died and nobody has held the lock exclusively since. The lock is then free, or held
    /// shared.
    pub owner_died: bool,
    /// The process id of the holder, as the caller's PID namespace sees it; 0 if unknown.
    pub pid: i32,
    /// The thread id of the holder, as the caller's PID namespace sees it; 0 if unknown.
    pub tid: i32,
    /// The number of threads known to wait.
    pub waiters: u32,
    /// Whether a thread or a process owns the lock.
    pub ownership: Ownership,
    /// How often the lock was acquired exclusively.
    pub acquisitions: u64,
    /// The PID namespace of the holder, as the inode number of `/proc/PID/ns/pid`.
    pub pid_namespace: u64,
    /// For how long the longest waiter has waited, in nanoseconds. The lock has been held at least that long.
    pub waited_ns: u64,
    /// The number of readers; `pid` and `tid` then belong to the first of them.
    pub readers: u32,
    /// Whether a writer waits for the readers to leave. It is the next holder, and keeps later readers out.
    pub draining: bool,
    /// The number of marks left by readers that died, or by a writer that died before it held the lock. Nobody is told of
    /// these deaths. The marks delay the next writer for a moment, and it clears them.
    pub stale: u32,
}

/// One holder of a lock. A field is zero or false if the storage does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Holder {
    /// Its process id, as the caller's PID namespace sees it; 0 if unknown.
    pub pid: i32,
    /// Its thread id, as the caller's PID namespace sees it; 0 if unknown, or if the hold belongs to the process.
    pub tid: i32,
    /// Its PID namespace, as the inode number of `/proc/PID/ns/pid`.
    pub pid_namespace: u64,
    /// Whether it holds the lock shared.
    pub shared: bool,
    /// Whether the hold belongs to the thread or to the process.
    pub ownership: Ownership,
}

/// A thread that is known to wait for a lock. A field is zero if the storage does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Waiter {
    /// The id of the lock.
    pub id: u32,
    /// Its process id, as the caller's PID namespace sees it; 0 if unknown.
    pub pid: i32,
    /// Its thread id, as the caller's PID namespace sees it; 0 if unknown.
    pub tid: i32,
    /// Its PID namespace, as the inode number of `/proc/PID/ns/pid`.
    pub pid_namespace: u64,
    /// For how long it has waited, in nanoseconds.
    pub waited_ns: u64,
    /// Whether it is a writer that waits for the readers to leave. It is the next holder, and other waiters wait for it.
    pub draining: bool,
}

/// The state of a manager's storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Info {
    /// The kind of storage.
    pub kind: Kind,
    /// The layout of a segment; `None` for other kinds of storage.
    pub layout: Option<Layout>,
    /// The number of locks, or [`UNLIMITED`].
    pub num_locks: u32,
    /// The number of locks that the storage may grow to, or [`UNLIMITED`].
    pub max_locks: u32,
    /// The number of processes that have the storage open; 0 if the storage does not say.
    pub attached: u32,
    /// Whether the storage was removed.
    pub retired: bool,
}

/// Keeps [`Manager`] to the types of this crate.
pub(crate) mod sealed {
    pub trait Sealed {}
}

/// A pool of numbered locks in some storage that several processes may share.
///
/// A lock is named by its id. All managers that are open on one storage, in any process, mean the same lock by the same id.
/// A lock has one exclusive holder, by default the thread that took it, or any number of readers. These are the plain
/// calls; [`Lock`](crate::Lock) has guards that unlock when they go out of scope.
///
/// Only this crate implements the trait, so a later version can add a call to it.
///
/// # Errors
///
/// Any call may return `EINVAL` for an id out of range, `EACCES` if it would change something and the manager was opened read
/// only, and `ESTALE` if the storage was removed while the manager had it open.
pub trait Manager: sealed::Sealed + std::fmt::Debug + Send + Sync {
    /// Allocates a lock: an id that nobody else gets until it is freed.
    ///
    /// # Errors
    /// `ENOLCK` if all locks are allocated; `ENOTRECOVERABLE` if the mutex that guards the bitmaps stays held (libpod layout).
    fn allocate_lock(&self) -> Result<u32>;

    /// Checks that `id` is in range. It does not matter whether the lock is allocated.
    ///
    /// # Errors
    /// `EINVAL` if `id` is out of range.
    fn retrieve_lock(&self, id: u32) -> Result<()>;

    /// Allocates the lock with this id, for example after a reboot, when the ids in use are known.
    ///
    /// # Errors
    /// `EEXIST` if it is already allocated.
    fn allocate_and_retrieve_lock(&self, id: u32) -> Result<()>;

    /// Frees an id, so that it can be allocated again. A held lock stays held, and the lock can still be used.
    ///
    /// # Errors
    /// `ENOENT` if it is not allocated.
    fn free_lock(&self, id: u32) -> Result<()>;

    /// Frees every id, for tests and renumbering. Call it only while no other process allocates.
    ///
    /// # Errors
    /// As for [`allocate_lock`](Self::allocate_lock), except that `ENOLCK` cannot happen.
    fn free_all_locks(&self) -> Result<()>;

    /// The number of locks that are free to be allocated, or [`UNLIMITED`].
    ///
    /// # Errors
    /// Only those of the system.
    fn available_locks(&self) -> Result<u32>;

    /// The number of all locks, allocated or not, or [`UNLIMITED`].
    ///
    /// # Errors
    /// Only those of the system.
    fn num_locks(&self) -> Result<u32>;

    /// Acquires lock `id`. Waits for as long as `wait` says, and until `cancel` is triggered.
    ///
    /// # Errors
    /// `EBUSY` or `ETIMEDOUT`, as `wait` says; `ECANCELED` if `cancel` was triggered, even if the lock is free; `EDEADLK` if
    /// this thread already holds the lock, or (except in the libpod layout) if the wait would close a cycle of threads that
    /// wait for each other's locks. In the libpod layout also `ENOLCK` if this thread holds as many locks as it may,
    /// `ENOTRECOVERABLE` if the state of the lock is lost, and `EOPNOTSUPP` in a child that was cloned behind the libc's
    /// back.
    fn acquire(&self, id: u32, wait: Wait, cancel: Option<&Cancel>) -> Result<Acquired>;

    /// Unlocks a lock that the calling thread (with [`Ownership::Process`], this process) holds through this manager.
    ///
    /// # Errors
    /// `EPERM` if the caller does not hold it. After any other error the caller no longer holds the lock.
    fn unlock(&self, id: u32) -> Result<()>;

    /// Acquires lock `id` shared: any number of readers hold it at the same time, and nobody holds it exclusively meanwhile.
    /// Waits for as long as `wait` says, and until `cancel` is triggered.
    ///
    /// [`OwnerDied`](Acquired::OwnerDied) means that a writer died holding the lock. Every reader is told, until a writer has
    /// taken the lock and was told itself, because only a writer can repair what the lock protects.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire); also `EDEADLK` if this thread already holds the lock shared; `EAGAIN` if there is no
    /// room for one more reader; `EOPNOTSUPP` in the libpod layout and in a segment of format version 1.
    fn acquire_shared(&self, id: u32, wait: Wait, cancel: Option<&Cancel>) -> Result<Acquired>;

    /// Unlocks a lock that the calling thread (with [`Ownership::Process`], this process) holds shared.
    ///
    /// # Errors
    /// `EPERM` if the caller does not hold the lock shared; `EOPNOTSUPP` as for [`acquire_shared`](Self::acquire_shared).
    fn unlock_shared(&self, id: u32) -> Result<()>;

    /// Turns an exclusive hold into a shared one. Nobody else can hold the lock exclusively in between.
    ///
    /// # Errors
    /// `EPERM` if the caller does not hold the lock exclusively; `EAGAIN` if there is no room for one more reader, and the
    /// lock is still held exclusively; `EOPNOTSUPP` as for [`acquire_shared`](Self::acquire_shared).
    fn downgrade_lock(&self, id: u32) -> Result<()>;

    /// The holders of lock `id`, shared or exclusive, without those that are known to be dead. Touches no lock.
    ///
    /// # Errors
    /// `EINVAL` for an id out of range.
    fn lock_holders(&self, id: u32) -> Result<Vec<Holder>>;

    /// Sets who owns the locks that are taken through this manager. The default is [`Ownership::Thread`].
    ///
    /// # Errors
    /// `EBUSY` after the manager's first lock call; `EOPNOTSUPP` for [`Ownership::Process`] in the libpod layout.
    fn set_ownership(&self, ownership: Ownership) -> Result<()>;

    /// The ids of all locks that somebody holds, shared or exclusively, in ascending order. Touches no lock.
    ///
    /// # Errors
    /// Only those of the system.
    fn locks_held(&self) -> Result<Vec<u32>>;

    /// The state of lock `id`. Touches no lock.
    ///
    /// # Errors
    /// `EINVAL` for an id out of range.
    fn lock_info(&self, id: u32) -> Result<LockInfo>;

    /// The state of each of these locks, in the same order. Searches for waiters once, and not once for each lock as
    /// [`lock_info`](Self::lock_info) would. Touches no lock.
    ///
    /// # Errors
    /// `EINVAL` for an id out of range.
    fn lock_infos(&self, ids: &[u32]) -> Result<Vec<LockInfo>> {
        ids.iter().map(|&id| self.lock_info(id)).collect()
    }

    /// The threads that are known to wait; none if the storage does not say. Touches no lock.
    ///
    /// # Errors
    /// Only those of the system.
    fn waiters(&self) -> Result<Vec<Waiter>> {
        Ok(Vec::new())
    }

    /// The state of the storage. Touches no lock.
    ///
    /// # Errors
    /// Only those of the system.
    fn info(&self) -> Result<Info>;

    /// Marks a lock whose holder is provably dead, so that the next holder is told [`OwnerDied`](Acquired::OwnerDied). Does
    /// nothing to a lock that nobody holds.
    ///
    /// # Errors
    /// `EBUSY` if the holder is alive or cannot be judged.
    fn repair_lock(&self, id: u32) -> Result<()>;

    /// Checks that the manager could be closed now.
    ///
    /// # Errors
    /// `EBUSY` if this process holds a lock through it, or another thread waits in a call on it.
    fn check_idle(&self) -> Result<()>;

    /// The fencing token of a lock that the caller holds: a number that grows with each host that takes the lock, for ever.
    /// A resource that refuses a lower token than it has seen is safe from holders that were paused for too long.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if the locks are those of one host, where a paused holder keeps its lock; `EPERM` if the caller does not
    /// hold the lock; `EKEYEXPIRED` if it is lost.
    fn fencing_token(&self, _id: u32) -> Result<u64> {
        Err(Error::without_storage(Reason::Unsupported(ONE_HOST)))
    }

    /// A descriptor that is readable while a lock that this manager holds may be lost. It belongs to the manager.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if the locks are those of one host, where no lock is lost.
    fn lost_fd(&self) -> Result<i32> {
        Err(Error::without_storage(Reason::Unsupported(ONE_HOST)))
    }

    /// [`acquire`](Self::acquire) without limit.
    ///
    /// # Errors
    /// As there.
    fn lock(&self, id: u32) -> Result<Acquired> {
        self.acquire(id, Wait::Forever, None)
    }

    /// [`acquire`](Self::acquire) without waiting.
    ///
    /// # Errors
    /// As there.
    fn try_lock(&self, id: u32) -> Result<Acquired> {
        self.acquire(id, Wait::Try, None)
    }

    /// [`acquire`](Self::acquire) for at most `timeout`.
    ///
    /// # Errors
    /// As there.
    fn timed_lock(&self, id: u32, timeout: Duration) -> Result<Acquired> {
        self.acquire(id, Wait::at_most(timeout), None)
    }

    /// [`acquire`](Self::acquire) for at most `timeout`, if one is given, and until `cancel` is triggered.
    ///
    /// # Errors
    /// As there.
    fn cancellable_lock(&self, id: u32, timeout: Option<Duration>, cancel: &Cancel) -> Result<Acquired> {
        self.acquire(id, timeout.map_or(Wait::Forever, Wait::at_most), Some(cancel))
    }

    /// [`acquire_shared`](Self::acquire_shared) without limit.
    ///
    /// # Errors
    /// As there.
    fn lock_shared(&self, id: u32) -> Result<Acquired> {
        self.acquire_shared(id, Wait::Forever, None)
    }

    /// [`acquire_shared`](Self::acquire_shared) without waiting: `EBUSY` if a writer holds the lock or is next.
    ///
    /// # Errors
    /// As there.
    fn try_lock_shared(&self, id: u32) -> Result<Acquired> {
        self.acquire_shared(id, Wait::Try, None)
    }

    /// [`acquire_shared`](Self::acquire_shared) for at most `timeout`.
    ///
    /// # Errors
    /// As there.
    fn timed_lock_shared(&self, id: u32, timeout: Duration) -> Result<Acquired> {
        self.acquire_shared(id, Wait::at_most(timeout), None)
    }

    /// [`acquire_shared`](Self::acquire_shared) for at most `timeout`, if one is given, and until `cancel` is triggered.
    ///
    /// # Errors
    /// As there.
    fn cancellable_lock_shared(&self, id: u32, timeout: Option<Duration>, cancel: &Cancel) -> Result<Acquired> {
        self.acquire_shared(id, timeout.map_or(Wait::Forever, Wait::at_most), Some(cancel))
    }

    /// Grows the storage to `num_locks` locks while others use it.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if the storage has a fixed number of locks, or none; `EINVAL` for fewer locks than there are, or more
    /// than the maximum; `ENOSPC`, `ENOMEM` or `EAGAIN` if there is no room, and then nothing has changed.
    fn grow(&self, num_locks: u32) -> Result<()>;
}

/// How a lock is to be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Exclusive,
    Shared,
}

/// Implements [`Manager`] for a type that forwards each call. The macro `$serve` of that type names the manager to call.
macro_rules! pass_on {
    ($kind:ty, $serve:ident) => {
        $crate::manager::pass_on! { $kind, $serve:
            allocate_lock() -> u32;
            retrieve_lock(id: u32) -> ();
            allocate_and_retrieve_lock(id: u32) -> ();
            free_lock(id: u32) -> ();
            free_all_locks() -> ();
            available_locks() -> u32;
            num_locks() -> u32;
            acquire(id: u32, wait: $crate::Wait, cancel: Option<&$crate::Cancel>) -> $crate::Acquired;
            unlock(id: u32) -> ();
            acquire_shared(id: u32, wait: $crate::Wait, cancel: Option<&$crate::Cancel>) -> $crate::Acquired;
            unlock_shared(id: u32) -> ();
            downgrade_lock(id: u32) -> ();
            lock_holders(id: u32) -> Vec<$crate::Holder>;
            set_ownership(ownership: $crate::Ownership) -> ();
            locks_held() -> Vec<u32>;
            lock_info(id: u32) -> $crate::LockInfo;
            lock_infos(ids: &[u32]) -> Vec<$crate::LockInfo>;
            waiters() -> Vec<$crate::Waiter>;
            info() -> $crate::Info;
            repair_lock(id: u32) -> ();
            check_idle() -> ();
            grow(num_locks: u32) -> ();
        }
    };
    ($kind:ty, $serve:ident: $($call:ident($($name:ident: $value:ty),*) -> $result:ty;)*) => {
        impl $crate::manager::sealed::Sealed for $kind {}

        impl $crate::Manager for $kind {
            $(
                #[inline]
                fn $call(&self, $($name: $value),*) -> $crate::Result<$result> {
                    $serve!(self, manager => manager.$call($($name),*))
                }
            )*
        }
    };
}
pub(crate) use pass_on;
