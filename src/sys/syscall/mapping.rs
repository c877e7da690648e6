// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mapped memory. It is reached by checked offsets and as atomics only, because other processes write to it at any time.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::sys::Errno;
use crate::sys::syscall::file::Access;
use crate::sys::syscall::large;

/// The largest page that Linux uses on any processor.
const LARGEST_PAGE: usize = 65536;

/// How large a page is.
pub(super) fn page_size() -> u64 {
    // The size is known here. Asking the libc would cost a process's first call another page of code.
    if cfg!(target_arch = "x86_64") {
        return 4096;
    }
    // SAFETY: sysconf(3) touches no memory.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(LARGEST_PAGE as u64)
}

/// Mapped pages, unmapped when dropped. It uses the system calls alone: a process's first call maps three times, and asking
/// the libc for the page size would cost as much as a fourth mapping.
#[derive(Debug)]
struct Pages {
    start: *mut u8,
    length: usize,
}

// SAFETY: plain memory that no thread owns, accessed as atomics only.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    fn map(
        length: usize,
        protection: libc::c_int,
        flags: libc::c_int,
        file: i32,
        offset: large::off_t,
    ) -> Result<Self, Errno> {
        // SAFETY: mmap(2) without MAP_FIXED replaces no mapping.
        let start = unsafe { large::mmap(ptr::null_mut(), length, protection, flags, file, offset) };
        if start == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(Self { start: start.cast(), length }) }
    }

    /// Says by madvise(2) what children, or a core dump, find in these pages.
    fn advise(&self, start: usize, length: usize, advice: libc::c_int) -> Result<(), Errno> {
        // SAFETY: madvise(2) within these pages, as the callers see to; the advices used here change nothing for this
        // process.
        Errno::check(unsafe { libc::madvise(self.start.add(start).cast(), length, advice) })?;
        Ok(())
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped by map(), and nobody has an address in them for longer than the value. It cannot fail.
        unsafe { libc::munmap(self.start.cast(), self.length) };
    }
}

/// The first bytes of a file, shared with every process that maps it.
#[derive(Debug)]
pub(crate) struct Mapping {
    range: Pages,
    access: Access,
}

impl Mapping {
    /// Maps the first `length` bytes. The file must be that long: an access beyond its end is a SIGBUS.
    pub(crate) fn new(file: &File, access: Access, length: usize) -> Result<Self, Errno> {
        let range = Pages::map(length, protection(access), libc::MAP_SHARED, file.as_raw_fd(), 0)?;
        Ok(Self { range, access })
    }

    /// Maps the same file once more, at the start of a range of `most` bytes. So the file can grow while the mapped part stays
    /// where it is. The pages beyond `length`, except the rest of a large page, are protected: otherwise a program that
    /// scans memory would get a SIGBUS on each beyond the file's end. It uses the mapping, because the descriptor may be
    /// another file's.
    pub(crate) fn once_more(&self, length: usize, most: usize) -> Result<Self, Errno> {
        let size = most.max(length);
        // SAFETY: mremap(2) of 0 bytes of a shared mapping leaves it as it is, and maps its file again in free addresses.
        let start = unsafe { libc::mremap(self.range.start.cast(), 0, size, libc::MREMAP_MAYMOVE) };
        if start == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let mapping = Self { range: Pages { start: start.cast(), length: size }, access: self.access };
        let end = length.next_multiple_of(LARGEST_PAGE);
        if end < most {
            mapping.protect(end, most - end, libc::PROT_NONE)?;
            // If the file has lost its name, a core dump would contain the whole range, as zeros.
            mapping.range.advise(end, most - end, libc::MADV_DONTDUMP).ok();
        }
        Ok(mapping)
    }

    /// Gives access to the first `length` bytes. The file is that long by now. Several threads may do this at a time.
    pub(crate) fn extend(&self, length: usize) -> Result<(), Errno> {
        if length > self.range.length {
            return Err(Errno(libc::EINVAL));
        }
        // Before the protection changes: pages of the same kind stay one mapping, and a process may have only so many.
        self.range.advise(0, length, libc::MADV_DODUMP).ok();
        self.protect(0, length, protection(self.access))
    }

    /// Protects pages of the range which nobody may access yet, or which keep the access that they have.
    fn protect(&self, start: usize, length: usize, protection: libc::c_int) -> Result<(), Errno> {
        // SAFETY: the pages are of this mapping, and no access is taken away from pages that have it.
        Errno::check(unsafe { libc::mprotect(self.range.start.add(start).cast(), length, protection) })?;
        Ok(())
    }

    /// Maps the file's first page, which is never accessed (the file may be empty) and which no child inherits.
    pub(in crate::sys) fn not_inherited(file: &File) -> Result<Self, Errno> {
        let mapping = Self::new(file, Access::ReadOnly, 1)?;
        mapping.range.advise(0, 1, libc::MADV_DONTFORK)?;
        Ok(mapping)
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.range.start
    }

    /// The address of `size` bytes at `offset`.
    ///
    /// # Panics
    /// If they do not lie within the range, or `offset` is no multiple of `align`: offsets come from a layout that
    /// was checked against the size of the file.
    #[inline(always)]
    pub(crate) fn address(&self, offset: usize, size: usize, align: usize) -> *mut u8 {
        let fits = offset.checked_add(size).is_some_and(|end| end <= self.range.length);
        assert!(fits && offset.is_multiple_of(align), "offset outside of the mapping");
        self.range.start.wrapping_add(offset)
    }

    /// The 16-bit word at `offset`.
    pub(crate) fn u16_at(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: address() checked bounds and alignment, and the memory stays mapped as long as self. An atomic may be
        // shared with any writer; above this module nobody stores to a read-only mapping.
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

    /// The 32-bit word at `offset`, without a check that could panic.
    ///
    /// # Safety
    /// It lies within the mapping, and `offset` is a multiple of 4.
    #[inline(always)]
    pub(crate) unsafe fn u32_at_unchecked(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: the caller's; otherwise as for u16_at.
        unsafe { AtomicU32::from_ptr(self.range.start.add(offset).cast()) }
    }

    /// `count` 64-bit words from `offset` on.
    pub(crate) fn u64s_at(&self, offset: usize, count: usize) -> &[AtomicU64] {
        let address = self.address(offset, count * size_of::<u64>(), 8);
        // SAFETY: as for u16_at; an AtomicU64 has the size and here the alignment of a u64.
        unsafe { std::slice::from_raw_parts(address.cast(), count) }
    }

    /// Whether these bytes, a whole number of words, stand at `offset`.
    pub(crate) fn holds(&self, offset: usize, bytes: &[u8]) -> bool {
        let (words, _) = bytes.as_chunks();
        let mapped = self.u64s_at(offset, words.len()).iter();
        mapped.zip(words).all(|(mapped, word)| mapped.load(Ordering::Relaxed).to_ne_bytes() == *word)
    }
}

fn protection(access: Access) -> libc::c_int {
    match access {
        Access::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        Access::ReadOnly => libc::PROT_READ,
    }
}

/// Makes the file system find room for the bytes from `start` (the start of a page) to `end` (within the file), as a write to
/// each page would, but without writing. `ENOSPC`: there is no room. `EOPNOTSUPP`: the kernel is older than Linux 5.14.
pub(super) fn populate(file: &File, start: u64, end: u64) -> Result<(), Errno> {
    let size = |bytes| usize::try_from(bytes).map_err(|_| Errno(libc::EFBIG));
    let offset = large::off_t::try_from(start).map_err(|_| Errno(libc::EFBIG))?;
    let pages =
        Pages::map(size(end - start)?, protection(Access::ReadWrite), libc::MAP_SHARED, file.as_raw_fd(), offset)?;
    loop {
        match pages.advise(0, pages.length, libc::MADV_POPULATE_WRITE) {
            Err(Errno(libc::EINTR)) => {}
            // An access would be a SIGBUS, and the kernel does not say why.
            Err(Errno(libc::EFAULT)) => return Err(Errno(libc::ENOSPC)),
            Err(Errno(libc::EINVAL)) => return Err(Errno(libc::EOPNOTSUPP)),
            done => return done,
        }
    }
}

/// Private memory that every child finds zeroed, however it was made.
#[derive(Debug)]
pub(crate) struct WipedOnFork(Pages);

impl WipedOnFork {
    /// Zeroed room for `words` 64-bit words. Only pages that are accessed cost memory.
    pub(crate) fn new(words: usize) -> Result<Self, Errno> {
        let bytes = words.max(1).checked_mul(size_of::<u64>()).ok_or(Errno(libc::ENOMEM))?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let pages = Pages::map(bytes, protection(Access::ReadWrite), flags, -1, 0)?;
        pages.advise(0, bytes, libc::MADV_WIPEONFORK)?;
        Ok(Self(pages))
    }

    /// Whether the system accepts an advice that does not exist, and so may not do what it accepts.
    pub(in crate::sys) fn accepts_any_advice(&self) -> bool {
        const NO_ADVICE: libc::c_int = libc::c_int::MAX;
        self.0.advise(0, self.0.length, NO_ADVICE).is_ok()
    }

    /// Takes the advice back.
    #[cfg(test)]
    pub(in crate::sys) fn keep_on_fork(&self) -> Result<(), Errno> {
        self.0.advise(0, self.0.length, libc::MADV_KEEPONFORK)
    }

    #[inline(always)]
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping, which is page aligned and lives as long as self; threads share it as atomics.
        unsafe { std::slice::from_raw_parts(self.0.start.cast(), self.0.length / size_of::<u64>()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::liveness::proc_file;
    use crate::sys::syscall::file;

    /// What smaps says of the page at that address.
    fn flags_at(address: usize) -> String {
        let smaps = String::from_utf8(proc_file::read_all("/proc/thread-self/smaps").unwrap()).unwrap();
        let mut is_it = false;
        for line in smaps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let number = |text| usize::from_str_radix(text, 16).ok();
            if let Some((start, end)) = range.and_then(|(start, end)| Some((number(start)?, number(end)?))) {
                is_it = (start..end).contains(&address);
            }
            if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| is_it) {
                return flags.to_owned();
            }
        }
        String::new()
    }

    #[test]
    fn what_lies_beyond_the_end_is_not_dumped() {
        let file = file::create_unnamed("/dev/shm".as_ref()).unwrap();
        file.set_len(4 * LARGEST_PAGE as u64).unwrap();
        let first = Mapping::new(&file, Access::ReadWrite, LARGEST_PAGE).unwrap();
        let mapping = first.once_more(LARGEST_PAGE, 8 * LARGEST_PAGE).unwrap();
        first.u32_at(12).store(5, Ordering::Relaxed);
        assert_eq!(mapping.u32_at(12).load(Ordering::Relaxed), 5);
        let is_dumped = |page: usize| !flags_at(mapping.as_ptr().addr() + page * LARGEST_PAGE).contains(" dd");
        assert_eq!([0, 1, 7].map(is_dumped), [true, false, false]);
        mapping.extend(4 * LARGEST_PAGE).unwrap();
        assert_eq!([0, 1, 3, 4, 7].map(is_dumped), [true, true, true, false, false]);
    }
}
