// SPDX-License-Identifier: MIT OR Apache-2.0
//! A mutex of a segment as a program without this library sees it: mapped, and given to the libc.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr;

use libc::pthread_mutex_t;

/// A mutex in a mapping of its own, which stays for the life of the process.
#[derive(Debug)]
pub struct RawMutex(*mut pthread_mutex_t);

impl RawMutex {
    /// The mutex at `offset` of a segment's file.
    pub fn map(path: &Path, offset: u64) -> Self {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let length = file.metadata().unwrap().len() as usize;
        let offset = offset as usize;
        assert!(
            offset + size_of::<pthread_mutex_t>() <= length && offset.is_multiple_of(align_of::<pthread_mutex_t>())
        );
        // SAFETY: a fresh mapping of the whole file.
        let address = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(ptr::null_mut(), length, protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        assert_ne!(address, libc::MAP_FAILED);
        // SAFETY: checked above to lie within the mapping.
        Self(unsafe { address.byte_add(offset) }.cast())
    }

    /// What pthread_mutex_lock answers.
    pub fn lock(&self) -> i32 {
        // SAFETY: an initialised mutex of a whole segment, in a mapping that is never unmapped.
        unsafe { libc::pthread_mutex_lock(self.0) }
    }

    /// What pthread_mutex_unlock answers.
    pub fn unlock(&self) -> i32 {
        // SAFETY: as for lock.
        unsafe { libc::pthread_mutex_unlock(self.0) }
    }
}
