// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Removing a segment. Wherever the remover dies, either the name is gone and the users are told, or nothing has
//! happened.
//!
//! A remover holds a record lock on the segment's first byte. If the layout has a word for it, the remover sets a mark
//! there before it removes the name, so that no process starts to use the segment while others make a new one. The mark
//! alone means nothing: it counts once the file has lost its name. If the remover fails, it takes the mark back. If it
//! dies, the next process that sees the mark does.

use std::fs::{self, File};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::sys::Errno;
use crate::sys::descriptor::record_lock::{self, Attempt, Range};
use crate::sys::syscall::clock::Instant;
use crate::sys::syscall::file::{Access, FileSystem, Metadata};
use crate::sys::syscall::mapping::Mapping;
use crate::{Reason, Result};

use super::Outcome;
use super::name::SegmentName;
use super::segment::{Candidate, START, Segment};

/// The values of the word by which users learn of a removal.
pub(super) mod mark {
    pub(crate) const IN_USE: u32 = 0;
    /// A remover is about to remove the name, or died then: ask the file.
    pub(crate) const REMOVING: u32 = 1;
    /// This or any other value: the name is gone for good.
    pub(crate) const REMOVED: u32 = 2;
}

/// How long to wait for another remover. A removal takes microseconds, but any process that can read the file can lock
/// the byte.
const PATIENCE_NS: u64 = 2_000_000_000;

/// The time between two looks whether another remover has finished.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// The byte that a remover locks.
fn removal_byte() -> Range {
    Range::between(0, 1)
}

/// What the first bytes of a file are to its remover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recognised {
    /// Not a segment of this library, or not one that may be removed.
    No,
    /// A segment whose users notice the removal by themselves.
    Yes,
    /// A segment with a word for the mark, at that offset.
    WithRetiredWord(u64),
}

/// Removes the name of a segment that `recognise` accepts, by its first bytes and by what it asks of the file. It is
/// asked again once no other process can remove the segment, and once its users are warned.
pub(super) fn remove(name: &SegmentName, recognise: impl Fn(&Candidate, &[u8]) -> Recognised) -> Result<()> {
    let candidate = Candidate::open(name, Access::ReadWrite)?;
    let recognised = || {
        let start = candidate.start()?;
        match recognise(&candidate, &start) {
            Recognised::No => {
                Err(name.error(Reason::NotASegment("it does not begin with a magic number that this library knows")))
            }
            known => Ok((known, start)),
        }
    };
    // Ask before locking: a file that is not a segment must not be locked.
    recognised()?;
    // Without this, the second of two removers would remove a segment that was created between them.
    let _alone = exclude_other_removers(&candidate)?;
    let (known, start) = recognised()?;
    match Metadata::of_path(name.file()) {
        Ok(metadata) if metadata.id() == candidate.metadata.id() => {}
        _ => return Err(name.error(Reason::NotFound)),
    }
    // Mark it before the name is gone: no process may go on using it while others create a new one.
    let mark = match known {
        Recognised::WithRetiredWord(offset) if offset < candidate.metadata.size => {
            Some(Mark::set(&candidate, &start, offset as usize)?)
        }
        _ => None,
    };
    // Ask again after the mark: a process that attaches from here on sees the mark, and waits for the end of the removal.
    recognised()?;
    match fs::remove_file(name.file()).map_err(Errno::from) {
        Ok(()) => {
            if let Some(mark) = mark {
                mark.confirm();
            }
            Ok(())
        }
        Err(Errno(libc::ENOENT)) => {
            // Another program has unlinked it, or renamed it: then it stays in use.
            if let Some(mark) = mark
                && Metadata::of(&candidate.file).is_ok_and(|metadata| metadata.links == 0)
            {
                mark.confirm();
            }
            Err(name.error(Reason::NotFound))
        }
        Err(errno) => Err(name.error(Reason::System { doing: "removing the segment", errno })),
    }
}

/// The mark of a removal that is not finished. It is taken back when dropped.
struct Mark {
    map: Mapping,
    offset: usize,
}

impl Mark {
    /// `start`: what was read of the file. The bytes before the word never change.
    fn set(candidate: &Candidate, start: &[u8], offset: usize) -> Result<Self> {
        let failed = |errno| candidate.name.error(Reason::System { doing: "marking the segment as removed", errno });
        // The descriptor may be of a file of the program by now, and so may the mapping: check both.
        let map = Mapping::new(&candidate.file, Access::ReadWrite, START).map_err(failed)?;
        if !candidate.file.is_intact() || !map.holds(0, start.get(..offset).unwrap_or_default()) {
            return Err(failed(Errno(libc::EBADF)));
        }
        let set = Self { map, offset };
        // A removed segment stays removed, even if it has a second name.
        let _was_marked = set.change(mark::IN_USE, mark::REMOVING);
        Ok(set)
    }

    fn change(&self, from: u32, to: u32) -> bool {
        let word = self.map.u32_at(self.offset);
        word.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// The name is gone.
    fn confirm(self) {
        self.map.u32_at(self.offset).store(mark::REMOVED, Ordering::SeqCst);
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let _was_removed = self.change(mark::REMOVING, mark::IN_USE);
    }
}

/// Keeps other removers away while it exists.
struct Exclusion<'c>(&'c Candidate);

impl Drop for Exclusion<'_> {
    fn drop(&mut self) {
        // Unlock explicitly: closing is not enough if a child that was forked meanwhile has the file open.
        if self.0.file.is_intact() {
            let _closed_meanwhile = record_lock::unlock_all(&self.0.file);
        }
    }
}

fn exclude_other_removers(candidate: &Candidate) -> Result<Exclusion<'_>> {
    let taken = || record_lock::try_lock(&candidate.file, removal_byte()).map(|attempt| attempt == Attempt::Taken);
    let failed = |errno| Reason::System { doing: "locking the segment for removal", errno };
    within_patience(|| Ok(taken().map_err(failed)?.then_some(()))).map_err(|reason| candidate.name.error(reason))?;
    Ok(Exclusion(candidate))
}

/// Asks until there is an answer, at most for the time that another remover is waited for.
fn within_patience<T>(mut ask: impl FnMut() -> Outcome<Option<T>>) -> Outcome<T> {
    let deadline = Instant::now().after(PATIENCE_NS);
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            return Err(Reason::RemovalHeld { waited_ms: PATIENCE_NS / 1_000_000 });
        }
        thread::sleep(LOOK_INTERVAL);
    }
}

/// Keeps removers away from a segment that is being created, until [`Segment::allow_removal`]: no process is attached
/// yet, so it could be taken for a segment from before the boot. In memory there are no such segments.
pub(super) fn keep_removers_away(file: &File, file_system: FileSystem) -> Outcome<()> {
    if file_system == FileSystem::Memory {
        return Ok(());
    }
    match record_lock::try_lock(file, removal_byte()) {
        Ok(_) => Ok(()),
        Err(errno) => Err(Reason::System { doing: "locking the new segment", errno }),
    }
}

/// Whether any process has a write lock on a byte of the range. If none has, this waits for a process that removes or
/// creates the segment, and looks again.
pub(super) fn is_in_use(candidate: &Candidate, range: Range) -> Outcome<bool> {
    let is_locked = |range| {
        let failed = |errno| Reason::System { doing: "looking for processes that use the segment", errno };
        record_lock::is_write_locked(&candidate.file, range).map_err(failed)
    };
    within_patience(|| {
        if is_locked(range)? {
            return Ok(Some(true));
        }
        if is_locked(removal_byte())? {
            return Ok(None);
        }
        Ok(Some(is_locked(range)?))
    })
}

/// The state of a segment's removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Removal {
    /// There is none, or it failed.
    None,
    /// The segment still has its name, and a remover is about to remove it.
    Underway,
    Done,
}

impl Segment {
    /// Ends [`keep_removers_away`].
    pub(super) fn allow_removal(&self) {
        if self.file_system == FileSystem::Memory {
            return;
        }
        // If the program closed the descriptor, the lock is gone with it.
        let _closed_meanwhile = self.file.with_file(record_lock::unlock_all);
    }

    /// Whether the segment, whose word at `offset` is marked, was removed. While it has its name, the caller came before
    /// the removal.
    #[cold]
    pub(super) fn is_removed_for_good(&self, offset: usize) -> bool {
        self.removal(offset) == Removal::Done
    }

    /// Waits for the end of a removal. A process that has just started to use the segment calls this: the remover may
    /// have seen no user.
    pub(super) fn await_removal(&self, offset: usize) -> Outcome<()> {
        within_patience(|| match self.removal(offset) {
            Removal::None => Ok(Some(())),
            Removal::Underway => Ok(None),
            Removal::Done => Err(Reason::Removed),
        })
    }

    fn removal(&self, offset: usize) -> Removal {
        let word = self.map.u32_at(offset);
        match word.load(Ordering::Acquire) {
            mark::IN_USE => Removal::None,
            mark::REMOVING if self.is_removed() => Removal::Done,
            mark::REMOVING => {
                let asked = self.file.query(|file| record_lock::is_write_locked(file, removal_byte()));
                if matches!(asked, Ok((false, _))) && self.access == Access::ReadWrite {
                    self.take_back(word);
                }
                match word.load(Ordering::Acquire) {
                    mark::IN_USE => Removal::None,
                    mark::REMOVING => Removal::Underway,
                    _ => Removal::Done,
                }
            }
            _ => Removal::Done,
        }
    }

    /// Takes back the mark of a dead remover, unless it had removed the name.
    fn take_back(&self, word: &AtomicU32) {
        let Ok(file) = self.file.open_again() else { return };
        if record_lock::try_lock(&file, removal_byte()) != Ok(Attempt::Taken) {
            return;
        }
        // From here on no other process removes the name or changes the mark.
        let outcome = match Metadata::of(&file) {
            Ok(metadata) if metadata.id() != self.metadata.id() => None,
            Ok(metadata) if metadata.links == 0 => Some(mark::REMOVED),
            Ok(_) => Some(mark::IN_USE),
            Err(_) => None,
        };
        if let Some(outcome) = outcome {
            let _another_did = word.compare_exchange(mark::REMOVING, outcome, Ordering::SeqCst, Ordering::Relaxed);
        }
    }
}
