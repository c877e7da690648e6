// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The one trait that every manager implements, and the words it speaks in.

use std::time::Duration;

use crate::{Cancel, Result};

/// What [`Manager::available_locks`] and [`Manager::num_locks`] say where the storage sets no maximum.
pub const UNLIMITED: u32 = u32::MAX;

/// How a lock was acquired. Either way it **is held**.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "after OwnerDied, what the lock protects may be half written"]
pub enum Acquired {
    /// The last holder unlocked it, or there was none.
    Clean,
    /// The last holder died holding it, so what it protects may be half written. Told once, to the next holder.
    OwnerDied,
}

/// How long an acquisition waits for a lock that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Not at all: `EBUSY`.
    Try,
    /// At most this many nanoseconds of CLOCK_MONOTONIC: `ETIMEDOUT`. 0 takes a free lock and waits for no other.
    Nanoseconds(u64),
    /// Without end.
    Forever,
}

impl Wait {
    /// Whether there is no wait at all.
    pub(crate) fn is_try(self) -> bool {
        matches!(self, Self::Try | Self::Nanoseconds(0))
    }

    /// At most `duration`; beyond 584 years without end.
    #[must_use]
    pub fn at_most(duration: Duration) -> Self {
        u64::try_from(duration.as_nanos()).map_or(Self::Forever, Self::Nanoseconds)
    }
}

/// Who may unlock a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ownership {
    /// The thread that took it, and no other.
    #[default]
    Thread,
    /// Any thread of the process that took it.
    Process,
}

/// What kind of storage a manager keeps its locks in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A shared memory segment.
    Shm,
    /// The files of a directory.
    File,
    /// The memory of this process.
    InMemory,
}

/// How the bytes of a shared memory segment are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layout {
    /// Podman's own: POSIX robust mutexes and bitmaps.
    Libpod,
    /// This library's: it grows, finds deadlocks, and does not rest on the kernel's list of robust mutexes.
    Native,
}

/// What is known of one lock without touching it. All zero or false where the storage does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LockInfo {
    /// The lock.
    pub id: u32,
    /// Whether it is allocated.
    pub allocated: bool,
    /// Whether somebody holds it.
    pub held: bool,
    /// Whether the last to hold it exclusively died and nobody has taken it exclusively since; it is held shared then, or
    /// not at all.
    pub owner_died: bool,
    /// The holder's process as the caller's PID namespace sees it, else 0.
    pub pid: i32,
    /// The holder's thread as the caller's PID namespace sees it, else 0.
    pub tid: i32,
    /// How many threads are known to wait for it.
    pub waiters: u32,
    /// Whether a thread or its process owns the lock.
    pub ownership: Ownership,
    /// How often it was acquired.
    pub acquisitions: u64,
    /// The holder's PID namespace, as the inode number of `/proc/PID/ns/pid`.
    pub pid_namespace: u64,
    /// How long the longest present waiter has waited, so that the lock is held at least that long.
    pub waited_ns: u64,
    /// How many hold it shared; `pid` and `tid` are the first of them then.
    pub readers: u32,
    /// Whether a writer waits for the readers to leave: it holds the lock next, and keeps later readers out.
    pub draining: bool,
    /// Marks of readers that died, and of a writer that died before it held the lock. Nobody is told of them; they hold up
    /// the next writer for a moment, and it takes them away.
    pub stale: u32,
}

/// One holder of a lock. All zero or false where the storage does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Holder {
    /// Its process as the caller's PID namespace sees it, else 0.
    pub pid: i32,
    /// The thread as the caller's PID namespace sees it, else 0.
    pub tid: i32,
    /// Its PID namespace, as the inode number of `/proc/PID/ns/pid`.
    pub pid_namespace: u64,
    /// Whether it holds the lock shared.
    pub shared: bool,
    /// Whether the thread or its process owns the hold.
    pub ownership: Ownership,
}

/// A thread that is known to wait for a lock. All zero where the storage does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Waiter {
    /// The lock.
    pub id: u32,
    /// Its process as the caller's PID namespace sees it, else 0.
    pub pid: i32,
    /// The thread as the caller's PID namespace sees it, else 0.
    pub tid: i32,
    /// Its PID namespace, as the inode number of `/proc/PID/ns/pid`.
    pub pid_namespace: u64,
    /// How long it has waited.
    pub waited_ns: u64,
    /// Whether it holds the lock next and waits for the readers to leave. Others wait for it.
    pub draining: bool,
}

/// What is known of a manager's storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Info {
    /// The kind of storage.
    pub kind: Kind,
    /// How a segment is laid out.
    pub layout: Option<Layout>,
    /// How many locks there are.
    pub num_locks: u32,
    /// How many there may come to be.
    pub max_locks: u32,
    /// How many processes are attached; 0 where the storage does not say.
    pub attached: u32,
    /// Whether the storage was removed.
    pub retired: bool,
}

/// A pool of numbered locks in some storage that several processes may share.
///
/// Locks are named by their id. All managers opened on one storage, in any process, mean the same lock by the same id.
/// A lock has one holder, by default the thread that took it. These are the plain calls; [`Lock`](crate::Lock)
/// gives guards that unlock when they go out of scope.
///
/// # Errors
///
/// What is common to all: `EINVAL` for an id out of range, `EACCES` for a call that changes something on a manager
/// that was opened to look, `ESTALE` where the storage was removed under the manager.
pub trait Manager: std::fmt::Debug + Send + Sync {
    /// Allocates a lock: an id that nobody else gets until it is freed.
    ///
    /// # Errors
    /// `ENOLCK` if all are allocated; `ENOTRECOVERABLE` if the storage's own guard stays taken.
    fn allocate_lock(&self) -> Result<u32>;

    /// Checks that `id` is within range; whether it is allocated does not matter.
    ///
    /// # Errors
    /// `EINVAL` if it is not.
    fn retrieve_lock(&self, id: u32) -> Result<()>;

    /// Allocates the lock of that id, as after a reboot when the ids in use are known.
    ///
    /// # Errors
    /// `EEXIST` if it is allocated.
    fn allocate_and_retrieve_lock(&self, id: u32) -> Result<()>;

    /// Gives an id back. A lock that is held stays held and can still be used.
    ///
    /// # Errors
    /// `ENOENT` if it is not allocated.
    fn free_lock(&self, id: u32) -> Result<()>;

    /// Frees every id. For tests and renumbering, when no other process is allocating.
    ///
    /// # Errors
    /// As for [`allocate_lock`](Self::allocate_lock), but for `ENOLCK`.
    fn free_all_locks(&self) -> Result<()>;

    /// How many locks are free to be allocated, or [`UNLIMITED`].
    ///
    /// # Errors
    /// Only those of the system.
    fn available_locks(&self) -> Result<u32>;

    /// How many locks there are, or [`UNLIMITED`].
    ///
    /// # Errors
    /// Only those of the system.
    fn num_locks(&self) -> Result<u32>;

    /// Acquires lock `id`, waiting as `wait` says and as long as `cancel` lets it.
    ///
    /// # Errors
    /// `EBUSY` or `ETIMEDOUT` as `wait` says; `ECANCELED` if `cancel` was triggered, even if the lock is free;
    /// `EDEADLK` if this thread holds it, or (native layout) if a cycle of holders and waiters runs through it; `ENOLCK` if this thread holds as many as it may; `ENOTRECOVERABLE` if its
    /// state is lost; `EOPNOTSUPP` in a child made behind the libc's back.
    fn acquire(&self, id: u32, wait: Wait, cancel: Option<&Cancel>) -> Result<Acquired>;

    /// Unlocks what the calling thread, or with [`Ownership::Process`] this process, holds through this manager.
    ///
    /// # Errors
    /// `EPERM` if it does not. After an error of the storage it holds it no more, either.
    fn unlock(&self, id: u32) -> Result<()>;

    /// Acquires lock `id` shared: beside any number of others that hold it shared, and nobody that holds it exclusively.
    /// Waits as `wait` says and as long as `cancel` lets it.
    ///
    /// [`OwnerDied`](Acquired::OwnerDied): a writer died holding the lock. Every reader is told, until a writer has taken
    /// the lock and was told itself: a reader can mend nothing.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire); `EDEADLK` also if this thread holds the lock shared; `EAGAIN` if there is no room
    /// for one more reader; `EOPNOTSUPP` in the libpod layout, and in a segment of format version 1.
    fn acquire_shared(&self, id: u32, wait: Wait, cancel: Option<&Cancel>) -> Result<Acquired>;

    /// Gives back what the calling thread, or with [`Ownership::Process`] this process, holds shared.
    ///
    /// # Errors
    /// `EPERM` if it does not hold the lock shared; `EOPNOTSUPP` as for [`acquire_shared`](Self::acquire_shared).
    fn unlock_shared(&self, id: u32) -> Result<()>;

    /// Makes a lock that the caller holds exclusively a shared one. Nobody else holds it exclusively in between.
    ///
    /// # Errors
    /// `EPERM` if the caller does not hold it exclusively; `EAGAIN` if there is no room for one more reader, and it is
    /// still held exclusively; `EOPNOTSUPP` as for [`acquire_shared`](Self::acquire_shared).
    fn downgrade_lock(&self, id: u32) -> Result<()>;

    /// Everybody who holds lock `id`, either way, and is not known to be dead. Touches no lock.
    ///
    /// # Errors
    /// `EINVAL` for an id out of range.
    fn lock_holders(&self, id: u32) -> Result<Vec<Holder>>;

    /// Says who is to own the locks taken through this manager; [`Ownership::Thread`] if nobody says.
    ///
    /// # Errors
    /// `EBUSY` after the manager's first lock; `EOPNOTSUPP` for [`Ownership::Process`] where locks belong to threads.
    fn set_ownership(&self, ownership: Ownership) -> Result<()>;

    /// The ids of all locks that somebody holds, ascending. Touches no lock.
    ///
    /// # Errors
    /// Only those of the system.
    fn locks_held(&self) -> Result<Vec<u32>>;

    /// What is known of lock `id`. Touches no lock.
    ///
    /// # Errors
    /// `EINVAL` for an id out of range.
    fn lock_info(&self, id: u32) -> Result<LockInfo>;

    /// What is known of each of these locks, in their order. Looks for who waits once, where that many calls of
    /// [`lock_info`](Self::lock_info) would look as many times. Touches no lock.
    ///
    /// # Errors
    /// `EINVAL` for an id out of range.
    fn lock_infos(&self, ids: &[u32]) -> Result<Vec<LockInfo>> {
        ids.iter().map(|&id| self.lock_info(id)).collect()
    }

    /// The threads that are known to wait, in storages that say so; elsewhere none. Touches no lock.
    ///
    /// # Errors
    /// Only those of the system.
    fn waiters(&self) -> Result<Vec<Waiter>> {
        Ok(Vec::new())
    }

    /// What is known of the storage. Touches no lock.
    ///
    /// # Errors
    /// Only those of the system.
    fn info(&self) -> Result<Info>;

    /// Marks a lock whose holder is provably dead, so that the next to take it is told
    /// [`OwnerDied`](Acquired::OwnerDied). Does nothing to a lock that nobody holds.
    ///
    /// # Errors
    /// `EBUSY` if the holder lives or cannot be judged.
    fn repair_lock(&self, id: u32) -> Result<()>;

    /// Whether the manager could be closed now.
    ///
    /// # Errors
    /// `EBUSY` if this process holds a lock through it, or another thread waits in a call on it.
    fn check_idle(&self) -> Result<()>;

    /// [`acquire`](Self::acquire) without end.
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

    /// [`acquire_shared`](Self::acquire_shared) without end.
    ///
    /// # Errors
    /// As there.
    fn lock_shared(&self, id: u32) -> Result<Acquired> {
        self.acquire_shared(id, Wait::Forever, None)
    }

    /// [`acquire_shared`](Self::acquire_shared) without waiting: `EBUSY` if a writer has the lock or is next.
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

    /// Makes room for `num_locks` while others work.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where the storage is of a fixed size; `EINVAL` for fewer than there are, or more than it may have;
    /// `ENOSPC`, `ENOMEM` or `EAGAIN` where there is no room, and nothing has changed.
    fn grow(&self, num_locks: u32) -> Result<()>;
}

/// Makes a type a [`Manager`] that passes each call on, by a macro `$serve` of its own that names the manager it goes to.
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
