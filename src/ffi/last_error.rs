// SPDX-License-Identifier: MIT OR Apache-2.0
//! This thread's last failure, put into words only when somebody asks. It stands in the thread's own object: what a try of
//! a lock, or an unlock, fails with is noted without an allocation, because a signal handler may be here in the midst of
//! malloc(3).

use std::ffi::{CString, c_char};
use std::mem::{self, MaybeUninit};
use std::path::PathBuf;
use std::ptr;
use std::sync::Arc;

use crate::error::{Error, Reason};
use crate::sys::ending::{self, Left, Still};
use crate::sys::thread::{LAST_ERROR_WORDS, Thread};
use crate::sys::undisturbed::Signals;

/// Names of storages that could not be let go of at once: one for each handler within a handler is enough.
const SPARE: usize = 3;

/// All zeros: there was no failure yet.
#[repr(C)]
struct LastError {
    /// The last that had to be allocated; from [`Box::into_raw`].
    boxed: *mut Error,
    /// The last that had not, with its storage; from [`Arc::into_raw`].
    storage: *const PathBuf,
    reason: MaybeUninit<Reason>,
    /// Which of the two is the last of all.
    latest: Latest,
    /// Its sentence; from [`CString::into_raw`].
    text: *mut c_char,
    spare: [*const PathBuf; SPARE],
}

#[repr(u64)]
#[derive(Clone, Copy, PartialEq, Eq)]
enum Latest {
    None = 0,
    Boxed,
    Plain,
}

const _: () = assert!(size_of::<LastError>() <= LAST_ERROR_WORDS * size_of::<u64>());

fn own() -> *mut LastError {
    Thread::calling().last_error().cast()
}

/// Remembers a failure.
pub(super) fn set(error: Error) {
    let error = Box::into_raw(Box::new(error));
    let _forgotten_with_the_process = ending::arm(Thread::calling(), Left::LastError, forget);
    let signals = Signals::hold_back();
    // SAFETY: the calling thread's own memory, in which no handler comes meanwhile.
    unsafe {
        let own = &mut *own();
        own.let_go();
        own.boxed = error;
        own.latest = Latest::Boxed;
    }
    signals.let_come();
}

/// Remembers a failure of `storage`, without an allocation if it has no text of its own.
pub(super) fn set_at(storage: &Arc<PathBuf>, reason: Reason) {
    if !reason.is_plain() {
        return set(Error::new(storage, reason));
    }
    let signals = Signals::hold_back();
    // SAFETY: as in set().
    unsafe {
        let own = &mut *own();
        if own.storage != Arc::as_ptr(storage) {
            let before = mem::replace(&mut own.storage, Arc::into_raw(Arc::clone(storage)));
            own.put_aside(before);
        }
        // A plain reason has nothing to be dropped.
        own.reason.write(reason);
        own.latest = Latest::Plain;
    }
    ending::arm_without_allocation(Thread::calling(), Left::LastError, forget);
    signals.let_come();
}

impl LastError {
    /// Lets go of a storage's name, but not of the last one there is of it: that would be free(3).
    ///
    /// # Safety
    /// `name` is null, or from [`Arc::into_raw`] and used no more.
    unsafe fn put_aside(&mut self, name: *const PathBuf) {
        if name.is_null() {
            return;
        }
        // SAFETY: the caller's.
        let name = unsafe { Arc::from_raw(name) };
        if Arc::strong_count(&name) == 1
            && let Some(spare) = self.spare.iter_mut().find(|spare| spare.is_null())
        {
            *spare = Arc::into_raw(name);
        }
    }

    /// Frees all that is not needed for the latest, and the latest.
    ///
    /// # Safety
    /// The pointers are as the fields say.
    unsafe fn let_go(&mut self) {
        // SAFETY: the caller's; each is taken out before it is freed.
        unsafe {
            let names = mem::replace(&mut self.spare, [ptr::null(); SPARE]);
            let current = mem::replace(&mut self.storage, ptr::null());
            for name in names.into_iter().chain([current]).filter(|name| !name.is_null()) {
                drop(Arc::from_raw(name));
            }
            let boxed = mem::replace(&mut self.boxed, ptr::null_mut());
            if !boxed.is_null() {
                drop(Box::from_raw(boxed));
            }
            self.latest = Latest::None;
        }
    }

    /// The latest in words.
    ///
    /// # Safety
    /// As for [`let_go`](Self::let_go).
    unsafe fn sentence(&self) -> Option<String> {
        // SAFETY: the caller's.
        unsafe {
            match self.latest {
                Latest::None => None,
                Latest::Boxed => Some((*self.boxed).to_string()),
                Latest::Plain => {
                    Arc::increment_strong_count(self.storage);
                    let storage = Arc::from_raw(self.storage);
                    Some(Error::new(&storage, self.reason.assume_init_ref().clone()).to_string())
                }
            }
        }
    }
}

/// The last failure's sentence, or an empty one. Valid until the thread's next failure.
pub(super) fn text() -> *const c_char {
    // Not in set_at(), where a handler may be: it may allocate.
    let _forgotten_with_the_process = ending::arm(Thread::calling(), Left::LastError, forget);
    let signals = Signals::hold_back();
    // SAFETY: as in set().
    let text = unsafe {
        let own = &mut *own();
        match own.sentence() {
            None => c"".as_ptr(),
            Some(sentence) => {
                // Sentences hold no NUL: paths are escaped. Should one slip in, it ends the text there.
                let fresh = CString::new(sentence.replace('\0', " ")).unwrap_or_default();
                // The same sentence stays where it is: the caller may have its address.
                if own.text.is_null() || *std::ffi::CStr::from_ptr(own.text) != *fresh {
                    free_text(mem::replace(&mut own.text, fresh.into_raw()));
                }
                own.text.cast_const()
            }
        }
    };
    signals.let_come();
    text
}

/// # Safety
/// `text` is null, or from [`CString::into_raw`] and used no more.
unsafe fn free_text(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: the caller's.
        drop(unsafe { CString::from_raw(text) });
    }
}

/// The thread ends.
fn forget(_thread: Thread, _still: Still) {
    // SAFETY: as in set().
    unsafe {
        let own = &mut *own();
        own.let_go();
        free_text(mem::replace(&mut own.text, ptr::null_mut()));
    }
}
