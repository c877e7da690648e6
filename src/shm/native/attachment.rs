// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! A process's place in a segment: an entry, and a record lock on its byte for as long as the process lives. The lock's
//! description is kept by a mapping that no child inherits, so that neither closing all descriptors nor a child changes
//! what it says.
//!
//! Dying at any step of this needs no repair: no word names an entry before it is live.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use crate::Reason;
use crate::sys::Errno;
use crate::sys::descriptor::GuardedFd;
use crate::sys::descriptor::Pinned;
use crate::sys::descriptor::record_lock::{self, Attempt, Range};
use crate::sys::liveness::Namespaces;
use crate::sys::process;
use crate::sys::syscall::clock;
use crate::sys::syscall::file::{self, Access};

use super::entries::{self, Entry, State};
use super::format;
use super::space::Space;
use super::word;

/// Entries on a page.
const ON_A_PAGE: u32 = format::ENTRIES / format::ENTRY_PAGES;

/// How many taken entries are met before more room is made, as long as there is some to make: each costs a question to
/// the kernel.
const PATIENCE: u32 = 32;

/// The entry of a process whose segment is its own.
const ONLY_ENTRY: u32 = 1;

/// This process's place.
#[derive(Debug)]
pub(super) struct Attachment {
    /// Names it among all attachments that this process, and its ancestors, ever had.
    pub(super) id: u64,
    pub(super) entry: u32,
    generation: u64,
    /// The word of a lock that the process owns.
    pub(super) process_word: u64,
    /// Where the process looked from when it was introduced.
    namespaces: [AtomicU64; 2],
    has_published_identity: AtomicBool,
    /// `None`: nobody else can ask.
    _witness: Option<Pinned>,
}

impl Attachment {
    /// Takes a place for the calling process. Its other threads are excluded.
    pub(super) fn make(space: &Space) -> Result<Self, Reason> {
        // 0 is nowhere, 1 is what a thread remembers that was nowhere. Inherited, so that a child's are others.
        static NEXT_ID: AtomicU64 = AtomicU64::new(2);
        if space.access == Access::ReadOnly {
            return Err(Reason::ReadOnly);
        }
        let (index, witness, by_descriptor) = if space.is_nameless() {
            (ONLY_ENTRY, None, false)
        } else {
            let (index, witness, by_descriptor) = lock_free_entry(space)?;
            (index, Some(witness), by_descriptor)
        };
        let entry = entry_of(space, index)?;
        let left = entry.state();
        if left.is_live() {
            // Whoever lived here is dead: the byte was free.
            entry.set_state(State::gone(left.generation()));
        }
        let generation = left.generation().wrapping_add(1) & (u64::MAX >> 1);
        if generation & word::GENERATION_MASK == 0 {
            forget_words_of(space, index);
        }
        entry.reset_identity(process::pid(), by_descriptor);
        entry.set_state(State::live(generation));
        fence(Ordering::SeqCst);
        let process_word = word::of_process(index, generation);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let (namespaces, has_published_identity) = (Default::default(), AtomicBool::new(false));
        let made =
            Self { id, entry: index, generation, process_word, namespaces, has_published_identity, _witness: witness };
        // With the byte locked: a remover of what nobody lives in either finds it so, or has marked the segment before.
        space.await_removal().inspect_err(|_| made.detach(space))?;
        Ok(made)
    }

    /// Says of whom the entry is, in numbers by which others may judge it. Before the process's first lock: until then no
    /// word names it, and asking /proc is dearer than all the rest of opening a segment.
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

    /// Where the process looked from when it was introduced, if it has been.
    pub(super) fn namespaces(&self) -> Option<Namespaces> {
        if !self.has_published_identity.load(Ordering::Acquire) {
            return None;
        }
        let [pid_namespace, time_namespace] = self.namespaces.each_ref().map(|number| number.load(Ordering::Relaxed));
        Some(Namespaces { pid_namespace, time_namespace })
    }

    /// Says that nobody lives in the entry any more; what is held there, if anything, is a dead holder's.
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

/// How often a description is opened anew because the program closed all descriptors in the midst of this; more is a
/// program that does nothing else.
const MOVES: u32 = 1000;

/// Finds an entry whose byte is free and takes the byte.
fn lock_free_entry(space: &Space) -> Result<(u32, Pinned, bool), Reason> {
    for _ in 0..MOVES {
        // A description of its own: what holds a lock cannot be asked about it.
        let file = open_again(space)?;
        let index = match find(space, &file) {
            Ok(index) => index,
            Err(reason) if file.is_intact() => return Err(reason),
            Err(_) => continue,
        };
        let byte = entries::byte(space.geometry, index);
        let witness = Pinned::by_mapping(&file);
        // The number may have become another file's anywhere in this, or another description's of this file.
        let is_locked_by_it = is_holder(&file, byte);
        if !file.close() || !is_locked_by_it {
            continue;
        }
        let witness = witness.map_err(locking)?;
        if is_locked(space, byte)? {
            return Ok((index, witness, false));
        }
        // overlayfs maps another file than the one that was opened, so the lock went with the descriptor. Elsewhere it was
        // taken through another file's number.
        drop(witness);
        let file = open_again(space)?;
        if file::is_on_overlay(&file) != Ok(true) {
            continue;
        }
        let is_taken = record_lock::try_lock(&file, byte) == Ok(Attempt::Taken) && is_holder(&file, byte);
        if is_taken && file.is_intact() && is_locked(space, byte)? {
            return Ok((index, Pinned::Descriptor(file), true));
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

/// Whether nobody but the file's own description can have the byte, which was taken by it: its own lock it does not see.
fn is_holder(file: &File, byte: Range) -> bool {
    record_lock::is_write_locked(file, byte) == Ok(false)
}

/// Whether the byte is locked as others see it. Nobody is to begin in a segment that has lost its name meanwhile.
fn is_locked(space: &Space, byte: Range) -> Result<bool, Reason> {
    let asked = space.segment.file.query(|asked| record_lock::is_write_locked(asked, byte));
    match asked.map_err(|errno| Reason::of_fcntl("checking the record lock of an entry", errno))? {
        (_, metadata) if metadata.links == 0 => Err(Reason::Removed),
        (is_locked, _) => Ok(is_locked),
    }
}

/// Takes the byte of a free entry through `file`.
fn find(space: &Space, file: &GuardedFd) -> Result<u32, Reason> {
    let mut first = None;
    // Why no more room can be made: then all that there is has to be looked through.
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
        // Entry 0 is nobody's.
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
        // Of another file, whose the number is by now, each byte is free: that buries nobody.
        if !file.is_intact() {
            return Err(locking(Errno(libc::EBADF)));
        }
        // With the state that was read before asking: a newcomer's is another.
        entry.mark_dead(seen);
    }
    Ok(record_lock::try_lock(file, byte).map_err(locking)? == Attempt::Taken)
}

/// The generations begin again: nothing may name this entry any more, or it would come to mean a new tenant.
fn forget_words_of(space: &Space, index: u32) {
    space.forget_all(|named| word::entry(named) == index);
    // A thread of the new tenant's would take such a record for its own, and be judged by the number of a dead one.
    space.release_records_of(index);
}
