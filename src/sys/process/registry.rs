// SPDX-License-Identifier: MIT OR Apache-2.0
//! One value for each key in the whole process. All users of a key share its value, and the last one drops it. A child may be
//! forked at any instant and finds the registry whole: all writes are single atomic stores, and it is valid after each.

use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use crate::sys::process::{Exclusion, Process};

/// Two managers with the same key share a value.
pub(crate) type Key = [u64; 3];

/// Values by key, for a static.
pub(crate) struct Registry<T: 'static> {
    head: AtomicPtr<Node<T>>,
}

/// A node is never freed but used again, because threads and forked children may still look at it.
struct Node<T: 'static> {
    next: *mut Node<T>,
    key: [AtomicU64; 3],
    /// Null: the node is free.
    value: AtomicPtr<T>,
    users: AtomicUsize,
}

impl<T: Send + Sync + 'static> Registry<T> {
    pub(crate) const fn new() -> Self {
        Self { head: AtomicPtr::new(ptr::null_mut()) }
    }

    /// The value of `key`, made by `make` if nobody has it. `check` may refuse a value that was there already.
    pub(crate) fn get_or_make<E>(
        &'static self,
        _alone: &Exclusion<'_>,
        key: Key,
        check: impl FnOnce(&T) -> Result<(), E>,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Shared<T>, E> {
        let mut free = None;
        for node in self.nodes() {
            let Some(value) = NonNull::new(node.value.load(Ordering::Acquire)) else {
                free = Some(node);
                continue;
            };
            if node.key.each_ref().map(|part| part.load(Ordering::Relaxed)) == key {
                // SAFETY: not null; the last user drops it only under the exclusion, which the caller has.
                check(unsafe { value.as_ref() })?;
                node.users.fetch_add(1, Ordering::Relaxed);
                return Ok(Shared { node, value });
            }
        }
        let value = NonNull::from(Box::leak(Box::new(make()?)));
        let node = free.unwrap_or_else(|| self.add_node());
        for (part, word) in node.key.iter().zip(key) {
            part.store(word, Ordering::Relaxed);
        }
        node.users.store(1, Ordering::Relaxed);
        node.value.store(value.as_ptr(), Ordering::Release);
        Ok(Shared { node, value })
    }

    /// Calls `show` with every value.
    pub(crate) fn for_each(&'static self, _alone: &Exclusion<'_>, show: impl FnMut(&T)) {
        // SAFETY: null or alive: the last user drops it only under the exclusion, which the caller has.
        self.nodes().filter_map(|node| unsafe { node.value.load(Ordering::Acquire).as_ref() }).for_each(show);
    }

    fn nodes(&'static self) -> impl Iterator<Item = &'static Node<T>> {
        // SAFETY: nodes are leaked boxes, linked before they are published and never unlinked.
        std::iter::successors(unsafe { self.head.load(Ordering::Acquire).as_ref() }, |node| unsafe {
            node.next.as_ref()
        })
    }

    fn add_node(&'static self) -> &'static Node<T> {
        let (key, value, users) = (Default::default(), AtomicPtr::default(), AtomicUsize::new(0));
        let node = Box::leak(Box::new(Node { next: self.head.load(Ordering::Relaxed), key, value, users }));
        self.head.store(node, Ordering::Release);
        node
    }
}

/// A user's share in a value of a [`Registry`].
pub(crate) struct Shared<T: Send + Sync + 'static> {
    node: &'static Node<T>,
    /// The node's value, which stays as long as the node has users. It is here to save a load.
    value: NonNull<T>,
}

// SAFETY: a node's fields are atomics and a pointer that never changes; the value is Send and Sync.
unsafe impl<T: Send + Sync> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T: Send + Sync> Shared<T> {
    /// Whether nobody else has a share in it.
    pub(crate) fn is_last(&self) -> bool {
        self.node.users.load(Ordering::Acquire) == 1
    }

    /// Keeps the value for as long as the process lives, because something may still point into it.
    pub(crate) fn keep_forever(&self) {
        self.node.users.fetch_add(1, Ordering::Relaxed);
    }
}

impl<T: Send + Sync> Deref for Shared<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: not null and not dropped as long as the node has users, of which self is one.
        unsafe { self.value.as_ref() }
    }
}

impl<T: Send + Sync> Drop for Shared<T> {
    fn drop(&mut self) {
        // The arena exists, because get_or_make() needed it. Without it there would be no exclusion, and the value would have
        // to leak.
        let Ok(process) = Process::current() else {
            return;
        };
        let _alone = process.exclude_other_threads();
        if self.node.users.fetch_sub(1, Ordering::AcqRel) == 1 {
            let value = self.node.value.swap(ptr::null_mut(), Ordering::AcqRel);
            // SAFETY: leaked from a box in get_or_make. This was the last user, and nobody becomes one under the exclusion.
            drop(unsafe { Box::from_raw(value) });
        }
    }
}
