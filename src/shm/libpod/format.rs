// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The bytes of Podman's segment. As many as on x86-64, where a mutex has 40 bytes and is aligned to 8:
//!
//! ```text
//!   0  u16  magic, 0x87D1
//!   2  u16  unused, 0
//!   8  pthread_mutex_t, guards the bitmaps
//!  48  u32  number of bitmaps
//!  52  u32  number of locks, 32 times that
//!  56  groups of 32 locks, 1288 bytes each:
//!        0  u32  bitmap, bit i set: lock i of the group is allocated
//!        8  32 × pthread_mutex_t
//! ```
//!
//! On aarch64 glibc's mutex has 48 bytes, so a group has 1544. On 32 bits a mutex has 24 bytes and is aligned to 4: it follows
//! the magic number at 4, and a bitmap at 4, and a group has 772.
//!
//! The layout has two forms, one for each libc: Podman's mutexes are those of the libc that it was built for.
//!
//! ```text
//!               glibc, 64 bits      32 bits          musl
//!   word        0                   0                4            holder, marks of the kernel
//!   kind        16, 0x290 or 0x90   12               0, 0x84
//!   lost        8 is 0x7ffffffe     8                4 is 0x7fffffff
//! ```
//!
//! *Lost* is a mutex that was unlocked before it was made consistent. In the form of the other libc each would see other
//! holders than it, so a segment of the other form is refused.
//!
//! All numbers in the machine's byte order. The file ends with the last group.

use crate::Reason;
use crate::sys::mutex;
use crate::sys::mutex::kind::Libc;

use super::super::MAX_LOCKS;

/// How many locks share a bitmap.
pub(super) const GROUP: u32 = u32::BITS;

/// What a segment begins with.
pub(crate) const MAGIC: u16 = 0x87D1;

/// Byte offsets within the segment.
pub(super) mod offset {
    use super::{GROUP, mutex};

    pub(crate) const MAGIC: usize = 0;
    pub(crate) const UNUSED: usize = 2;
    pub(crate) const GUARD: usize = (UNUSED + size_of::<u16>()).next_multiple_of(mutex::ALIGN);
    pub(crate) const NUM_BITMAPS: usize = GUARD + mutex::SIZE;
    pub(crate) const NUM_LOCKS: usize = NUM_BITMAPS + 4;
    pub(crate) const GROUPS: usize = NUM_LOCKS + 4;

    pub(crate) const FIRST_MUTEX: usize = GROUPS + MUTEXES;

    /// Within a group.
    pub(crate) const MUTEXES: usize = size_of::<u32>().next_multiple_of(mutex::ALIGN);
    pub(crate) const GROUP_SIZE: usize = MUTEXES + GROUP as usize * mutex::SIZE;
}

const _: () = assert!(offset::GUARD.is_multiple_of(mutex::ALIGN));
const _: () = assert!(offset::GROUPS.is_multiple_of(mutex::ALIGN) && offset::GROUP_SIZE.is_multiple_of(mutex::ALIGN));
#[cfg(target_arch = "x86_64")]
const _: () = assert!(offset::GROUPS == 56 && offset::GROUP_SIZE == 1288);
const _: () = assert!(Geometry::mutex_offset(GROUP) == offset::GROUPS + offset::GROUP_SIZE + offset::MUTEXES);
#[cfg(target_arch = "x86_64")]
const _: () = assert!(Geometry::for_locks(2048).size() == 82_488);
#[cfg(all(target_arch = "aarch64", target_env = "gnu"))]
const _: () = assert!(offset::GROUPS == 64 && offset::GROUP_SIZE == 1544);
#[cfg(all(target_arch = "aarch64", target_env = "musl"))]
const _: () = assert!(offset::GROUPS == 56 && offset::GROUP_SIZE == 1288);
#[cfg(target_pointer_width = "32")]
const _: () = assert!(offset::GROUPS == 36 && offset::GROUP_SIZE == 772);

/// Whether a file that starts with these bytes carries libpod's magic number.
pub(crate) fn is_ours(start: &[u8]) -> bool {
    word16(start, offset::MAGIC) == Some(MAGIC)
}

/// Refuses the segment that starts with these bytes if its mutexes are another libc's. Their sizes may differ, so this comes
/// before the geometry.
pub(super) fn check_libc(start: &[u8]) -> Result<(), Reason> {
    let guard = start.get(offset::GUARD..).unwrap_or_default();
    let words: Vec<u32> = guard.as_chunks().0.iter().map(|word| u32::from_ne_bytes(*word)).collect();
    match Libc::maker_of(&words) {
        Some(maker) if maker != Libc::THIS => {
            Err(Reason::OtherLibc { made_by: maker.name(), built_for: Libc::THIS.name() })
        }
        _ => Ok(()),
    }
}

/// How many locks a segment has, and so where everything stands. Private to the process: made at creation or checked
/// at opening, never read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) groups: u32,
}

impl Geometry {
    /// Of a segment that is made for `num_locks`, rounded up to whole groups.
    pub(super) const fn for_locks(num_locks: u32) -> Self {
        Self { groups: num_locks.div_ceil(GROUP) }
    }

    /// Of the segment whose file has `size` bytes and starts with `start`, if its numbers agree with each other.
    pub(super) fn read(start: &[u8], size: u64) -> Result<Self, Reason> {
        let (Some(unused), Some(bitmaps), Some(locks)) =
            (word16(start, offset::UNUSED), word32(start, offset::NUM_BITMAPS), word32(start, offset::NUM_LOCKS))
        else {
            return Err(damaged("the size of the file", size, offset::GROUPS as u64));
        };
        if unused != 0 {
            return Err(damaged("the unused word after the magic number", u64::from(unused), 0));
        }
        if bitmaps == 0 || bitmaps > MAX_LOCKS / GROUP {
            return Err(damaged("the number of bitmaps", u64::from(bitmaps), u64::from(locks / GROUP)));
        }
        let geometry = Self { groups: bitmaps };
        if locks != geometry.num_locks() {
            return Err(damaged("the number of locks", u64::from(locks), u64::from(geometry.num_locks())));
        }
        if size != geometry.size() as u64 {
            return Err(damaged("the size of the file", size, geometry.size() as u64));
        }
        Ok(geometry)
    }

    pub(super) const fn num_locks(self) -> u32 {
        self.groups * GROUP
    }

    /// Of the whole file, in bytes.
    pub(super) const fn size(self) -> usize {
        offset::GROUPS + self.groups as usize * offset::GROUP_SIZE
    }

    /// Where the bitmap of a group stands.
    #[inline(always)]
    pub(super) const fn bitmap_offset(group: u32) -> usize {
        offset::GROUPS + group as usize * offset::GROUP_SIZE
    }

    /// Where the mutex of a lock stands.
    #[inline(always)]
    pub(super) const fn mutex_offset(id: u32) -> usize {
        offset::FIRST_MUTEX + Self::mutex_distance(id)
    }

    /// The lock whose mutex begins at that byte.
    pub(super) fn lock_at(self, offset: u64) -> Option<u32> {
        let distance = usize::try_from(offset).ok()?.checked_sub(offset::GROUPS)?;
        let group = u32::try_from(distance / offset::GROUP_SIZE).ok()?;
        let within = (distance % offset::GROUP_SIZE).checked_sub(offset::MUTEXES)? / mutex::SIZE;
        let id = group.checked_mul(GROUP)? + within as u32;
        (id < self.num_locks() && Self::mutex_offset(id) as u64 == offset).then_some(id)
    }

    /// How far the mutex of a lock stands behind that of lock 0: a mutex for each lock before it, and what else a group
    /// has for each group. In this form it takes the processor three steps and no multiplication.
    #[inline(always)]
    pub(super) const fn mutex_distance(id: u32) -> usize {
        id as usize * mutex::SIZE + (id / GROUP) as usize * offset::MUTEXES
    }
}

fn damaged(what: &'static str, found: u64, expected: u64) -> Reason {
    Reason::Damaged { what, found, expected }
}

fn word16(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u16::from_ne_bytes(*chunk))
}

fn word32(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_of_a_mutex_and_no_other_is_a_locks() {
        let geometry = Geometry::for_locks(96);
        let found: Vec<(u64, u32)> = (0..geometry.size() as u64 + 64)
            .filter_map(|offset| geometry.lock_at(offset).map(|id| (offset, id)))
            .collect();
        let expected: Vec<(u64, u32)> = (0..96).map(|id| (Geometry::mutex_offset(id) as u64, id)).collect();
        assert_eq!(found, expected);
        assert_eq!(geometry.lock_at(u64::MAX), None);
    }
}
