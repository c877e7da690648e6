// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a promise is tested on: a storage of the test's own, reached through one door.

use super::door::{self, Door, Making, Opened, Outcome};
use super::support::Segment;

/// What kind of storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    LibpodLayout,
    NativeLayout,
    Files,
    InMemory,
    /// A cluster of etcd, of which this is one host.
    Etcd,
}

/// What a storage has or lacks. Both are promises: each capability has a list of tests in contract.rs, and so has its lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// Several managers and processes use one storage.
    Processes,
    /// A program may close every descriptor that it has. Of a storage of one process, nobody else could tell.
    ClosedDescriptors,
    /// There is a number of locks.
    Number,
    /// That number can grow.
    Growth,
    /// A process may own locks.
    ProcessOwnership,
    /// A lock may be held shared.
    Readers,
    /// The storage says which thread waits for which lock: waiters are counted, circles are found, and nobody starves.
    Waits,
}

impl Capability {
    /// Those that every storage has or lacks.
    pub const ALL: [Self; 6] =
        [Self::Processes, Self::Number, Self::Growth, Self::ProcessOwnership, Self::Readers, Self::Waits];
}

impl Storage {
    /// What each storage lacks, and why. This is the one place that says so.
    pub fn lacks(self) -> &'static [Capability] {
        match self {
            // Podman's format: an array of POSIX mutexes. Its length is fixed, a mutex belongs to a thread and to one
            // only, and nothing in it says who waits.
            Self::LibpodLayout => {
                &[Capability::Growth, Capability::ProcessOwnership, Capability::Readers, Capability::Waits]
            }
            Self::NativeLayout => &[],
            // A lock is a file of a directory, which has room for every id: there is no number that could grow.
            Self::Files => &[Capability::Number, Capability::Growth],
            // The locks are memory of one process.
            Self::InMemory => &[Capability::Processes],
            // The number is a key's value, and readers would need a queue of their own. The connections are descriptors.
            Self::Etcd => &[Capability::Growth, Capability::Readers, Capability::ClosedDescriptors],
        }
    }

    pub fn has(self, capability: Capability) -> bool {
        !self.lacks().contains(&capability)
    }

    /// The lists of tests in contract.rs that this storage has to pass, by their names there.
    pub fn lists(self) -> Vec<&'static str> {
        let mut lists: Vec<_> = Capability::ALL.into_iter().map(|capability| self.list(capability)).collect();
        if self.has(Capability::Processes) {
            lists.push(self.list(Capability::ClosedDescriptors));
        }
        if self.has(Capability::Processes) && self.has(Capability::Readers) {
            lists.push("readers_in_processes");
        }
        if self.has(Capability::Processes) && self.has(Capability::Waits) {
            lists.push("waits_in_processes");
        }
        lists
    }

    fn list(self, capability: Capability) -> &'static str {
        match (capability, self.has(capability)) {
            (Capability::Processes, true) => "processes",
            (Capability::Processes, false) => "no_processes",
            (Capability::ClosedDescriptors, true) => "closed_descriptors",
            (Capability::ClosedDescriptors, false) => "no_closed_descriptors",
            (Capability::Number, true) => "number",
            (Capability::Number, false) => "no_number",
            (Capability::Growth, true) => "growth",
            (Capability::Growth, false) => "no_growth",
            (Capability::ProcessOwnership, true) => "process_ownership",
            (Capability::ProcessOwnership, false) => "no_process_ownership",
            (Capability::Readers, true) => "readers",
            (Capability::Readers, false) => "no_readers",
            (Capability::Waits, true) => "waits",
            (Capability::Waits, false) => "no_waits",
        }
    }
}

/// How many locks are asked for where there is a number: the same after rounding.
pub const NUM_LOCKS: u32 = 64;

/// A storage and a door to it. What it made goes away with it.
pub struct Subject {
    pub storage: Storage,
    door: Door,
    place: Segment,
    maker: u32,
}

impl Subject {
    pub fn new(storage: Storage, door: Door) -> Self {
        Self { storage, door, place: Segment::unused(), maker: std::process::id() }
    }

    fn path(&self) -> String {
        match self.storage {
            Storage::LibpodLayout | Storage::NativeLayout => self.place.name.clone(),
            Storage::Files | Storage::InMemory => self.place.file().to_str().unwrap().to_owned(),
            Storage::Etcd => {
                let endpoints = super::support::etcd::shared_endpoints().unwrap();
                format!("etcd://{endpoints}{}", self.place.name)
            }
        }
    }

    /// Makes the storage.
    pub fn make(&self) -> Box<dyn Opened> {
        door::open(self.door, self.storage, &self.path(), NUM_LOCKS, Making::New).unwrap()
    }

    /// Opens the storage that was made.
    pub fn open(&self) -> Box<dyn Opened> {
        self.try_open().unwrap()
    }

    /// The same; for a storage of one process, another of the kind.
    pub fn try_open(&self) -> Outcome<Box<dyn Opened>> {
        assert!(self.is_shared());
        let num_locks = if self.is_numbered() { NUM_LOCKS } else { 0 };
        door::open(self.door, self.storage, &self.path(), num_locks, Making::Existing)
    }

    /// Whether several managers and processes can use it.
    pub fn is_shared(&self) -> bool {
        self.storage.has(Capability::Processes)
    }

    /// Whether it has a number of locks.
    pub fn is_numbered(&self) -> bool {
        self.storage.has(Capability::Number)
    }

    /// How many locks there are where that many were asked for.
    pub fn rounded(&self, num_locks: u32) -> u32 {
        match self.storage {
            Storage::LibpodLayout => num_locks.next_multiple_of(32),
            Storage::NativeLayout => num_locks.next_multiple_of(64),
            Storage::Files | Storage::InMemory | Storage::Etcd => num_locks,
        }
    }

    /// Removes the storage.
    pub fn remove(&self) {
        match self.storage {
            Storage::LibpodLayout | Storage::NativeLayout => lock_manager::ShmManager::remove(self.path()).unwrap(),
            Storage::Files => lock_manager::FileManager::remove(self.path()).unwrap(),
            Storage::InMemory => {}
            Storage::Etcd => {
                super::etcd::remove(&self.path()).unwrap();
            }
        }
    }
}

impl Drop for Subject {
    /// The native locks of an etcd's host have no name that the tests know. A forked child is not the maker.
    fn drop(&mut self) {
        if self.storage == Storage::Etcd && self.maker == std::process::id() {
            let _ = super::etcd::remove(&self.path());
        }
    }
}
