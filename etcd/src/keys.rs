// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The keys of a storage, and what their values say.
//!
//! | key, after the prefix | value | lease |
//! | --- | --- | --- |
//! | `/locks` | the format, and the number of locks. Its create revision names this storage | none |
//! | `/a/ID` | the lock is allocated | none |
//! | `/q/ID/LEASE-SERIAL` | a [`Party`] that holds the lock, or waits. The order is that of the create revisions | its host's |
//! | `/held/ID` | a [`Held`]: which of them holds the lock. A key that is left behind tells of a death | none |
//! | `/f/LEASE-SERIAL` | a request for that key that may still be on its way is void | its host's |

use serde::{Deserialize, Serialize};

use crate::shared::Told;

/// The keys of one storage.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    pub(crate) fn all(&self) -> String {
        format!("{}/", self.prefix)
    }

    pub(crate) fn config(&self) -> String {
        format!("{}/locks", self.prefix)
    }

    pub(crate) fn allocated_all(&self) -> String {
        format!("{}/a/", self.prefix)
    }

    pub(crate) fn allocated(&self, id: u32) -> String {
        format!("{}/a/{id:08}", self.prefix)
    }

    pub(crate) fn queues(&self) -> String {
        format!("{}/q/", self.prefix)
    }

    pub(crate) fn queue(&self, id: u32) -> String {
        format!("{}/q/{id:08}/", self.prefix)
    }

    pub(crate) fn queued(&self, id: u32, name: &str) -> String {
        format!("{}{name}", self.queue(id))
    }

    pub(crate) fn held_all(&self) -> String {
        format!("{}/held/", self.prefix)
    }

    pub(crate) fn held(&self, id: u32) -> String {
        format!("{}/held/{id:08}", self.prefix)
    }

    pub(crate) fn fence(&self, name: &str) -> String {
        format!("{}/f/{name}", self.prefix)
    }

    /// The id in a key that begins with `before`.
    pub(crate) fn id_in(key: &str, before: &str) -> Option<u32> {
        key.strip_prefix(before)?.split('/').next()?.parse().ok()
    }
}

/// The value of the first key.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Config {
    pub(crate) format: u32,
    pub(crate) locks: u32,
}

pub(crate) const FORMAT: u32 = 1;

/// In place of a thread, for a key that goes from hand to hand. No thread has that number.
pub(crate) const NO_THREAD: i32 = 0;

/// Who holds a lock, or waits for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Party {
    /// The host's name, for people.
    pub host: String,
    /// What names the host among those that share the storage.
    pub host_id: String,
    /// The process, in its own PID namespace.
    pub pid: i32,
    /// When it started, in ticks since the boot, so that a later process of the same number is another.
    pub start: u64,
    /// The thread, in its own PID namespace; 0 if that is not known.
    pub tid: i32,
    /// Whether the process owns the lock, and not one of its threads.
    pub by_process: bool,
    /// Whether the key goes from hand to hand on its host, so that another thread there may hold the lock than this one.
    pub handed_on: bool,
    /// The process's command.
    pub command: String,
    /// When it asked for the lock, in milliseconds since 1970 by its own clock.
    pub since_ms: u64,
}

impl Party {
    /// For how long it has held the lock or waited for it, in nanoseconds, as far as the clocks of its host and this one
    /// agree.
    #[must_use]
    pub fn since_ns(&self) -> u64 {
        const NANOSECONDS_PER_MILLISECOND: u64 = 1_000_000;
        crate::sys::since_1970_ms().saturating_sub(self.since_ms).saturating_mul(NANOSECONDS_PER_MILLISECOND)
    }

    /// Whether both are the same thread.
    pub(crate) fn is_same_thread(&self, other: &Self) -> bool {
        let name = |party: &Self| (party.host_id.clone(), party.pid, party.start, party.tid);
        name(self) == name(other)
    }
}

impl std::fmt::Display for Party {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, pid, tid, command, by_process, handed_on, .. } = self;
        if *handed_on {
            write!(f, "a thread on {host}, such as one of process {pid} ({command})")
        } else if *by_process {
            write!(f, "process {pid} ({command}) on {host}")
        } else {
            write!(f, "thread {tid} of process {pid} ({command}) on {host}")
        }
    }
}

/// Which key holds a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) key: String,
    /// Whether its holder was told of a death.
    pub(crate) died: bool,
}

impl Held {
    pub(crate) fn told(&self) -> Told {
        if self.died { Told::OwnerDied } else { Told::Clean }
    }
}

/// A value as JSON. Our own types cannot fail to become it.
pub(crate) fn json_of(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
