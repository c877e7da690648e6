// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! What differs between the platforms, in one table. Everything else is the same source for all of them.
//!
//! | | glibc | musl |
//! | --- | --- | --- |
//! | libpod layout | glibc's robust mutexes: `sys/mutex/glibc.rs` | musl's: `sys/mutex/musl.rs` |
//! | where the kernel learns of a thread's robust mutexes | at its start, anew after a fork | at its first; a child keeps its parent's list |
//! | the thread's object | initial-exec, which x86-64 and aarch64 reach without a call | global-dynamic: musl loads no library with initial-exec |
//! | signal by which the libc has every thread change its user | 33 | 34 |
//! | keys for thread-specific values | 1024, of which 32 take no allocation | 128, none of which takes one |
//!
//! | | 64 bits | 32 bits |
//! | --- | --- | --- |
//! | sizes and offsets of files | as the libc has them | the calls that end in 64: see `syscall::large` |
//! | seconds | 64 bits | 31 bits: a deadline beyond is 68 years after boot |
//!
//! The page of the native layout is 4096 bytes everywhere. The machine's is 4096 bytes on x86-64 and is asked for elsewhere.

/// The signal by which the libc has each thread change its user: setuid(3) waits until every thread has handled it.
pub(in crate::sys) const SIGNAL_OF_SETXID: i32 = if cfg!(target_env = "musl") { 34 } else { 33 };

/// As many keys as a process can have (PTHREAD_KEYS_MAX).
pub(in crate::sys) const MOST_KEYS: u32 = if cfg!(target_env = "musl") { 128 } else { 1024 };

/// The keys, from the first, whose values have their place in the thread itself.
pub(in crate::sys) const KEYS_IN_THE_THREAD: u64 = if cfg!(target_env = "musl") { 128 } else { 32 };
