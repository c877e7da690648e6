// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Removing a segment: either its name goes, and its users are told, or nothing happens, wherever the remover dies.
//!
//! A remover holds a record lock on the segment's first byte. A layout that has a word for it is marked before the name
//! goes, so that nobody begins to use the segment while others make a new one elsewhere. That mark alone says nothing:
//! it counts once the file has lost its name. If the remover fails, it takes the mark back; if it dies, whoever meets the
//! mark does.

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

/// What the word says by which the users of a segment learn of its removal.
pub(super) mod mark {
    pub(crate) const IN_USE: u32 = 0;
    /// A remover is about to take the name away, or died when it was: ask the file.
    pub(crate) const REMOVING: u32 = 1;
    /// Whatever else stands there: the name is gone, for good.
    pub(crate) const REMOVED: u32 = 2;
}

/// How long another remover is waited for. It takes microseconds, but anybody who can read the file may lock the byte.
const PATIENCE_NS: u64 = 2_000_000_000;

/// How often it is looked whether another remover has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// What a remover has locked.
fn removal_byte() -> Range {
    Range::between(0, 1)
}

/// What the first bytes of a file tell its remover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recognised {
    /// No segment of ours, or not one that is to go.
    No,
    /// One whose users find out by themselves.
    Yes,
    /// One that has a word for them, at that offset.
    WithRetiredWord(u64),
}

/// Removes the name of a segment that `recognise` knows, by its first bytes and what else it asks of the file. It is asked
/// again when nobody else can remove the segment any more and its users have been warned.
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
    // Before it is locked, which is not for a file of others.
    recognised()?;
    // Two removers and a creator: without this, the second remover would take away the new segment.
    let _alone = exclude_other_removers(&candidate)?;
    let (known, start) = recognised()?;
    match Metadata::of_path(name.file()) {
        Ok(metadata) if metadata.id() == candidate.metadata.id() => {}
        _ => return Err(name.error(Reason::NotFound)),
    }
    // Before the name is gone: nobody is to live on in it while others begin anew elsewhere.
    let mark = match known {
        Recognised::WithRetiredWord(offset) if offset < candidate.metadata.size => {
            Some(Mark::set(&candidate, &start, offset as usize)?)
        }
        _ => None,
    };
    // After the mark: whoever attaches from here on sees it, and waits for what comes of it.
    recognised()?;
    match fs::remove_file(name.file()).map_err(Errno::from) {
        Ok(()) => {
            if let Some(mark) = mark {
                mark.confirm();
            }
            Ok(())
        }
        Err(Errno(libc::ENOENT)) => {
            // Unlinked behind the library's back, or renamed: then it stays in use.
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

/// The mark of a removal that has not come to its end: taken back when dropped.
struct Mark {
    map: Mapping,
    offset: usize,
}

impl Mark {
    /// What stands before the word, of which `start` was read, never changes.
    fn set(candidate: &Candidate, start: &[u8], offset: usize) -> Result<Self> {
        let failed = |errno| candidate.name.error(Reason::System { doing: "marking the segment as removed", errno });
        // Not by its number, which may be a file of the program's by now; so may what was mapped by it.
        let map = Mapping::new(&candidate.file, Access::ReadWrite, START).map_err(failed)?;
        if !candidate.file.is_intact() || !map.holds(0, start.get(..offset).unwrap_or_default()) {
            return Err(failed(Errno(libc::EBADF)));
        }
        let set = Self { map, offset };
        // What was removed for good stays so, though it has another name.
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

/// No other remover, for as long as it lives.
struct Exclusion<'c>(&'c Candidate);

impl Drop for Exclusion<'_> {
    fn drop(&mut self) {
        // Not by closing the file: a child that was forked meanwhile has it open, too.
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

/// Asks until there is an answer, as long as another remover is waited for.
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

/// Keeps removers away from a segment in the making, until [`Segment::allow_removal`]: nobody lives in it yet, so that it
/// could be taken for one from before the boot. In memory there are none such.
pub(super) fn keep_removers_away(file: &File, file_system: FileSystem) -> Outcome<()> {
    if file_system == FileSystem::Memory {
        return Ok(());
    }
    match record_lock::try_lock(file, removal_byte()) {
        Ok(_) => Ok(()),
        Err(errno) => Err(Reason::System { doing: "locking the new segment", errno }),
    }
}

/// Whether somebody has a write lock on a byte of the range. If nobody has, whoever removes or makes the segment is waited
/// for first, and it is looked again.
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

/// What has become of the removal of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Removal {
    /// There is none, or it came to nothing.
    None,
    /// The segment still has its name, and a remover is about to take that away.
    Underway,
    Done,
}

impl Segment {
    /// Lets removers come, after [`keep_removers_away`].
    pub(super) fn allow_removal(&self) {
        if self.file_system == FileSystem::Memory {
            return;
        }
        // If the program closed the descriptor, the lock is gone with it.
        let _closed_meanwhile = self.file.with_file(record_lock::unlock_all);
    }

    /// Whether the segment was removed, of which the word at `offset` is marked. As long as it has its name, the caller
    /// comes before the removal.
    #[cold]
    pub(super) fn is_removed_for_good(&self, offset: usize) -> bool {
        self.removal(offset) == Removal::Done
    }

    /// Waits for what comes of a removal that is underway. To be asked by a process that has just begun to use the segment:
    /// the remover may have seen that nobody did.
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

    /// Takes back the mark of a remover that is dead, unless it was through.
    fn take_back(&self, word: &AtomicU32) {
        let Ok(file) = self.file.open_again() else { return };
        if record_lock::try_lock(&file, removal_byte()) != Ok(Attempt::Taken) {
            return;
        }
        // Nobody else takes the name away from here on, or the mark back.
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
