// SPDX-License-Identifier: MIT OR Apache-2.0
#![deny(unsafe_code)]
//! The native layout: locks that need no list of the kernel's and in which no thread id decides.
//!
//! Every process that uses a segment has an entry in it, and a record lock on the entry's byte for as long as it lives.
//! A lock word names its holder whole: entry, generation of the entry, tag of the thread. One compare-and-swap takes
//! it, one gives it back; whoever finds the named holder dead swaps exactly the word that was judged. Nothing that
//! decides ownership is written anywhere else.

mod abandoning;
mod attachment;
mod bitmap;
mod caller;
mod cells;
mod converting;
mod deadlock;
mod entries;
mod format;
mod geometry;
mod inspection;
mod judgement;
mod local_waiters;
mod locking;
mod note;
mod pool;
mod reading;
mod records;
mod releasing;
mod rules;
mod sharing;
mod space;
mod table;
mod view;
mod waiting;
mod waits_for;
mod word;
mod writing;

/// What the bitmap and the cells are made of; the models put another in its place.
mod atomic {
    pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    /// What was changed before, and is read behind, is in the one order of all that is sequentially consistent: the accesses
    /// say so themselves. The models' do not know it, and have a fence here.
    #[inline(always)]
    pub(super) const fn in_sequence() {}
}

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::manager::{Acquired, Holder, Info, Kind, LockInfo, Manager, Ownership, Wait, Waiter};
use crate::ownership::OwnershipCell;
use crate::sys::Errno;
use crate::sys::bits;
use crate::sys::liveness;
use crate::sys::process::{Process, effective_user};
use crate::sys::syscall::clock::Instant;
use crate::sys::syscall::file::{Access, FileSystem};
use crate::sys::thread::Thread;
use crate::sys::thread::waits::{self, InHand};
use crate::{Cancel, Error, Reason, Result};

use super::name::SegmentName;
use super::removal::{self, Recognised};
use super::segment::Candidate;
use super::{FastAcquire, MAX_LOCKS, Release};
pub(super) use caller::watch_thread_end;
pub(super) use format::{VERSION, is_ours};
use geometry::Geometry;
pub(crate) use locking::{Mode, SlowPath};
use pool::Pool;
pub(crate) use sharing::Spin;
use space::Space;
use view::View;

/// What a remover is told of a file that starts with these bytes.
pub(super) fn recognise(start: &[u8]) -> Recognised {
    if is_ours(start) { Recognised::WithRetiredWord(format::header::RETIRED as u64) } else { Recognised::No }
}

/// Whether a native segment that starts with these bytes was removed for good; if it has a name, that is another one.
pub(super) fn is_removed(_: &Candidate, start: &[u8]) -> bool {
    is_ours(start) && format::is_removed(start)
}

/// Whether a native segment that starts with these bytes is known to be from before this boot.
pub(super) fn is_before_boot(candidate: &Candidate, start: &[u8]) -> bool {
    let check = |geometry| check_boot(candidate, start, geometry);
    is_ours(start) && matches!(Geometry::read(start).and_then(check), Err(Reason::BeforeBoot))
}

/// Whether a segment may be used as far as the boot is concerned. The living prove that it is of this one, whatever its id
/// says: containers may have an id of their own mounted over the kernel's.
fn check_boot(candidate: &Candidate, start: &[u8], geometry: Geometry) -> std::result::Result<(), Reason> {
    // What is in memory was made since the boot.
    if candidate.file_system == FileSystem::Memory {
        return Ok(());
    }
    let boot = liveness::boot_id();
    if boot.is_ok_and(|boot| format::boot(start) == Some(boot))
        || removal::is_in_use(candidate, entries::bytes(geometry))?
    {
        return Ok(());
    }
    Err(boot.map_or_else(space::no_boot, |_| Reason::BeforeBoot))
}

/// What a lock is held by beside its word, for the sake of programs that know nothing of words.
pub(crate) trait Companion: Send + Sync {
    fn release(&self, id: u32);
}

/// Where the locks of a manager are at backing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backing {
    /// In a segment that has a name.
    Segment,
    /// In memory of the process of that epoch.
    Memory { epoch: u64 },
}

/// A manager of locks of the library's own.
pub(crate) struct Native {
    backing: Backing,
    view: View,
    process: &'static Process,
    storage: Arc<PathBuf>,
    ownership: OwnershipCell,
}

impl Native {
    /// Creates a segment and opens it.
    pub(super) fn create(name: &SegmentName, num_locks: u32, max_locks: u32, mode: u32) -> Result<Self> {
        let geometry = Geometry::for_locks(num_locks, max_locks).map_err(|reason| name.error(reason))?;
        // Whoever uses it opens it for both, its creator first; what that one could not open it could not remove.
        if mode & 0o600 != 0o600 && effective_user() != 0 {
            let what = "the mode does not let the owner read and write, which the native layout needs";
            return Err(name.error(Reason::BadArgument(what)));
        }
        let space = Space::create(name, geometry, mode)?;
        let inode = space.segment.metadata.inode;
        let made = Self::new(name, space, None).inspect_err(|error| {
            // What cannot be used, for want of a descriptor to attach with, is not left behind.
            if !matches!(error.reason(), Reason::Removed) {
                let is_it = |_: &Candidate, start: &[u8]| is_ours(start) && format::inode(start) == Some(inode);
                let _gone_already = super::remove_if(name, is_it);
            }
        })?;
        // From here on it has somebody living in it.
        made.pool().segment.allow_removal();
        Ok(made)
    }

    /// Opens what `candidate` found, whose first bytes are `start`. `ESTALE` where the name is to be looked up again.
    pub(super) fn open(candidate: Candidate, start: &[u8], num_locks: u32) -> Result<Self> {
        let name = candidate.name.clone();
        let refuse = |reason| name.error(reason);
        let geometry = Geometry::read(start).map_err(refuse)?;
        // The boot first: after one, a device may have another number, and what was copied then is as old.
        check_boot(&candidate, start, geometry).map_err(refuse)?;
        format::check_file(start, candidate.metadata.device, candidate.metadata.inode).map_err(refuse)?;
        let there = geometry.check_count(format::num_locks(start).unwrap_or(0)).map_err(refuse)?;
        // After the number was read: whoever grows the file makes it longer before saying so.
        let space = Space::open(candidate, geometry, there)?;
        if num_locks != 0 {
            let asked = format::rounded(num_locks);
            if asked < geometry.first_locks() || asked > there {
                return Err(refuse(Reason::WrongCount { there, asked }));
            }
        }
        if format::is_removed(start) && space.access == Access::ReadWrite {
            return Err(refuse(Reason::Removed));
        }
        Self::new(&name, space, format::identity(start))
    }

    /// `read`: the segment's id as it was read from the file, if it was.
    fn new(name: &SegmentName, space: Space, read: Option<[u8; 16]>) -> Result<Self> {
        let no_memory = |errno: Errno| name.error(Reason::System { doing: "reserving memory", errno });
        let process = Process::current().map_err(no_memory)?;
        let pool = Pool::of(process, name, space, read)?;
        let number = note::managers().claim().ok_or_else(|| name.error(Reason::TooManyManagers))?;
        let view = View::new(pool, number.into()).map_err(|errno| {
            note::managers().release(number);
            no_memory(errno)
        })?;
        let (storage, ownership) = (Arc::clone(name.shown()), OwnershipCell::default());
        let native = Self { backing: Backing::Segment, view, process, storage, ownership };
        if native.pool().access == Access::ReadWrite {
            native.pool().attached().map_err(|reason| native.error(reason))?;
            // A remover that came before is not to leave anybody behind in what it removed.
            if native.pool().is_retired() {
                return Err(native.error(Reason::Removed));
            }
        }
        Ok(native)
    }

    /// Makes just as many locks in memory of this process's own.
    pub(crate) fn in_memory(storage: &Arc<PathBuf>, num_locks: u32) -> Result<Self> {
        let refuse = |reason| Error::new(storage, reason);
        let no_memory = |errno: Errno| refuse(Reason::System { doing: "reserving memory", errno });
        let process = Process::current().map_err(no_memory)?;
        let geometry = Geometry::for_locks(num_locks, MAX_LOCKS).map_err(refuse)?;
        let space = Space::create_nameless(geometry, num_locks).map_err(refuse)?;
        let pool = Pool::of_nameless(process, space).map_err(refuse)?;
        let number = note::managers().claim().ok_or_else(|| refuse(Reason::TooManyManagers))?;
        let view = View::new(pool, number.into()).map_err(|errno| {
            note::managers().release(number);
            no_memory(errno)
        })?;
        let (backing, ownership) = (Backing::Memory { epoch: process.epoch() }, OwnershipCell::default());
        let native = Self { backing, view, process, storage: Arc::clone(storage), ownership };
        native.pool().attached().map_err(refuse)?;
        Ok(native)
    }

    #[inline(always)]
    fn pool(&self) -> &Pool {
        &self.view.pool
    }

    /// See [`View::acquire_fast`].
    #[inline(always)]
    pub(crate) fn acquire_fast(&self, id: u32) -> FastAcquire {
        self.view.acquire_fast(id)
    }

    /// See [`View::holds_surely`].
    #[inline(always)]
    pub(crate) fn holds_surely(&self, id: u32) -> bool {
        self.view.holds_surely(id)
    }

    /// See [`View::acquire_mid`].
    #[inline(always)]
    pub(crate) fn acquire_mid(&self, id: u32) -> FastAcquire {
        self.view.acquire_mid(id)
    }

    /// See [`View::share_fast`].
    #[inline(always)]
    pub(crate) fn share_fast(&self, id: u32) -> FastAcquire {
        self.view.share_fast(id)
    }

    /// See [`View::share_mid`].
    #[inline]
    pub(crate) fn share_mid(&self, id: u32, haste: Spin) -> FastAcquire {
        self.view.share_mid(id, haste)
    }

    /// See [`View::unshare_fast`].
    #[inline(always)]
    pub(crate) fn unshare_fast(&self, id: u32) -> Release {
        self.view.unshare_fast(id)
    }

    /// See [`View::unshare_mid`].
    #[inline]
    pub(crate) fn unshare_mid(&self, id: u32) -> Release {
        self.view.unshare_mid(id)
    }

    /// See [`View::downgrade_mid`].
    #[inline]
    pub(crate) fn downgrade_mid(&self, id: u32) -> Release {
        self.view.downgrade_mid(id)
    }

    /// Gives back what the calling thread, or this process, holds shared.
    pub(crate) fn unshare(&self, id: u32) -> std::result::Result<(), Reason> {
        match self.view.unshare_fast(id) {
            Release::Done => Ok(()),
            _ => match self.view.unshare_mid(id) {
                Release::Done => Ok(()),
                _ => self.unshare_slow(id),
            },
        }
    }

    /// Makes an exclusive hold of the caller's a shared one.
    pub(crate) fn downgrade(&self, id: u32) -> std::result::Result<(), Reason> {
        match self.view.downgrade_mid(id) {
            Release::Done => Ok(()),
            _ => self.downgrade_slow(id),
        }
    }

    /// See [`View::release_mid`].
    #[inline(always)]
    pub(crate) fn release_mid(&self, id: u32) -> Release {
        self.view.release_mid(id)
    }

    /// Makes room for a lock of that id, which is below the most that there can be.
    pub(crate) fn reach(&self, id: u32) -> std::result::Result<(), Reason> {
        if self.pool().has_lock(id) {
            return Ok(());
        }
        const STEP: u32 = 4096;
        let most = self.pool().geometry.max_locks();
        let wanted =
            (id + 1).checked_next_power_of_two().map_or(most, |rounded| rounded.min((id + 1).next_multiple_of(STEP)));
        let grown = self.pool().grow(format::rounded(wanted.min(most)));
        self.view.hear_of_more();
        grown
    }

    /// Whether the calling thread, or this process where it owns the lock, holds it through this manager.
    pub(crate) fn holds(&self, id: u32) -> bool {
        let Some(holder) = self.own_words().filter(|_| self.pool().has_lock(id)) else { return false };
        let owner = self.pool().word(id).load(Ordering::Relaxed) & word::OWNER;
        (Some(owner) == holder.thread_word || owner == holder.process_word)
            && note::manager(self.pool().note(id)) == self.view.manager
    }

    /// Whether a lock's word names a holder, or says that there may be readers, dead or alive. Of a lock that this process
    /// knows.
    pub(crate) fn is_taken(&self, id: u32) -> bool {
        let seen = self.pool().word(id).load(Ordering::Relaxed);
        word::has_owner(seen) || word::is_shared(seen)
    }

    /// Gives a lock back that was taken just now, as if it had not been: a death that was told is still due.
    pub(crate) fn back_out_of(&self, id: u32, acquired: Acquired) {
        let Some(holder) = self.own_words() else { return };
        let owner = self.pool().word(id).load(Ordering::Relaxed) & word::OWNER;
        self.pool().back_out(id, owner, acquired);
        if Some(owner) == holder.thread_word {
            holder.thread.count_word_given_back();
        }
    }

    /// The word of a lock that was taken just now, for the case that the wait is left in which it is in hand. Until it is
    /// [held](Self::hold), no unlock gives it back.
    pub(crate) fn in_hand(&self, id: u32, acquired: Acquired) -> InHand<'_> {
        self.view.note_manager(id, 0);
        let word = self.pool().word(id);
        let owner = word.load(Ordering::Relaxed) & word::OWNER;
        InHand { word, owner, give_back: releasing::back_out_of_left_wait(acquired) }
    }

    /// Has what was in hand be held through this manager.
    pub(crate) fn hold(&self, id: u32) {
        self.view.note_manager(id, self.view.manager);
    }

    /// Gives back what the calling thread, or this process where it owns the lock, holds through this manager.
    pub(crate) fn release(&self, id: u32) -> std::result::Result<(), Reason> {
        match self.view.release_fast(id) {
            Release::Done => Ok(()),
            _ => match self.view.release_mid(id) {
                Release::Done => Ok(()),
                _ => self.release_slow(id),
            },
        }
    }

    /// Has `beside` called for each lock that a thread of this process leaves behind when it ends, while the lock is its
    /// yet. The first counts.
    pub(crate) fn set_companion(&self, companion: Arc<dyn Companion>) {
        let _as_before = self.pool().companion.get_or_make(|| Ok::<_, ()>(companion));
    }

    /// The cell in which the calling thread, or this process where it owns the lock, reads it.
    fn own_cell(&self, id: u32) -> Option<(&std::sync::atomic::AtomicU64, u64)> {
        let holder = self.own_words().filter(|_| self.pool().has_lock(id))?;
        let cells = self.pool().cells(id)?;
        match self.ownership.chosen() {
            Ownership::Thread => holder.thread_word.and_then(|owner| cells.find(owner).map(|cell| (cell, owner))),
            Ownership::Process => {
                let owner = holder.process_word;
                cells.find_of_process(owner).map(|cell| (cell, owner))
            }
        }
    }

    /// Whether the calling thread, or this process where it owns the lock, reads it.
    pub(crate) fn reads(&self, id: u32) -> bool {
        self.own_cell(id).is_some()
    }

    /// Whether no other thread of this process reads a lock that the caller reads. Other threads are excluded.
    pub(crate) fn is_last_reader_here(&self, id: u32) -> bool {
        let cells = self.pool().cells(id);
        let own = self.own_cell(id);
        matches!((cells, own), (Some(cells), Some((own, _))) if !self.pool().is_read_here_beside(&cells, own))
    }

    /// Whether any thread of this process reads a lock, or is about to, or holds it exclusively. The word first: a downgrade
    /// has its cell before the word is a reader's.
    pub(crate) fn is_used_here(&self, id: u32) -> bool {
        let word = self.pool().word(id).load(Ordering::Acquire);
        let is_held = self.own_words().is_some_and(|holder| word::process(word) == holder.process_word);
        is_held && !word::is_draining(word) || self.is_read_here(id)
    }

    /// Whether any thread of this process reads a lock, or is about to.
    fn is_read_here(&self, id: u32) -> bool {
        self.pool().cells(id).is_some_and(|cells| self.pool().is_read_here(&cells, |_| true))
    }

    /// As [`in_hand`](Self::in_hand), of a lock that was taken shared.
    pub(crate) fn cell_in_hand(&self, id: u32) -> Option<InHand<'_>> {
        let (word, owner) = self.own_cell(id)?;
        Some(InHand { word, owner, give_back: releasing::RELEASE_LEFT_CELL })
    }

    /// How many threads wait in calls on the manager.
    pub(crate) fn waiting(&self) -> &std::sync::atomic::AtomicU64 {
        self.view.waiting()
    }

    /// The word that a lock is waited for on.
    pub(crate) fn futex(&self, id: u32) -> &std::sync::atomic::AtomicU32 {
        waiting::futex_of(self.pool().word(id))
    }

    /// Whether the segment's remover has said that it is gone for good, as others than removers do not.
    pub(crate) fn is_retired(&self) -> bool {
        self.pool().is_retired()
    }

    /// Whether its file has lost its name, whoever took that away.
    pub(crate) fn has_lost_its_name(&self) -> bool {
        self.pool().segment.is_removed()
    }

    /// The segment's file as /proc shows it.
    pub(crate) fn as_mapped(&self) -> Option<crate::sys::liveness::procfs::MappedFile> {
        self.pool().segment.as_mapped()
    }

    /// How many locks there are, as far as this process knows.
    pub(crate) fn known_locks(&self) -> u32 {
        self.pool().num_locks_now()
    }

    /// What errors call the segment.
    pub(crate) fn storage(&self) -> &Arc<PathBuf> {
        &self.storage
    }

    /// See [`View::back_out`].
    pub(crate) fn back_out(&self, id: u32) {
        self.view.back_out(id);
    }

    /// See [`View::release_fast`].
    #[inline(always)]
    pub(crate) fn release_fast(&self, id: u32) -> Release {
        self.view.release_fast(id)
    }

    /// Allocates a lock if nothing stands in the way.
    #[inline]
    pub(crate) fn allocate_fast(&self) -> Option<u32> {
        if !self.may_allocate_fast() {
            return None;
        }
        self.view.bitmap().allocate_at_hint()
    }

    /// Frees a lock if nothing stands in the way.
    #[inline]
    pub(crate) fn free_fast(&self, id: u32) -> Option<()> {
        (self.may_allocate_fast() && self.view.bitmap().free(id)).then_some(())
    }

    /// How many locks are free, if this process has its place and knows of all the locks that there are.
    #[inline]
    pub(crate) fn available_fast(&self) -> Option<u32> {
        self.pool().attachment.peek()?;
        self.view.count_free()
    }

    /// Asks nothing that could panic or that makes a system call: a signal handler may end the thread anywhere here.
    #[inline]
    fn may_allocate_fast(&self) -> bool {
        let pool = self.pool();
        pool.access == Access::ReadWrite
            && pool.attachment.peek().is_some()
            && !self.view.is_marked_as_retired()
            && !pool.segment.is_look_due(Instant::recently())
    }

    fn check_allocation(&self) -> Result<()> {
        self.check_writable()?;
        self.begin()?;
        if self.pool().is_removed_lately() { Err(self.error(Reason::Removed)) } else { Ok(()) }
    }

    #[cold]
    fn error(&self, reason: Reason) -> Error {
        Error::new(&self.storage, reason)
    }

    fn check_range(&self, id: u32) -> Result<()> {
        self.is_in_range(id).map_err(|reason| self.error(reason))
    }

    fn check_writable(&self) -> Result<()> {
        self.is_writable().map_err(|reason| self.error(reason))
    }

    fn is_in_range(&self, id: u32) -> std::result::Result<(), Reason> {
        let pool = self.pool();
        if pool.has_lock(id) { Ok(()) } else { Err(Reason::OutOfRange { id, num_locks: pool.num_locks() }) }
    }

    fn is_writable(&self) -> std::result::Result<(), Reason> {
        if self.pool().access == Access::ReadWrite { Ok(()) } else { Err(Reason::ReadOnly) }
    }

    /// Whether a lock may be taken, or given back, through the manager.
    fn may_lock(&self, id: u32) -> std::result::Result<(), Reason> {
        self.ensure_attached()?;
        self.is_in_range(id)?;
        self.is_writable()
    }

    /// Which lock is waited for by a thread that sleeps at that byte of the file: on its word or on one of its cells.
    pub(super) fn lock_at(&self, offset: u64) -> Option<u32> {
        let pool = self.pool();
        pool.geometry.lock_at(offset, pool.num_locks_now()).or_else(|| pool.lock_of_place(offset))
    }

    /// One lock that this process holds through this manager.
    fn held_through(&self) -> Option<u32> {
        if !self.ownership.is_fixed() {
            return None;
        }
        let process_word = self.pool().attachment.peek()?.process_word;
        (0..self.pool().num_locks()).find(|&id| self.is_held_through(id, process_word))
    }

    /// Whether a lock is held by this process through this manager. In the instant in which another manager has taken it,
    /// but has not noted so, the note is still that of the last.
    fn is_held_through(&self, id: u32, process_word: u64) -> bool {
        let (pool, deadline) = (self.pool(), Instant::now().after(NOTED_WITHIN_NS));
        loop {
            let (word, note) = (pool.word(id).load(Ordering::Acquire) & word::OWNER, pool.note(id));
            if word::process(word) != process_word || note::manager(note) != self.view.manager {
                return false;
            }
            let is_fixed = pool.is_calling_thread(word) || pool.sleeps(word) || Instant::now() >= deadline;
            // Of one and the same acquisition, of whose taker it was asked.
            if is_fixed && pool.word(id).load(Ordering::Acquire) & word::OWNER == word && pool.note(id) == note {
                return true;
            }
            std::thread::yield_now();
        }
    }

    /// One lock that this process reads, if this is its last manager on the storage: a cell says nothing of managers.
    fn read_at_last(&self) -> Option<u32> {
        if !self.view.pool.is_last() {
            return None;
        }
        let process_word = self.pool().attachment.peek()?.process_word;
        self.pool().read_by(process_word)
    }

    /// What each call begins with. Takes a place in the segment if this process, a forked child, has none yet: whatever call
    /// it makes first. When it has given up its rights it may not be able to any more.
    #[inline]
    fn ensure_attached(&self) -> std::result::Result<(), Reason> {
        match self.backing {
            Backing::Segment => {
                if self.pool().access == Access::ReadWrite && self.pool().attachment.peek().is_none() {
                    let _as_well_later = self.pool().attached();
                }
                Ok(())
            }
            Backing::Memory { epoch } if epoch == self.process.epoch() => Ok(()),
            Backing::Memory { .. } => Err(Reason::ForkedChild),
        }
    }

    /// The same, for those who name the storage.
    fn begin(&self) -> Result<()> {
        self.ensure_attached().map_err(|reason| self.error(reason))
    }
}

/// How long a thread that has taken a lock may need until it has noted through which manager, at most.
const NOTED_WITHIN_NS: u64 = 100_000_000;

impl fmt::Debug for Native {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Native")
            .field("storage", &self.storage)
            .field("num_locks", &self.pool().num_locks())
            .field("access", &self.pool().access)
            .finish_non_exhaustive()
    }
}

impl Manager for Native {
    fn allocate_lock(&self) -> Result<u32> {
        self.check_allocation()?;
        let first = self.pool().bitmap().allocate();
        // Others may have made room since this process looked last.
        first.or_else(|_| {
            let num_locks = self.pool().num_locks_now();
            self.pool().bitmap().allocate().map_err(|_| self.error(Reason::Exhausted { num_locks }))
        })
    }

    fn retrieve_lock(&self, id: u32) -> Result<()> {
        self.begin()?;
        self.check_range(id)
    }

    fn allocate_and_retrieve_lock(&self, id: u32) -> Result<()> {
        self.begin()?;
        self.check_range(id)?;
        self.check_allocation()?;
        if self.pool().bitmap().allocate_given(id) { Ok(()) } else { Err(self.error(Reason::Allocated { id })) }
    }

    fn free_lock(&self, id: u32) -> Result<()> {
        self.begin()?;
        self.check_range(id)?;
        self.check_allocation()?;
        if self.pool().bitmap().free(id) { Ok(()) } else { Err(self.error(Reason::NotAllocated { id })) }
    }

    fn free_all_locks(&self) -> Result<()> {
        self.check_allocation()?;
        let num_locks = self.pool().num_locks_now();
        self.pool().bitmap().free_all();
        self.pool().bitmap().keep_tail(num_locks);
        Ok(())
    }

    fn available_locks(&self) -> Result<u32> {
        self.begin()?;
        bits::ask_processor();
        Ok(self.pool().count_free())
    }

    fn num_locks(&self) -> Result<u32> {
        self.begin()?;
        Ok(self.pool().num_locks_now())
    }

    #[inline(always)]
    fn acquire(&self, id: u32, wait: Wait, cancel: Option<&Cancel>) -> Result<Acquired> {
        // A triggered cancel object wins over a free lock.
        if cancel.is_none() {
            match self.view.acquire_fast(id) {
                FastAcquire::Acquired(acquired) => return Ok(acquired),
                FastAcquire::BackOut => self.view.back_out(id),
                FastAcquire::GoSlow if wait.is_try() => {}
                FastAcquire::GoSlow => match self.view.acquire_mid(id) {
                    FastAcquire::Acquired(acquired) => return Ok(acquired),
                    FastAcquire::BackOut => self.view.back_out(id),
                    FastAcquire::GoSlow => {}
                },
            }
        }
        self.acquire_slow(id, Mode::Exclusive, wait, cancel)
    }

    #[inline(always)]
    fn acquire_shared(&self, id: u32, wait: Wait, cancel: Option<&Cancel>) -> Result<Acquired> {
        if cancel.is_none() {
            if let FastAcquire::Acquired(acquired) = self.view.share_fast(id) {
                return Ok(acquired);
            }
            if let FastAcquire::Acquired(acquired) = self.view.share_mid(id, Spin::of(wait)) {
                return Ok(acquired);
            }
        }
        self.acquire_slow(id, Mode::Shared, wait, cancel)
    }

    #[inline(always)]
    fn unlock_shared(&self, id: u32) -> Result<()> {
        self.unshare(id).map_err(|reason| self.error(reason))
    }

    fn downgrade_lock(&self, id: u32) -> Result<()> {
        self.downgrade(id).map_err(|reason| self.error(reason))
    }

    fn lock_holders(&self, id: u32) -> Result<Vec<Holder>> {
        self.begin()?;
        self.check_range(id)?;
        Ok(self.pool().holders(id))
    }

    fn set_ownership(&self, ownership: Ownership) -> Result<()> {
        self.check_writable()?;
        self.begin()?;
        self.ownership.choose(ownership).map_err(|reason| self.error(reason))
    }

    #[inline(always)]
    fn unlock(&self, id: u32) -> Result<()> {
        self.release(id).map_err(|reason| self.error(reason))
    }

    fn locks_held(&self) -> Result<Vec<u32>> {
        self.begin()?;
        Ok(self.pool().held_ids())
    }

    fn lock_info(&self, id: u32) -> Result<LockInfo> {
        self.begin()?;
        self.check_range(id)?;
        Ok(self.pool().inspect(id))
    }

    fn lock_infos(&self, ids: &[u32]) -> Result<Vec<LockInfo>> {
        self.begin()?;
        ids.iter().try_for_each(|&id| self.check_range(id))?;
        Ok(self.pool().inspect_all(ids))
    }

    fn waiters(&self) -> Result<Vec<Waiter>> {
        self.begin()?;
        Ok(self.pool().waiters())
    }

    fn info(&self) -> Result<Info> {
        self.begin()?;
        let described = self.pool().describe();
        Ok(match self.backing {
            Backing::Segment => described,
            Backing::Memory { .. } => Info { kind: Kind::InMemory, layout: None, max_locks: MAX_LOCKS, ..described },
        })
    }

    fn repair_lock(&self, id: u32) -> Result<()> {
        self.begin()?;
        self.check_range(id)?;
        self.check_writable()?;
        self.pool().repair(id).map_err(|reason| self.error(reason))
    }

    fn check_idle(&self) -> Result<()> {
        // A child holds nothing of its parent's.
        if self.ensure_attached() == Err(Reason::ForkedChild) {
            return Ok(());
        }
        waits::sweep(Thread::calling());
        sharing::sweep_claim(Thread::calling());
        match (self.view.waiting().load(Ordering::Relaxed), self.held_through().or_else(|| self.read_at_last())) {
            (0, None) => Ok(()),
            (0, Some(id)) => Err(self.error(Reason::StillHeld { id })),
            (threads, _) => Err(self.error(Reason::StillWaiting { threads: threads as u32 })),
        }
    }

    fn grow(&self, num_locks: u32) -> Result<()> {
        self.begin()?;
        self.check_writable()?;
        let (there, most) = (self.pool().num_locks_now(), self.pool().geometry.max_locks());
        if num_locks > most {
            return Err(self.error(Reason::TooManyLocks { asked: num_locks, most }));
        }
        if num_locks < there {
            return Err(self.error(Reason::Shrinking { there, asked: num_locks }));
        }
        self.check_allocation()?;
        let grown = match self.backing {
            Backing::Segment => self.pool().grow(format::rounded(num_locks)),
            Backing::Memory { .. } => {
                let _alone = self.process.exclude_other_threads();
                self.pool().grow_nameless(num_locks)
            }
        };
        self.view.hear_of_more();
        grown.map_err(|reason| self.error(reason))
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // A child may close what it inherited as its first call.
        self.process.settle();
        // What is held stays held as long as the process lives, and a child that shares its parent's memory takes
        // nothing of the parent's down.
        if !self.process.is_caller() || self.check_idle().is_err() {
            self.view.pool.keep_for_ever();
        } else {
            note::managers().release(self.view.manager as u32);
        }
    }
}
