// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! What the processes of one host tell each other of its keys: a record for each lock, in a file of fixed records. Only the
//! holder of the native lock writes the lock's record.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use crate::failure::{Failure, Outcome};
use crate::sys;

const DIRECTORY: &str = "/dev/shm";
const RECORD: usize = 64;
const DOUBTFUL: u64 = 1 << 32;
const MAGIC: u64 = 0x4c4d_4554_4344_0001;

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

    fn words(&self) -> [u64; RECORD / 8] {
        let state = match self.state {
            State::None => 0,
            State::Held => 1,
            State::Kept => 2,
            State::Leaving => 3,
        } | if self.is_doubtful { DOUBTFUL } else { 0 };
        let words =
            [MAGIC, state, self.lease as u64, self.serial, self.revision as u64, self.good_until, self.since, 0];
        let sum = sum(&words);
        let [magic, state, lease, serial, revision, good_until, since, _] = words;
        [magic, state, lease, serial, revision, good_until, since, sum]
    }

    fn of(bytes: [u8; RECORD]) -> Option<Self> {
        let mut words = [0; RECORD / 8];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().ok()?);
        }
        let [magic, state, lease, serial, revision, good_until, since, _] = words;
        let is_doubtful = state & DOUBTFUL != 0;
        let state = match state & !DOUBTFUL {
            0 => State::None,
            1 => State::Held,
            2 => State::Kept,
            3 => State::Leaving,
            _ => return None,
        };
        let (lease, revision) = (lease as i64, revision as i64);
        let record = Self { state, is_doubtful, lease, serial, revision, good_until, since };
        (magic == MAGIC && record.words() == words).then_some(record)
    }
}

/// The last part of a key's name.
pub(crate) fn name_of(lease: i64, serial: u64) -> String {
    format!("{lease:x}-{serial:x}")
}

/// FNV-1a, so that a record that was half written is none.
fn sum(words: &[u64]) -> u64 {
    words.iter().flat_map(|word| word.to_ne_bytes()).fold(0xcbf2_9ce4_8422_2325, hashed)
}

fn hashed(sum: u64, byte: u8) -> u64 {
    (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
}

/// The name of the native segment of a host, of which the file's is made.
pub(crate) fn segment_name(storage: &str) -> String {
    let hash = storage.bytes().fold(0xcbf2_9ce4_8422_2325, hashed);
    format!("/lock_manager-etcd-{}-{hash:016x}", sys::effective_user())
}

/// The file.
#[derive(Debug)]
pub(crate) struct Records(File);

impl Records {
    pub(crate) fn path(segment: &str) -> PathBuf {
        PathBuf::from(format!("{DIRECTORY}{segment}.keys"))
    }

    pub(crate) fn open(segment: &str) -> Outcome<Self> {
        let path = Self::path(segment);
        let doing = format!("opening {}", path.display());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(&path).map_err(|error| Failure::of_system(&doing, &error))?;
        let metadata = file.metadata().map_err(|error| Failure::of_system(&doing, &error))?;
        if metadata.uid() != sys::effective_user() || !metadata.is_file() {
            let text = format!("{} is not a file of the caller's; remove it", path.display());
            return Err(Failure::new(libc::EACCES, text));
        }
        Ok(Self(file))
    }

    /// What cannot be read is no key.
    pub(crate) fn read(&self, id: u32) -> Record {
        let mut bytes = [0; RECORD];
        match self.0.read_exact_at(&mut bytes, u64::from(id) * RECORD as u64) {
            Ok(()) => Record::of(bytes).unwrap_or(Record::NONE),
            Err(_) => Record::NONE,
        }
    }

    /// Whether it was written.
    pub(crate) fn write(&self, id: u32, record: &Record) -> bool {
        let mut bytes = [0; RECORD];
        for (place, word) in bytes.chunks_exact_mut(8).zip(record.words()) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        self.0.write_all_at(&bytes, u64::from(id) * RECORD as u64).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_a_damaged_one_is_none() {
        let record = Record {
            state: State::Kept,
            is_doubtful: true,
            lease: 7,
            serial: 8,
            revision: 9,
            good_until: 10,
            since: 11,
        };
        let mut bytes = [0; RECORD];
        for (place, word) in bytes.chunks_exact_mut(8).zip(record.words()) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        assert_eq!(Record::of(bytes), Some(record));
        for index in 0..RECORD {
            let mut damaged = bytes;
            damaged[index] ^= 1;
            assert_eq!(Record::of(damaged), None, "{index}");
        }
        assert_eq!(Record::of([0; RECORD]), None);
    }
}
