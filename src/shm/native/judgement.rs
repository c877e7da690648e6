// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Decides whether the holder that a word names is dead. A holder that is stopped, frozen, traced or slow is alive. A
//! holder that cannot be judged is not dead.
//!
//! There are two witnesses. The first is the entry's byte: the kernel unlocks it when the process ends. The second is what
//! the kernel says of the thread. It counts only if both processes see the same process ids. It shows an exit long before
//! the kernel has freed the memory and unlocks the byte.

use std::sync::atomic::Ordering;

use crate::sys::Errno;
use crate::sys::descriptor::record_lock;
use crate::sys::liveness::ThreadRef;
use crate::sys::liveness::file_locks;
use crate::sys::probe::{self, Witness};
use crate::sys::process::namespaces;
use crate::sys::syscall::clock::Instant;

use super::entries::{self, Entry, ProcessInfo, State};
use super::pool::{LastFoundAlive, Pool};
use super::word;

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Alive,
    Dead,
    /// The kernel could not be asked.
    Unknown,
}

impl Verdict {
    fn of(witness: Witness) -> Self {
        match witness {
            Witness::Alive => Self::Alive,
            Witness::Unknown => Self::Unknown,
            Witness::Entry | Witness::Byte | Witness::Gone | Witness::Exiting => Self::Dead,
        }
    }
}

/// How much a check may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effort {
    /// About a microsecond: no look into /proc.
    Quick,
    /// Also /proc, which shows that a thread exits while the kernel still takes its memory down.
    Thorough,
}

/// The time between two thorough checks of all waiters for one lock: less than a slice, so that a lone waiter checks in each.
const CHECKS_APART_NS: u64 = 4_000_000;

/// A call that does not wait believes "alive" from a thorough check for this time. Such a check costs a hundred times as
/// much as trying a held lock, and a program may try as often as it can.
const GOOD_FOR_NS: u64 = 1_000_000;

/// A call that does not wait believes "alive" from a quick check for this time: the check costs some system calls. A death
/// is not known sooner in any other way, because a process takes longer to end, and its parent longer to hear of it.
const QUICK_GOOD_FOR_NS: u64 = 20_000;

impl Pool {
    /// The thread id, 0 if it is unknown, of the holder that `named` names, if a check of the last microseconds found it
    /// alive. Makes no system call, and cannot panic: the mid path asks it.
    #[inline]
    pub(super) fn found_alive(&self, named: u64) -> Option<u32> {
        let LastFoundAlive { holder, quick_until, thread, .. } = &self.last_found_alive;
        // Load the time first: whoever stores a longer one for another holder has taken the holder away before.
        let until = quick_until.load(Ordering::Acquire);
        let is_alive = holder.load(Ordering::Acquire) == named & word::OWNER && Instant::now().nanoseconds() < until;
        is_alive.then(|| thread.load(Ordering::Relaxed))
    }

    /// Whether the holder that `named` names is dead, for a call that does not wait. It finds a holder that is gone within
    /// 20 µs of its end, and looks once in a millisecond whether the holder is exiting.
    pub(super) fn is_dead_now(&self, named: u64) -> bool {
        if self.found_alive(named).is_some() {
            return false;
        }
        let LastFoundAlive { holder, until, quick_until, thread } = &self.last_found_alive;
        let (owner, now) = (named & word::OWNER, Instant::now());
        let is_known = holder.load(Ordering::Relaxed) == owner && now.nanoseconds() < until.load(Ordering::Relaxed);
        let effort = if is_known { Effort::Quick } else { Effort::Thorough };
        let verdict = self.judge(named, effort);
        if verdict == Verdict::Alive {
            if effort == Effort::Thorough {
                // The holder before, who may be dead by now, must not be believed in for this one's time.
                holder.store(0, Ordering::Relaxed);
                thread.store(self.holder_thread(named), Ordering::Relaxed);
                until.store(now.after(GOOD_FOR_NS).nanoseconds(), Ordering::Relaxed);
            }
            quick_until.store(now.after(QUICK_GOOD_FOR_NS).nanoseconds(), Ordering::Release);
            if effort == Effort::Thorough {
                holder.store(owner, Ordering::Release);
            }
        }
        verdict == Verdict::Dead
    }

    /// Whether the caller is to check a lock's holder thoroughly now. If not, a thread of some process did so just now, or
    /// this process would see nothing in /proc. Only a hint: forging it puts thorough checks off, and quick ones go on.
    pub(super) fn claim_thorough_check(&self, id: u32, named: u64, now: Instant) -> bool {
        let looked = self.looked(id);
        let last = looked.load(Ordering::Relaxed);
        // A time in the future comes from another time namespace, or is forged.
        let is_recent = last <= now.nanoseconds() && now.nanoseconds() - last < CHECKS_APART_NS;
        !is_recent
            && self.can_see(named)
            && looked.compare_exchange(last, now.nanoseconds(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Whether /proc shows the process that a word names by the ids in its entry.
    fn can_see(&self, named: u64) -> bool {
        let is_own = self.attachment.peek().is_some_and(|own| own.process_word == word::process(named));
        let Ok(Some(entry)) = self.entry(word::entry(named)) else { return false };
        (is_own || self.shares_pid_namespace(&entry.process_info())) && namespaces::proc_shows_this_namespace()
    }

    /// Whether a process's ids mean the same here: both processes are in one PID namespace.
    fn shares_pid_namespace(&self, info: &ProcessInfo) -> bool {
        info.pid_namespace != 0 && info.pid_namespace == self.pid_namespace()
    }

    /// Judges the holder that `named` names. The caller has read that word before (J1). If the byte of the entry is free, this
    /// marks the entry dead, so that the next caller need not ask.
    pub(super) fn judge(&self, named: u64, effort: Effort) -> Verdict {
        let witness = self.examine(named, effort, |entry, state| entry.mark_dead(state));
        let entry = self.entry(word::entry(named)).ok().flatten().filter(|_| witness != Witness::Entry);
        let pid = entry.map_or(0, |entry| entry.process_info().pid as u64);
        probe::holder_judged(self.segment.metadata.inode, named, pid, witness as u64);
        Verdict::of(witness)
    }

    /// The same without writing anything.
    pub(super) fn judge_unmarked(&self, named: u64) -> Verdict {
        Verdict::of(self.examine(named, Effort::Thorough, |_, _| ()))
    }

    fn examine(&self, named: u64, effort: Effort, on_unlocked: impl FnOnce(&Entry<'_>, State)) -> Witness {
        let index = word::entry(named);
        let entry = match self.entry(index) {
            // No process ever had the entry.
            Ok(None) => return Witness::Entry,
            Err(()) => return Witness::Unknown,
            Ok(Some(entry)) => entry,
        };
        let state = entry.state();
        if !state.is_named_by(named) {
            return Witness::Entry;
        }
        let own = self.attachment.peek();
        let is_own = own.is_some_and(|own| own.process_word == word::process(named));
        let mut witness = Witness::Alive;
        if !is_own {
            match self.is_entry_locked(index) {
                Ok(true) => {}
                Ok(false) => {
                    on_unlocked(&entry, state);
                    return Witness::Byte;
                }
                Err(_) => witness = Witness::Unknown,
            }
        } else if word::serial(named) == 0 || self.is_calling_thread(named) {
            return Witness::Alive;
        }
        let info = entry.process_info();
        // A process knows its own threads, even if it cannot see its own namespaces.
        let may_ask = is_own || self.shares_pid_namespace(&info);
        let ended = may_ask.then(|| self.how_it_ended(&entry, state, &info, named, effort)).flatten();
        ended.unwrap_or(witness)
    }

    /// What the kernel says of the thread, or of the process if that is the holder. `None`: it has not ended.
    fn how_it_ended(
        &self,
        entry: &Entry<'_>,
        state: State,
        info: &ProcessInfo,
        named: u64,
        effort: Effort,
    ) -> Option<Witness> {
        let record = self.record_of(named).filter(|_| word::serial(named) != 0);
        let ended = match record {
            Some(record) => {
                let thread = record.thread();
                let thread_ref = |started_by| ThreadRef { pid: info.pid, tid: thread.tid, started_by };
                let started_by = || (thread.started_by != 0 && times_compare(info)).then_some(thread.started_by);
                let ended =
                    look_for_end(effort, || thread_ref(None).is_gone(), || thread_ref(started_by()).is_exiting());
                // If the record changed hands meanwhile, the answer was about another thread.
                ended.filter(|_| record.key() == named & word::OWNER)
            }
            None => {
                let thread_ref = ThreadRef { pid: info.pid, tid: 0, started_by: None };
                look_for_end(effort, || thread_ref.process_is_gone(), || thread_ref.process_is_exiting())
            }
        };
        ended.filter(|_| entry.state() == state)
    }

    /// Whether the byte of an entry is locked. `Err`: the kernel could not be asked.
    pub(super) fn is_entry_locked(&self, index: u32) -> Result<bool, Errno> {
        let byte = entries::byte(self.geometry, index);
        let own = self.attachment.peek().map(|own| entries::byte(self.geometry, own.entry));
        let asked = self.segment.file.with_file(|file| {
            if record_lock::is_write_locked(file, byte)? {
                return Ok(true);
            }
            // "Free" may come from another file, if the program reused the descriptor. Believe it only if the same file
            // shows this process's own lock.
            match own {
                None => Ok(false),
                Some(own) if record_lock::is_write_locked(file, own)? => record_lock::is_write_locked(file, byte),
                Some(_) => Err(Errno(libc::EBADF)),
            }
        });
        asked.or_else(|errno| self.ask_proc_locks(index).ok_or(errno))
    }

    /// The same by /proc/locks, for a process that has lost its descriptor of a segment that has lost its name.
    fn ask_proc_locks(&self, index: u32) -> Option<bool> {
        let own = entries::byte(self.geometry, self.attachment.peek()?.entry);
        let metadata = &self.segment.metadata;
        let locked = file_locks::locked_offsets(metadata.device, metadata.inode)?;
        // A list without this process's own lock is incomplete.
        let is_whole = locked.contains(&own.start());
        is_whole.then(|| locked.contains(&entries::byte(self.geometry, index).start()))
    }
}

/// How a thread or process has ended, if it has: it is gone or, in a thorough check, exiting. This asks "gone" twice: if
/// the thread exits during the check, /proc shows nothing.
fn look_for_end(effort: Effort, is_gone: impl Fn() -> bool, is_exiting: impl Fn() -> bool) -> Option<Witness> {
    let gone = || is_gone().then_some(Witness::Gone);
    let thoroughly = || is_exiting().then_some(Witness::Exiting).or_else(gone);
    gone().or_else(|| (effort == Effort::Thorough).then(thoroughly).flatten())
}

/// Whether start times compare with those of the process (J7). Ask each time: the calling process may have entered another
/// time namespace since it attached.
fn times_compare(info: &ProcessInfo) -> bool {
    info.time_namespace == namespaces::time_namespace()
}
