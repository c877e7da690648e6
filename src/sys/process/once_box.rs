// SPDX-License-Identifier: MIT OR Apache-2.0
//! A value that is made when it is first needed, and stays. No thread waits for another that makes it, as with a `OnceLock`:
//! a child that is forked meanwhile would wait for ever. If two threads make it at the same time, one value is dropped.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

#[derive(Debug)]
pub(crate) struct OnceBox<T>(AtomicPtr<T>);

// SAFETY: as for the value: threads share it, and whichever drops self drops it.
unsafe impl<T: Send + Sync> Sync for OnceBox<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Send for OnceBox<T> {}

impl<T> OnceBox<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// The value, if there is one.
    #[inline]
    pub(crate) fn get(&self) -> Option<&T> {
        // SAFETY: null, or a leaked box, freed only with self.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    /// The value, made by `make` if there is none.
    pub(crate) fn get_or_make<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        self.get_or_make_boxed(|| make().map(Box::new))
    }

    /// The same for a value that is too large for a stack.
    pub(crate) fn get_or_make_boxed<E>(&self, make: impl FnOnce() -> Result<Box<T>, E>) -> Result<&T, E> {
        if let Some(value) = self.get() {
            return Ok(value);
        }
        let fresh = Box::into_raw(make()?);
        let value = match self.0.compare_exchange(ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => fresh,
            Err(winner) => {
                // SAFETY: made above and known to nobody else.
                drop(unsafe { Box::from_raw(fresh) });
                winner
            }
        };
        // SAFETY: as in get().
        Ok(unsafe { &*value })
    }
}

impl<T> Drop for OnceBox<T> {
    fn drop(&mut self) {
        let value = *self.0.get_mut();
        if !value.is_null() {
            // SAFETY: a leaked box, which nobody can reach any more.
            drop(unsafe { Box::from_raw(value) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Barrier};

    #[test]
    fn of_those_who_make_it_at_once_all_get_the_same_and_what_was_made_in_vain_is_dropped() {
        let counted = Arc::new(());
        let (once, start) = (OnceBox::new(), Barrier::new(2));
        assert_eq!(once.get_or_make(|| Err::<Arc<()>, _>(5)), Err(5));
        let make = || {
            start.wait();
            ptr::from_ref(once.get_or_make(|| Ok::<_, ()>(Arc::clone(&counted))).unwrap()).addr()
        };
        let (one, other) = std::thread::scope(|scope| {
            let other = scope.spawn(make);
            (make(), other.join().unwrap())
        });
        assert_eq!((one, Arc::strong_count(&counted)), (other, 2));
        drop(once);
        assert_eq!(Arc::strong_count(&counted), 1);
    }
}
