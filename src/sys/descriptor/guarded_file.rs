// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! A file whose descriptor is opened again when the program has closed it.

use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{CheckedFd, GuardedFd};
use crate::sys::Errno;
use crate::sys::syscall::file::{self, Access, FileId, Metadata};

/// A file, and a descriptor of it as long as there is one.
#[derive(Debug)]
pub(crate) struct GuardedFile {
    place: AtomicU64,
    id: FileId,
    path: PathBuf,
    access: Access,
}

/// The descriptor: its number in the low half, and in the high half how often it was opened again here. The count shows that
/// the number was lost meanwhile, even if it became the file's again. It does not show that another part of the program
/// opened the same file and got the number.
type Place = u64;

fn place(number: RawFd, turn: u32) -> Place {
    u64::from(turn) << u32::BITS | u64::from(number as u32)
}

impl GuardedFile {
    /// Guards `file`, which is the file `id`. It is opened again by `path`.
    pub(crate) fn new(file: File, id: FileId, path: PathBuf, access: Access) -> Self {
        Self { place: AtomicU64::new(place(file.into_raw_fd(), 0)), id, path, access }
    }

    fn place(&self) -> Place {
        self.place.load(Ordering::Acquire)
    }

    fn fd_at(&self, place: Place) -> CheckedFd {
        CheckedFd::new(place as RawFd, self.id)
    }

    /// The file's present metadata, if the descriptor is not lost.
    pub(crate) fn metadata(&self) -> Option<Metadata> {
        self.fd_at(self.place()).metadata()
    }

    /// Whether the file still has the name that it was opened by.
    pub(crate) fn has_its_name(&self) -> bool {
        Metadata::of_path(&self.path).is_ok_and(|metadata| metadata.id() == self.id)
    }

    /// Calls `call` with the file, which it may change. `Ok` only if the descriptor was of this file before and after. A lost
    /// descriptor is opened again, and the call repeated. `EBADF`: it is lost, and the name is another file's, or gone.
    pub(crate) fn with_file<T>(&self, call: impl Fn(&File) -> Result<T, Errno>) -> Result<T, Errno> {
        let is_intact = |place| self.fd_at(place).is_intact();
        self.call_if(is_intact, call).map(|(answer, _)| answer)
    }

    /// The same for a call that changes nothing. It may meet another file; then its answer does not count. Returns the file's
    /// metadata after the call, too.
    pub(crate) fn query<T>(&self, call: impl Fn(&File) -> Result<T, Errno>) -> Result<(T, Metadata), Errno> {
        self.call_if(|_| true, call)
    }

    fn call_if<T>(
        &self,
        may_call: impl Fn(Place) -> bool,
        call: impl Fn(&File) -> Result<T, Errno>,
    ) -> Result<(T, Metadata), Errno> {
        // Twice: as it is, and once more after it was opened again.
        for _ in 0..2 {
            let place = self.place();
            if may_call(place) {
                let fd = self.fd_at(place);
                let answer = call(&fd);
                if let Some(metadata) = fd.metadata()
                    && self.place() == place
                {
                    return answer.map(|answer| (answer, metadata));
                }
            }
            self.replace(place)?;
        }
        Err(Errno(libc::EBADF))
    }

    /// Replaces the descriptor `stale` by a new one. `stale` is forgotten and not closed.
    fn replace(&self, stale: Place) -> Result<(), Errno> {
        let file = self.open_again().map_err(|_| Errno(libc::EBADF))?;
        let fresh = place(file.as_raw_fd(), ((stale >> u32::BITS) as u32).wrapping_add(1));
        if self.place.compare_exchange(stale, fresh, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            let _in_its_place = file.into_file().into_raw_fd();
        }
        Ok(())
    }

    /// Another description of the file, by its name or through the descriptor.
    pub(crate) fn open_again(&self) -> Result<GuardedFd, Errno> {
        if let Ok(file) = file::open(&self.path, self.access).and_then(|file| self.checked(file)) {
            return Ok(file);
        }
        let fd = self.fd_at(self.place());
        if !fd.is_intact() {
            return Err(Errno(libc::ESTALE));
        }
        let path = format!("/proc/thread-self/fd/{}", fd.as_raw_fd());
        self.checked(file::open_following(path.as_ref(), self.access)?)
    }

    /// What was opened, if it is this file. If it is not, there are two cases. Either the name is another file's by now: then
    /// the descriptor is closed. Or the program has closed the descriptor, and its number may be any file's: then it is
    /// forgotten.
    fn checked(&self, file: File) -> Result<GuardedFd, Errno> {
        let file = ManuallyDrop::new(file);
        match Metadata::of(&file) {
            Ok(metadata) if metadata.id() == self.id => return Ok(GuardedFd::new(file, metadata)),
            Ok(metadata) if self.may_have_named(&file, &metadata) => drop(GuardedFd::new(file, metadata)),
            _ => {}
        }
        Err(Errno(libc::ESTALE))
    }

    /// Whether the name can have been that file's when it was opened: it is that file's now, or that file has no name left.
    fn may_have_named(&self, file: &File, metadata: &Metadata) -> bool {
        Metadata::of_path(&self.path).is_ok_and(|named| named.id() == metadata.id())
            || (metadata.links == 0 && file::is_by_open(file).unwrap_or(false))
    }
}

impl Drop for GuardedFile {
    fn drop(&mut self) {
        self.fd_at(self.place()).close_if_intact();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_had_the_name_meanwhile_is_closed_and_one_of_the_programs_is_not() {
        let path = PathBuf::from(format!("/dev/shm/lock_manager-guarded-{}", std::process::id()));
        let made = file::create_named(&path).unwrap();
        let id = Metadata::of(&made).unwrap().id();
        let guarded = GuardedFile::new(made, id, path.clone(), Access::ReadWrite);
        std::fs::remove_file(&path).unwrap();

        let another = file::create_named(&path).unwrap();
        let others = Metadata::of(&another).unwrap().id();
        let is_open = |number| CheckedFd::new(number, others).is_intact();
        let named = file::open(&path, Access::ReadWrite).unwrap();
        let number = named.as_raw_fd();
        assert!(guarded.checked(named).is_err() && !is_open(number));

        let removed = file::open(&path, Access::ReadWrite).unwrap();
        let number = removed.as_raw_fd();
        std::fs::remove_file(&path).unwrap();
        assert!(guarded.checked(removed).is_err() && !is_open(number));

        // The program's, which got the number of what was opened.
        let number = another.as_raw_fd();
        assert!(guarded.checked(another).is_err() && is_open(number));
        assert!(CheckedFd::new(number, others).close_if_intact());
    }
}
