// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file manager: what is its own beside the promises of every manager (`contract.rs`). One directory shared with
//! users of POSIX locks, as libpod is, and with whatever else may be in it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing helper is a failing test")]

/// Allocation among many ids, and by many.
#[path = "files/allocation.rs"]
mod allocation;
/// What is known of an id's file without looking for it.
#[path = "files/at_hand.rs"]
mod at_hand;
/// Killed at random.
#[path = "files/chaos.rs"]
mod chaos;
/// Children that the libc knows nothing of.
#[path = "files/children.rs"]
mod children;
/// Killed at every system call.
#[cfg(target_arch = "x86_64")]
#[path = "files/every_call.rs"]
mod every_call;
/// Killed at every instruction.
#[cfg(target_arch = "x86_64")]
#[path = "files/every_instruction.rs"]
mod every_instruction;
/// No descriptors, no room, no leave to write; and nothing that leaks.
#[path = "files/exhaustion.rs"]
mod exhaustion;
/// Ids that are freed while they are in use.
#[path = "files/freed.rs"]
mod freed;
/// Children in their parent's memory with thread-local storage that is another's.
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
#[path = "files/lent_tls.rs"]
mod lent_tls;
/// What directories are made, opened, refused and removed, and what may be in them.
#[path = "files/opening.rs"]
mod opening;
/// On overlayfs.
#[path = "files/overlay.rs"]
mod overlay;
/// A directory of a test's own.
#[path = "files/place.rs"]
mod place;
/// What libpod does to hold a lock.
#[path = "files/posix.rs"]
mod posix;
/// POSIX locks and ours on the same files.
#[path = "files/posix_users.rs"]
mod posix_users;
/// The record locks beside the words.
#[path = "files/record_locks.rs"]
mod record_locks;
/// What errors say.
#[path = "files/sentences.rs"]
mod sentences;

#[path = "files/sharing.rs"]
mod sharing;
mod support;
/// The file `.lock_manager`, and what becomes of it.
#[path = "files/table.rs"]
mod table;
