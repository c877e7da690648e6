// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bytes of a libpod segment as Podman's C code lays them out, written down a second time on purpose: a test that
//! asked the library where things stand would agree with any mistake of it.

use libc::pthread_mutex_t;

pub const MAGIC: u16 = 0x87D1;
/// How many locks share a bitmap.
pub const GROUP: u32 = 32;

pub const AT_MAGIC: u64 = 0;
pub const AT_UNUSED: u64 = 2;
pub const AT_GUARD: u64 = ALIGN;
pub const AT_NUM_BITMAPS: u64 = AT_GUARD + MUTEX;
pub const AT_NUM_LOCKS: u64 = AT_NUM_BITMAPS + 4;
pub const AT_GROUPS: u64 = AT_NUM_LOCKS + 4;

/// The alignment of a mutex, and so where one stands behind a magic number or a bitmap.
const ALIGN: u64 = if cfg!(target_pointer_width = "64") { 8 } else { 4 };
/// The size of a mutex.
pub const MUTEX: u64 = size_of::<pthread_mutex_t>() as u64;
const GROUP_SIZE: u64 = ALIGN + GROUP as u64 * MUTEX;

/// Whether the mutexes are musl's.
pub const IS_MUSL: bool = cfg!(target_env = "musl");

/// Within a mutex: the word that the kernel knows, the libc's note of the holder, which in musl is the word, and the kind.
pub const WORD: u64 = if IS_MUSL { 4 } else { 0 };
pub const OWNER: u64 = if IS_MUSL { WORD } else { 8 };
pub const KIND: u64 = if IS_MUSL { MUSL_KIND } else { GLIBC_KIND };
/// Where each of the two has the kind, and one that it writes.
pub const GLIBC_KIND: u64 = if cfg!(target_pointer_width = "64") { 16 } else { 12 };
pub const GLIBC_NORMAL: u32 = 0x290;
pub const MUSL_KIND: u64 = 0;
pub const MUSL_NORMAL: u32 = 0x84;

/// What the note of the holder says once a mutex was unlocked without having been made consistent.
pub const LOST: u32 = if IS_MUSL { 0x7fff_ffff } else { 0x7fff_fffe };
/// Bits of the word (linux/futex.h).
pub const OWNER_DIED: u32 = 0x4000_0000;
pub const WAITERS: u32 = 0x8000_0000;
pub const TID: u32 = 0x3fff_ffff;

/// Where the mutex of a lock stands.
pub fn mutex(id: u32) -> u64 {
    bitmap(id / GROUP) + ALIGN + u64::from(id % GROUP) * MUTEX
}

/// Where the word of a lock's mutex stands.
pub fn word(id: u32) -> u64 {
    mutex(id) + WORD
}

/// Where the bitmap of a group stands.
pub fn bitmap(group: u32) -> u64 {
    AT_GROUPS + u64::from(group) * GROUP_SIZE
}

/// How long the segment of that many locks, a multiple of 32, is.
pub fn size(num_locks: u32) -> u64 {
    bitmap(num_locks / GROUP)
}
