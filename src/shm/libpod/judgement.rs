// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Decides whether the thread that a mutex names is gone, and marks the mutex then.
//!
//! The kernel marks the mutexes of a dying thread before it frees the thread id. So if the id is free and the mutex still
//! names it, the kernel has missed that mutex and will never touch it: it marks at most 2048, and none of a thread that
//! calls exec while it is not the process's first. This is a proof only if the id is of this PID namespace. It is
//! believed only if two looks, some time apart, find every word of the mutex unchanged.

use std::sync::atomic::Ordering;

use crate::Reason;
use crate::sys::liveness::{self, mapped_file};
use crate::sys::mutex::{RobustMutex, Snapshot, State, word};
use crate::sys::probe::{self, Witness};
use crate::sys::syscall::clock::Instant;
use crate::sys::syscall::futex;

use super::super::Outcome;
use super::super::segment::Segment;
use super::Libpod;

/// The longest single sleep. A plain wait can sleep for ever on a free mutex: if another waiter is killed between its
/// wake-up and its turn, the kernel wakes nobody else. And a removal must be noticed within 100 ms.
pub(super) const SLICE_NS: u64 = 50_000_000;

/// The time between the two looks of a repair.
const SECOND_LOOK_NS: u64 = 10_000_000;

/// How many looks to skip after one that left a doubt: reading all of /proc in every slice is too expensive.
const LOOKS_SKIPPED_IN_DOUBT: u32 = 20;

/// The result of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// No thread holds the mutex.
    Free,
    /// The thread with that id is alive.
    Lives(u32),
    /// The id is gone, or the word has none although it is not free. One more look decides.
    Suspect,
    /// Proven: the holder is gone and the word is this.
    Gone(u32),
    /// The id is gone here, but may be of another PID namespace.
    Doubt(mapped_file::Doubt),
}

impl Verdict {
    /// What it rests on; `None`: it decides nothing.
    fn witness(self) -> Option<Witness> {
        match self {
            Self::Free | Self::Suspect => None,
            Self::Lives(_) => Some(Witness::Alive),
            Self::Gone(_) => Some(Witness::Gone),
            Self::Doubt(_) => Some(Witness::Unknown),
        }
    }
}

/// Repeated looks at a mutex.
#[derive(Default)]
pub(super) struct Watch {
    last: Option<Snapshot>,
    skip: u32,
}

impl Watch {
    /// Judges the holder of a mutex, that of lock `id` or, `None`, the one that guards the bitmaps. If the holder is gone,
    /// this does what the kernel would have done: it marks the mutex, if its word is still as judged, and wakes one waiter.
    pub(super) fn judge(&mut self, mutex: RobustMutex<'_>, segment: &Segment, id: Option<u32>) -> Verdict {
        let (inode, named) = (segment.metadata.inode, mutex.word().load(Ordering::Relaxed));
        let verdict = self.look(mutex, segment);
        if let Some(witness) = verdict.witness() {
            probe::holder_judged(inode, named.into(), (named & word::TID).into(), witness as u64);
        }
        if let Verdict::Gone(judged) = verdict {
            self.last = None;
            let marked = (judged & word::WAITERS) | word::OWNER_DIED;
            if mutex.word().compare_exchange(judged, marked, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                probe::takeover(inode, id.map_or(probe::NO_LOCK, u64::from), judged.into(), marked.into());
                futex::wake_one(mutex.word());
            }
        }
        verdict
    }

    fn look(&mut self, mutex: RobustMutex<'_>, segment: &Segment) -> Verdict {
        let snapshot = mutex.snapshot();
        let word = mutex.word_in(&snapshot);
        let State::Held(tid) = State::of(word) else {
            self.last = None;
            return Verdict::Free;
        };
        // No libc writes a word that names no thread and is not free (the waiters bit alone).
        if tid != 0 && liveness::thread_lives(tid) {
            self.last = None;
            return Verdict::Lives(tid);
        }
        if self.last != Some(snapshot) {
            self.last = Some(snapshot);
            return Verdict::Suspect;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return Verdict::Suspect;
        }
        match mapped_file::only_this_namespace_maps(segment.address()) {
            Ok(()) => Verdict::Gone(word),
            Err(doubt) => {
                self.skip = LOOKS_SKIPPED_IN_DOUBT;
                Verdict::Doubt(doubt)
            }
        }
    }
}

impl Libpod {
    pub(super) fn repair(&self, id: u32) -> Outcome<()> {
        let mutex = self.pool.mutex(id);
        if let Some((found, expected)) = mutex.foreign_kind() {
            return Err(Reason::ForeignMutex { id: Some(id), found, expected });
        }
        let mut watch = Watch::default();
        // This ends: each round either decides, or finds that the mutex was used since the last.
        loop {
            match watch.judge(mutex, &self.pool.segment, Some(id)) {
                Verdict::Free | Verdict::Gone(_) => break,
                Verdict::Lives(holder) => {
                    return Err(Reason::HolderLives { id, holder });
                }
                Verdict::Doubt(why) => {
                    return Err(Reason::CannotJudge { id, holder: mutex.holder(), why });
                }
                Verdict::Suspect => {
                    let word = mutex.word().load(Ordering::Relaxed);
                    futex::wait(mutex.word(), word, Instant::now().after(SECOND_LOOK_NS));
                }
            }
        }
        if mutex.is_not_recoverable() {
            mutex.make_recoverable();
        }
        Ok(())
    }
}
