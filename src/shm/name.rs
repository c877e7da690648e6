// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The names of segments, and the files that they mean.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Errno, Error, Reason, Result};

/// The directory of POSIX shared memory on Linux, for glibc and for libpod.
const SHM_DIRECTORY: &str = "/dev/shm";

/// NAME_MAX of Linux: the most bytes in a component of a path.
const LONGEST_COMPONENT: usize = 255;

/// The table of a lock directory: a native segment with the words of its locks.
pub(crate) const TABLE: &str = ".lock_manager";

/// A segment's name as the caller wrote it, and the file that it means. For the table of a directory, the name is the
/// directory's.
#[derive(Debug, Clone)]
pub(crate) struct SegmentName {
    shown: Arc<PathBuf>,
    file: PathBuf,
}

impl SegmentName {
    /// Parses a POSIX name (one slash, first) or the absolute path of a file.
    pub(crate) fn parse(path: &Path) -> Result<Self> {
        let shown: Arc<PathBuf> = Arc::new(path.to_path_buf());
        let bytes = path.as_os_str().as_bytes();
        let refuse = |why| Err(Error::new(&shown, Reason::BadPath(why)));
        let Some((b'/', rest)) = bytes.split_first() else {
            return refuse("it does not begin with a slash");
        };
        let last = rest.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        if matches!(last, b"" | b"." | b"..") {
            return refuse("it names a directory");
        }
        if bytes.contains(&0) {
            return refuse("it contains a NUL byte");
        }
        if rest.split(|&byte| byte == b'/').any(|component| component.len() > LONGEST_COMPONENT) {
            return refuse("a part of it is longer than 255 bytes");
        }
        let file = if last.len() == rest.len() {
            PathBuf::from(OsString::from_vec([SHM_DIRECTORY.as_bytes(), bytes].concat()))
        } else {
            path.to_path_buf()
        };
        Ok(Self { shown, file })
    }

    /// The table of a lock directory.
    pub(crate) fn of_table_in(directory: &Path) -> Result<Self> {
        let shown: Arc<PathBuf> = Arc::new(directory.to_path_buf());
        // Without a slash at the end, which would make the kernel follow a link.
        match std::path::absolute(directory) {
            Ok(absolute) => Ok(Self { shown, file: absolute.components().collect::<PathBuf>().join(TABLE) }),
            Err(_) => Err(Error::new(
                &shown,
                Reason::BadArgument("the path of the directory is empty; give the path of a directory"),
            )),
        }
    }

    /// As the caller wrote it.
    pub(crate) fn shown(&self) -> &Arc<PathBuf> {
        &self.shown
    }

    /// The file.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// The directory that the file is in.
    pub(crate) fn directory(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new("/"))
    }

    pub(crate) fn error(&self, reason: Reason) -> Error {
        Error::new(&self.shown, reason)
    }

    pub(crate) fn failed(&self, doing: &'static str) -> impl Fn(Errno) -> Error {
        move |errno| self.error(Reason::System { doing, errno })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slash_is_a_posix_name_and_more_are_a_path() {
        assert_eq!(SegmentName::parse(Path::new("/locks")).unwrap().file(), Path::new("/dev/shm/locks"));
        assert_eq!(SegmentName::parse(Path::new("/run/app/locks")).unwrap().file(), Path::new("/run/app/locks"));
    }

    #[test]
    fn what_can_be_no_file_is_refused() {
        let long = format!("/{}", "x".repeat(256));
        for bad in ["", "locks", "/", "/.", "/..", "/run/", "/run/app/..", "//", "./x", &long, "/a\0b"] {
            assert_eq!(SegmentName::parse(Path::new(bad)).unwrap_err().errno(), libc::EINVAL, "{bad:?}");
        }
    }
}
