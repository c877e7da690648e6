// SPDX-License-Identifier: MIT OR Apache-2.0
//! POSIX robust process-shared mutexes. The library also reads those of their fields that show the state of a mutex without
//! locking it.

pub(crate) mod kind;
mod layout;
mod list;
#[cfg_attr(target_env = "musl", path = "mutex/musl.rs")]
#[cfg_attr(not(target_env = "musl"), path = "mutex/glibc.rs")]
mod this_libc;

use std::hint;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{c_int, pthread_mutex_t};

use crate::sys::Errno;
use crate::sys::syscall::clock::Instant;
use crate::sys::syscall::mapping::Mapping;
pub(crate) use layout::MutexLayout;
use layout::initialise;
pub(in crate::sys) use this_libc::knows_caller;

/// How many bytes a mutex takes.
pub(crate) const SIZE: usize = size_of::<pthread_mutex_t>();
/// The alignment of a mutex.
pub(crate) const ALIGN: usize = align_of::<pthread_mutex_t>();

/// How often a waiter reads a held mutex before it sleeps: some microseconds in all, as long as a short section takes. The
/// pauses are long, because each read takes the cache line away from the holder, which needs it to unlock.
const SPIN_READS: u32 = 8;
const PAUSES_PER_READ: u32 = 60;

const WORDS: usize = SIZE / size_of::<u32>();

/// The parts of the word that a robust mutex shares with the kernel (linux/futex.h).
pub(crate) mod word {
    /// The holder's thread id; 0: nobody.
    pub(crate) const TID: u32 = 0x3fff_ffff;
    /// The last holder died.
    pub(crate) const OWNER_DIED: u32 = 0x4000_0000;
    /// Somebody may sleep.
    pub(crate) const WAITERS: u32 = 0x8000_0000;
}

/// The result of an attempt to take a mutex.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// Held by the caller now.
    Acquired,
    /// Held by the caller now and consistent again; its last holder died.
    OwnerDied,
    /// Somebody holds it, or the deadline has passed.
    Held,
    /// It was unlocked before it was made consistent; nobody can take it.
    NotRecoverable,
    /// Its bytes are not those of a mutex that this libc locks as its own. It was not touched.
    Foreign {
        /// The word that says which kind of mutex it is.
        found: u32,
        /// What this libc writes there.
        expected: u32,
    },
    /// The libc refused with an error that POSIX does not name for this call.
    Refused(c_int),
}

/// What the word of a mutex tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// The next who asks gets it, or is told that it is not recoverable.
    Free,
    /// The next who asks gets it, and is told that its last holder died.
    OwnerDied,
    /// The thread with that id holds it, as far as the libc knows; 0: nobody, and yet nobody gets it.
    Held(u32),
}

impl State {
    pub(crate) fn of(word: u32) -> Self {
        match this_libc::usable(word) {
            usable if !this_libc::is_free(usable) => Self::Held(usable & word::TID),
            usable if usable & word::OWNER_DIED != 0 => Self::OwnerDied,
            _ => Self::Free,
        }
    }
}

/// A robust mutex in a mapping.
#[derive(Clone, Copy)]
pub(crate) struct RobustMutex<'m> {
    address: *mut u8,
    layout: &'m MutexLayout,
    mapping: PhantomData<&'m Mapping>,
}

/// A mutex's words as they were at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Snapshot([u32; WORDS]);

impl<'m> RobustMutex<'m> {
    /// The mutex at `offset` of `mapping`, which may hold anything: every call looks at its kind first.
    ///
    /// # Panics
    /// If it does not lie within the mapping.
    #[inline(always)]
    pub(crate) fn at(mapping: &'m Mapping, offset: usize, layout: &'m MutexLayout) -> Self {
        Self { address: mapping.address(offset, SIZE, ALIGN), layout, mapping: PhantomData }
    }

    /// The mutex at `address`.
    ///
    /// # Safety
    /// It lies, aligned, within a mapping that lives during `'m`.
    #[inline(always)]
    pub(crate) unsafe fn at_address(address: *mut u8, layout: &'m MutexLayout) -> Self {
        Self { address, layout, mapping: PhantomData }
    }

    /// Writes a fresh mutex.
    ///
    /// # Safety
    /// No other process or thread may know the memory yet, and the mapping must be writable.
    pub(crate) unsafe fn initialise(self) -> Result<(), Errno> {
        // SAFETY: at() checked bounds and alignment; the rest is this function's own contract.
        unsafe { initialise(self.address.cast()) }
    }

    /// The thread that the mutex names as its holder, 0 for none.
    #[inline(always)]
    pub(crate) fn holder(self) -> u32 {
        self.usable_word() & word::TID
    }

    /// The word that names the holder, or 0 if the mutex is not recoverable.
    #[inline(always)]
    fn usable_word(self) -> u32 {
        this_libc::usable(self.word().load(Ordering::Relaxed))
    }

    /// The mutex as its word tells.
    pub(crate) fn state(self) -> State {
        State::of(self.word().load(Ordering::Relaxed))
    }

    /// Reads the mutex until it looks free, or for as long as a short section takes. The caller then tries to take it.
    pub(crate) fn spin(self) {
        for _ in 0..SPIN_READS {
            if self.holder() == 0 {
                return;
            }
            for _ in 0..PAUSES_PER_READ {
                hint::spin_loop();
            }
        }
    }

    /// The word that names the holder.
    #[inline(always)]
    pub(crate) fn word(self) -> &'m AtomicU32 {
        self.field(self.layout.word)
    }

    /// `None` if the mutex is of a kind that locks as this libc's own. Otherwise the word that tells its kind, and the word
    /// that this libc writes there. On a mutex of a foreign kind the libc would abort, or let two holders in.
    #[inline(always)]
    pub(crate) fn foreign_kind(self) -> Option<(u32, u32)> {
        let found = self.field(self.layout.kind).load(Ordering::Relaxed);
        if self.layout.is_compatible(found) { None } else { Some((found, self.layout.kind_value)) }
    }

    /// Whether it was unlocked before it was made consistent. The libc then refuses it for good.
    #[inline(always)]
    pub(crate) fn is_not_recoverable(self) -> bool {
        let note = self.field(self.layout.owner).load(Ordering::Relaxed);
        this_libc::is_lost(note, self.layout.not_recoverable_value)
    }

    /// Turns a mutex that is not recoverable into one whose owner died, for the next to take.
    pub(crate) fn make_recoverable(self) {
        this_libc::make_recoverable(self);
    }

    /// All of the mutex's words, to be compared with a later snapshot.
    pub(crate) fn snapshot(self) -> Snapshot {
        Snapshot(std::array::from_fn(|index| self.field(index * size_of::<u32>()).load(Ordering::Acquire)))
    }

    /// The word that names the holder, as a snapshot has it.
    pub(crate) fn word_in(self, snapshot: &Snapshot) -> u32 {
        snapshot.0[self.layout.word / size_of::<u32>()]
    }

    #[inline(always)]
    fn field(self, offset: usize) -> &'m AtomicU32 {
        // SAFETY: at() checked that the whole mutex lies within the mapping, and every offset of a MutexLayout lies within
        // a mutex; atomics may be shared with any writer.
        unsafe { AtomicU32::from_ptr(self.address.add(offset).cast()) }
    }

    /// Takes the mutex if it is free, and returns the libc's code, which [`conclude`](Self::conclude) interprets unless it is 0.
    /// `None`: the mutex is of a foreign kind, and the libc was not called.
    ///
    /// # Safety
    /// The mapping must be writable and stay mapped until the caller has unlocked, because the thread's robust list
    /// points into it meanwhile; the caller is not a child cloned behind the libc's back.
    #[inline(always)]
    pub(crate) unsafe fn try_lock(self) -> Option<c_int> {
        if self.foreign_kind().is_some() {
            return None;
        }
        // SAFETY: its kind says that this libc, or one like it, initialised the mutex; the rest is the caller's promise.
        Some(unsafe { libc::pthread_mutex_trylock(self.address.cast()) })
    }

    /// The same, waiting for the mutex until `deadline`.
    ///
    /// # Safety
    /// As for [`try_lock`](Self::try_lock).
    #[inline(always)]
    pub(crate) unsafe fn wait_until(self, deadline: Instant) -> Option<c_int> {
        if self.foreign_kind().is_some() {
            return None;
        }
        // SAFETY: as in try_lock.
        Some(unsafe { this_libc::lock_until(self, deadline) })
    }

    /// Whether the caller holds the mutex after this code of the libc's. After an owner's death it is made consistent.
    #[inline(always)]
    pub(crate) fn is_acquired_by(self, code: c_int) -> bool {
        if code == libc::EOWNERDEAD {
            // SAFETY: EOWNERDEAD says that the caller holds this mutex and that it is inconsistent.
            unsafe { libc::pthread_mutex_consistent(self.address.cast()) };
        }
        code == 0 || code == libc::EOWNERDEAD
    }

    /// What the libc's code means. After an owner's death the mutex is made consistent before anything else, so that it cannot
    /// become not recoverable here.
    pub(crate) fn conclude(self, answer: Option<c_int>) -> Attempt {
        match answer {
            Some(0) => Attempt::Acquired,
            Some(code @ libc::EOWNERDEAD) => {
                self.is_acquired_by(code);
                Attempt::OwnerDied
            }
            Some(libc::EBUSY | libc::ETIMEDOUT) => Attempt::Held,
            Some(libc::ENOTRECOVERABLE) => {
                this_libc::release_not_recoverable(self);
                Attempt::NotRecoverable
            }
            Some(other) => Attempt::Refused(other),
            // The kind was foreign; if it is not any more, somebody is writing to the bytes.
            None => self.foreign_kind().map_or(Attempt::Held, |(found, expected)| Attempt::Foreign { found, expected }),
        }
    }

    /// Unlocks the mutex. `false`: its word does not name the caller, although the caller took it.
    ///
    /// # Safety
    /// The caller holds the mutex through this mapping.
    #[inline(always)]
    pub(crate) unsafe fn unlock(self) -> bool {
        // SAFETY: a mutex of this libc, by its kind, that the caller has locked.
        self.foreign_kind().is_none() && unsafe { libc::pthread_mutex_unlock(self.address.cast()) } == 0
    }
}
