// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the native layout promises beyond the contract of every manager: no death at whatever instruction loses a lock,
//! no holder that lives is robbed, waiting that would never end is said to be so.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing helper is a failing test")]

#[path = "native/cancelling.rs"]
mod cancelling;
#[path = "native/children.rs"]
mod children;
#[path = "native/crowds.rs"]
mod crowds;
#[path = "native/deadlock.rs"]
mod deadlock;
#[path = "native/dying_slowly.rs"]
mod dying_slowly;
#[cfg(target_arch = "x86_64")]
#[path = "native/every_instruction.rs"]
mod every_instruction;
#[path = "native/full_table.rs"]
mod full_table;
#[path = "native/living_holders.rs"]
mod living_holders;
#[path = "native/lost_by_robust_mutexes.rs"]
mod lost_by_robust_mutexes;
#[path = "native/numbers.rs"]
mod numbers;
#[path = "native/readers.rs"]
mod readers;
#[cfg(target_arch = "x86_64")]
#[path = "native/readers_dying.rs"]
mod readers_dying;
#[path = "native/readers_storm.rs"]
mod readers_storm;
#[path = "native/removal.rs"]
mod removal;
#[path = "native/rings.rs"]
mod rings;
#[path = "native/storm.rs"]
mod storm;
mod support;
#[path = "native/thread_ends.rs"]
mod thread_ends;
#[path = "native/wrapping.rs"]
mod wrapping;

use std::time::Duration;

/// Where a lock that is lost would be waited for in vain.
const LONG: Duration = support::timing::scaled(Duration::from_secs(20));
