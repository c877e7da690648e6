// SPDX-License-Identifier: MIT OR Apache-2.0
//! The only door to libc and the kernel: each module wraps one thing of theirs and argues its unsafe blocks.
//!
//! - [`syscall`]: the system calls themselves: errno, clocks, futexes, files, directories, mappings.
//! - [`descriptor`]: file descriptors that the program may close under the library, and what is locked through them.
//! - [`process`]: who this process is, and memory that stays right across a fork.
//! - [`thread`]: what the library knows of the calling thread: its identity, its waits, its end, its signal mask.
//! - [`liveness`]: whether another thread or process still lives, as the kernel and /proc tell.
//! - [`mutex`]: the libc's robust mutexes.
//! - [`probe`]: static probes, for bpftrace, perf and gdb.
//! - [`platform`]: what differs between libcs and processors.

#![allow(
    unsafe_code,
    reason = "system calls and shared memory cannot be had without; nothing above this module needs it"
)]

#[cfg(target_os = "linux")]
pub(crate) mod descriptor;
#[cfg(target_os = "linux")]
pub(crate) mod liveness;
#[cfg(target_os = "linux")]
pub(crate) mod mutex;
#[cfg(target_os = "linux")]
pub(crate) mod platform;
#[cfg(target_os = "linux")]
pub(crate) mod popcount;
#[cfg(target_os = "linux")]
pub(crate) mod probe;
#[cfg(target_os = "linux")]
pub(crate) mod process;
#[cfg(target_os = "linux")]
pub(crate) mod syscall;
#[cfg(target_os = "linux")]
pub(crate) mod thread;

/// What errors say needs no more than this.
#[cfg(not(target_os = "linux"))]
pub(crate) mod syscall {
    pub(crate) mod errno;
}
#[cfg(not(target_os = "linux"))]
pub(crate) mod mutex {
    pub(crate) mod kind;
}

pub use syscall::errno::Errno;
