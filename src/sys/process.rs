// SPDX-License-Identifier: MIT OR Apache-2.0
//! This process, told apart from its parent and its children, and memory that stays right across a fork.
//!
//! A child must not act on what its parent knew. So what a child must not inherit lies in memory that the kernel gives to
//! every child as zeros (MADV_WIPEONFORK), however the child was made; pthread_atfork(3) would miss a raw clone(2), which
//! container engines make by hand. A process that finds zeros begins a new *epoch*. A note with another epoch is an ancestor's.
//! The memory that children do inherit is changed by single atomic stores only, because a fork may come at any instant.

pub(crate) mod arena;
mod fork_probe;
pub(crate) mod namespaces;
pub(crate) mod number_pool;
pub(crate) mod once_box;
pub(crate) mod per_process;
pub(crate) mod registry;

use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

use crate::sys::Errno;
use crate::sys::liveness::proc_file;
use crate::sys::thread::caller_state::BlockedSignals;

/// The process itself: a line of the arena. In a child all fields are 0 until its first call.
#[repr(C)]
pub(crate) struct Process {
    /// A number that no ancestor of this process has; 0: there was no call since the fork.
    epoch: AtomicU64,
    /// The id of the process that began the epoch. A CLONE_VM child shares this memory, but has another id.
    pid: AtomicI32,
    /// Excludes the threads of this process from each other where managers are opened and closed.
    guard: AtomicU32,
}

/// Counts epochs. Children inherit it on purpose: a thread may still remember an ancestor's epoch, so none is used twice. 0
/// means that none has begun, and a new thread's object has 1, so the first epoch is 2.
static NEXT_EPOCH: AtomicU64 = AtomicU64::new(2);

impl Process {
    /// This process, with an epoch.
    pub(crate) fn current() -> Result<&'static Self, Errno> {
        // SAFETY: a line of the arena, larger than Process, that is never unmapped; all fields are atomics, for which zeros
        // are valid.
        let process = unsafe { &*arena::process()?.as_ptr().cast::<Self>() };
        process.begin_epoch();
        Ok(process)
    }

    /// The epoch; 0: there was no call since the fork.
    #[inline(always)]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The epoch, which begins now if there is none. Threads may race: one epoch wins, and all write the same process id.
    pub(crate) fn begin_epoch(&self) -> u64 {
        let epoch = self.epoch();
        if epoch != 0 {
            return epoch;
        }
        self.pid.store(pid(), Ordering::Relaxed);
        let fresh = NEXT_EPOCH.fetch_add(1, Ordering::Relaxed);
        match self.epoch.compare_exchange(0, fresh, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => fresh,
            Err(winner) => winner,
        }
    }

    /// Whether the caller is the process that began the epoch, and not a CLONE_VM child that shares its memory.
    pub(crate) fn is_caller(&self) -> bool {
        self.pid.load(Ordering::Relaxed) == pid()
    }

    /// Excludes the other threads of this process until the returned value is dropped. A child that is made meanwhile finds the
    /// guard free. Signals are blocked: a handler that called the library would wait for its own thread.
    pub(crate) fn exclude_other_threads(&self) -> Exclusion<'_> {
        let signals = BlockedSignals::block();
        let mut attempts = 0u32;
        while self.guard.compare_exchange_weak(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            attempts += 1;
            // The guard is held for some microseconds, while a segment is looked up. A holder that was preempted takes longer.
            if attempts < 64 {
                std::thread::yield_now();
            } else {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
        Exclusion { process: self, signals }
    }
}

/// See [`Process::exclude_other_threads`].
pub(crate) struct Exclusion<'p> {
    process: &'p Process,
    signals: BlockedSignals,
}

impl Drop for Exclusion<'_> {
    fn drop(&mut self) {
        self.process.guard.store(0, Ordering::Release);
        self.signals.restore();
    }
}

/// The caller's process id, as the kernel has it.
pub(crate) fn pid() -> i32 {
    // SAFETY: getpid(2) takes nothing and cannot fail.
    unsafe { libc::getpid() }
}

/// The caller's effective user id.
pub(crate) fn effective_user() -> u32 {
    // SAFETY: geteuid(2) takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// The calling process's command as in /proc/PID/comm, NUL-padded, in two numbers.
pub(crate) fn command() -> [u64; 2] {
    let mut bytes = [0u8; 16];
    // SAFETY: gettid(2) cannot fail; prctl(2) writes at most 16 bytes for PR_GET_NAME, which is the calling thread's name.
    let is_main =
        unsafe { libc::gettid() == libc::getpid() && libc::prctl(libc::PR_GET_NAME, bytes.as_mut_ptr()) == 0 };
    if !is_main {
        let mut buffer = [0u8; 64];
        let name = proc_file::read("/proc/self/comm", &mut buffer).unwrap_or_default();
        for (place, byte) in bytes.iter_mut().zip(name.iter().filter(|&&byte| byte != b'\n')) {
            *place = *byte;
        }
    }
    let (halves, _) = bytes.as_chunks::<8>();
    [u64::from_ne_bytes(halves[0]), u64::from_ne_bytes(halves[1])]
}
