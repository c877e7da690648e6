// SPDX-License-Identifier: MIT OR Apache-2.0
//! A value that a child does not inherit, however the child was made: it finds none and makes its own. The parent's value may
//! have been changing at the time of the fork, under a mutex whose holder the child does not have.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::sys::Errno;
use crate::sys::process::arena::CacheLine;

/// One value for each process that uses it.
pub(crate) struct PerProcess<T> {
    /// Holds the pointer to this process's value. A child finds zeros.
    place: CacheLine,
    /// The value that was made last, perhaps by an ancestor. All values are reachable through it, so a leak checker finds them.
    last: AtomicPtr<Made<T>>,
}

/// A value, and the one before it, which an ancestor made.
struct Made<T> {
    value: T,
    before: *mut Made<T>,
}

// SAFETY: as for the value, which threads share. Nobody looks into the values of ancestors.
unsafe impl<T: Send + Sync> Sync for PerProcess<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Send for PerProcess<T> {}

impl<T> PerProcess<T> {
    pub(crate) fn new() -> Result<Self, Errno> {
        Ok(Self { place: CacheLine::claim()?, last: AtomicPtr::new(ptr::null_mut()) })
    }

    fn pointer(&self) -> &AtomicPtr<Made<T>> {
        // SAFETY: the word is zeroed, aligned memory of the size of a pointer. It lives as long as self, and is used as this
        // atomic only.
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
            // SAFETY: as for get; self is being dropped, so nobody else has the value.
            let made = unsafe { Box::from_raw(own) };
            others = made.before;
        }
        keep(others);
    }
}

/// Keeps the values of ancestors, chained so that a leak checker reaches them. They are not dropped: they may have been changing
/// at the time of the fork, and what they stand for belongs to the ancestors.
fn keep<T>(first: *mut Made<T>) {
    static LEFT: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());
    let mut oldest = first;
    // SAFETY: leaked boxes, each known only to the one behind it; nobody frees them.
    while let Some(made) = unsafe { oldest.as_mut() } {
        if made.before.is_null() {
            // The head of another chain, of whatever type: nobody follows the pointer.
            made.before = LEFT.swap(first.cast(), Ordering::AcqRel).cast();
            return;
        }
        oldest = made.before;
    }
}
