// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! A file as /proc names it: in /proc/PID/maps and /proc/locks, by the device of its file system and its inode.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Device and inode of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    pub major: u32,
    pub minor: u32,
    pub inode: u64,
}

impl FileId {
    /// Of the file at `path`. The device of stat(2) is not that of /proc on every file system (btrfs), so it is taken
    /// from the mount that the file is on.
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        let (major, minor) = mount_device(path).unwrap_or_else(|| device_numbers(metadata.dev()));
        Some(Self { major, minor, inode: metadata.ino() })
    }

    /// Of `MAJOR:MINOR` in hexadecimal, and an inode.
    pub fn parse(device: &str, inode: &str) -> Option<Self> {
        let (major, minor) = device.split_once(':')?;
        Some(Self {
            major: u32::from_str_radix(major, 16).ok()?,
            minor: u32::from_str_radix(minor, 16).ok()?,
            inode: inode.parse().ok()?,
        })
    }
}

/// How makedev(3) packs them.
fn device_numbers(device: u64) -> (u32, u32) {
    let major = (device >> 8 & 0xfff) | (device >> 32 & !0xfff);
    let minor = (device & 0xff) | (device >> 12 & !0xff);
    (major as u32, minor as u32)
}

/// The device in the line of /proc/self/mountinfo for the mount that the file is on.
fn mount_device(path: &Path) -> Option<(u32, u32)> {
    // The directory: opening the file itself might be forbidden, or the file a FIFO.
    let file = File::open(if path.is_dir() { path } else { path.parent()? }).ok()?;
    let facts = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).ok()?;
    let mount = facts.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().to_owned();
    // Any mount may have a name that is no text.
    let mounts = String::from_utf8_lossy(&fs::read("/proc/self/mountinfo").ok()?).into_owned();
    let line = mounts.lines().find(|line| line.split(' ').next() == Some(&mount))?;
    let (major, minor) = line.split(' ').nth(2)?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_as_the_maps_of_a_process_name_it() {
        let own = std::env::current_exe().unwrap();
        let id = FileId::of(&own).unwrap();
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| line.ends_with(own.to_str().unwrap())).unwrap();
        let mut fields = line.split(' ').skip(3);
        assert_eq!(FileId::parse(fields.next().unwrap(), fields.next().unwrap()), Some(id));
    }

    #[test]
    fn what_is_no_device_is_none() {
        for (device, inode) in [("", ""), ("8", "1"), ("8:zz", "1"), ("8:1", "x")] {
            assert_eq!(FileId::parse(device, inode), None);
        }
        assert_eq!(FileId::parse("fe:1a", "77"), Some(FileId { major: 0xfe, minor: 0x1a, inode: 77 }));
    }
}
