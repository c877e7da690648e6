// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The record locks that keep libpod out: one on the file of each id, owned by the process, as libpod takes them. Their
//! descriptors are kept, because any close(2) of such a file releases the process's lock on it, and opening a file costs as
//! much as all the rest of a lock call.
//!
//! A writer that uses a descriptor has the lock's word, so only one thread of this process uses it at a time. Readers
//! have no word: the readers of this process share the descriptor. The first takes it up and the last puts it down, with
//! other threads excluded. The lock's cells say which reader is the last. But a cell may be only a claim, which a writer
//! makes fail later. The last reader takes such a claim for a reader, and leaves the record lock to it. So a thread whose
//! claim has failed releases the record lock itself, unless another thread reads (`close_unless_read`).
//!
//! A kept descriptor that no lock uses may be closed to make room for another. Before each use, a descriptor is checked:
//! the program may have closed it, and opened a file of its own under its number.

use std::fs::File;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::Reason;
use crate::shm::{Companion, MAX_LOCKS};
use crate::sys::Errno;
use crate::sys::descriptor::CheckedFd;
use crate::sys::descriptor::record_lock::{self, Attempt};
use crate::sys::process::Process;
use crate::sys::process::once_box::OnceBox;
use crate::sys::syscall::file::{position, set_position};
use crate::sys::syscall::random;

use super::directory::{Directory, Outcome};
use super::kept_fd::{KeptFd, Threads};

/// How many unused descriptors are kept at most. By default a process may have 1024.
const MOST_KEPT: usize = 128;

/// How many ids a part of the table has.
const PART: usize = 2048;
const PARTS: usize = MAX_LOCKS as usize / PART;

/// How often to try again if the file is removed during an attempt. Each round means that another process has just
/// removed it. There are many rounds, so that a process that keeps removing the file does not make a slow one fail.
const ROUNDS: u32 = 10_000;

/// A directory's time of change is believed only if it is older than this. Two changes close together may leave the same
/// time: the coarsest file systems count in steps of 2 s.
const TIMES_TELL_AFTER_NS: u64 = 3_000_000_000;

/// How many bits the mark has. Such a position is valid on every file system with files larger than 4 GiB.
const MARK_BITS: u32 = 40;

/// The result of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordAttempt {
    Locked,
    /// The id has no file.
    NoFile,
    /// Another process has it, such as a Podman: it takes no words.
    Held,
}

/// The descriptors of a directory's files that this process keeps. A child inherits the descriptors, but not the locks.
pub(super) struct RecordLocks {
    process: &'static Process,
    directory: Arc<Directory>,
    /// The file position of the descriptor of id 0; that of id n is n further. The number is random, so no other
    /// descriptor of the process is likely to have it. 0: there are no random numbers yet.
    mark: u64,
    parts: Box<[OnceBox<[KeptFd; PART]>]>,
    /// The ids whose descriptors were opened last, plus one; 0: none.
    recent: [AtomicU32; MOST_KEPT],
    next: AtomicU32,
}

impl RecordLocks {
    pub(super) fn new(process: &'static Process, directory: Arc<Directory>) -> Self {
        let parts = (0..PARTS).map(|_| OnceBox::new()).collect();
        let recent = [const { AtomicU32::new(0) }; MOST_KEPT];
        let mark = random::number(MARK_BITS);
        Self { process, directory, mark, parts, recent, next: AtomicU32::new(0) }
    }

    fn descriptor(&self, id: u32) -> &KeptFd {
        // Not an array that is moved: it has 80 KiB, and some threads have stacks of 128.
        let make = || iter::repeat_with(KeptFd::default).take(PART).collect::<Box<[KeptFd]>>().try_into();
        let Ok(part) = self.parts[id as usize / PART].get_or_make_boxed(make) else { unreachable!("PART of them") };
        &part[id as usize % PART]
    }

    fn known_descriptor(&self, id: u32) -> Option<&KeptFd> {
        self.parts.get(id as usize / PART)?.get().map(|part| &part[id as usize % PART])
    }

    /// Takes the record lock by one or two system calls, if a descriptor of the id's file is kept, or if the id had no
    /// file and the directory has not changed since. `false`: [`try_lock`](Self::try_lock) decides. A signal handler may
    /// come anywhere here, and perhaps never return: it leaves at most a descriptor in use, which is put down with the word.
    pub(super) fn try_lock_fast(&self, id: u32) -> bool {
        let Some(descriptor) = self.known_descriptor(id) else { return false };
        if let Some(file) = descriptor.take_up_unused() {
            // If the id is freed after this check, it is freed while it is locked, which is allowed.
            let is_taken = is_present(&file) && record_lock::try_lock_for_process(&file) == Ok(Attempt::Taken);
            if !is_taken {
                descriptor.put_down();
            }
            return is_taken;
        }
        let seen = descriptor.no_file_as_of.load(Ordering::Relaxed);
        seen != 0 && self.directory.changed_last() == Some(seen)
    }

    /// Notes that the id has no file: no call looks for one until the directory changes. `changed`: the time at which the
    /// directory last changed, read before the file was looked for.
    pub(super) fn note_no_file(&self, id: u32, changed: Option<u64>) {
        let is_past = |changed: &u64| {
            crate::sys::syscall::clock::nanoseconds_since_1970().saturating_sub(*changed) > TIMES_TELL_AFTER_NS
        };
        // A process that has given up its rights may have overlooked the file.
        let changed = changed.filter(is_past).filter(|_| self.directory.is_opener()).unwrap_or(0);
        self.descriptor(id).no_file_as_of.store(changed, Ordering::Relaxed);
    }

    /// Takes the record lock on the file of an id, if there is one. The caller has the lock's word.
    pub(super) fn try_lock(&self, id: u32) -> Outcome<RecordAttempt> {
        self.try_lock_by(id, record_lock::try_lock_for_process, Threads::OfProcess(self.process))
    }

    /// The same for reading. The caller has a cell of the lock. Other threads of the process may have one, too.
    pub(super) fn try_share(&self, id: u32) -> Outcome<RecordAttempt> {
        let _alone = self.process.exclude_other_threads();
        let descriptor = self.descriptor(id);
        if let Some(file) = descriptor.file_that_is_in_use() {
            if is_present(&file) {
                return match record_lock::try_share_for_process(&file).map_err(locking)? {
                    Attempt::Taken => {
                        descriptor.share();
                        Ok(RecordAttempt::Locked)
                    }
                    Attempt::Held => Ok(RecordAttempt::Held),
                };
            }
            // The id was freed, or the program closed the descriptor: the other readers' record lock is gone.
            descriptor.close_and_forget();
        }
        let attempt = self.try_lock_by(id, record_lock::try_share_for_process, Threads::Excluded)?;
        if attempt == RecordAttempt::Locked {
            descriptor.share();
        }
        Ok(attempt)
    }

    /// Turns the record lock, if there is one, into one for reading. The caller has the lock's word, and will read.
    pub(super) fn weaken(&self, id: u32) {
        let _alone = self.process.exclude_other_threads();
        if let Some(descriptor) = self.retake(id, record_lock::try_share_for_process) {
            descriptor.share();
        }
    }

    /// Turns it back into one for writing. The caller still has the word.
    pub(super) fn strengthen(&self, id: u32) {
        let _alone = self.process.exclude_other_threads();
        if let Some(descriptor) = self.retake(id, record_lock::try_lock_for_process) {
            descriptor.unshare();
        }
    }

    /// Takes the record lock once more, in the other way. If that fails, the process has it as before, which also keeps
    /// libpod out.
    fn retake(&self, id: u32, retake: fn(&File) -> Result<Attempt, Errno>) -> Option<&KeptFd> {
        let descriptor = self.known_descriptor(id)?;
        let file = descriptor.file_that_is_in_use()?;
        let is_intact = file.is_intact();
        let _or_as_it_was = is_intact.then(|| retake(&file));
        is_intact.then_some(descriptor)
    }

    /// Releases the record lock for reading, unless `is_read` says that a thread of this process reads the lock, or holds it
    /// exclusively and is about to downgrade it.
    pub(super) fn close_unless_read(&self, id: u32, is_read: impl FnOnce() -> bool) {
        let Some(descriptor) = self.known_descriptor(id) else { return };
        let _alone = self.process.exclude_other_threads();
        descriptor.close_if_shared(|| !is_read());
    }

    fn try_lock_by(
        &self,
        id: u32,
        try_lock: fn(&File) -> Result<Attempt, Errno>,
        threads: Threads<'_>,
    ) -> Outcome<RecordAttempt> {
        let descriptor = self.descriptor(id);
        for _ in 0..ROUNDS {
            let Some(file) = self.file_in_use(id, descriptor, threads)? else { return Ok(RecordAttempt::NoFile) };
            let attempt = try_lock(&file).map_err(locking);
            match attempt {
                Ok(Attempt::Taken) => {}
                other => {
                    descriptor.put_down();
                    return other.map(|_| RecordAttempt::Held);
                }
            }
            // The id was freed meanwhile, and may have another file now, which other processes lock.
            if is_present(&file) {
                return Ok(RecordAttempt::Locked);
            }
            descriptor.close_and_forget();
        }
        Err(Reason::Unsettled { id, rounds: ROUNDS })
    }

    /// The descriptor of the file that the id has now; it is in use from here on. `None`: the id has no file.
    fn file_in_use(&self, id: u32, descriptor: &KeptFd, threads: Threads<'_>) -> Outcome<Option<CheckedFd>> {
        if let Some(file) = descriptor.take_up(threads) {
            if is_present(&file) {
                return Ok(Some(file));
            }
            descriptor.close_and_forget();
        }
        let opened = match self.directory.open_id(id) {
            // Close what is kept for later.
            Err(Reason::System { errno: Errno(libc::EMFILE), .. }) => {
                self.close_all_unused(threads);
                self.directory.open_id(id)
            }
            opened => opened,
        };
        let Some((file, metadata)) = opened? else { return Ok(None) };
        let position = if self.mark == 0 { None } else { set_position(&file, self.mark + u64::from(id)) };
        let file = descriptor.keep(file, &metadata, position);
        self.make_room_for(id, threads);
        Ok(Some(file))
    }

    /// Notes that an id's descriptor was opened, and closes the one that was opened longest ago.
    fn make_room_for(&self, id: u32, threads: Threads<'_>) {
        let place = self.next.fetch_add(1, Ordering::Relaxed) as usize % MOST_KEPT;
        let before = self.recent[place].swap(id + 1, Ordering::Relaxed);
        if let Some(before) = before.checked_sub(1).filter(|&before| before != id)
            && let Some(descriptor) = self.known_descriptor(before)
        {
            descriptor.displace(threads);
        }
    }

    fn close_all_unused(&self, threads: Threads<'_>) {
        for recent in &self.recent {
            if let Some(id) = recent.load(Ordering::Relaxed).checked_sub(1)
                && let Some(descriptor) = self.known_descriptor(id)
            {
                descriptor.close_unless_in_use(threads);
            }
        }
    }

    /// Releases a shared hold by `leave`. Before that it releases the record lock, if `is_last` says that no other thread
    /// of this process reads the lock.
    pub(super) fn unshare<T>(&self, id: u32, is_last: impl FnOnce() -> bool, leave: impl FnOnce() -> T) -> T {
        let _alone = self.process.exclude_other_threads();
        if is_last() {
            self.unlock(id);
        }
        leave()
    }

    /// Releases the record lock, if there is one. The caller still has the lock's word.
    pub(super) fn unlock(&self, id: u32) {
        let Some(descriptor) = self.known_descriptor(id) else { return };
        let Some(file) = descriptor.file_that_is_in_use() else { return };
        match file.metadata() {
            Some(metadata) => {
                // This fails on no open descriptor.
                let _ = record_lock::unlock_for_process(&file);
                if metadata.links > 0 { descriptor.put_down() } else { descriptor.close_and_forget() }
            }
            // The program has closed the descriptor, and with it the lock.
            None => descriptor.close_and_forget(),
        }
    }

    /// Releases the record lock by at most two system calls, as [`try_lock_fast`](Self::try_lock_fast) takes it. The file
    /// position proves that the descriptor is the library's: lseek(2) costs half as much as fstat(2), and here it does
    /// not matter whether the id was freed meanwhile.
    pub(super) fn unlock_fast(&self, id: u32) -> bool {
        let Some(descriptor) = self.known_descriptor(id) else { return true };
        let Some(file) = descriptor.file_that_is_in_use() else { return true };
        let expected = descriptor.position.load(Ordering::Relaxed);
        if expected == 0 || position(&file) != Some(expected) || record_lock::unlock_for_process(&file).is_err() {
            return false;
        }
        descriptor.put_down();
        true
    }
}

impl Companion for RecordLocks {
    fn release(&self, id: u32) {
        self.unlock(id);
    }
}

impl Drop for RecordLocks {
    fn drop(&mut self) {
        // No other thread uses this any more. A descriptor in use belongs to a lock that was never released.
        for descriptor in self.parts.iter().filter_map(OnceBox::get).flatten() {
            descriptor.forget_unless_in_use();
        }
    }
}

/// Whether a descriptor is still of its file and the file has a name. If not, the id was freed, and may have another
/// file.
fn is_present(file: &CheckedFd) -> bool {
    file.metadata().is_some_and(|metadata| metadata.links > 0)
}

fn locking(errno: Errno) -> Reason {
    Reason::of_fcntl("locking a file in the directory", errno)
}
