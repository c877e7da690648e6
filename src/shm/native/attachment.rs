// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! A process's place in a segment: an entry, and a record lock on its byte for as long as the process lives. The lock's
//! description is kept by a mapping that no child inherits, so that neither closing all descriptors nor a child changes
//! what it says.
//!
//! Dying at any step of this needs no repair: no word names an entry before it is live.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::Reason;
use crate::sys::file::Access;
use crate::sys::pinned::{Pinned, Pinning};
use crate::sys::record_lock::{self, Attempt};
use crate::sys::witness::Surroundings;
use crate::sys::{Errno, futex, process, procfs};

use super::entries::{self, Entry, State, Tenant};
use super::format;
use super::pool::Pool;
use super::word;

/// Entries on a page.
const ON_A_PAGE: u32 = format::ENTRIES / format::ENTRY_PAGES;

/// How many taken entries are met before more room is made, as long as there is some to make: each costs a question to
/// the kernel.
const PATIENCE: u32 = 32;

/// How often a word that names a former tenant is tried to be changed; more is a writer that means harm.
const FORGET_ROUNDS: u32 = 16;

/// This process's place.
#[derive(Debug)]
pub(super) struct Attachment {
    /// Names it among all attachments that this process, and its ancestors, ever had.
    pub(super) number: u64,
    pub(super) entry: u32,
    generation: u64,
    /// The word of a lock that the process owns.
    pub(super) base: u64,
    pub(super) surroundings: Surroundings,
    _witness: Pinned,
}

impl Attachment {
    /// Takes a place for the calling process. Its other threads are excluded.
    pub(super) fn make(pool: &Pool) -> Result<Self, Reason> {
        // 0 is nowhere, 1 is what a thread remembers that was nowhere. Inherited, so that a child's are others.
        static NEXT_NUMBER: AtomicU64 = AtomicU64::new(2);
        if pool.access == Access::Look {
            return Err(Reason::ReadOnly);
        }
        let (index, witness, by_descriptor) = move_in(pool)?;
        let surroundings = Surroundings::here();
        let entry = entry_of(pool, index)?;
        let left = entry.state();
        if left.is_live() {
            // Whoever lived here is dead: the byte was free.
            entry.set_state(State::gone(left.generation()));
        }
        let generation = left.generation().wrapping_add(1) & (u64::MAX >> 1);
        if generation & word::GENERATION_MASK == 0 {
            forget_words_of(pool, index);
        }
        let tenant = Tenant {
            pid: process::pid(),
            start: procfs::start_time("self"),
            pid_namespace: surroundings.pid_namespace,
            time_namespace: surroundings.time_namespace,
            is_kept_by_descriptor: by_descriptor,
        };
        entry.set_tenant(&tenant, process::command());
        entry.set_state(State::live(generation));
        fence(Ordering::SeqCst);
        let base = word::of_process(index, generation);
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        Ok(Self { number, entry: index, generation, base, surroundings, _witness: witness })
    }

    /// Says that nobody lives in the entry any more; what is held there, if anything, is a dead holder's.
    pub(super) fn give_up(&self, pool: &Pool) {
        if let Ok(Some(entry)) = pool.entry(self.entry) {
            entry.bury(State::live(self.generation));
        }
    }
}

fn entry_of(pool: &Pool, index: u32) -> Result<Entry<'_>, Reason> {
    let unusable = Reason::System { doing: "reaching an entry of the attach table", errno: Errno(libc::EIO) };
    pool.entry(index).ok().flatten().ok_or(unusable)
}

/// Finds an entry whose byte is free and takes the byte.
fn move_in(pool: &Pool) -> Result<(u32, Pinned, bool), Reason> {
    let opening = |errno: Errno| match errno.0 {
        libc::ESTALE | libc::ENOENT => Reason::Removed,
        _ => Reason::System { doing: "opening the segment to attach to it", errno },
    };
    let locking = |errno| Reason::System { doing: "locking an entry of the attach table", errno };
    // A description of its own: what holds a lock cannot be asked about it.
    let mut file = pool.segment.file.open_anew().map_err(opening)?;
    loop {
        let index = find(pool, &file)?;
        let witness = Pinned::new(file, Pinning::ByMapping).map_err(locking)?;
        let byte = entries::byte(pool.geometry, index);
        let is_kept = pool.segment.file.ask(|asked| record_lock::is_write_locked(asked, byte)).map_err(locking)?;
        if is_kept {
            return Ok((index, witness, false));
        }
        // overlayfs maps another file than the one that was opened, so the lock went with the descriptor.
        drop(witness);
        file = pool.segment.file.open_anew().map_err(opening)?;
        if record_lock::try_lock(&file, byte).map_err(locking)? == Attempt::Taken {
            return Ok((index, Pinned::new(file, Pinning::ByDescriptor).map_err(locking)?, true));
        }
    }
}

/// Takes the byte of a free entry through `file`.
fn find(pool: &Pool, file: &File) -> Result<u32, Reason> {
    let mut first = None;
    loop {
        let mut pages = 0;
        while pages < format::ENTRY_PAGES && pool.page_is_usable(pages) == Some(true) {
            pages += 1;
        }
        let (capacity, may_extend) = (pages * ON_A_PAGE, pages < format::ENTRY_PAGES);
        let start = first.take().unwrap_or_else(|| pool.rotor().fetch_add(1, Ordering::Relaxed));
        let mut met = 0;
        for step in 0..capacity {
            let index = start.wrapping_add(step) % capacity;
            if index == 0 {
                continue;
            }
            if met >= PATIENCE && may_extend {
                break;
            }
            met += 1;
            if take(pool, file, index)? {
                return Ok(index);
            }
        }
        if !may_extend {
            return Err(Reason::TooManyProcesses { most: format::ENTRIES - 1 });
        }
        pool.reserve_page(pages)?;
        // Entry 0 is nobody's.
        first = Some(capacity.max(1));
    }
}

fn take(pool: &Pool, file: &File, index: u32) -> Result<bool, Reason> {
    let byte = entries::byte(pool.geometry, index);
    let locking = |errno| Reason::System { doing: "locking an entry of the attach table", errno };
    let entry = entry_of(pool, index)?;
    let seen = entry.state();
    if seen.is_live() {
        if record_lock::is_write_locked(file, byte).map_err(locking)? {
            return Ok(false);
        }
        // With the state that was read before asking: a newcomer's is another.
        entry.bury(seen);
    }
    Ok(record_lock::try_lock(file, byte).map_err(locking)? == Attempt::Taken)
}

/// The generations begin again: nothing may name this entry any more, or it would come to mean a new tenant.
fn forget_words_of(pool: &Pool, index: u32) {
    for id in 0..pool.num_locks_now() {
        forget(pool.word(id), index);
    }
    forget(pool.detector(), index);
    // A thread of the new tenant's would take such a record for its own, and be judged by the number of a dead one.
    pool.release_records_of(index);
}

/// Turns a word that names the entry into a dead holder's.
fn forget(lock: &AtomicU64, index: u32) {
    // Waiters set bits meanwhile, each once, and a word may be taken over by somebody else: a few rounds do.
    for _ in 0..FORGET_ROUNDS {
        let named = lock.load(Ordering::Acquire);
        if word::entry(named) != index {
            return;
        }
        let abandoned = word::abandoned(named);
        if lock.compare_exchange(named, abandoned, Ordering::Release, Ordering::Relaxed).is_ok() {
            futex::wake_one(super::waiting::futex_of(lock));
            return;
        }
    }
}
