// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is musl's own in its robust mutexes. glibc.rs has the same for glibc.
//!
//! A mutex that is not recoverable says so in the word itself: all bits of the id are set, which no thread has for its id, and
//! the mark of a dead owner. musl tells the kernel where a thread's list is when the thread takes its first robust mutex, and
//! it does not empty the list in a forked child.

use std::sync::atomic::{AtomicU32, Ordering};

use libc::c_int;

use super::layout::{MutexLayout, Probe};
use super::list::{self, Head, Node};
use super::{RobustMutex, word};
use crate::sys::Errno;
use crate::sys::syscall::clock::Instant;
use crate::sys::syscall::futex;

/// The word of a mutex that is not recoverable, beside the waiters' bit.
const NOT_RECOVERABLE: u32 = word::TID | word::OWNER_DIED;

/// Where a thread keeps its list. `None`: the kernel did not say where the list of the thread is that probed.
#[derive(Debug, Clone, Copy)]
pub(super) struct ListPlace(Option<Distances>);

#[derive(Debug, Clone, Copy)]
struct Distances {
    /// From what pthread_self(3) returns to the head.
    head: usize,
    /// From a mutex's node to its word.
    word: isize,
}

impl Distances {
    fn head_of_caller(self) -> *mut Head {
        this_thread().wrapping_byte_add(self.head).cast()
    }
}

impl ListPlace {
    /// Found by a thread that holds a robust mutex.
    pub(super) fn find() -> Self {
        let head = list::of_caller().ok().filter(|head| !head.is_null());
        Self(head.map(|head| {
            // SAFETY: the libc has told the kernel that the calling thread's list has its head here.
            let word = unsafe { (*head).word_from_node };
            Distances { head: head.addr().wrapping_sub(this_thread().addr()), word }
        }))
    }
}

fn this_thread() -> *mut u8 {
    // SAFETY: pthread_self(3) takes nothing and cannot fail. In musl it is the address of the thread's own struct.
    unsafe { libc::pthread_self() as *mut u8 }
}

/// Whether the caller's list may hold mutexes of the parent's, to which the libc would write. They are only in the list of a
/// thread for which the libc has not told the kernel of the list since the fork.
pub(super) fn may_have_inherited_a_list() -> bool {
    list::of_caller().is_ok_and(|head| head.is_null())
}

/// Takes the mutex, waiting until `deadline`. The libc's own wait (pthread_mutex_timedlock) goes by CLOCK_REALTIME, so it
/// would be longer by as much as somebody sets that clock back; and it counts its waiters in the mutex, where one that is
/// killed stays counted.
///
/// A waiter sets the waiters' bit before it sleeps, as the libc's do, and again when it has the mutex: others may sleep still,
/// and the unlock that woke it has cleared the bit.
///
/// # Safety
/// As for [`RobustMutex::try_lock`], and the mutex is of this libc's kind.
pub(super) unsafe fn lock_until(mutex: RobustMutex<'_>, deadline: Instant) -> c_int {
    let word = mutex.word();
    let mut has_slept = false;
    loop {
        // SAFETY: the caller's promise.
        let code = unsafe { libc::pthread_mutex_trylock(mutex.address.cast()) };
        if code != libc::EBUSY {
            if has_slept && matches!(code, 0 | libc::EOWNERDEAD) {
                word.fetch_or(word::WAITERS, Ordering::Relaxed);
            }
            return code;
        }
        if Instant::now() >= deadline {
            return libc::ETIMEDOUT;
        }
        let held = word.load(Ordering::Relaxed);
        if is_free(held) {
            continue;
        }
        let contended = held | word::WAITERS;
        if word.compare_exchange(held, contended, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            futex::wait(word, contended, deadline);
            has_slept = true;
        }
    }
}

/// A mutex's word, or 0 if the mutex is not recoverable: nobody holds it, and nobody will be told of a death.
#[inline(always)]
pub(super) fn usable(word: u32) -> u32 {
    if word & NOT_RECOVERABLE == NOT_RECOVERABLE { 0 } else { word }
}

/// Whether the next who asks gets a mutex with that word, or is told that it is not recoverable. The mark of a dead owner stays
/// beside the id of the next holder until this one makes the mutex consistent.
#[inline(always)]
pub(super) fn is_free(word: u32) -> bool {
    usable(word) & word::TID == 0
}

/// Whether a mutex is not recoverable that has `note` in its word. The waiters' bit may be beside it.
pub(super) fn is_lost(note: u32, not_recoverable_value: u32) -> bool {
    note & !word::WAITERS == not_recoverable_value
}

/// Whether this module knows such mutexes: the note that they are not recoverable is in the word, or not, and has that value.
pub(super) fn is_understood(is_in_the_word: bool, not_recoverable_value: u32) -> bool {
    is_in_the_word && not_recoverable_value == NOT_RECOVERABLE
}

/// Turns a mutex that is not recoverable into one whose owner died.
pub(super) fn make_recoverable(mutex: RobustMutex<'_>) {
    let word = mutex.word();
    let lost = word.load(Ordering::Relaxed);
    if lost & NOT_RECOVERABLE != NOT_RECOVERABLE {
        return;
    }
    let died = (lost & word::WAITERS) | word::OWNER_DIED;
    if word.compare_exchange(lost, died, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
        // A waiter that came just before the mutex was lost may have set its bit just after, and sleeps.
        futex::wake_one(word);
    }
}

/// musl takes nothing that it does not give to the caller.
pub(super) fn release_not_recoverable(_: RobustMutex<'_>) {}

/// Whether the libc would take mutexes for the caller as the thread with that id, and the kernel would hear of its death.
pub(in crate::sys) fn knows_caller(id: u32) -> Result<bool, Errno> {
    if thread_id() != id {
        return Ok(false);
    }
    if !list::of_caller()?.is_null() {
        return Ok(true);
    }
    let Some(distances) = MutexLayout::of_this_libc().and_then(|layout| layout.list.0) else { return Ok(false) };
    // SAFETY: the head is the calling thread's own memory, which lives as long as the thread.
    if unsafe { (*distances.head_of_caller()).word_from_node } != 0 {
        // The libc has told the kernel, and the kernel knows nothing: the caller is a child cloned behind the libc's back, in a
        // PID namespace where it got its parent's id.
        return Ok(false);
    }
    cut_inherited(distances);
    let is_tried = Probe::new().is_some_and(|probe| probe.try_lock() == 0 && probe.unlock() == 0);
    Ok(is_tried && !list::of_caller()?.is_null())
}

/// The id that the libc writes into the caller's mutexes: in a child cloned behind its back, its parent's.
fn thread_id() -> u32 {
    // SAFETY: gettid takes nothing and cannot fail. musl's function returns what it has noted.
    unsafe { libc::gettid() }.cast_unsigned()
}

/// Has every child of fork(3) forget its parent's list, whatever it does: when the child's first thread ends, the libc would
/// unlock what is in the list. Called before the library takes the first mutex of a process.
pub(super) fn take_care_of_children() {
    extern "C" fn forget() {
        if let Some(distances) = MutexLayout::of_this_libc().and_then(|layout| layout.list.0) {
            cut_inherited(distances);
        }
    }
    // SAFETY: a function of this library, which stays loaded: musl unloads none. It allocates nothing, for the layout is known.
    // If the libc has no memory to note it, the children that use the library still do it in their first call.
    unsafe { libc::pthread_atfork(None, None, Some(forget)) };
}

/// Takes those mutexes out of the list that the thread with that id does not hold: musl leaves a forked child its parent's list.
/// With the next mutex that the child takes, the libc would write a pointer of the child's into the newest mutex of the parent,
/// which the processes share. The parent's unlock would follow the pointer, and its list would go astray. What the child itself
/// holds stands before them.
fn cut_inherited(distances: Distances) {
    let (head, id) = (distances.head_of_caller(), thread_id());
    // SAFETY: the libc, too, follows the list without looking when the thread locks, unlocks or ends: each node lies in a mutex
    // which this thread holds, or which the parent's held at the fork, in memory that the child has inherited. Other threads of
    // the parent may use the parent's mutexes meanwhile, whose words are atomics.
    unsafe {
        let mut link = &raw mut (*head).first;
        while *link != head.cast::<Node>() {
            let node = *link;
            let held = AtomicU32::from_ptr(node.wrapping_byte_offset(distances.word).cast()).load(Ordering::Relaxed);
            if held & word::TID != id {
                *link = head.cast();
                return;
            }
            link = &raw mut (*node).next;
        }
    }
}
