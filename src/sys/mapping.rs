// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mapped memory, reached only by checked offsets and only as atomics: other processes write to it at any time.

use std::fs::File;
use std::mem;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use memmap2::{MmapOptions, MmapRaw};

use super::Errno;
use super::file::Access;

/// The largest page that Linux has on any processor that it runs on.
const LARGEST_PAGE: usize = 65536;

/// The first bytes of a file, shared with every process that maps it, at the start of a range of addresses that nothing
/// else has: so the file may grow, and what is mapped stays where it is.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// What is not mapped yet cannot be touched.
    range: MmapRaw,
    mapped: AtomicUsize,
    access: Access,
}

impl Mapping {
    /// Maps the first `length` bytes for what `access` says, with room for `most`. The file must be that long, or
    /// touching it is SIGBUS.
    pub(crate) fn new(file: &File, access: Access, length: usize, most: usize) -> Result<Self, Errno> {
        if most <= length {
            let mut options = MmapOptions::new();
            options.len(length);
            let range = match access {
                Access::Use => options.map_raw(file)?,
                Access::Look => options.map_raw_read_only(file)?,
            };
            return Ok(Self { range, mapped: AtomicUsize::new(length), access });
        }
        // Not the file, mapped beyond its end: whoever scans memory would meet a SIGBUS on each page.
        let range = MmapRaw::from(MmapOptions::new().len(most).no_reserve_swap().map_anon()?);
        // SAFETY: the range is exactly the private anonymous mapping made above, which nobody has touched.
        if unsafe { libc::mprotect(range.as_mut_ptr().cast(), range.len(), libc::PROT_NONE) } != 0 {
            return Err(Errno::last());
        }
        let protection = match access {
            Access::Use => libc::PROT_READ | libc::PROT_WRITE,
            Access::Look => libc::PROT_READ,
        };
        // SAFETY: MAP_FIXED replaces pages of the range that was made above only, which nobody has touched.
        let address = unsafe {
            let flags = libc::MAP_SHARED | libc::MAP_FIXED;
            libc::mmap(range.as_mut_ptr().cast(), length, protection, flags, file.as_raw_fd(), 0)
        };
        if address == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(Self { range, mapped: AtomicUsize::new(length), access })
    }

    /// Maps elsewhere, for [`extend`](Self::extend), what is missing of the file's first `length` bytes. `None`: nothing is.
    /// Elsewhere, because the descriptor's number may be another file's by the time it is mapped.
    pub(crate) fn piece(&self, file: &File, length: usize) -> Result<Option<Piece>, Errno> {
        let mapped = self.mapped.load(Ordering::Acquire);
        // On a page of its own, whatever the size of pages is here: what is mapped twice is the same memory.
        let start = mapped / LARGEST_PAGE * LARGEST_PAGE;
        if length <= mapped || length > self.range.len() {
            return if length <= mapped { Ok(None) } else { Err(Errno(libc::EINVAL)) };
        }
        let mut options = MmapOptions::new();
        options.offset(start as u64).len(length - start);
        let map = match self.access {
            Access::Use => options.map_raw(file)?,
            Access::Look => options.map_raw_read_only(file)?,
        };
        Ok(Some(Piece { map, start }))
    }

    /// Moves a piece, which was found to be of this file, to where it belongs. Threads may do the same at the same time.
    pub(crate) fn extend(&self, piece: Piece) -> Result<(), Errno> {
        let Piece { map, start } = piece;
        let length = map.len();
        // SAFETY: the piece is a mapping of its own, made by piece(), with room in the range for its end. What it replaces
        // are pages of this mapping's own range only: such as nobody may have touched, and at most one large page's worth
        // of the same file at the same offset, which is the same memory before and after.
        let address = unsafe {
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            let target = self.range.as_mut_ptr().add(start).cast::<libc::c_void>();
            libc::mremap(map.as_mut_ptr().cast(), length, length, flags, target)
        };
        if address == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        // It is not there any more.
        mem::forget(map);
        self.mapped.fetch_max(start + length, Ordering::AcqRel);
        Ok(())
    }

    /// Maps the file's first page, never to be touched (the file may be empty), and not into any child.
    pub(super) fn not_inherited(file: &File) -> Result<Self, Errno> {
        let map = MmapOptions::new().len(1).map_raw_read_only(file)?;
        // SAFETY: the range is exactly the mapping made above, as madvise(2) asks for this advice.
        let code = unsafe { libc::madvise(map.as_mut_ptr().cast(), map.len(), libc::MADV_DONTFORK) };
        let mapped = AtomicUsize::new(map.len());
        if code == 0 { Ok(Self { range: map, mapped, access: Access::Look }) } else { Err(Errno::last()) }
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.range.as_ptr()
    }

    /// The address of `size` bytes at `offset`.
    ///
    /// # Panics
    /// If they do not lie within the range, or `offset` is no multiple of `align`: offsets come from a layout that
    /// was checked against the size of the file.
    #[inline(always)]
    pub(crate) fn address(&self, offset: usize, size: usize, align: usize) -> *mut u8 {
        let fits = offset.checked_add(size).is_some_and(|end| end <= self.range.len());
        assert!(fits && offset.is_multiple_of(align), "offset outside of the mapping");
        self.range.as_mut_ptr().wrapping_add(offset)
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

/// More of a file than a [`Mapping`] has.
#[derive(Debug)]
pub(crate) struct Piece {
    map: MmapRaw,
    /// Where it belongs.
    start: usize,
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
