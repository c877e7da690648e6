// SPDX-License-Identifier: MIT OR Apache-2.0
//! The calling thread: a serial that names it in this process, and how many robust mutexes it holds.

use std::sync::atomic::{AtomicU64, Ordering};

use super::mutex;
use super::process::Process;

/// How many bits a serial has, so that others may share a word with it.
pub(crate) const SERIAL_BITS: u32 = 40;

/// What stands in thread.c, field by field.
#[repr(C)]
struct State {
    epoch: u64,
    serial: u64,
    held: u64,
}

/// Serials of threads. Inherited by children on purpose: a serial is never that of a thread of an ancestor.
static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1);

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn state() -> *mut State {
    unsafe extern "C" {
        static lock_manager_this_thread: State;
    }
    let address: *mut State;
    // SAFETY: the initial-exec sequence of the x86-64 TLS ABI: the GOT entry holds the object's offset from the
    // thread pointer, which itself stands at %fs:0. Reads only; the offset is fixed once the library is loaded.
    unsafe {
        std::arch::asm!(
            "mov {offset}, qword ptr [rip + {symbol}@GOTTPOFF]",
            "add {offset}, qword ptr fs:[0]",
            offset = out(reg) address,
            symbol = sym lock_manager_this_thread,
            options(nostack, pure, readonly),
        );
    }
    address
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn state() -> *mut State {
    unsafe extern "C" {
        fn lock_manager_this_thread_address() -> *mut State;
    }
    // SAFETY: the function of thread.c takes nothing and returns the address of the thread's own object.
    unsafe { lock_manager_this_thread_address() }
}

/// The calling thread's own object. Not `Send`: it is the thread's address.
#[derive(Clone, Copy)]
pub(crate) struct Thread(*mut State);

/// The caller is a child made behind the libc's back, which must not lock in its parent's name.
pub(crate) struct ClonedChild;

impl Thread {
    /// The calling thread as this library last knew it, without asking whether that was before a fork.
    #[inline(always)]
    pub(crate) fn calling() -> Self {
        Self(state())
    }

    /// The calling thread, known to belong to this process as the libc sees it.
    #[inline(always)]
    pub(crate) fn enter(process: &Process) -> Result<Self, ClonedChild> {
        let thread = Self::calling();
        if thread.epoch() == process.epoch() { Ok(thread) } else { thread.enter_first(process) }
    }

    /// The first call of a thread, or of a thread after a fork.
    #[cold]
    fn enter_first(self, process: &Process) -> Result<Self, ClonedChild> {
        let epoch = process.settle();
        if !process.is_caller() || mutex::libc_thread_id() != kernel_thread_id() {
            return Err(ClonedChild);
        }
        // SAFETY: as for epoch(); this thread alone writes its object.
        unsafe {
            (*self.0).serial = NEXT_SERIAL.fetch_add(1, Ordering::Relaxed) & ((1 << SERIAL_BITS) - 1);
            (*self.0).held = 0;
            (*self.0).epoch = epoch;
        }
        Ok(self)
    }

    #[inline(always)]
    fn epoch(self) -> u64 {
        // SAFETY: the address of the calling thread's own object, valid as long as the thread runs; Thread is not
        // Send, and no reference to the object is ever made.
        unsafe { (*self.0).epoch }
    }

    /// Names the thread in this process; 0 before it first entered.
    #[inline(always)]
    pub(crate) fn serial(self) -> u64 {
        // SAFETY: as for epoch().
        unsafe { (*self.0).serial }
    }

    /// How many robust mutexes the thread holds through this library.
    #[inline(always)]
    pub(crate) fn held(self) -> u64 {
        // SAFETY: as for epoch().
        unsafe { (*self.0).held }
    }

    #[inline(always)]
    pub(crate) fn count_acquired(self) {
        // SAFETY: as for epoch(); this thread alone writes its object.
        unsafe { (*self.0).held += 1 }
    }

    #[inline(always)]
    pub(crate) fn count_released(self) {
        // SAFETY: as for epoch(); this thread alone writes its object. What is released was acquired, so the count
        // is not 0.
        unsafe { (*self.0).held -= 1 }
    }
}

/// The caller's thread id, asked of the kernel.
fn kernel_thread_id() -> u32 {
    // SAFETY: gettid(2) takes nothing and cannot fail.
    unsafe { libc::gettid() as u32 }
}
