// SPDX-License-Identifier: MIT OR Apache-2.0
//! A value that a child does not inherit, however it was made: it finds none and makes its own. The parent's may have
//! been in the midst of a change, with a mutex held by a thread that the child does not have.

use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::Errno;
use super::arena::Line;

/// One value for each process that comes by.
pub(crate) struct PerProcess<T> {
    place: Line,
    holds: PhantomData<Box<T>>,
}

// SAFETY: what is shared is the value, which may be.
unsafe impl<T: Send + Sync> Sync for PerProcess<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Send for PerProcess<T> {}

impl<T> PerProcess<T> {
    pub(crate) fn new() -> Result<Self, Errno> {
        Ok(Self { place: Line::claim()?, holds: PhantomData })
    }

    fn pointer(&self) -> &AtomicPtr<T> {
        // SAFETY: the word is a pointer's worth of zeroed, aligned memory that lives as long as self and is used as
        // this atomic only.
        unsafe { AtomicPtr::from_ptr(self.place.word(0).as_ptr().cast()) }
    }

    /// This process's value, made by `make` if it has none.
    pub(crate) fn get<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        let mut found = self.pointer().load(Ordering::Acquire);
        if found.is_null() {
            let fresh = Box::into_raw(Box::new(make()?));
            let stored = self.pointer().compare_exchange(ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire);
            match stored {
                Ok(_) => found = fresh,
                Err(winner) => {
                    // SAFETY: made above and known to nobody else.
                    drop(unsafe { Box::from_raw(fresh) });
                    found = winner;
                }
            }
        }
        // SAFETY: leaked from a box here, in this process, and freed only with self.
        Ok(unsafe { &*found })
    }

    /// This process's value, if it has one.
    pub(crate) fn peek(&self) -> Option<&T> {
        // SAFETY: as for get.
        unsafe { self.pointer().load(Ordering::Acquire).as_ref() }
    }
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        let value = self.pointer().load(Ordering::Acquire);
        if !value.is_null() {
            // SAFETY: as for get; whoever drops self is the last to know it. An ancestor's value is never freed here.
            drop(unsafe { Box::from_raw(value) });
        }
    }
}
