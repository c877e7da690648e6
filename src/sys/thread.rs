// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the library knows of the calling thread: who it is, and how many robust mutexes it holds.
//!
//! A thread has three numbers here.
//!
//! | number | what it is | used again |
//! | --- | --- | --- |
//! | *id* | the kernel's thread id | when the kernel likes |
//! | *local id* | names the thread in tables of this process, for the libpod layout | never, not even in a child |
//! | *serial* | names the thread in the words of native locks; see [`serial_bits`](Thread::serial_bits) | after the thread has said that it ends |

pub(crate) mod caller_state;
mod native;
mod object;
pub(crate) mod on_exit;
pub(crate) mod waits;

use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::Errno;
use crate::sys::mutex;
use crate::sys::process::Process;

use object::field;
pub(in crate::sys) use object::stay_loaded;
pub(crate) use object::{LAST_ERROR_WORDS, Thread};

/// How many bits a local id has, so that others may share a word with it.
pub(crate) const LOCAL_ID_BITS: u32 = 40;

/// A local id in such a word.
pub(crate) const LOCAL_ID_MASK: u64 = (1 << LOCAL_ID_BITS) - 1;

/// Local ids of threads. Children inherit the counter on purpose: a local id is never that of a thread of an ancestor.
static NEXT_LOCAL_ID: AtomicU64 = AtomicU64::new(1);

/// The caller is a child made behind the libc's back, which must not lock in its parent's name.
pub(crate) struct ClonedChild;

/// Why a thread must not take robust mutexes.
pub(crate) enum NotEntered {
    /// See [`ClonedChild`].
    ClonedChild,
    /// A sandbox forbids asking whether the kernel would hear of the thread's death.
    Forbidden,
}

impl Thread {
    /// The calling thread, for robust mutexes: the libc knows it as a thread of this process.
    #[inline(always)]
    pub(crate) fn enter(process: &Process) -> Result<Self, NotEntered> {
        let thread = Self::calling();
        if thread.has_entered(process) { Ok(thread) } else { thread.enter_first(process) }
    }

    /// Whether the thread has entered since its process began.
    #[inline(always)]
    pub(crate) fn has_entered(self, process: &Process) -> bool {
        self.load::<{ field::EPOCH }>() == process.epoch()
    }

    /// The first call of a thread, or of a thread after a fork.
    #[cold]
    fn enter_first(self, process: &Process) -> Result<Self, NotEntered> {
        self.identify(process).map_err(|ClonedChild| NotEntered::ClonedChild)?;
        match mutex::knows_caller(self.id() as u32) {
            Ok(true) => {}
            Ok(false) => return Err(NotEntered::ClonedChild),
            Err(Errno(_)) => return Err(NotEntered::Forbidden),
        }
        self.store::<{ field::HELD }>(0);
        self.store::<{ field::EPOCH }>(process.epoch());
        Ok(self)
    }

    /// The calling thread, with its id and local id, for locks that are not the libc's mutexes. A child that was cloned behind
    /// the libc's back may take those, unless it shares its parent's memory.
    #[inline]
    pub(crate) fn identified(process: &Process) -> Result<Self, ClonedChild> {
        let thread = Self::calling();
        if thread.is_identified_in(process) { Ok(thread) } else { thread.identify(process) }
    }

    /// Whether the thread has its numbers from this process, and not from a parent.
    #[inline]
    pub(crate) fn is_identified_in(self, process: &Process) -> bool {
        self.load::<{ field::IDENTIFIED }>() == process.epoch()
    }

    #[cold]
    fn identify(self, process: &Process) -> Result<Self, ClonedChild> {
        let epoch = process.begin_epoch();
        if !process.is_caller() {
            return Err(ClonedChild);
        }
        if self.load::<{ field::IDENTIFIED }>() != epoch {
            let local_id = NEXT_LOCAL_ID.fetch_add(1, Ordering::Relaxed) & LOCAL_ID_MASK;
            self.store::<{ field::LOCAL_ID }>(local_id);
            self.store::<{ field::ID }>(kernel_thread_id().into());
            self.forget_native();
            waits::forget(self);
            self.store::<{ field::IDENTIFIED }>(epoch);
        }
        Ok(self)
    }

    /// The thread's id in its PID namespace; of a thread that is identified.
    #[inline]
    pub(crate) fn id(self) -> u64 {
        self.load::<{ field::ID }>()
    }

    /// The thread's local id; 0 before it is identified.
    #[inline(always)]
    pub(crate) fn local_id(self) -> u64 {
        self.load::<{ field::LOCAL_ID }>()
    }

    /// How many robust mutexes the thread holds through this library.
    #[inline(always)]
    pub(crate) fn held(self) -> u64 {
        self.load::<{ field::HELD }>()
    }

    #[inline(always)]
    pub(crate) fn count_acquired(self) {
        self.add::<{ field::HELD }, 1>();
    }

    #[inline(always)]
    pub(crate) fn count_released(self) {
        self.add::<{ field::HELD }, { -1 }>();
    }

    /// Notes that the thread takes, or is about to take, the mutex that guards the ids of a libpod segment.
    #[inline(always)]
    pub(crate) fn count_inside_pool(self) {
        self.add::<{ field::INSIDE_POOL }, 1>();
    }

    #[inline(always)]
    pub(crate) fn count_outside_pool(self) {
        self.add::<{ field::INSIDE_POOL }, { -1 }>();
    }

    pub(crate) fn is_inside_pool(self) -> bool {
        self.load::<{ field::INSIDE_POOL }>() != 0
    }

    /// Whether the thread is inside an exported function.
    pub(crate) fn is_inside_library(self) -> bool {
        self.load::<{ field::INSIDE }>() != 0
    }

    pub(crate) fn note_inside_library(self) {
        self.store::<{ field::INSIDE }>(1);
    }

    pub(crate) fn note_outside_library(self) {
        self.store::<{ field::INSIDE }>(0);
    }

    fn exit_round(self) -> u64 {
        self.load::<{ field::EXIT_ROUND }>()
    }

    fn set_exit_round(self, round: u64) {
        self.store::<{ field::EXIT_ROUND }>(round);
    }
}

/// The caller's thread id, as the kernel has it.
pub(crate) fn kernel_thread_id() -> u32 {
    // By the system call: musl's function says what it has noted, which in a child cloned behind its back is its parent's.
    // SAFETY: gettid(2) takes nothing and cannot fail.
    unsafe { libc::syscall(libc::SYS_gettid) as u32 }
}
