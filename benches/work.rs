// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is measured: one file for each kind of work.

pub mod contended;
mod deadlock;
mod endings;
mod fairness;
mod files;
pub mod first_lock;
mod go;
mod held;
mod killed_waiter;
mod neighbours;
mod pool;
mod recovery;
mod sharing;
mod storage;
mod uncontended;

use crate::method::Run;

/// The library's own lock a second time in a round: how far it is from itself is the noise.
pub const AGAIN: &str = "lock_manager again";

/// A name, and what measures.
type Work = (&'static str, fn(&mut Run));

/// In this order.
pub const ALL: [Work; 15] = [
    ("uncontended", uncontended::run),
    ("contended", contended::run),
    ("neighbours", neighbours::run),
    ("fairness", fairness::run),
    ("recovery", recovery::run),
    ("killed-waiter", killed_waiter::run),
    ("deadlock", deadlock::run),
    ("sharing", sharing::run),
    ("held", held::run),
    ("endings", endings::run),
    ("pool", pool::run),
    ("storage", storage::run),
    ("first-lock", first_lock::run),
    ("files", files::run),
    ("go", go::run),
];
