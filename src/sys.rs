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

pub(crate) mod descriptor;
pub(crate) mod liveness;
pub(crate) mod mutex;
pub(crate) mod platform;
pub(crate) mod popcount;
pub(crate) mod probe;
pub(crate) mod process;
pub(crate) mod syscall;
pub(crate) mod thread;

pub use syscall::errno::Errno;
