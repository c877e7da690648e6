// SPDX-License-Identifier: MIT OR Apache-2.0
#![allow(unsafe_code, reason = "the fast path: addresses checked once, when the manager is made, not at each call")]
//! The fast path and the mid path of writers, with what they need of a pool one load away. On the fast path, one compare-and-swap takes a
//! free lock and one releases it. The mid path waits a few microseconds for a held lock without sleeping, and releases a
//! lock that others wait for. Neither path can fail or panic. A signal handler may come anywhere in them, and
//! perhaps never return. The slow path, in `locking` and `releasing`, does all the rest.

use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::backend::{FastAcquire, Release};
use crate::manager::{Acquired, Ownership};
use crate::sys::popcount;
use crate::sys::process::arena::CacheLine;
use crate::sys::process::registry::Shared;
use crate::sys::syscall::file::Access;
use crate::sys::thread::Thread;

use super::super::SHORT_WAITS;
use super::super::removal::mark;
use super::abandoning::ROUNDS;
use super::attachment::Attachment;
use super::bitmap::Bitmap;
use super::cells::{Cells, Place, Table};
use super::format::{self, slot};
use super::lockable::Lockable;
use super::pool::Pool;
use super::releasing::{Next, wake};
use super::word::{self, OWNER};
use super::{note, space, waiting};

/// Words of a manager that no child inherits: it finds zeros.
mod private {
    /// The number of the attachment that a thread must have entered last to use the fast path. 0: the process has not
    /// attached, or it owns the locks itself.
    pub(super) const THREAD_ATTACHMENT: usize = 0;
    /// The word of a lock that the process owns. With a thread's serial added, it is the word of a lock that the thread
    /// owns.
    pub(super) const PROCESS_WORD: usize = 1;
    /// As THREAD_ATTACHMENT, if the process owns the locks.
    pub(super) const PROCESS_ATTACHMENT: usize = 2;
    /// The number of threads that wait in calls on the manager.
    pub(super) const WAITING: usize = 3;
}

/// A manager's view of its pool.
pub(super) struct View {
    /// Those that the manager has learnt of, or none if it was opened read only.
    lockable: Lockable,
    retired: *const AtomicU32,
    attachment_word: *const AtomicU64,
    process_word: *const AtomicU64,
    bitmap: *const AtomicU64,
    summary: *const AtomicU64,
    frees: *const AtomicU64,
    published: *const AtomicU32,
    /// Null: the segment has no shared locks.
    places: *const [Place; format::PLACES],
    usable_places: *const AtomicU64,
    ready_places: *const AtomicU64,
    /// The manager's number in this process; see `note`.
    pub(super) manager: u64,
    private: CacheLine,
    /// Keeps everything above alive and in place.
    pub(super) pool: Shared<Pool>,
}

// SAFETY: the pointers are into memory that the pool and the view's own page, themselves Send and Sync, keep mapped,
// and which is accessed as atomics only.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    pub(super) fn new(pool: Shared<Pool>, manager: u64) -> Result<Self, crate::sys::Errno> {
        let private = CacheLine::claim()?;
        let (retired, attachment_word) =
            (ptr::from_ref(pool.retired()), ptr::from_ref(private.word(private::THREAD_ATTACHMENT)));
        let process_word = ptr::from_ref(private.word(private::PROCESS_WORD));
        let Bitmap { words, summary, frees, .. } = pool.whole_bitmap();
        let (bitmap, summary, frees) = (words.as_ptr(), summary.as_ptr(), ptr::from_ref(frees));
        let published = ptr::from_ref(pool.published());
        let (places, usable_places, ready_places) = match pool.table() {
            Some(Table { places, usable, ready }) => {
                (ptr::from_ref(places), ptr::from_ref(usable), ptr::from_ref(ready))
            }
            None => (ptr::null(), ptr::null(), ptr::null()),
        };
        let view = Self {
            lockable: Lockable::none(),
            retired,
            attachment_word,
            process_word,
            bitmap,
            summary,
            frees,
            published,
            places,
            usable_places,
            ready_places,
            manager,
            private,
            pool,
        };
        view.hear_of_more();
        Ok(view)
    }

    /// Lets the fast path reach every lock that the process knows.
    pub(super) fn hear_of_more(&self) {
        let count = self.pool.num_locks();
        if self.pool.access == Access::ReadWrite && count > self.lockable.count() {
            self.lockable.learn_of(count, || self.pool.slots(count));
        }
    }

    /// Lets threads that have entered an attachment use the fast and the mid path.
    pub(super) fn let_in(&self, attachment: &Attachment, ownership: Ownership) {
        self.process_word().store(attachment.process_word, Ordering::Relaxed);
        let attachment_word = match ownership {
            Ownership::Thread => self.attachment_word(),
            Ownership::Process => self.private.word(private::PROCESS_ATTACHMENT),
        };
        // Store this after the process's word: a thread that sees the attachment uses that word.
        attachment_word.store(attachment.id, Ordering::Release);
    }

    pub(super) fn waiting(&self) -> &AtomicU64 {
        self.private.word(private::WAITING)
    }

    #[inline(always)]
    fn attachment_word(&self) -> &AtomicU64 {
        // SAFETY: a word of the view's own page, which lives as long as self.
        unsafe { &*self.attachment_word }
    }

    #[inline(always)]
    pub(super) fn process_word(&self) -> &AtomicU64 {
        // SAFETY: as for attachment_word.
        unsafe { &*self.process_word }
    }

    /// The word that names the calling thread here, if it has entered and owns its locks. A thread's name is the same in
    /// every segment and never changes, so a signal handler that comes between the loads and locks elsewhere does no
    /// harm.
    #[inline(always)]
    pub(super) fn thread_word(&self, thread: Thread) -> Option<u64> {
        let is_at = thread.last_entered(self.attachment_word().load(Ordering::Acquire));
        if is_at { Some(self.process_word().load(Ordering::Relaxed) | thread.serial_bits()) } else { None }
    }

    /// Whether the calling thread has entered, and its locks belong to the process.
    #[inline(always)]
    pub(super) fn lets_process_in(&self, thread: Thread) -> bool {
        thread.last_entered(self.private.word(private::PROCESS_ATTACHMENT).load(Ordering::Acquire))
    }

    /// The word of a lock that the calling thread takes here, if it has entered.
    #[inline(always)]
    fn owner_here(&self, thread: Thread) -> Option<u64> {
        match self.thread_word(thread) {
            None if self.lets_process_in(thread) => Some(self.process_word().load(Ordering::Relaxed)),
            thread_word => thread_word,
        }
    }

    /// Whether the calling thread has entered, and holds the lock through this manager (or its process does, if locks belong
    /// to the process). `false` may also mean that only the slow path can tell.
    #[inline(always)]
    pub(super) fn holds_surely(&self, id: u32) -> bool {
        self.is_lockable(id)
            && self.owner_here(Thread::calling()).is_some_and(|me| {
                let (lock, note) = self.slot(id);
                lock.load(Ordering::Relaxed) & OWNER == me
                    && note::manager(note.load(Ordering::Relaxed)) == self.manager
            })
    }

    /// Whether a remover has marked the segment. The segment may still have its name.
    #[inline]
    pub(super) fn is_marked_as_retired(&self) -> bool {
        self.retired().load(Ordering::Relaxed) != mark::IN_USE
    }

    #[inline(always)]
    pub(super) fn retired(&self) -> &AtomicU32 {
        // SAFETY: a word of the header, which the pool keeps mapped as long as self.
        unsafe { &*self.retired }
    }

    /// Whether the lock may be taken through the manager.
    #[inline(always)]
    pub(super) fn is_lockable(&self, id: u32) -> bool {
        id < self.lockable.count()
    }

    /// The word and the note of a lockable lock.
    #[inline(always)]
    pub(super) fn slot(&self, id: u32) -> (&AtomicU64, &AtomicU64) {
        debug_assert!(self.is_lockable(id));
        // SAFETY: the caller has seen that the lock is lockable, so its slot is at that address: `lockable` never has an
        // address with less room than its count, and slots() of the pool has checked that they lie in a mapping, which
        // lives as long as self.
        unsafe {
            let slot = self.lockable.slots().add(id as usize * format::size::SLOT);
            (AtomicU64::from_ptr(slot.add(slot::WORD).cast()), AtomicU64::from_ptr(slot.add(slot::NOTE).cast()))
        }
    }

    /// The cells of a lockable lock. `None`: the segment has no shared locks.
    #[inline(always)]
    pub(super) fn cells(&self, id: u32) -> Option<Cells<'_>> {
        debug_assert!(self.is_lockable(id));
        // SAFETY: as in slot(). The table is null, or a part of the header's mapping. Only those of its pages are touched
        // whose bits are set in `usable_places`.
        unsafe {
            let places = self.places.as_ref()?;
            let slot = self.lockable.slots().add(id as usize * format::size::SLOT);
            Some(Cells {
                word: AtomicU64::from_ptr(slot.add(slot::WORD).cast()),
                own: &*slot.add(slot::CELLS).cast(),
                level: AtomicU64::from_ptr(slot.add(slot::LEVEL).cast()),
                table: Table { places, usable: &*self.usable_places, ready: &*self.ready_places },
                id,
            })
        }
    }

    /// The bitmap of all lockable locks. Nothing here can panic: a signal handler may end the thread in the middle of an
    /// allocation.
    #[inline]
    pub(super) fn bitmap(&self) -> Bitmap<'_> {
        let count = self.lockable.count();
        let (words, summary) = (format::bitmap_words(count), format::summary_words(count));
        // SAFETY: whole_bitmap() has checked that the words of max_locks locks lie there, in a mapping that lives as long as
        // self. The space of the lockable locks' words is reserved.
        unsafe {
            Bitmap {
                words: std::slice::from_raw_parts(self.bitmap, words),
                summary: std::slice::from_raw_parts(self.summary, summary),
                frees: &*self.frees,
                hint: self.pool.hint(),
            }
        }
    }

    /// The number of free locks, if the manager has learnt of every lock and the processor was asked for its instruction. As
    /// [`bitmap`](Self::bitmap), nothing here can panic.
    #[inline]
    pub(super) fn count_free(&self) -> Option<u32> {
        let count = self.lockable.count();
        // SAFETY: a word of the header, which the pool keeps mapped as long as self.
        let is_all = unsafe { &*self.published }.load(Ordering::Acquire) == count;
        (is_all && popcount::is_detected()).then(|| space::free_of(&self.bitmap()))
    }

    /// The fast path: takes a free lock, or does nothing.
    #[inline(always)]
    pub(super) fn acquire_fast(&self, id: u32) -> FastAcquire {
        if !self.is_lockable(id) {
            return FastAcquire::GoSlow;
        }
        let thread = Thread::calling();
        let Some(me) = self.thread_word(thread) else {
            return FastAcquire::GoSlow;
        };
        self.take(id, me, thread)
    }

    /// Takes a free lock for the calling thread.
    #[inline(always)]
    fn take(&self, id: u32, me: u64, thread: Thread) -> FastAcquire {
        // Count before the swap: if the thread ends just after the swap, in a signal handler or by cancellation, its end
        // knows that it holds a lock.
        thread.count_native_lock();
        let attempt = self.swap(id, me);
        if attempt == FastAcquire::GoSlow {
            thread.count_native_unlock();
        }
        attempt
    }

    /// Swaps the word of a free lock.
    #[inline(always)]
    fn swap(&self, id: u32, me: u64) -> FastAcquire {
        // Load all addresses before the swap: the processor starts nothing new until the swap is done.
        let ((lock, note), manager) = (self.slot(id), self.manager);
        let retired = self.retired();
        if lock.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return FastAcquire::GoSlow;
        }
        if retired.load(Ordering::Relaxed) != mark::IN_USE {
            return FastAcquire::BackOut;
        }
        note.store(note::taken(note.load(Ordering::Relaxed), manager), Ordering::Relaxed);
        FastAcquire::Acquired(Acquired::Clean)
    }

    /// The mid path: waits for a held lock for a few microseconds, without sleeping.
    #[inline(always)]
    pub(super) fn acquire_mid(&self, id: u32) -> FastAcquire {
        if !self.is_lockable(id) {
            return FastAcquire::GoSlow;
        }
        let (thread, (lock, _)) = (Thread::calling(), self.slot(id));
        let Some(me) = self.owner_here(thread) else { return FastAcquire::GoSlow };
        let is_threads = word::serial(me) != 0;
        if is_threads && lock.load(Ordering::Relaxed) & OWNER == me {
            return FastAcquire::GoSlow;
        }
        // Count as in take(), once for all attempts: another thread may be faster between a look and the swap.
        thread.count_native_lock();
        let attempt = self.take_with_spins(id, me, thread);
        // A lock of the process is not counted as the thread's.
        if attempt == FastAcquire::GoSlow || !is_threads {
            thread.count_native_unlock();
        }
        attempt
    }

    /// The mid path of a try: refuses it if the holder was found alive just now.
    pub(super) fn refuse_mid(&self, id: u32) -> FastAcquire {
        if !self.is_lockable(id) || self.is_marked_as_retired() {
            return FastAcquire::GoSlow;
        }
        let (thread, seen) = (Thread::calling(), self.slot(id).0.load(Ordering::Relaxed));
        let Some(me) = self.owner_here(thread) else { return FastAcquire::GoSlow };
        let is_held = word::has_owner(seen) && !word::is_draining(seen) && word::process(seen) != word::process(me);
        match self.pool.found_alive(seen).filter(|_| is_held) {
            Some(holder) => FastAcquire::Held { holder },
            None => FastAcquire::GoSlow,
        }
    }

    /// Takes a lock for `me` when it becomes free, or its readers leave, within a few microseconds.
    #[inline(always)]
    fn take_with_spins(&self, id: u32, me: u64, thread: Thread) -> FastAcquire {
        let (lock, _) = self.slot(id);
        for _ in 0..SHORT_WAITS {
            if !waiting::spin(self.slot(id), thread) {
                break;
            }
            if word::is_shared(lock.load(Ordering::Relaxed)) {
                return self.take_from_readers(id, thread);
            }
            let attempt = self.swap(id, me);
            if attempt != FastAcquire::GoSlow {
                return attempt;
            }
        }
        FastAcquire::GoSlow
    }

    /// Backs out of a lock that was taken although the segment was retired.
    pub(super) fn back_out(&self, id: u32) {
        let thread = Thread::calling();
        match self.thread_word(thread) {
            Some(me) => {
                self.pool.back_out(id, me, Acquired::Clean);
                thread.count_native_unlock();
            }
            None => self.pool.back_out(id, self.process_word().load(Ordering::Relaxed), Acquired::Clean),
        }
    }

    /// Notes that the lock is held through this manager. The note decides nothing.
    #[inline(always)]
    pub(super) fn remember(&self, id: u32) {
        let (_, note) = self.slot(id);
        note.store(note::taken(note.load(Ordering::Relaxed), self.manager), Ordering::Relaxed);
    }

    /// Notes the manager through which a lock is held. The caller has the lock's word. 0: through none, so no unlock
    /// releases the lock.
    pub(super) fn note_manager(&self, id: u32, manager: u64) {
        let (_, note) = self.slot(id);
        note.store(note::with_manager(note.load(Ordering::Relaxed), manager), Ordering::Relaxed);
    }

    /// The fast path: releases the lock if the calling thread holds it through this manager and nobody waits.
    #[inline(always)]
    pub(super) fn release_fast(&self, id: u32) -> Release {
        if !self.is_lockable(id) {
            return Release::GoSlow;
        }
        let thread = Thread::calling();
        let Some(me) = self.thread_word(thread) else {
            return Release::GoSlow;
        };
        let (lock, note) = self.slot(id);
        if note::manager(note.load(Ordering::Relaxed)) != self.manager
            || lock.compare_exchange(me, 0, Ordering::Release, Ordering::Relaxed).is_err()
        {
            return Release::GoSlow;
        }
        thread.count_native_unlock();
        Release::Done
    }

    /// The mid path: releases a lock that others wait for, or that the process owns.
    #[inline(always)]
    pub(super) fn release_mid(&self, id: u32) -> Release {
        if !self.is_lockable(id) {
            return Release::GoSlow;
        }
        let thread = Thread::calling();
        let (lock, note) = self.slot(id);
        let Some(me) = self.owner_here(thread) else { return Release::GoSlow };
        if note::manager(note.load(Ordering::Relaxed)) != self.manager {
            return Release::GoSlow;
        }
        for _ in 0..ROUNDS {
            let seen = lock.load(Ordering::Relaxed);
            // A thread that drains does not hold the lock.
            if seen & OWNER != me || word::is_draining(seen) {
                return Release::GoSlow;
            }
            // Look at the cells before the swap: a starving reader keeps its cell while it sleeps (S12).
            let Ok(next) = Next::after(seen, self.cells(id).as_ref()) else {
                return Release::GoSlow;
            };
            if lock.compare_exchange(seen, next.released(seen), Ordering::Release, Ordering::Relaxed).is_ok() {
                if word::serial(me) != 0 {
                    thread.count_native_unlock();
                }
                wake(lock, seen, next);
                return Release::Done;
            }
        }
        Release::GoSlow
    }
}
