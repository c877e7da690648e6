// SPDX-License-Identifier: MIT OR Apache-2.0
//! The built `lockctl`, driven as its users drive it: real segments and directories, real processes, real faults.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail and speak")]

/// For monitoring.
#[path = "lockctl/check.rs"]
mod check;
/// Locks in etcd.
#[path = "lockctl/etcd.rs"]
mod etcd;
/// Locks in files.
#[path = "lockctl/files.rs"]
mod files;
/// Who waits for whom.
#[path = "lockctl/graph.rs"]
mod graph;
/// Who holds what.
#[path = "lockctl/list.rs"]
mod list;
/// What is made from the definitions of the command line.
#[path = "lockctl/manuals.rs"]
mod manuals;
/// Names of files that are no text.
#[path = "lockctl/names.rs"]
mod names;
/// The native layout.
#[path = "lockctl/native.rs"]
mod native;
/// A command under a lock that it is under already.
#[path = "lockctl/nested.rs"]
mod nested;
/// Segments and ids.
#[path = "lockctl/pool.rs"]
mod pool;
/// A command under a lock in a container.
#[path = "lockctl/process_1.rs"]
mod process_1;
/// A process that does what it is told.
#[path = "lockctl/puppet.rs"]
mod puppet;
/// Locks that several hold at a time: what is shown of them.
#[path = "lockctl/readers.rs"]
mod readers;
/// Ids that were left behind.
#[path = "lockctl/reconcile.rs"]
mod reconcile;
/// Locks of the dead.
#[path = "lockctl/repair.rs"]
mod repair;
/// A command under a lock.
#[path = "lockctl/run.rs"]
mod run;
/// A command under a lock, while it runs.
#[path = "lockctl/running.rs"]
mod running;
/// A command under a lock that others may read as well.
#[path = "lockctl/shared.rs"]
mod shared;
/// Signals to a command under a lock.
#[path = "lockctl/signals.rs"]
mod signals;
/// Starting lockctl, and storages of a test's own.
#[path = "lockctl/stage.rs"]
mod stage;
/// Another user's eyes.
#[path = "lockctl/strangers.rs"]
mod strangers;
/// What the library's own tests share.
#[path = "../../tests/support/mod.rs"]
mod support;
/// A real terminal.
#[path = "lockctl/terminal.rs"]
mod terminal;
/// The live view.
#[path = "lockctl/watch.rs"]
mod watch;
