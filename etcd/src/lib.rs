// SPDX-License-Identifier: MIT OR Apache-2.0
//! Locks of lock_manager across machines, kept by an etcd cluster.
//!
//! A lease is no mutex: a holder that is paused for longer than its lease may run on, while another has the lock. Only a
//! resource that checks the fencing token is safe. `docs/etcd.md` says what is promised, and what is not.
//!
//! One thread for each manager, the keeper, talks to etcd over its JSON gateway. Callers leave it tasks, and sleep in the core.

mod acquiring;
mod answers;
mod circles;
mod core;
mod deadlock;
mod deleting;
mod engine;
mod failure;
mod ffi;
mod handing;
mod host;
mod http;
mod keeper;
mod keys;
mod leases;
mod looking;
mod options;
mod owner;
mod resolving;
#[cfg(feature = "rust")]
mod rust;
mod seen;
mod shared;
mod slots;
mod storage;
mod sys;
#[path = "../../src/plugged/table.rs"]
#[allow(dead_code, reason = "the core's own file; this library does not use every number of it")]
mod table;
mod tabled;
mod watching;
mod wire;

pub use failure::Failure;
pub use keys::Party;
pub use looking::Known;
pub use options::{DEFAULT_TTL, LEAST_TTL, Options};
#[cfg(feature = "rust")]
pub use rust::{EtcdManager, forget_host, remove};
