// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! What the processes of one host tell each other of its keys: a record for each lock, in memory that they share.
//!
//! Only the holder of the native lock writes the lock's record. Others may read it at any time.
//!
//! | word | what it is |
//! | --- | --- |
//! | 0 | the [`State`], whether the key is doubtful, and a number that each change makes another |
//! | 1, 2, 3 | lease, serial and create revision: they name the key |
//! | 4 | until when the lease is good |
//! | 5 | since when the host has had the key |
//!
//! A key is put into a record that says "none", and only the last store makes it a record of that key. So a writer that is
//! killed leaves "none". All other changes are one store.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::failure::{Failure, Outcome};
use crate::sys::{self, Words};

const DIRECTORY: &str = "/dev/shm";
/// One cache line.
const RECORD_WORDS: usize = 8;
const STATE: u64 = 0b11;
const DOUBTFUL: u64 = 0b100;
const CHANGE: u64 = 0b1000;

/// The words of a record.
mod word {
    pub(super) const STATE: usize = 0;
    pub(super) const LEASE: usize = 1;
    pub(super) const SERIAL: usize = 2;
    pub(super) const REVISION: usize = 3;
    pub(super) const GOOD_UNTIL: usize = 4;
    pub(super) const SINCE: usize = 5;
}

/// What the host has of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// No key.
    None,
    /// A key that somebody was told to hold.
    Held,
    /// A key that was unlocked, and is kept for others on the host that wait.
    Kept,
    /// A key that is being deleted.
    Leaving,
}

impl State {
    fn bits(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Held => 1,
            Self::Kept => 2,
            Self::Leaving => 3,
        }
    }

    #[inline]
    pub(crate) fn of(word: u64) -> Self {
        match word & STATE {
            1 => Self::Held,
            2 => Self::Kept,
            3 => Self::Leaving,
            _ => Self::None,
        }
    }
}

/// The record of one lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) state: State,
    /// Whether a request may still be on its way that would make the key anew when it is gone.
    pub(crate) is_doubtful: bool,
    pub(crate) lease: i64,
    pub(crate) serial: u64,
    pub(crate) revision: i64,
    /// Until when the lease is good, by the clock of leases.
    pub(crate) good_until: u64,
    /// Since when the host has had the key without a break.
    pub(crate) since: u64,
}

impl Record {
    pub(crate) const NONE: Self =
        Self { state: State::None, is_doubtful: false, lease: 0, serial: 0, revision: 0, good_until: 0, since: 0 };

    /// The last part of its key.
    pub(crate) fn name(&self) -> String {
        name_of(self.lease, self.serial)
    }
}

/// The last part of a key's name.
pub(crate) fn name_of(lease: i64, serial: u64) -> String {
    format!("{lease:x}-{serial:x}")
}

fn hashed(sum: u64, byte: u8) -> u64 {
    (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
}

/// The name of the native segment of a host, of which the file's is made.
pub(crate) fn segment_name(storage: &str) -> String {
    // FNV-1a.
    let hash = storage.bytes().fold(0xcbf2_9ce4_8422_2325, hashed);
    format!("/lock_manager-etcd-{}-{hash:016x}", sys::effective_user())
}

/// The records of all locks.
pub(crate) struct Records(Words);

impl Records {
    pub(crate) fn path(segment: &str) -> PathBuf {
        PathBuf::from(format!("{DIRECTORY}{segment}.keys"))
    }

    pub(crate) fn open(segment: &str, num_locks: u32) -> Outcome<Self> {
        let path = Self::path(segment);
        let failed = |error| Failure::of_system(&format!("opening {}", path.display()), &error);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file: File = options.open(&path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.uid() != sys::effective_user() || !metadata.is_file() {
            let text = format!("{} is not a file of the caller's; remove it", path.display());
            return Err(Failure::new(libc::EACCES, text));
        }
        Words::of_file(&file, num_locks as usize * RECORD_WORDS).map(Self).map_err(failed)
    }

    #[inline]
    fn word(&self, id: u32, word: usize) -> Option<&AtomicU64> {
        self.0.get(id as usize * RECORD_WORDS + word)
    }

    fn load(&self, id: u32, word: usize) -> u64 {
        self.word(id, word).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    fn store(&self, id: u32, word: usize, value: u64) {
        if let Some(word) = self.word(id, word) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// The word that each change makes another.
    #[inline]
    pub(crate) fn state_word(&self, id: u32) -> u64 {
        self.word(id, word::STATE).map_or(0, |word| word.load(Ordering::Acquire))
    }

    #[inline]
    pub(crate) fn revision(&self, id: u32) -> i64 {
        self.load(id, word::REVISION) as i64
    }

    #[inline]
    pub(crate) fn since(&self, id: u32) -> u64 {
        self.load(id, word::SINCE)
    }

    /// The record, if it did not change meanwhile.
    fn read_once(&self, id: u32) -> Option<Record> {
        let seen = self.state_word(id);
        let record = Record {
            state: State::of(seen),
            is_doubtful: seen & DOUBTFUL != 0,
            lease: self.load(id, word::LEASE) as i64,
            serial: self.load(id, word::SERIAL),
            revision: self.revision(id),
            good_until: self.load(id, word::GOOD_UNTIL),
            since: self.since(id),
        };
        fence(Ordering::Acquire);
        let is_same = self.load(id, word::STATE) == seen;
        is_same.then_some(if record.state == State::None { Record::NONE } else { record })
    }

    pub(crate) fn read(&self, id: u32) -> Record {
        loop {
            // Whoever changes it is done a moment later, or dead, and then it does not change.
            if let Some(record) = self.read_once(id) {
                return record;
            }
            std::hint::spin_loop();
        }
    }

    /// Puts a key into a record. The caller holds the native lock, here and below.
    pub(crate) fn put(&self, id: u32, record: &Record) {
        self.set_state(id, State::None);
        // The stores below come after that of "none".
        fence(Ordering::Release);
        self.store(id, word::LEASE, record.lease as u64);
        self.store(id, word::SERIAL, record.serial);
        self.store(id, word::REVISION, record.revision as u64);
        self.store(id, word::GOOD_UNTIL, record.good_until);
        self.store(id, word::SINCE, record.since);
        if let Some(word) = self.word(id, word::STATE) {
            let doubtful = if record.is_doubtful { DOUBTFUL } else { 0 };
            let next = word.load(Ordering::Relaxed).wrapping_add(CHANGE) & !(STATE | DOUBTFUL);
            word.store(next | doubtful | record.state.bits(), Ordering::Release);
        }
    }

    /// Changes the state, and nothing else.
    #[inline]
    pub(crate) fn set_state(&self, id: u32, state: State) {
        if let Some(word) = self.word(id, word::STATE) {
            let next = word.load(Ordering::Relaxed).wrapping_add(CHANGE) & !STATE;
            word.store(next | state.bits(), Ordering::Release);
        }
    }

    #[inline]
    pub(crate) fn set_good_until(&self, id: u32, good_until: u64) {
        self.store(id, word::GOOD_UNTIL, good_until);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const KEY: Record =
        Record { state: State::Held, is_doubtful: true, lease: 7, serial: 8, revision: 9, good_until: 10, since: 11 };

    /// Records of a file that goes with the test.
    fn records(name: &str, run: impl FnOnce(&Records)) {
        let segment = format!("/lm-test-{}-{name}", std::process::id());
        run(&Records::open(&segment, 3).unwrap());
        std::fs::remove_file(Records::path(&segment)).unwrap();
    }

    #[test]
    fn a_record_is_read_as_it_was_put_and_a_state_changes_alone() {
        records("put", |records| {
            assert_eq!(records.read(2), Record::NONE);
            records.put(2, &KEY);
            assert_eq!((records.read(2), records.read(1)), (KEY, Record::NONE));
            let before = records.state_word(2);
            records.set_good_until(2, 12);
            records.set_state(2, State::Kept);
            assert_eq!(records.read(2), Record { state: State::Kept, good_until: 12, ..KEY });
            // To and fro is a change.
            records.set_state(2, State::Held);
            assert_ne!(records.state_word(2), before);
            records.set_state(2, State::None);
            assert_eq!(records.read(2), Record::NONE);
            assert_eq!(records.read(3), Record::NONE, "there is no such lock");
        });
    }

    #[test]
    fn one_that_was_half_put_is_none() {
        records("half", |records| {
            records.put(0, &KEY);
            // The stores of a put, up to the last but one.
            records.set_state(0, State::None);
            for word in [word::LEASE, word::SERIAL, word::REVISION, word::GOOD_UNTIL, word::SINCE] {
                records.store(0, word, 77);
                assert_eq!(records.read(0), Record::NONE);
            }
        });
    }
}
