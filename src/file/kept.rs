// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The record locks that libpod takes: one on the file of an id, owned by the process. Their descriptors are kept, because
//! any close(2) of such a file gives up what the process has on it, and to open one costs as much as all the rest.
//!
//! Who uses a descriptor has the lock's word, so that of this process it is one thread at a time. Readers have no word: they
//! use one together, which the first of the process takes up and the last puts down, with other threads excluded. Who is
//! the last, the lock's cells say. A cell may be a claim that comes to nothing, because a writer is there: the last reader
//! took it for a reader's, so the one who claimed looks whether anybody reads, before it sleeps or gives up. A kept
//! descriptor that nobody uses may be closed to make room for another. Each is asked before each use whether it is what was
//! opened: the program may have closed it, and its number be of a file of its own.
//!
//! ```text
//!   0 ──open──▶ KEPT + IN_USE ──unlock──▶ KEPT ──lock──▶ KEPT + IN_USE (+ SHARED, for reading)
//!   ▲                                      │                     │
//!   └──────────────────── CLOSING ◀────────┴─────────────────────┘ to make room; nobody reads
//! ```
//!
//! What is in use when it is to make room is DISPLACED, and closed by who puts it down.

use std::fs::File;
use std::os::fd::{IntoRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::Reason;
use crate::shm::{Companion, MAX_LOCKS};
use crate::sys::Errno;
use crate::sys::descriptor::CheckedFd;
use crate::sys::descriptor::record_lock::{self, Attempt};
use crate::sys::process::once_box::OnceBox;
use crate::sys::process::{Exclusion, Process};
use crate::sys::syscall::file::{FileId, Metadata, position, set_position};
use crate::sys::syscall::random;

use super::directory::{Directory, Outcome};

/// How many descriptors are kept that nobody uses, at most: a process has 1024 by default.
const MOST_KEPT: usize = 128;

/// Ids in one part of the table.
const PART: usize = 2048;
const PARTS: usize = MAX_LOCKS as usize / PART;

/// How often a file that vanishes in the midst of an attempt is looked for again. Each round means that somebody
/// removed it just then, and takes some microseconds: who removes all the time is not to make a slow process fail.
const ROUNDS: u32 = 10_000;

/// A directory that changed less than this long ago may change again without a later time being written: file systems have
/// times of 2 s at the coarsest.
const TIMES_TELL_AFTER_NS: u64 = 3_000_000_000;

/// Positions of so many bits are below the end of what any file system lets a file have that has places behind 4 GiB.
const MARK_BITS: u32 = 40;

const KEPT: u64 = 1 << 32;
const IN_USE: u64 = 1 << 33;
/// Readers use it.
const SHARED: u64 = 1 << 35;
/// It had to make room while it was in use, and is closed after that: it is among the recent ones no more.
const DISPLACED: u64 = 1 << 36;
/// It is being closed: nobody is to open the file before that is done, whose lock would go with it.
const CLOSING: u64 = 1 << 34;

/// One id's descriptor.
#[derive(Default)]
struct Descriptor {
    /// Its number in the low half, with KEPT, IN_USE and the like; 0: there is none.
    state: AtomicU64,
    device: AtomicU64,
    inode: AtomicU64,
    /// Where its description stands; 0: nowhere that would tell it from others.
    position: AtomicU64,
    /// When the directory had changed last as the id was seen to have no file; 0: it was not seen.
    no_file_as_of: AtomicU64,
}

/// The other threads of the process.
#[derive(Clone, Copy)]
enum Threads<'p> {
    OfProcess(&'p Process),
    /// The caller excludes them already.
    Excluded,
}

impl<'p> Threads<'p> {
    fn exclude(self) -> Option<Exclusion<'p>> {
        match self {
            Self::OfProcess(process) => Some(process.exclude_other_threads()),
            Self::Excluded => None,
        }
    }
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordAttempt {
    Locked,
    /// The id has no file.
    NoFile,
    /// Another process has it, which knows nothing of words.
    Held,
}

/// The descriptors of a directory's files that this process keeps. A child has them, too, as it has the files open; of
/// the locks it has none.
pub(super) struct Kept {
    process: &'static Process,
    directory: Arc<Directory>,
    /// Where the description of id 0 stands, and that of each other so much further: no other of the process is likely to
    /// stand there. 0: there are no random numbers yet.
    mark: u64,
    parts: Box<[OnceBox<[Descriptor; PART]>]>,
    /// The ids whose descriptors were opened last, plus one.
    recent: [AtomicU32; MOST_KEPT],
    next: AtomicU32,
}

impl Kept {
    pub(super) fn new(process: &'static Process, directory: Arc<Directory>) -> Self {
        let parts = (0..PARTS).map(|_| OnceBox::new()).collect();
        let recent = [const { AtomicU32::new(0) }; MOST_KEPT];
        let mark = random::number(MARK_BITS);
        Self { process, directory, mark, parts, recent, next: AtomicU32::new(0) }
    }

    fn descriptor(&self, id: u32) -> &Descriptor {
        let make = || Ok::<_, std::convert::Infallible>(std::array::from_fn(|_| Descriptor::default()));
        let Ok(part) = self.parts[id as usize / PART].get_or_make(make);
        &part[id as usize % PART]
    }

    fn known_descriptor(&self, id: u32) -> Option<&Descriptor> {
        self.parts.get(id as usize / PART)?.get().map(|part| &part[id as usize % PART])
    }

    /// The same by one or two system calls, where a descriptor is kept of the id's file, or nothing in the directory has changed
    /// since there was none. `false`: to be tried with [`try_lock`](Self::try_lock). A signal handler may come anywhere in it,
    /// and stay: all that it leaves is a descriptor in use, which goes with the word.
    pub(super) fn try_lock_fast(&self, id: u32) -> bool {
        let Some(descriptor) = self.known_descriptor(id) else { return false };
        if let Some(file) = descriptor.take_up_unused() {
            // Freed after this, it was freed while somebody had it.
            let is_taken = is_present(&file) && record_lock::try_lock_for_process(&file) == Ok(Attempt::Taken);
            if !is_taken {
                descriptor.put_down();
            }
            return is_taken;
        }
        let seen = descriptor.no_file_as_of.load(Ordering::Relaxed);
        seen != 0 && self.directory.changed_last() == Some(seen)
    }

    /// Has nothing be looked up for the id as long as the directory does not change, which changed last at `changed`, before it
    /// was seen to have neither a file of the id nor lost the table.
    pub(super) fn note_no_file(&self, id: u32, changed: Option<u64>) {
        let is_past = |changed: &u64| {
            crate::sys::syscall::clock::nanoseconds_since_1970().saturating_sub(*changed) > TIMES_TELL_AFTER_NS
        };
        // Without its rights the process may have seen none where there is one.
        let changed = changed.filter(is_past).filter(|_| self.directory.is_opener()).unwrap_or(0);
        self.descriptor(id).no_file_as_of.store(changed, Ordering::Relaxed);
    }

    /// Takes the record lock on the file of that id, if there is one. The caller has the lock's word.
    pub(super) fn try_lock(&self, id: u32) -> Outcome<RecordAttempt> {
        self.try_lock_by(id, record_lock::try_lock_for_process, Threads::OfProcess(self.process))
    }

    /// The same for reading. The caller has a cell, and perhaps other threads of the process have, too.
    pub(super) fn try_share(&self, id: u32) -> Outcome<RecordAttempt> {
        let _alone = self.process.exclude_other_threads();
        let descriptor = self.descriptor(id);
        if let Some(file) = descriptor.file_that_is_in_use() {
            if is_present(&file) {
                return match record_lock::try_share_for_process(&file).map_err(locking)? {
                    Attempt::Taken => Ok(descriptor.share()),
                    Attempt::Held => Ok(RecordAttempt::Held),
                };
            }
            // Freed, or closed by the program: what the others had with it is gone.
            descriptor.close_and_forget();
        }
        let beheld = self.try_lock_by(id, record_lock::try_share_for_process, Threads::Excluded)?;
        Ok(if beheld == RecordAttempt::Locked { descriptor.share() } else { beheld })
    }

    /// Makes a record lock, if there is one, one for reading. The caller has the lock's word, and is to read.
    pub(super) fn weaken(&self, id: u32) {
        let _alone = self.process.exclude_other_threads();
        if let Some(descriptor) = self.retake(id, record_lock::try_share_for_process) {
            descriptor.share();
        }
    }

    /// The reverse. The caller has the word yet.
    pub(super) fn strengthen(&self, id: u32) {
        let _alone = self.process.exclude_other_threads();
        if let Some(descriptor) = self.retake(id, record_lock::try_lock_for_process) {
            descriptor.state.fetch_and(!SHARED, Ordering::AcqRel);
        }
    }

    /// Whatever comes of it, what is had either way keeps libpod out.
    fn retake(&self, id: u32, retake: fn(&File) -> Result<Attempt, Errno>) -> Option<&Descriptor> {
        let descriptor = self.known_descriptor(id)?;
        let file = descriptor.file_that_is_in_use()?;
        let is_intact = file.is_intact();
        let _or_as_it_was = is_intact.then(|| retake(&file));
        is_intact.then_some(descriptor)
    }

    /// Gives up a record lock for reading unless `is_read` says that a thread of this process reads the lock, or is about to
    /// read what it has yet for writing.
    pub(super) fn close_unless_read(&self, id: u32, is_read: impl FnOnce() -> bool) {
        let Some(descriptor) = self.known_descriptor(id) else { return };
        let _alone = self.process.exclude_other_threads();
        // Of a writer, who excludes nobody, it is no more shared.
        let state = descriptor.state.load(Ordering::Acquire);
        if state & SHARED != 0 && !is_read() {
            descriptor.close(state);
        }
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
            // Freed meanwhile, and perhaps allocated again: then others lock another file.
            if is_present(&file) {
                return Ok(RecordAttempt::Locked);
            }
            descriptor.close_and_forget();
        }
        Err(Reason::Unsettled { id, rounds: ROUNDS })
    }

    /// The descriptor of an id's present file, in use from here on. `None`: there is no such file.
    fn file_in_use(&self, id: u32, descriptor: &Descriptor, threads: Threads<'_>) -> Outcome<Option<CheckedFd>> {
        if let Some(file) = descriptor.take_up(threads) {
            if is_present(&file) {
                return Ok(Some(file));
            }
            descriptor.close_and_forget();
        }
        let opened = match self.directory.open_id(id) {
            // What is kept for later gives way to what is needed now.
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

    /// Notes that an id's descriptor was opened, and has that of the one that was longest ago closed.
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

    /// Gives a shared hold back by `leave`, and before that, if `is_last` says that no other thread of this process reads the
    /// lock, its record lock.
    pub(super) fn unshare<T>(&self, id: u32, is_last: impl FnOnce() -> bool, leave: impl FnOnce() -> T) -> T {
        let _alone = self.process.exclude_other_threads();
        if is_last() {
            self.unlock(id);
        }
        leave()
    }

    /// Gives the record lock back, if there is one. The caller has the lock's word yet.
    pub(super) fn unlock(&self, id: u32) {
        let Some(descriptor) = self.known_descriptor(id) else { return };
        let Some(file) = descriptor.file_that_is_in_use() else { return };
        match file.metadata() {
            Some(metadata) => {
                // It fails on no descriptor that is open.
                let _ = record_lock::unlock_for_process(&file);
                if metadata.links > 0 { descriptor.put_down() } else { descriptor.close_and_forget() }
            }
            // The program closed it, and the lock is gone with that.
            None => descriptor.close_and_forget(),
        }
    }

    /// Gives the record lock back by two system calls at most, as [`try_lock_fast`](Self::try_lock_fast) takes it. Where
    /// the description stands says that it is ours: lseek(2) costs half of what fstat(2) does, and it does not matter here
    /// whether the file was freed meanwhile.
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

impl Companion for Kept {
    fn release(&self, id: u32) {
        self.unlock(id);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // Nobody else has it any more. What is in use is of locks that were never given back.
        for descriptor in self.parts.iter().filter_map(OnceBox::get).flatten() {
            if descriptor.state.load(Ordering::Acquire) & IN_USE == 0 {
                descriptor.close_and_forget();
            }
        }
    }
}

/// Whether a descriptor still is of its file, and the file has a name: if not, the id was freed, and may have another.
fn is_present(file: &CheckedFd) -> bool {
    file.metadata().is_some_and(|metadata| metadata.links > 0)
}

fn locking(errno: Errno) -> Reason {
    Reason::of_fcntl("locking a file in the directory", errno)
}

impl Descriptor {
    /// The descriptor, if `state` says that there is one, and the file that it must be of. In use, it stays the same.
    fn fd(&self, state: u64) -> Option<CheckedFd> {
        let (device, inode) = (self.device.load(Ordering::Relaxed), self.inode.load(Ordering::Relaxed));
        (state & KEPT != 0).then(|| CheckedFd::new(state as RawFd, FileId { device, inode }))
    }

    /// The descriptor, which nobody closes from here on.
    fn take_up(&self, threads: Threads<'_>) -> Option<CheckedFd> {
        loop {
            let state = self.state.load(Ordering::Acquire);
            if state == CLOSING {
                let _alone = threads.exclude();
                // If it is not done, it was a thread of a parent's that began it.
                let _was_done = self.state.compare_exchange(CLOSING, 0, Ordering::AcqRel, Ordering::Relaxed);
                continue;
            }
            if state & KEPT == 0 {
                return None;
            }
            let taken = (state | IN_USE) & !SHARED;
            if self.state.compare_exchange(state, taken, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return self.fd(taken);
            }
        }
    }

    /// The same, of one that nobody uses.
    fn take_up_unused(&self) -> Option<CheckedFd> {
        let state = self.state.load(Ordering::Acquire);
        if state & KEPT == 0 || state & (IN_USE | CLOSING) != 0 {
            return None;
        }
        let taken = self.state.compare_exchange(state, state | IN_USE, Ordering::AcqRel, Ordering::Relaxed);
        taken.ok().and_then(|_| self.fd(state))
    }

    fn file_that_is_in_use(&self) -> Option<CheckedFd> {
        let state = self.state.load(Ordering::Acquire);
        if state & IN_USE != 0 { self.fd(state) } else { None }
    }

    /// Keeps what was just opened, in use.
    fn keep(&self, file: File, metadata: &Metadata, position: Option<u64>) -> CheckedFd {
        self.position.store(position.unwrap_or(0), Ordering::Relaxed);
        self.device.store(metadata.device, Ordering::Relaxed);
        self.inode.store(metadata.inode, Ordering::Relaxed);
        let number = file.into_raw_fd();
        self.state.store(u64::from(number as u32) | KEPT | IN_USE, Ordering::Release);
        CheckedFd::new(number, metadata.id())
    }

    /// Notes that readers use it.
    fn share(&self) -> RecordAttempt {
        self.state.fetch_or(SHARED, Ordering::AcqRel);
        RecordAttempt::Locked
    }

    /// The caller has nothing on the file any more.
    fn put_down(&self) {
        let mut state = self.state.load(Ordering::Acquire);
        while state & DISPLACED == 0 {
            let down = state & !(IN_USE | SHARED);
            match self.state.compare_exchange_weak(state, down, Ordering::Release, Ordering::Acquire) {
                Ok(_) => return,
                Err(now) => state = now,
            }
        }
        self.close_and_forget();
    }

    /// Closes the descriptor that is in use, if it still is of its file, and forgets it.
    fn close_and_forget(&self) {
        let state = self.state.load(Ordering::Acquire);
        if let Some(file) = self.fd(state) {
            file.close_if_intact();
        }
        self.state.store(0, Ordering::Release);
    }

    fn close_unless_in_use(&self, threads: Threads<'_>) {
        let _alone = threads.exclude();
        let state = self.state.load(Ordering::Acquire);
        if state & IN_USE == 0 {
            self.close(state);
        }
    }

    /// Closes it, at once or when it is put down.
    fn displace(&self, threads: Threads<'_>) {
        let _alone = threads.exclude();
        let displace = |state| (state & IN_USE != 0).then_some(state | DISPLACED);
        if let Err(state) = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, displace) {
            self.close(state);
        }
    }

    /// Closes it, with what the process has on its file, if its state is that one yet. Other threads are excluded.
    fn close(&self, state: u64) {
        if state & KEPT == 0 {
            return;
        }
        if self.state.compare_exchange(state, CLOSING, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            if let Some(file) = self.fd(state) {
                file.close_if_intact();
            }
            self.state.store(0, Ordering::Release);
        }
    }
}
