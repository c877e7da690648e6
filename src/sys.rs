// SPDX-License-Identifier: MIT OR Apache-2.0
//! The only door to libc and the kernel: each module wraps one thing of theirs and argues its unsafe blocks.

#![allow(
    unsafe_code,
    reason = "system calls and shared memory cannot be had without; nothing above this module needs it"
)]

pub(crate) mod arena;
pub(crate) mod bits;
pub(crate) mod clock;
pub(crate) mod directory;
pub(crate) mod ending;
mod errno;
pub(crate) mod file;
mod file_system;
pub(crate) mod futex;
pub(crate) mod glance;
pub(crate) mod made_once;
pub(crate) mod mapping;
pub(crate) mod mutex;
pub(crate) mod numbers;
pub(crate) mod per_process;
pub(crate) mod pinned;
pub(crate) mod process;
pub(crate) mod procfs;
pub(crate) mod random;
pub(crate) mod record_lock;
pub(crate) mod registry;
mod standard;
pub(crate) mod thread;
pub(crate) mod undisturbed;
pub(crate) mod waits;
pub(crate) mod watched;
pub(crate) mod witness;

pub use errno::Errno;
