// SPDX-License-Identifier: MIT OR Apache-2.0
//! A value that a child does not inherit, however it was made: it finds none and makes its own. The parent's may have
//! been in the midst of a change, with a mutex held by a thread that the child does not have.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::sys::Errno;
use crate::sys::process::arena::CacheLine;

/// One value for each process that comes by.
pub(crate) struct PerProcess<T> {
    /// Where this process's value is. A child finds zeros.
    place: CacheLine,
    /// The value that was made last, be it by an ancestor: so all are still reached, as far as a search for lost memory
    /// can tell.
    last: AtomicPtr<Made<T>>,
}

/// A value, and the one that was made before it, by an ancestor.
struct Made<T> {
    value: T,
    before: *mut Made<T>,
}

// SAFETY: what is shared is the value, which may be; of the others nobody sees more than their memory.
unsafe impl<T: Send + Sync> Sync for PerProcess<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Send for PerProcess<T> {}

impl<T> PerProcess<T> {
    pub(crate) fn new() -> Result<Self, Errno> {
        Ok(Self { place: CacheLine::claim()?, last: AtomicPtr::new(ptr::null_mut()) })
    }

    fn pointer(&self) -> &AtomicPtr<Made<T>> {
        // SAFETY: the word is a pointer's worth of zeroed, aligned memory that lives as long as self and is used as
        // this atomic only.
        unsafe { AtomicPtr::from_ptr(self.place.word(0).as_ptr().cast()) }
    }

    /// This process's value, made by `make` if it has none.
    pub(crate) fn get<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        let mut found = self.pointer().load(Ordering::Acquire);
        if found.is_null() {
            let before = self.last.load(Ordering::Acquire);
            let fresh = Box::into_raw(Box::new(Made { value: make()?, before }));
            let stored = self.pointer().compare_exchange(ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire);
            match stored {
                Ok(_) => {
                    self.last.store(fresh, Ordering::Release);
                    found = fresh;
                }
                Err(winner) => {
                    // SAFETY: made above and known to nobody else.
                    drop(unsafe { Box::from_raw(fresh) });
                    found = winner;
                }
            }
        }
        // SAFETY: leaked from a box here, in this process, and freed only with self.
        Ok(unsafe { &(*found).value })
    }

    /// This process's value, if it has one.
    pub(crate) fn peek(&self) -> Option<&T> {
        // SAFETY: as for get.
        unsafe { self.pointer().load(Ordering::Acquire).as_ref() }.map(|made| &made.value)
    }
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        let own = self.pointer().load(Ordering::Acquire);
        let mut others = self.last.load(Ordering::Acquire);
        if !own.is_null() {
            // SAFETY: as for get; whoever drops self is the last to know it.
            let made = unsafe { Box::from_raw(own) };
            others = made.before;
        }
        keep(others);
    }
}

/// Keeps what is left of the values of ancestors. They stand for what is the ancestors', and what they own may be in the
/// midst of a change, so nothing of it is dropped; but it is reached.
fn keep<T>(first: *mut Made<T>) {
    static LEFT: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());
    let mut oldest = first;
    // SAFETY: leaked boxes, of which each is known to the next alone; nobody frees them.
    while let Some(made) = unsafe { oldest.as_mut() } {
        if made.before.is_null() {
            // What another row begins with, whatever it is: nobody follows it.
            made.before = LEFT.swap(first.cast(), Ordering::AcqRel).cast();
            return;
        }
        oldest = made.before;
    }
}
