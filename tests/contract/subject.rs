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
}

/// How many locks are asked for where there is a number: the same after rounding.
pub const NUM_LOCKS: u32 = 64;

/// A storage and a door to it. What it made goes away with it.
pub struct Subject {
    pub storage: Storage,
    door: Door,
    place: Segment,
}

impl Subject {
    pub fn new(storage: Storage, door: Door) -> Self {
        Self { storage, door, place: Segment::unused() }
    }

    fn path(&self) -> String {
        match self.storage {
            Storage::LibpodLayout | Storage::NativeLayout => self.place.name.clone(),
            Storage::Files | Storage::InMemory => self.place.file().to_str().unwrap().to_owned(),
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

    pub fn try_open(&self) -> Outcome<Box<dyn Opened>> {
        assert!(self.is_shared());
        let num_locks = if self.is_numbered() { NUM_LOCKS } else { 0 };
        door::open(self.door, self.storage, &self.path(), num_locks, Making::Existing)
    }

    /// Whether several managers and processes can use it.
    pub fn is_shared(&self) -> bool {
        self.storage != Storage::InMemory
    }

    /// Whether it has a number of locks.
    pub fn is_numbered(&self) -> bool {
        self.storage != Storage::Files
    }

    /// Whether a process may own its locks.
    pub fn has_process_ownership(&self) -> bool {
        self.storage != Storage::LibpodLayout
    }

    /// Whether its words say who waits for what: then waiters are seen, circles found, and those that wait get a turn.
    fn has_native_words(&self) -> bool {
        self.storage != Storage::LibpodLayout
    }

    pub fn has_readers(&self) -> bool {
        self.has_native_words()
    }

    pub fn sees_waiters(&self) -> bool {
        self.has_native_words()
    }

    pub fn finds_circles(&self) -> bool {
        self.has_native_words()
    }

    pub fn is_fair(&self) -> bool {
        self.has_native_words()
    }

    pub fn can_grow(&self) -> bool {
        matches!(self.storage, Storage::InMemory | Storage::NativeLayout)
    }

    /// How many locks there are where that many were asked for.
    pub fn rounded(&self, num_locks: u32) -> u32 {
        match self.storage {
            Storage::LibpodLayout => num_locks.next_multiple_of(32),
            Storage::NativeLayout => num_locks.next_multiple_of(64),
            Storage::Files | Storage::InMemory => num_locks,
        }
    }

    /// Removes the storage.
    pub fn remove(&self) {
        match self.storage {
            Storage::LibpodLayout | Storage::NativeLayout => lock_manager::ShmManager::remove(self.path()).unwrap(),
            Storage::Files => lock_manager::FileManager::remove(self.path()).unwrap(),
            Storage::InMemory => {}
        }
    }
}
