// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Being told when a thread ends that still holds locks, for storages whose kernel objects belong to the process.

use std::cell::RefCell;
use std::sync::Weak;

/// Whoever keeps locks that a thread may hold when it ends.
pub(crate) trait Bereaved: Send + Sync {
    /// The thread of that serial has ended holding lock `id`. Called in the thread, and in no child of its process.
    fn holder_ended(&self, id: u32, serial: u64);

    /// Whether the calling process is the one in which the locks were taken.
    fn is_of_this_process(&self) -> bool;
}

/// One lock that the thread holds.
struct Entry {
    keeper: Weak<dyn Bereaved>,
    id: u32,
    serial: u64,
}

/// What the thread holds. Its destructor runs when the thread ends, however it was made.
struct Estate(RefCell<Vec<Entry>>);

thread_local! {
    static ESTATE: Estate = const { Estate(RefCell::new(Vec::new())) };
}

impl Drop for Estate {
    fn drop(&mut self) {
        for entry in self.0.take() {
            // A forked child inherits the list of the thread that forked, but none of the locks.
            if let Some(keeper) = entry.keeper.upgrade().filter(|keeper| keeper.is_of_this_process()) {
                keeper.holder_ended(entry.id, entry.serial);
            }
        }
    }
}

/// Notes that the calling thread holds a lock.
pub(crate) fn remember(keeper: Weak<dyn Bereaved>, id: u32, serial: u64) {
    // Fails only in a thread that is ending, in some other destructor that locks: that lock ends with the process.
    let _ = ESTATE.try_with(|estate| estate.0.borrow_mut().push(Entry { keeper, id, serial }));
}

/// Notes that the calling thread holds it no more.
pub(crate) fn forget(keeper: &Weak<dyn Bereaved>, id: u32) {
    let _ = ESTATE.try_with(|estate| {
        let mut held = estate.0.borrow_mut();
        // From the end: locks are mostly given back in the reverse order.
        if let Some(index) = held.iter().rposition(|entry| entry.id == id && entry.keeper.ptr_eq(keeper)) {
            held.swap_remove(index);
        }
    });
}
