// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The calling thread as a segment knows it: its word, its record, and what happens to both when the thread ends.

use std::sync::atomic::Ordering;

use crate::Reason;
use crate::manager::Ownership;
use crate::sys::Errno;
use crate::sys::liveness;
use crate::sys::process::Process;
use crate::sys::process::arena;
use crate::sys::process::namespaces;
use crate::sys::syscall::clock;
use crate::sys::thread::Thread;
use crate::sys::thread::on_exit::{self, Destructors, ExitHook};
use crate::sys::thread::waits;

use super::Native;
use super::pool::{POOLS, Pool};
use super::records::{Record, ThreadId};
use super::sharing;
use super::word;

/// A thread that may take locks.
#[derive(Clone, Copy)]
pub(super) struct Caller<'p> {
    pub(super) thread: Thread,
    pub(super) ownership: Ownership,
    /// The word that names the thread, even if the process owns the locks that it takes.
    pub(super) owner: u64,
    /// The word of the locks that it takes: the thread's, or the process's.
    pub(super) word: u64,
    /// Its thread record. `None`: there was no room for one.
    pub(super) record: Option<Record<'p>>,
}

/// The words by which the calling thread may hold a lock.
pub(super) struct OwnWords {
    pub(super) thread: Thread,
    /// `None`: the thread has never taken a lock in a native segment.
    pub(super) thread_word: Option<u64>,
    pub(super) process_word: u64,
}

impl Native {
    /// Attaches the process and names the calling thread, if neither was done yet. From here on the thread may use the fast
    /// path.
    pub(super) fn enter(&self) -> Result<Caller<'_>, Reason> {
        let thread = Thread::identified(self.process).map_err(|_| Reason::ClonedChild)?;
        let attachment = self.pool().attached()?;
        attachment.publish_identity(self.pool());
        if thread.serial_bits() == 0 {
            let failed = |errno| Reason::System { doing: "registering the calling thread", errno };
            watch_thread_end(thread).map_err(failed)?;
            let serial = arena::serials().and_then(|serials| serials.claim().ok_or(Errno(libc::EAGAIN)));
            thread.set_serial_bits(word::of_thread(0, serial.map_err(failed)?));
        }
        // Undo the waits that a signal handler of the thread has jumped out of.
        waits::undo_abandoned(thread);
        sharing::sweep_claim(thread);
        let owner = attachment.process_word | thread.serial_bits();
        let record = self.pool().claim_record(owner, || {
            let times_compare =
                attachment.namespaces().is_some_and(|then| then.time_namespace == namespaces::time_namespace());
            // A program of format version 1 compares for equality: it would take any time but the start for another thread's.
            let started_by =
                if times_compare && self.pool().table().is_some() { clock::ticks_since_boot() as u32 } else { 0 };
            ThreadId { tid: thread.id() as i32, started_by }
        });
        if let Some(record) = record.filter(|record| record.waits_for().is_some()) {
            // It is from a wait that a signal handler has jumped out of. Or this call runs in a handler that interrupts the
            // wait: then the wait publishes it again after its slice.
            record.clear_wait();
        }
        let ownership = self.ownership.fix();
        thread.note_entered(attachment.id);
        self.view.let_in(attachment, ownership);
        let word = match ownership {
            Ownership::Thread => {
                self.pool().has_owning_threads.store(true, Ordering::Relaxed);
                owner
            }
            Ownership::Process => attachment.process_word,
        };
        Ok(Caller { thread, ownership, owner, word, record })
    }

    /// The words by which the calling thread may hold a lock. `None`: this process has taken no lock here.
    pub(super) fn own_words(&self) -> Option<OwnWords> {
        let thread = Thread::identified(self.process).ok()?;
        let process_word = self.pool().attachment.peek()?.process_word;
        let thread_word = (thread.serial_bits() != 0).then(|| process_word | thread.serial_bits());
        Some(OwnWords { thread, thread_word, process_word })
    }
}

/// Has [`thread_ended`] called when the calling thread ends.
pub(in crate::shm) fn watch_thread_end(thread: Thread) -> Result<(), Errno> {
    on_exit::arm(thread, ExitHook::Locks, thread_ended)
}

/// Runs when the calling thread ends. Its locks become abandoned, and its waits are undone. If destructors of the program are
/// still to run, they may unlock. Then the locks stay held, and waiters find the thread dead once it is gone.
fn thread_ended(thread: Thread, destructors: Destructors) {
    waits::undo_all(thread);
    sharing::sweep_claim(thread);
    if destructors == Destructors::Pending && thread.held_native() != 0 {
        return;
    }
    if let Ok(process) = Process::current() {
        give_up_all_of(thread, process);
    }
    thread.forget_native();
}

fn give_up_all_of(thread: Thread, process: &'static Process) {
    // A child that shares its parent's memory must not end a thread of the parent. The first thread of a forked child has
    // its parent's name until its first call.
    if !process.is_caller() || !thread.is_identified_in(process) || thread.serial_bits() == 0 {
        return;
    }
    let alone = process.exclude_other_threads();
    POOLS.for_each(&alone, |pool| pool.thread_ended(thread));
    if let Ok(serials) = arena::serials() {
        serials.release(word::serial(thread.serial_bits()));
    }
}

impl Pool {
    fn thread_ended(&self, thread: Thread) {
        let Some(attachment) = self.attachment.peek() else { return };
        let owner = attachment.process_word | thread.serial_bits();
        if thread.held_native() != 0 {
            self.abandon_all_of(owner);
        }
        self.release_record(owner);
    }

    /// Whether a word names a thread of this process that sleeps in the kernel. Such a thread is not between the swap of a
    /// lock call and its note.
    pub(super) fn sleeps(&self, named: u64) -> bool {
        let record = self.record_of(named).filter(|_| word::serial(named) != 0);
        record.is_some_and(|record| liveness::own_thread_sleeps(record.thread().tid))
    }

    /// The id of the thread that a word names; 0: it names none, or one in another PID namespace.
    pub(super) fn holder_thread(&self, named: u64) -> u32 {
        self.named_thread(named).map_or(0, |(_, tid)| tid as u32)
    }

    /// The ids of the process and the thread that a word names. The thread is 0 if the process owns the lock or the
    /// thread has no record. `None`: they are in another PID namespace.
    pub(super) fn named_thread(&self, named: u64) -> Option<(i32, i32)> {
        let entry = self.entry(word::entry(named)).ok()??;
        let info = entry.process_info();
        if !entry.state().is_named_by(named) || info.pid_namespace != self.pid_namespace() {
            return None;
        }
        let tid = self.record_of(named).filter(|_| word::serial(named) != 0).map_or(0, |record| record.thread().tid);
        Some((info.pid, tid))
    }

    /// The same for probes, which know numbers only; 0: unknown, or nobody.
    pub(super) fn shown_thread(&self, named: u64) -> (u64, u64) {
        let known = word::has_owner(named).then(|| self.named_thread(named)).flatten();
        known.map_or((0, 0), |(pid, tid)| (pid as u64, tid as u64))
    }
}
