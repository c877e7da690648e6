// SPDX-License-Identifier: MIT OR Apache-2.0
//! A descriptor that the program may close at any time (closefrom), and whose number may be a file of the program's a
//! moment later: nothing asked through it is believed unless it was this file before and after.

use std::fs::File;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, RawFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::Errno;
use crate::sys::syscall::file::{self, Access, Metadata};

/// A descriptor for the time of a call. Dropped, it is closed only if it still is of its file: not as a `File`, which ends a
/// process in which somebody else has closed it, or closes what somebody else has opened since.
#[derive(Debug)]
pub(crate) struct GuardedFd {
    file: ManuallyDrop<File>,
    metadata: Metadata,
}

impl GuardedFd {
    /// Of a file that [`file::open`] opened just now. `EBADF`: the number is another file's already.
    pub(crate) fn opened(file: File) -> Result<Self, Errno> {
        Self::new_if(file, |file, _| file::is_by_open(file))
    }

    /// Of a file that was made just now, which is empty and has so many names. `EBADF`: as above.
    pub(crate) fn made(file: File, links: u64) -> Result<Self, Errno> {
        Self::new_if(file, |_, metadata| Ok(metadata.size == 0 && metadata.links == links))
    }

    /// Of a file that was opened just now as the one of these metadata. `EBADF`: as above.
    pub(in crate::sys) fn of(file: File, expected: &Metadata) -> Result<Self, Errno> {
        Self::new_if(file, |_, metadata| Ok(metadata.is_same_file(expected)))
    }

    fn new_if(file: File, can_be: impl FnOnce(&File, &Metadata) -> Result<bool, Errno>) -> Result<Self, Errno> {
        let file = ManuallyDrop::new(file);
        let metadata = Metadata::of(&file)?;
        if can_be(&file, &metadata)? { Ok(Self { file, metadata }) } else { Err(Errno(libc::EBADF)) }
    }

    /// What the file was when it was opened.
    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Whether the number is still of the file.
    pub(crate) fn is_it(&self) -> bool {
        Metadata::of(&self.file).is_ok_and(|metadata| metadata.is_same_file(&self.metadata))
    }

    /// Closes it, and says whether the number was of the file to the end.
    pub(crate) fn close(self) -> bool {
        ManuallyDrop::new(self).close_if_it_is()
    }

    fn close_if_it_is(&self) -> bool {
        close_if_same(&self.file, |metadata| metadata.is_same_file(&self.metadata))
    }

    /// The file, to be kept for longer.
    pub(crate) fn into_file(self) -> File {
        let mut whole = ManuallyDrop::new(self);
        // SAFETY: taken once: what it is taken from is not used or dropped after this.
        unsafe { ManuallyDrop::take(&mut whole.file) }
    }
}

impl Deref for GuardedFd {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for GuardedFd {
    fn drop(&mut self) {
        self.close_if_it_is();
    }
}

/// A descriptor by its number alone, for system calls: never closed, since the number may be of a file of the program's.
pub(crate) type BorrowedFile = ManuallyDrop<File>;

pub(crate) fn borrow_raw(number: i32) -> BorrowedFile {
    // SAFETY: no value of its own: not dropped, and whoever has it owns nothing.
    ManuallyDrop::new(unsafe { File::from_raw_fd(number) })
}

/// Closes a descriptor if it still is of the file that `is_it` knows, and says whether it is.
pub(crate) fn close_if_same(file: &BorrowedFile, is_it: impl FnOnce(&Metadata) -> bool) -> bool {
    let is_it = Metadata::of(file).is_ok_and(|metadata| is_it(&metadata));
    if is_it {
        // SAFETY: close(2) of a descriptor that the caller has opened and uses for the last time.
        unsafe { libc::close(file.as_raw_fd()) };
    }
    is_it
}

/// A file, and a descriptor of it as long as there is one.
#[derive(Debug)]
pub(crate) struct GuardedFile {
    place: AtomicU64,
    metadata: Metadata,
    path: PathBuf,
    access: Access,
}

/// Where the descriptor is: in the low half its number, in the high one how often it was opened anew from here, by which it
/// is noticed that the number was lost and became the file's again so. Not if somebody else in the process opened the file
/// and got the number: so nothing is mapped by it whose contents do not tell what it is.
type Place = u64;

fn place(number: RawFd, turn: u32) -> Place {
    u64::from(turn) << u32::BITS | u64::from(number as u32)
}

/// The bits of a place that are the descriptor's number.
const NUMBER: u64 = i32::MAX as u64;

/// BorrowedFile for a system call, never closed: if the number is the program's by now, it stays so.
fn file_at(place: Place) -> BorrowedFile {
    // Never negative, and seen to be so: what could panic has no place in the short way of a lock of a directory.
    borrow_raw((place & NUMBER) as RawFd)
}

impl GuardedFile {
    /// Watches `file`, of which `metadata` tell which it is.
    pub(crate) fn new(file: File, metadata: Metadata, path: PathBuf, access: Access) -> Self {
        Self { place: AtomicU64::new(place(file.into_raw_fd(), 0)), metadata, path, access }
    }

    fn place(&self) -> Place {
        self.place.load(Ordering::Acquire)
    }

    /// The file's present metadata, through the descriptor that is there.
    pub(crate) fn metadata(&self) -> Option<Metadata> {
        self.metadata_at(self.place())
    }

    fn metadata_at(&self, place: Place) -> Option<Metadata> {
        Metadata::of(&file_at(place)).ok().filter(|metadata| metadata.is_same_file(&self.metadata))
    }

    /// Whether the file still has the name that it was opened by.
    pub(crate) fn has_its_name(&self) -> bool {
        Metadata::of_path(&self.path).is_ok_and(|metadata| metadata.is_same_file(&self.metadata))
    }

    /// Asks something of the file, or changes it. `Ok` only if the descriptor was of this file before and after; it is
    /// opened anew, by its name, where it is not. `EBADF`: the descriptor was closed, and the name is another file's, or
    /// gone.
    pub(crate) fn with_file<T>(&self, question: impl Fn(&File) -> Result<T, Errno>) -> Result<T, Errno> {
        let is_it = |place| self.metadata_at(place).is_some();
        self.query_if(is_it, question).map(|(answer, _)| answer)
    }

    /// Asks what changes nothing, and of whatever file: the answer is believed if it was this one's. With the metadata
    /// after it.
    pub(crate) fn query<T>(&self, question: impl Fn(&File) -> Result<T, Errno>) -> Result<(T, Metadata), Errno> {
        self.query_if(|_| true, question)
    }

    fn query_if<T>(
        &self,
        may_ask: impl Fn(Place) -> bool,
        question: impl Fn(&File) -> Result<T, Errno>,
    ) -> Result<(T, Metadata), Errno> {
        // Twice: as it is, and once more after it was opened anew.
        for _ in 0..2 {
            let place = self.place();
            if may_ask(place) {
                let answer = question(&file_at(place));
                if let Some(metadata) = self.metadata_at(place)
                    && self.place() == place
                {
                    return answer.map(|told| (told, metadata));
                }
            }
            self.replace(place)?;
        }
        Err(Errno(libc::EBADF))
    }

    /// Puts a new descriptor in the place of `stale`, which is forgotten, not closed.
    fn replace(&self, stale: Place) -> Result<(), Errno> {
        let file = self.open_again().map_err(|_| Errno(libc::EBADF))?;
        let fresh = place(file.as_raw_fd(), ((stale >> u32::BITS) as u32).wrapping_add(1));
        if self.place.compare_exchange(stale, fresh, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            let _kept = file.into_file().into_raw_fd();
        }
        Ok(())
    }

    /// Another description of the file, by its name or through the descriptor.
    pub(crate) fn open_again(&self) -> Result<GuardedFd, Errno> {
        if let Ok(file) = file::open(&self.path, self.access).and_then(|file| self.checked(file)) {
            return Ok(file);
        }
        let place = self.place();
        self.metadata_at(place).ok_or(Errno(libc::ESTALE))?;
        let number = place as RawFd;
        self.checked(file::open_following(format!("/proc/thread-self/fd/{number}").as_ref(), self.access)?)
    }

    /// What was opened, if it is this file. If not, either the name is another file's by now, and that one was opened; or
    /// the program has closed it, and its number may be any file's: then it is forgotten, not closed.
    fn checked(&self, file: File) -> Result<GuardedFd, Errno> {
        let file = GuardedFd { file: ManuallyDrop::new(file), metadata: self.metadata };
        if file.is_it() {
            return Ok(file);
        }
        let file = file.into_file();
        match Metadata::of(&file) {
            Ok(metadata) if self.may_have_named(&file, &metadata) => {
                drop(GuardedFd { file: ManuallyDrop::new(file), metadata })
            }
            _ => _ = file.into_raw_fd(),
        }
        Err(Errno(libc::ESTALE))
    }

    /// Whether a file was opened by the name: it has it, or has lost it since.
    fn may_have_named(&self, file: &File, metadata: &Metadata) -> bool {
        Metadata::of_path(&self.path).is_ok_and(|named| named.is_same_file(metadata))
            || (metadata.links == 0 && file::is_by_open(file).unwrap_or(false))
    }
}

impl Drop for GuardedFile {
    fn drop(&mut self) {
        // Opened here; dropped, it is closed only if it still is this file.
        drop(GuardedFd { file: file_at(self.place()), metadata: self.metadata });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_open(number: i32, metadata: &Metadata) -> bool {
        Metadata::of(&borrow_raw(number)).is_ok_and(|found| found.is_same_file(metadata))
    }

    #[test]
    fn what_has_the_number_of_what_was_just_opened_or_made_stays_open() {
        let path = PathBuf::from(format!("/dev/shm/lock_manager-number-{}", std::process::id()));
        // With a name and contents, opened as programs do.
        std::fs::write(&path, "program").unwrap();
        for take in [GuardedFd::opened, |file| GuardedFd::made(file, 0), |file| GuardedFd::made(file, 1)] {
            let program = File::open(&path).unwrap();
            let (number, metadata) = (program.as_raw_fd(), Metadata::of(&program).unwrap());
            assert_eq!(take(program).unwrap_err(), Errno(libc::EBADF));
            assert!(is_open(number, &metadata));
            // SAFETY: close(2) of what was opened above, and is nobody's now.
            unsafe { libc::close(number) };
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_was_opened_by_a_name_that_others_had_meanwhile_is_closed() {
        let path = PathBuf::from(format!("/dev/shm/lock_manager-guarded-{}", std::process::id()));
        let made = file::create_named(&path).unwrap();
        let metadata = Metadata::of(&made).unwrap();
        let guarded = GuardedFile::new(made, metadata, path.clone(), Access::ReadWrite);
        std::fs::remove_file(&path).unwrap();

        let another = file::create_named(&path).unwrap();
        let others = Metadata::of(&another).unwrap();
        let named = file::open(&path, Access::ReadWrite).unwrap();
        let number = named.as_raw_fd();
        assert!(guarded.checked(named).is_err() && !is_open(number, &others));

        let removed = file::open(&path, Access::ReadWrite).unwrap();
        let number = removed.as_raw_fd();
        std::fs::remove_file(&path).unwrap();
        assert!(guarded.checked(removed).is_err() && !is_open(number, &others));

        // The program's, which got the number of what was opened.
        let number = another.as_raw_fd();
        assert!(guarded.checked(another).is_err() && is_open(number, &others));
        // SAFETY: close(2) of what was opened above, and is nobody's now.
        unsafe { libc::close(number) };
    }
}
