// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! A process's place in a segment: an entry, and a record lock on the entry's byte for as long as the process lives. A
//! mapping that no child inherits keeps the file description of that lock, so neither a child nor closing all descriptors
//! drops the lock.
//!
//! A death at any step needs no repair: no word names an entry before it is live.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use crate::Reason;
use crate::sys::Errno;
use crate::sys::descriptor::GuardedFd;
use crate::sys::descriptor::Pinned;
use crate::sys::descriptor::record_lock::{self, Attempt, Range};
use crate::sys::process;
use crate::sys::process::namespaces::Namespaces;
use crate::sys::syscall::clock;
use crate::sys::syscall::file::{self, Access};

use super::entries::{self, Entry, KeptBy, State};
use super::format;
use super::space::Space;
use super::word;

/// How many entries a page has.
const ON_A_PAGE: u32 = format::ENTRIES / format::ENTRY_PAGES;

/// After a search has met this many taken entries, it reserves another page of entries, if there is one left: each taken entry
/// costs a system call.
const PATIENCE: u32 = 32;

/// The entry of a process in a segment without a name, which is its own alone.
const ONLY_ENTRY: u32 = 1;

/// The place of this process.
#[derive(Debug)]
pub(super) struct Attachment {
    /// A number that no other attachment of this process or its ancestors ever had.
    pub(super) id: u64,
    pub(super) entry: u32,
    generation: u64,
    /// The word of a lock that the process owns.
    pub(super) process_word: u64,
    /// The namespaces of the process when it published its identity.
    namespaces: [AtomicU64; 2],
    has_published_identity: AtomicBool,
    /// Keeps the record lock. `None`: the segment is this process's alone.
    _witness: Option<Pinned>,
}

impl Attachment {
    /// Takes a place for the calling process. The caller excludes its other threads.
    pub(super) fn make(space: &Space) -> Result<Self, Reason> {
        // 0 means "no attachment", and a thread that has entered none has 1. Children inherit the counter, so they get other
        // ids.
        static NEXT_ID: AtomicU64 = AtomicU64::new(2);
        if space.access == Access::ReadOnly {
            return Err(Reason::ReadOnly);
        }
        let (index, witness) = if space.is_nameless() {
            (ONLY_ENTRY, None)
        } else {
            let (index, witness) = lock_free_entry(space)?;
            (index, Some(witness))
        };
        let kept_by = match witness {
            Some(Pinned::Descriptor(_)) => KeptBy::Descriptor,
            Some(Pinned::Mapping(_)) | None => KeptBy::Mapping,
        };
        let entry = entry_of(space, index)?;
        let left = entry.state();
        if left.is_live() {
            // The last process of this entry is dead: the byte was free.
            entry.set_state(State::gone(left.generation()));
        }
        let generation = left.generation().wrapping_add(1) & (u64::MAX >> 1);
        if generation & word::GENERATION_MASK == 0 {
            forget_words_of(space, index);
        }
        entry.reset_identity(process::pid(), kept_by);
        entry.set_state(State::live(generation));
        fence(Ordering::SeqCst);
        let process_word = word::of_process(index, generation);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let (namespaces, has_published_identity) = (Default::default(), AtomicBool::new(false));
        let made =
            Self { id, entry: index, generation, process_word, namespaces, has_published_identity, _witness: witness };
        // Look for a remover only now, with the byte locked. A remover of an unused segment either sees the lock, or has
        // already set the mark, and this look finds it.
        space.await_removal().inspect_err(|_| made.detach(space))?;
        Ok(made)
    }

    /// Writes into the entry who this process is, so that others can judge it. It is done before the first lock, and not
    /// on opening: no word names the entry until then, and reading /proc costs more than all the rest of opening.
    #[inline]
    pub(super) fn publish_identity(&self, space: &Space) {
        if !self.has_published_identity.load(Ordering::Acquire) {
            self.publish_identity_now(space);
        }
    }

    #[cold]
    fn publish_identity_now(&self, space: &Space) {
        let here = Namespaces::current();
        // As in a thread's record.
        let started_by = if space.table().is_some() { clock::ticks_since_boot() } else { 0 };
        if let Ok(Some(entry)) = space.entry(self.entry) {
            entry.publish_identity(process::command(), started_by, here);
        }
        for (place, number) in self.namespaces.iter().zip([here.pid_namespace, here.time_namespace]) {
            place.store(number, Ordering::Relaxed);
        }
        self.has_published_identity.store(true, Ordering::Release);
    }

    /// The namespaces of the process, if it has published its identity.
    pub(super) fn namespaces(&self) -> Option<Namespaces> {
        if !self.has_published_identity.load(Ordering::Acquire) {
            return None;
        }
        let [pid_namespace, time_namespace] = self.namespaces.each_ref().map(|number| number.load(Ordering::Relaxed));
        Some(Namespaces { pid_namespace, time_namespace })
    }

    /// Marks the entry as left. If a word still names it, that word's holder is dead.
    pub(super) fn detach(&self, space: &Space) {
        if let Ok(Some(entry)) = space.entry(self.entry) {
            entry.mark_dead(State::live(self.generation));
        }
    }
}

fn entry_of(space: &Space, index: u32) -> Result<Entry<'_>, Reason> {
    let unusable = Reason::System { doing: "mapping an entry of the attach table", errno: Errno(libc::EIO) };
    space.entry(index).ok().flatten().ok_or(unusable)
}

/// How often to open the file again because the program closed all descriptors meanwhile. Only a program that does nothing
/// else exceeds this.
const MOVES: u32 = 1000;

/// Finds an entry whose byte is free, and locks the byte.
fn lock_free_entry(space: &Space) -> Result<(u32, Pinned), Reason> {
    for _ in 0..MOVES {
        // Open a file description for this alone: the kernel does not report a description's locks to that description.
        let file = open_again(space)?;
        let index = match find(space, &file) {
            Ok(index) => index,
            Err(reason) if file.is_intact() => return Err(reason),
            Err(_) => continue,
        };
        let byte = entries::byte(space.geometry, index);
        let witness = Pinned::by_mapping(&file);
        // The descriptor may meanwhile be of another file, or of another description of this file.
        let is_locked_by_it = is_holder(&file, byte);
        if !file.close() || !is_locked_by_it {
            continue;
        }
        let witness = witness.map_err(locking)?;
        if is_locked(space, byte)? {
            return Ok((index, witness));
        }
        // overlayfs maps another file than the one that was opened, so the lock went with the descriptor. On any other
        // file system, the descriptor was of another file when the lock was taken.
        drop(witness);
        let file = open_again(space)?;
        if file::is_on_overlay(&file) != Ok(true) {
            continue;
        }
        let is_taken = record_lock::try_lock(&file, byte) == Ok(Attempt::Taken) && is_holder(&file, byte);
        if is_taken && file.is_intact() && is_locked(space, byte)? {
            return Ok((index, Pinned::Descriptor(file)));
        }
    }
    Err(locking(Errno(libc::EBADF)))
}

fn locking(errno: Errno) -> Reason {
    Reason::of_fcntl("locking an entry of the attach table", errno)
}

fn open_again(space: &Space) -> Result<GuardedFd, Reason> {
    space.segment.file.open_again().map_err(|errno| match errno.0 {
        libc::ESTALE | libc::ENOENT => Reason::Removed,
        _ => Reason::System { doing: "opening the segment to attach to it", errno },
    })
}

/// Whether `file` holds the byte that was just locked: the kernel shows a description every lock but its own.
fn is_holder(file: &File, byte: Range) -> bool {
    record_lock::is_write_locked(file, byte) == Ok(false)
}

/// Whether another description sees the byte as locked. Fails if the segment has lost its name: no process may start to
/// use it then.
fn is_locked(space: &Space, byte: Range) -> Result<bool, Reason> {
    let asked = space.segment.file.query(|asked| record_lock::is_write_locked(asked, byte));
    match asked.map_err(|errno| Reason::of_fcntl("checking the record lock of an entry", errno))? {
        (_, metadata) if metadata.links == 0 => Err(Reason::Removed),
        (is_locked, _) => Ok(is_locked),
    }
}

/// Locks the byte of a free entry through `file`.
fn find(space: &Space, file: &GuardedFd) -> Result<u32, Reason> {
    let mut first = None;
    // The reason why no further page can be reserved, if there is one. Then every entry has to be tried.
    let mut no_room = None;
    loop {
        let mut pages = 0;
        while pages < format::ENTRY_PAGES && space.page_is_usable(pages) == Some(true) {
            pages += 1;
        }
        let (capacity, may_extend) = (pages * ON_A_PAGE, pages < format::ENTRY_PAGES && no_room.is_none());
        let start = first.take().unwrap_or_else(|| space.rotor().fetch_add(1, Ordering::Relaxed));
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
            if take(space, file, index)? {
                return Ok(index);
            }
        }
        if !may_extend {
            return Err(no_room.unwrap_or(Reason::TooManyProcesses { most: format::ENTRIES - 1 }));
        }
        no_room = space.reserve_page(pages).err();
        // Entry 0 is never used.
        first = Some(capacity.max(1));
    }
}

fn take(space: &Space, file: &GuardedFd, index: u32) -> Result<bool, Reason> {
    let byte = entries::byte(space.geometry, index);
    let entry = entry_of(space, index)?;
    let seen = entry.state();
    if seen.is_live() {
        if record_lock::is_write_locked(file, byte).map_err(locking)? {
            return Ok(false);
        }
        // If the descriptor is of another file by now, every byte is free: mark nothing.
        if !file.is_intact() {
            return Err(locking(Errno(libc::EBADF)));
        }
        // Use the state that was read before the question: a new process of this entry has another state.
        entry.mark_dead(seen);
    }
    Ok(record_lock::try_lock(file, byte).map_err(locking)? == Attempt::Taken)
}

/// The generations start again from 0. Remove every name of this entry, or it would mean the new process.
fn forget_words_of(space: &Space, index: u32) {
    space.forget_all(|named| word::entry(named) == index);
    // A thread of the new process would take such a record for its own, and be judged by the id of a dead thread.
    space.release_records_of(index);
}
