// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Whether the thread that a mutex names can be said to be gone, and what is done then.
//!
//! The kernel marks the mutexes of a thread that dies before it gives the thread id away. So where the id is gone and
//! the mutex still names it, the kernel has missed it (it looks at 2048 at most, and at none of a thread that calls
//! exec beside the process's first) and will never touch it again. That is proven only where the id was given by this
//! PID namespace, and believed only when two looks, a while apart, find the mutex unchanged in every word.

use std::sync::atomic::Ordering;

use crate::Reason;
use crate::sys::liveness::procfs;
use crate::sys::mutex::{RobustMutex, Snapshot, word};
use crate::sys::syscall::clock::Instant;
use crate::sys::syscall::futex;

use super::super::Outcome;
use super::super::segment::Segment;
use super::Libpod;

/// The longest sleep in one go. A plain wait can be stranded for ever on a free mutex when another waiter is killed
/// between its wake-up and its turn, because the kernel then wakes nobody else; and whether the storage was removed
/// must be noticed within 100 ms.
pub(super) const SLICE_NS: u64 = 50_000_000;

/// How long a repair waits between its two looks.
const SECOND_LOOK_NS: u64 = 10_000_000;

/// How many looks are skipped after one that could not be judged: reading all of /proc is not for every slice.
const LOOKS_SKIPPED_IN_DOUBT: u32 = 20;

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nobody holds it.
    Free,
    /// The thread of that id lives.
    Lives(u32),
    /// The id is gone, or there is none where one should be; one more look decides.
    Suspect,
    /// Proven: the holder is gone and the word is this.
    Gone(u32),
    /// The id is gone here, but it may be one of another PID namespace.
    Doubt(procfs::Doubt),
}

/// Looks at one mutex again and again.
#[derive(Default)]
pub(super) struct Watch {
    last: Option<Snapshot>,
    skip: u32,
}

impl Watch {
    pub(super) fn look(&mut self, mutex: RobustMutex<'_>, segment: &Segment) -> Verdict {
        let snapshot = mutex.snapshot();
        let word = mutex.word_in(&snapshot);
        let tid = word & word::TID;
        if word == 0 || word & word::OWNER_DIED != 0 {
            self.last = None;
            return Verdict::Free;
        }
        // A word that names nobody and yet is not free (the waiters bit alone) is one that no libc writes.
        if tid != 0 && procfs::thread_lives(tid) {
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
        match procfs::only_this_namespace_maps(segment.address()) {
            Ok(()) => Verdict::Gone(word),
            Err(doubt) => {
                self.skip = LOOKS_SKIPPED_IN_DOUBT;
                Verdict::Doubt(doubt)
            }
        }
    }

    /// Does what the kernel would have done: marks the mutex, if it still is as judged, and wakes one waiter.
    pub(super) fn mark_owner_died(&mut self, mutex: RobustMutex<'_>, judged: u32) {
        let marked = (judged & word::WAITERS) | word::OWNER_DIED;
        if mutex.word().compare_exchange(judged, marked, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            futex::wake_one(mutex.word());
        }
        self.last = None;
    }
}

impl Libpod {
    pub(super) fn repair(&self, id: u32) -> Outcome<()> {
        let mutex = self.pool.mutex(id);
        if let Some((found, expected)) = mutex.foreign_kind() {
            return Err(Reason::ForeignMutex { id: Some(id), found, expected });
        }
        let mut watch = Watch::default();
        // Ends: each round either decides or finds that the mutex was used since the last.
        loop {
            match watch.look(mutex, &self.pool.segment) {
                Verdict::Free => break,
                Verdict::Lives(holder) => {
                    return Err(Reason::HolderLives { id, holder });
                }
                Verdict::Doubt(why) => {
                    return Err(Reason::CannotJudge { id, holder: mutex.holder(), why });
                }
                Verdict::Gone(word) => {
                    watch.mark_owner_died(mutex, word);
                    break;
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
