// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Whether the holder that a word names is dead. Stopped, frozen, traced and slow holders live, and what cannot be
//! judged is not dead. First the entry, whose byte the kernel frees when its process ends; then, where the numbers of
//! processes mean the same here, what the kernel says of the thread: it is known to end long before its memory is gone.

use std::sync::atomic::Ordering;

use crate::sys::Errno;
use crate::sys::descriptor::record_lock;
use crate::sys::liveness::procfs;
use crate::sys::liveness::{self, ThreadRef};
use crate::sys::syscall::clock::Instant;

use super::entries::{self, Entry, State, Tenant};
use super::pool::{LastLook, Pool};
use super::word;

/// What is known of a holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Alive,
    Dead,
    /// It cannot be asked.
    Unknown,
}

/// How closely to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// What takes a microsecond.
    Quick,
    /// Into /proc, too, where a thread is known to end while its memory is taken down.
    Thorough,
}

/// How far apart the thorough looks of all waiters for a lock are: less than a slice, so that a lone one has one in each.
const LOOKS_APART_NS: u64 = 4_000_000;

/// How long "it lives" of a thorough look is good for in calls that do not wait: such a look costs a hundred times what
/// trying a held lock costs otherwise, and a program may try as often as it can.
const GOOD_FOR_NS: u64 = 1_000_000;

impl Pool {
    /// Whether the holder that `named` names is dead, for a call that does not wait. Whoever is gone is found at once;
    /// whoever is about to go is looked for once in a millisecond.
    pub(super) fn is_dead_at_once(&self, named: u64) -> bool {
        let LastLook { holder, until } = &self.last_look;
        let (owner, now) = (named & word::OWNER, Instant::now());
        let is_known = holder.load(Ordering::Relaxed) == owner && now.nanoseconds() < until.load(Ordering::Relaxed);
        if is_known {
            return self.judge(named, Look::Quick) == Verdict::Dead;
        }
        let verdict = self.judge(named, Look::Thorough);
        if verdict == Verdict::Alive {
            until.store(now.after(GOOD_FOR_NS).nanoseconds(), Ordering::Relaxed);
            holder.store(owner, Ordering::Relaxed);
        }
        verdict == Verdict::Dead
    }

    /// Whether it is time for a thorough look at a lock's holder, which the caller has then. Otherwise somebody, of
    /// whatever process, had one just now; or the caller would see nothing, and leaves the look to who does. Only a hint:
    /// whoever forges it puts such looks off, and the quick one goes on.
    pub(super) fn begin_thorough_look(&self, id: u32, named: u64, now: Instant) -> bool {
        let looked = self.looked(id);
        let last = looked.load(Ordering::Relaxed);
        // What lies ahead is from another time namespace, or forged.
        let is_recent = last <= now.nanoseconds() && now.nanoseconds() - last < LOOKS_APART_NS;
        !is_recent
            && self.can_see(named)
            && looked.compare_exchange(last, now.nanoseconds(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Whether /proc shows the process that a word names under the numbers that its entry has.
    fn can_see(&self, named: u64) -> bool {
        let is_own = self.attachment.peek().is_some_and(|own| own.base == word::process(named));
        let Ok(Some(entry)) = self.entry(word::entry(named)) else { return false };
        (is_own || self.is_neighbour(&entry.tenant())) && liveness::proc_shows_this_namespace()
    }

    /// Whether the numbers of a process mean the same here.
    fn is_neighbour(&self, tenant: &Tenant) -> bool {
        tenant.pid_namespace != 0 && tenant.pid_namespace == self.pid_namespace()
    }

    /// Judges the holder that `named` names, which was read before this. An entry that is found deserted is marked, so
    /// that the next need not ask.
    pub(super) fn judge(&self, named: u64, look: Look) -> Verdict {
        self.examine(named, look, |entry, state| entry.bury(state))
    }

    /// The same for who only looks, and writes nothing.
    pub(super) fn judge_unmarked(&self, named: u64) -> Verdict {
        self.examine(named, Look::Thorough, |_, _| ())
    }

    fn examine(&self, named: u64, look: Look, on_deserted: impl FnOnce(&Entry<'_>, State)) -> Verdict {
        let index = word::entry(named);
        let entry = match self.entry(index) {
            // Nobody was ever there.
            Ok(None) => return Verdict::Dead,
            Err(()) => return Verdict::Unknown,
            Ok(Some(entry)) => entry,
        };
        let state = entry.state();
        if !state.is_named_by(named) {
            return Verdict::Dead;
        }
        let own = self.attachment.peek();
        let is_own = own.is_some_and(|own| own.base == word::process(named));
        let mut verdict = Verdict::Alive;
        if !is_own {
            match self.is_inhabited(index) {
                Ok(true) => {}
                Ok(false) => {
                    on_deserted(&entry, state);
                    return Verdict::Dead;
                }
                Err(_) => verdict = Verdict::Unknown,
            }
        } else if word::tag(named) == 0 || self.is_calling_thread(named) {
            return Verdict::Alive;
        }
        if self.is_ended(&entry, state, named, look, is_own) { Verdict::Dead } else { verdict }
    }

    /// What the kernel says of the thread, or of the process where that is the holder.
    fn is_ended(&self, entry: &Entry<'_>, state: State, named: u64, look: Look, is_own: bool) -> bool {
        let tenant = entry.tenant();
        // Its own threads a process knows even where it cannot see what namespaces it is in.
        if !is_own && !self.is_neighbour(&tenant) {
            return false;
        }
        let record = self.record_of(named).filter(|_| word::tag(named) != 0);
        let ended = match record {
            Some(record) => {
                let thread = record.thread();
                let thread_ref = |start| ThreadRef { pid: tenant.pid, tid: thread.tid, start };
                let start = || (thread.start != 0 && times_compare(&tenant)).then_some(thread.start);
                let ended = is_over(look, || thread_ref(None).is_gone(), || thread_ref(start()).is_exiting());
                // The record was the thread's all the while, or what was asked was somebody else.
                ended && record.key() == named & word::OWNER
            }
            None => {
                let thread_ref = ThreadRef { pid: tenant.pid, tid: 0, start: None };
                is_over(look, || thread_ref.process_is_gone(), || thread_ref.process_is_exiting())
            }
        };
        ended && entry.state() == state
    }

    /// Whether the byte of an entry is locked. `Err`: it could not be asked.
    pub(super) fn is_inhabited(&self, index: u32) -> Result<bool, Errno> {
        let byte = entries::byte(self.geometry, index);
        let own = self.attachment.peek().map(|own| entries::byte(self.geometry, own.entry));
        let asked = self.segment.file.with_file(|file| {
            if record_lock::is_write_locked(file, byte)? {
                return Ok(true);
            }
            // "Free" may be another file's answer: it is believed from one that knows of this process, too.
            match own {
                None => Ok(false),
                Some(own) if record_lock::is_write_locked(file, own)? => record_lock::is_write_locked(file, byte),
                Some(_) => Err(Errno(libc::EBADF)),
            }
        });
        asked.or_else(|errno| self.ask_proc_locks(index).ok_or(errno))
    }

    /// The same from /proc/locks, for a process that has lost its descriptor and whose segment has lost its name.
    fn ask_proc_locks(&self, index: u32) -> Option<bool> {
        let own = entries::byte(self.geometry, self.attachment.peek()?.entry);
        let metadata = &self.segment.metadata;
        let locked = procfs::locked_offsets(metadata.device, metadata.inode)?;
        // A list in which this process is missing is not the whole list.
        let is_whole = locked.contains(&own.start());
        is_whole.then(|| locked.contains(&entries::byte(self.geometry, index).start()))
    }
}

/// Whether a thread or process is gone or, if that is looked for, about to go. Asked once more then: of one that went in
/// the midst of the look nothing was found.
fn is_over(look: Look, is_gone: impl Fn() -> bool, is_exiting: impl Fn() -> bool) -> bool {
    is_gone() || (look == Look::Thorough && (is_exiting() || is_gone()))
}

/// Asked anew each time: what was written when the process attached may be another by now.
fn times_compare(tenant: &Tenant) -> bool {
    tenant.time_namespace == liveness::time_namespace()
}
