// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory on a disk: what is in memory goes with the boot.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

/// An empty directory on a disk, which goes away with what is in it.
#[derive(Debug)]
pub struct Disk(PathBuf);

impl Disk {
    /// `None`, and the test is skipped: there is no disk.
    pub fn directory_or_skip(name: &str) -> Option<Self> {
        let directory = Path::new("/var/tmp").join(format!("lm-test-{name}-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let directory = Self(directory);
        if is_in_memory(&directory.0) {
            super::skip("a segment on a disk: /var/tmp is in memory");
            return None;
        }
        Some(directory)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// How much room there is in a file system.
#[allow(clippy::unnecessary_cast, reason = "these numbers have other types on other platforms")]
pub fn bytes_free(directory: &Path) -> u64 {
    file_system_of(directory).map_or(0, |facts| facts.f_bavail as u64 * facts.f_bsize as u64)
}

#[allow(clippy::unnecessary_cast, reason = "these numbers have other types on other platforms")]
fn is_in_memory(directory: &Path) -> bool {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    file_system_of(directory).unwrap().f_type as i64 == TMPFS_MAGIC
}

/// `None`: there is no such directory.
fn file_system_of(directory: &Path) -> Option<libc::statfs> {
    let name = CString::new(directory.to_str().unwrap()).unwrap();
    // SAFETY: statfs(2) reads the name and fills the struct.
    unsafe {
        let mut facts = std::mem::zeroed::<libc::statfs>();
        (libc::statfs(name.as_ptr(), &raw mut facts) == 0).then_some(facts)
    }
}
