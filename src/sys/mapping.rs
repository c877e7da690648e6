// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mapped memory, reached only by checked offsets and only as atomics: other processes write to it at any time.

use std::fs::File;
use std::mem;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};

use memmap2::{MmapOptions, MmapRaw};

use super::Errno;

/// A file mapped as a whole, shared with every process that maps it.
#[derive(Debug)]
pub(crate) struct Mapping(MmapRaw);

impl Mapping {
    /// Maps the first `length` bytes for reading and writing. What the file does not have is reserved address space,
    /// in which it may grow; touching it before is SIGBUS.
    pub(crate) fn writable(file: &File, length: usize) -> Result<Self, Errno> {
        Ok(Self(MmapOptions::new().len(length).map_raw(file)?))
    }

    /// Maps the first `length` bytes for reading only. Beyond the file's end as for [`writable`](Self::writable).
    pub(crate) fn read_only(file: &File, length: usize) -> Result<Self, Errno> {
        Ok(Self(MmapOptions::new().len(length).map_raw_read_only(file)?))
    }

    /// Maps the file's first page, never to be touched (the file may be empty), and not into any child.
    pub(super) fn not_inherited(file: &File) -> Result<Self, Errno> {
        let map = MmapOptions::new().len(1).map_raw_read_only(file)?;
        // SAFETY: the range is exactly the mapping made above, as madvise(2) asks for this advice.
        let code = unsafe { libc::madvise(map.as_mut_ptr().cast(), map.len(), libc::MADV_DONTFORK) };
        if code == 0 { Ok(Self(map)) } else { Err(Errno::last()) }
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.0.as_ptr()
    }

    /// The address of `size` bytes at `offset`.
    ///
    /// # Panics
    /// If they do not lie within the mapping, or `offset` is no multiple of `align`: offsets come from a layout that
    /// was checked against the size of the file.
    #[inline(always)]
    pub(crate) fn address(&self, offset: usize, size: usize, align: usize) -> *mut u8 {
        let fits = offset.checked_add(size).is_some_and(|end| end <= self.0.len());
        assert!(fits && offset.is_multiple_of(align), "offset outside of the mapping");
        self.0.as_mut_ptr().wrapping_add(offset)
    }

    /// The 16-bit word at `offset`.
    pub(crate) fn u16_at(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: address() checked bounds and alignment of memory that stays mapped as long as self; an atomic may
        // be shared with any writer, and in a read-only mapping nobody above this module stores.
        unsafe { AtomicU16::from_ptr(self.address(offset, 2, 2).cast()) }
    }

    /// The 32-bit word at `offset`.
    #[inline(always)]
    pub(crate) fn u32_at(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as for u16_at.
        unsafe { AtomicU32::from_ptr(self.address(offset, 4, 4).cast()) }
    }

    /// The 64-bit word at `offset`.
    #[inline(always)]
    pub(crate) fn u64_at(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: as for u16_at.
        unsafe { AtomicU64::from_ptr(self.address(offset, 8, 8).cast()) }
    }

    /// `count` 64-bit words from `offset` on.
    pub(crate) fn u64s_at(&self, offset: usize, count: usize) -> &[AtomicU64] {
        let address = self.address(offset, count * size_of::<u64>(), 8);
        // SAFETY: as for u16_at; an AtomicU64 has the size and here the alignment of a u64.
        unsafe { std::slice::from_raw_parts(address.cast(), count) }
    }
}

/// Private memory that every child finds zeroed, however it was made.
#[derive(Debug)]
pub(crate) struct WipedOnFork(MmapRaw);

impl WipedOnFork {
    /// Zeroed room for `words` 64-bit words; touched pages alone cost memory.
    pub(crate) fn new(words: usize) -> Result<Self, Errno> {
        let bytes = words.max(1).checked_mul(size_of::<u64>()).ok_or(Errno(libc::ENOMEM))?;
        let map = MmapRaw::from(MmapOptions::new().len(bytes).no_reserve_swap().map_anon()?);
        // SAFETY: the range is exactly the private anonymous mapping made above, as madvise(2) asks for this advice.
        let code = unsafe { libc::madvise(map.as_mut_ptr().cast(), map.len(), libc::MADV_WIPEONFORK) };
        if code == 0 { Ok(Self(map)) } else { Err(Errno::last()) }
    }

    /// The word of that index.
    ///
    /// # Panics
    /// If there are not that many.
    #[inline(always)]
    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.0.len() / size_of::<u64>(), "index outside of the table");
        // SAFETY: within the mapping, which is page aligned and lives as long as self; threads share it as atomics.
        unsafe { AtomicU64::from_ptr(self.0.as_mut_ptr().cast::<u64>().add(index)) }
    }

    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.0.as_mut_ptr()
    }

    /// Keeps the memory for the life of the process.
    pub(super) fn leak(self) {
        mem::forget(self);
    }
}
