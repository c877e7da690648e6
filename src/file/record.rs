// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The bytes of the table file `.lock_manager`. It tells who holds which lock, and a lock on a lock's record is what
//! excludes users of this library from each other; libpod knows nothing of it.
//!
//! ```text
//!    0  u64  magic, "lockfile" in ASCII
//!    8  u32  version of this format, 1
//!   12  u32  bytes of a record, 32
//!   16  16 bytes that are 0
//!   32  a record for each id, from 0 on; what was never written is a hole, and reads as 0:
//!        0  u32  the holder's process, 0: nobody holds the lock, or its holder knows nothing of this file
//!        4  u32  the holder's thread; 0: the process owns the lock
//!        8  u64  when the process started, in clock ticks since boot
//!       16  u32  the inode number of its PID namespace
//!       20  u32  unused, 0
//!       24  u64  how often the lock was acquired
//! ```
//!
//! All numbers are little-endian. A record is written in one piece, by the holder of the lock only: before its lock
//! call returns, and when it unlocks. So a record that names a holder, found by whoever has just acquired the lock, is
//! that of a holder that died.

use crate::Reason;
use crate::sys::record_lock::Range;

/// The table file's name, which is no id.
pub(super) const TABLE: &str = ".lock_manager";

pub(super) const SIZE: usize = 32;

const MAGIC: u64 = u64::from_le_bytes(*b"lockfile");
/// The version of this format.
pub(crate) const VERSION: u32 = 1;

/// What the table file begins with.
pub(super) fn header() -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    put(&mut bytes, 0, MAGIC.to_le_bytes());
    put(&mut bytes, 8, VERSION.to_le_bytes());
    put(&mut bytes, 12, (SIZE as u32).to_le_bytes());
    bytes
}

/// Whether that is what the table file begins with.
pub(super) fn check_header(found: &[u8; SIZE]) -> Result<(), Reason> {
    if u64::from_le_bytes(part(found, 0)) != MAGIC {
        return Err(Reason::NotASegment("its file .lock_manager does not begin with the magic number of one"));
    }
    let version = u32::from_le_bytes(part(found, 8));
    if version != VERSION {
        let (found, expected) = (version.into(), VERSION.into());
        return Err(Reason::Damaged { what: "the version of its file .lock_manager", found, expected });
    }
    let size = u32::from_le_bytes(part(found, 12));
    if size as usize != SIZE {
        let (found, expected) = (size.into(), SIZE as u64);
        return Err(Reason::Damaged { what: "the size of a record in its file .lock_manager", found, expected });
    }
    Ok(())
}

/// Where the record of a lock begins.
pub(super) fn offset(id: u32) -> u64 {
    (u64::from(id) + 1) * SIZE as u64
}

/// What to lock to hold a lock.
pub(super) fn range(id: u32) -> Range {
    Range::between(offset(id), offset(id) + SIZE as u64)
}

/// All records.
pub(super) fn every_range() -> Range {
    Range::between(offset(0), offset(u32::MAX) + SIZE as u64)
}

/// The lock whose record that range is. `None`: it is a stranger's, who locks the table file for some reason of its own.
pub(super) fn id(range: Range) -> Option<u32> {
    let id = u32::try_from((range.start() / SIZE as u64).checked_sub(1)?).ok()?;
    (self::range(id) == range).then_some(id)
}

/// A process as other processes can recognise it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) pid: u32,
    /// In clock ticks since boot.
    pub(super) start_time: u64,
    pub(super) pid_namespace: u32,
}

/// What the table says of one lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) holder: Option<Identity>,
    /// 0: the process owns the lock.
    pub(super) tid: u32,
    pub(super) acquisitions: u64,
}

impl Record {
    /// Of a lock that was never taken.
    pub(super) const NOBODYS: Self = Self { holder: None, tid: 0, acquisitions: 0 };

    pub(super) fn read(bytes: &[u8; SIZE]) -> Self {
        let pid = u32::from_le_bytes(part(bytes, 0));
        let start_time = u64::from_le_bytes(part(bytes, 8));
        let pid_namespace = u32::from_le_bytes(part(bytes, 16));
        Self {
            holder: (pid != 0).then_some(Identity { pid, start_time, pid_namespace }),
            tid: u32::from_le_bytes(part(bytes, 4)),
            acquisitions: u64::from_le_bytes(part(bytes, 24)),
        }
    }

    pub(super) fn bytes(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        if let Some(holder) = self.holder {
            put(&mut bytes, 0, holder.pid.to_le_bytes());
            put(&mut bytes, 4, self.tid.to_le_bytes());
            put(&mut bytes, 8, holder.start_time.to_le_bytes());
            put(&mut bytes, 16, holder.pid_namespace.to_le_bytes());
        }
        put(&mut bytes, 24, self.acquisitions.to_le_bytes());
        bytes
    }
}

fn part<const N: usize>(bytes: &[u8; SIZE], offset: usize) -> [u8; N] {
    std::array::from_fn(|index| bytes[offset + index])
}

fn put<const N: usize>(bytes: &mut [u8; SIZE], offset: usize, value: [u8; N]) {
    bytes[offset..offset + N].copy_from_slice(&value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let holder = Some(Identity { pid: 7, start_time: 1 << 40, pid_namespace: 0xEFFF_FFFC });
        for record in [
            Record { holder, tid: 8, acquisitions: u64::MAX },
            Record { holder: None, tid: 0, acquisitions: 3 },
            Record::read(&[0; SIZE]),
        ] {
            assert_eq!(Record::read(&record.bytes()), record);
        }
    }

    #[test]
    fn every_id_has_a_range_of_its_own() {
        for id in [0, 1, 2, 1 << 20, u32::MAX - 1, u32::MAX] {
            assert_eq!(super::id(range(id)), Some(id));
        }
        assert_eq!([every_range(), Range::WHOLE, Range::between(0, 32)].map(super::id), [None; 3]);
    }

    #[test]
    fn a_header_of_another_version_is_refused() {
        assert_eq!(check_header(&header()), Ok(()));
        for byte in [0, 8, 12] {
            let mut other = header();
            other[byte] ^= 0x40;
            assert_eq!(check_header(&other).unwrap_err().errno(), libc::EPROTO);
        }
    }
}
