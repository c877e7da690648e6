// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lockable locks: whoever sees that a lock may be taken sees an address of slots with room for it, however late other
//! threads learn of which growth. Here an address says how many locks have room there.

use std::ptr;

use loom::sync::Arc;
use loom::thread;

use super::atomic::{AtomicU32, Broken, Ordering, break_machine};
use super::lockable::Lockable;
use super::{check, check_within, fails};

/// A segment that grows, and a manager of it.
struct Growing {
    /// How many locks have room in the newest mapping.
    room: AtomicU32,
    num_locks: AtomicU32,
    lockable: Lockable,
}

impl Growing {
    /// It has grown once, and nobody has learnt of that.
    fn once() -> Arc<Self> {
        let growing = Self { room: AtomicU32::new(1), num_locks: AtomicU32::new(1), lockable: Lockable::none() };
        growing.learn();
        growing.grow(4, 2);
        Arc::new(growing)
    }

    fn learn(&self) {
        let count = self.num_locks.load(Ordering::Acquire);
        if count > self.lockable.count() {
            let address = || ptr::without_provenance_mut(self.room.load(Ordering::Acquire) as usize);
            self.lockable.learn_of(count, address);
        }
    }

    /// Maps first, as the library does, and counts then.
    fn grow(&self, room: u32, num_locks: u32) {
        self.room.swap(room, Ordering::AcqRel);
        self.num_locks.swap(num_locks, Ordering::AcqRel);
    }

    fn assert_lockable_locks_have_room(&self) {
        let count = self.lockable.count();
        let room = self.lockable.slots().addr();
        assert!(room >= count as usize, "lock {} is beyond the mapping, which has room for {room}", count - 1);
    }
}

fn one_learns_late() {
    check(|| {
        let growing = Growing::once();
        let late = Arc::clone(&growing);
        let late = thread::spawn(move || {
            late.learn();
            late.assert_lockable_locks_have_room();
        });
        growing.grow(16, 9);
        growing.learn();
        growing.assert_lockable_locks_have_room();
        late.join().unwrap();
        assert_eq!(growing.lockable.count(), 9);
        growing.assert_lockable_locks_have_room();
    });
}

#[test]
fn every_lockable_lock_has_room_whoever_learns_of_it_late() {
    one_learns_late();
}

#[test]
fn an_address_that_replaces_whatever_there_is_leaves_locks_beyond_the_mapping() {
    fails!("is beyond the mapping", {
        break_machine(Broken::Swaps);
        one_learns_late();
    });
}

/// A third thread uses what both others make lockable.
#[test]
fn a_thread_that_only_looks_finds_room_for_what_it_sees() {
    check_within(3, || {
        let growing = Growing::once();
        let [late, looking] = [Arc::clone(&growing), Arc::clone(&growing)];
        let late = thread::spawn(move || late.learn());
        let looking = thread::spawn(move || looking.assert_lockable_locks_have_room());
        growing.grow(16, 9);
        growing.learn();
        late.join().unwrap();
        looking.join().unwrap();
    });
}
