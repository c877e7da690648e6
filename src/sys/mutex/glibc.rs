// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is glibc's own in its robust mutexes. musl.rs has the same for musl.

use std::sync::atomic::Ordering;

use libc::{c_int, pthread_mutex_t};

use super::layout::{MutexLayout, Probe};
use super::{RobustMutex, list, word};
use crate::sys::Errno;
use crate::sys::syscall::clock::Instant;
use crate::sys::syscall::futex;

unsafe extern "C" {
    // glibc 2.30; not in the libc crate.
    fn pthread_mutex_clocklock(
        mutex: *mut pthread_mutex_t,
        clock: libc::clockid_t,
        deadline: *const libc::timespec,
    ) -> c_int;
}

/// glibc tells the kernel at the start of each thread and after fork(3) where the list is, and a child's is empty. So there is
/// nothing to remember.
#[derive(Debug, Clone, Copy)]
pub(super) struct ListPlace;

impl ListPlace {
    pub(super) fn find() -> Self {
        Self
    }
}

pub(super) fn may_have_inherited_a_list() -> bool {
    false
}

/// glibc empties the list of a child of fork(3).
pub(super) fn take_care_of_children() {}

/// Takes the mutex, waiting until `deadline`.
///
/// # Safety
/// As for [`RobustMutex::try_lock`], and the mutex is of this libc's kind.
#[inline(always)]
pub(super) unsafe fn lock_until(mutex: RobustMutex<'_>, deadline: Instant) -> c_int {
    let deadline = deadline.timespec();
    // SAFETY: the caller's promise; the timespec is a local.
    unsafe { pthread_mutex_clocklock(mutex.address.cast(), libc::CLOCK_MONOTONIC, &deadline) }
}

/// A mutex's word, without what says that the mutex is not recoverable. glibc says it elsewhere.
#[inline(always)]
pub(super) fn usable(word: u32) -> u32 {
    word
}

/// Whether the next who asks gets a mutex with that word, or is told that it is not recoverable. glibc clears the mark of a dead
/// owner when it takes the mutex; a word with the waiters' bit alone it does not take.
#[inline(always)]
pub(super) fn is_free(word: u32) -> bool {
    word == 0 || word & word::OWNER_DIED != 0
}

/// Whether a mutex is not recoverable that has `note` as the libc's note of its holder.
#[inline(always)]
pub(super) fn is_lost(note: u32, not_recoverable_value: u32) -> bool {
    note == not_recoverable_value
}

/// Whether this module knows such mutexes: the note that they are not recoverable is in the word, or not, and has that value.
pub(super) fn is_understood(is_in_the_word: bool, _not_recoverable_value: u32) -> bool {
    !is_in_the_word
}

/// Turns a mutex that is not recoverable into one whose owner died.
pub(super) fn make_recoverable(mutex: RobustMutex<'_>) {
    let word = mutex.word();
    let old = word.load(Ordering::Relaxed);
    if old & word::TID != 0 {
        return;
    }
    // Set the mark first, and clear the libc's note second. Until the note is cleared, the libc refuses everybody, so the
    // next holder is told that the owner died. A death between the two leaves the mutex not recoverable, and the next
    // call does this again.
    if word.compare_exchange(old, old | word::OWNER_DIED, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
        let note = mutex.field(mutex.layout.owner);
        let _ = note.compare_exchange(mutex.layout.not_recoverable_value, 0, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// Releases a mutex that is not recoverable. glibc's trylock keeps the word that it has just taken then
/// (nptl/pthread_mutex_trylock.c), and nobody could make the mutex recoverable; its lock and clocklock release the word.
pub(super) fn release_not_recoverable(mutex: RobustMutex<'_>) {
    let word = mutex.word();
    let held = word.load(Ordering::Relaxed);
    if held & word::TID == thread_id() && word.compare_exchange(held, 0, Ordering::Release, Ordering::Relaxed).is_ok() {
        futex::wake_one(word);
    }
}

/// The thread id under which the libc would take a mutex for the caller. In a child that was cloned behind the libc's back it
/// is the parent's. 0: it cannot be found.
fn thread_id() -> u32 {
    let told = || {
        let (layout, probe) = (MutexLayout::of_this_libc()?, Probe::new()?);
        let id = (probe.try_lock() == 0).then(|| probe.load(layout.word / size_of::<u32>()) & word::TID)?;
        // This works in a raw clone, too: the libc finds the id that it wrote.
        (probe.unlock() == 0).then_some(id)
    };
    told().unwrap_or(0)
}

/// Whether the libc would take mutexes for the caller as the thread with that id, and the kernel would hear of its death.
pub(in crate::sys) fn knows_caller(id: u32) -> Result<bool, Errno> {
    // Ask for the list before the libc is tried. In a raw clone the libc's list of held mutexes is a copy of the parent's.
    // Even a try of a robust mutex would write into the parent's mutex at the head of that list.
    Ok(!list::of_caller()?.is_null() && thread_id() == id)
}
