// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Cancel objects, which end waits from another thread.
//!
//! A wait of the native layout sleeps in its wake classes and in the class of its cancel object, and tells the object on which
//! futex it sleeps (`places`). So a trigger can wake it, and nobody has to look at the object by the clock. A wake-up in such
//! a class may also reach the waits of another object; like any waiter that a futex wakes for nothing, they look and sleep
//! again.

mod places;

use std::hint;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::sys::process;
use crate::sys::syscall::clock::Instant;
use crate::sys::syscall::futex;
use crate::sys::thread::Thread;
use crate::sys::thread::caller_state::CallerState;
use crate::sys::thread::waits::{self, RecordedWait};
use crate::{Error, Reason, Result};

use places::Places;

/// The longest sleep of a wait that its cancel object cannot wake: half of the 10 ms within which it must end. That is a wait
/// for a record lock or a mutex of the libpod layout, or one for whose futex the object has no room.
const LOOK_INTERVAL_NS: u64 = 5_000_000;

/// The wake classes of cancel objects. Those below are the waiters' (see `waiting`).
const FIRST_CLASS: u32 = 6;
const CLASSES: u32 = u32::BITS - FIRST_CLASS;

/// The pauses of a trigger before it wakes once more. A waiter that has looked at the object just before the trigger may not
/// yet sleep at the first wake-up. In a pause below [`SHORTEST_SLEEP_NS`] the trigger spins; before a longer one it asks
/// whether as many were woken as sleep, and is done then. The sum is bounded, because a signal handler may be here.
const PAUSES_NS: [u64; 7] = [0, 2_000, 8_000, 50_000, 200_000, 1_000_000, 2_000_000];
const SHORTEST_SLEEP_NS: u64 = 50_000;

/// How long a call that frees an object waits for a trigger that runs: longer than one takes.
const LONGEST_TRIGGER_NS: u64 = 100_000_000;

/// A cancel object. Once triggered, it ends every wait that uses it, normally within 10 ms, and every later one at once.
/// It stays triggered.
///
/// ```
/// use lock_manager::{Cancel, InMemoryManager, Manager};
///
/// let manager = InMemoryManager::new(1)?;
/// let cancel = Cancel::new();
/// cancel.trigger();
/// assert_eq!(manager.cancellable_lock(0, None, &cancel).unwrap_err().errno(), libc::ECANCELED);
/// # Ok::<(), lock_manager::Error>(())
/// ```
#[derive(Debug)]
#[repr(C)]
pub struct Cancel {
    triggered: AtomicBool,
    waits: AtomicU32,
    /// The number of triggers that run: they still use the object when the waits that they ended are over.
    triggers: AtomicU32,
    class: u32,
    places: Places,
}

impl Default for Cancel {
    fn default() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Objects that waits use at the same time are to be of different classes, those of different processes as well.
        let number = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(process::pid().cast_unsigned());
        Self {
            triggered: AtomicBool::new(false),
            waits: AtomicU32::new(0),
            triggers: AtomicU32::new(0),
            class: 1 << (FIRST_CLASS + number % CLASSES),
            places: Places::default(),
        }
    }
}

impl Cancel {
    /// Creates a cancel object that is not triggered.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the waits. A signal handler may call it.
    pub fn trigger(&self) {
        // A handler that jumps away must not leave the count behind.
        let caller = CallerState::save_and_block();
        self.triggers.fetch_add(1, Ordering::SeqCst);
        self.triggered.store(true, Ordering::SeqCst);
        self.wake_waits();
        // The last access: a thread whose wait has ended may free the object now.
        self.triggers.fetch_sub(1, Ordering::Release);
        caller.restore();
    }

    /// Wakes the waits, until each has been woken or is over, for some milliseconds at most. A wait that even then has not
    /// slept yet looks at the end of its slice.
    fn wake_waits(&self) {
        // If this is a handler in a wait of the calling thread, that wait goes on when the handler returns, and looks then.
        let own = waits::own_sleepers(Thread::calling(), &self.waits);
        let (mut woken, mut most) = (0, 0);
        for pause_ns in PAUSES_NS {
            let sleepers = self.places.waits().saturating_sub(own);
            most = sleepers.max(most);
            if sleepers == 0 || (pause_ns >= SHORTEST_SLEEP_NS && woken >= most) {
                return;
            }
            pause(pause_ns);
            woken += self.places.wake(self.class);
        }
    }

    /// Whether it was triggered.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        self.triggered.load(Ordering::SeqCst)
    }

    /// The class in which its waits sleep.
    pub(crate) fn class(&self) -> u32 {
        self.class
    }

    /// Tells the object that a wait, which it counts, is about to sleep on the futex at `address`, and nowhere else. The wait
    /// looks at the object after that, and then sleeps. Whether a trigger will wake it.
    pub(crate) fn enter(&self, wait: &RecordedWait, thread: Thread, address: usize) -> bool {
        wait.set_place(thread, || self.places.enter(address))
    }

    /// How many waits it knows to sleep, or to be about to.
    #[cfg(test)]
    pub(crate) fn sleepers(&self) -> u64 {
        self.places.waits()
    }

    /// The number of waits that use it.
    pub(crate) fn waits(&self) -> &AtomicU32 {
        &self.waits
    }

    /// Checks that it could be freed now.
    pub(crate) fn check_unused(&self) -> Result<()> {
        waits::undo_abandoned(Thread::calling());
        // A wait may be over before the trigger that has ended it. Not so long as that: it is a forked child's copy.
        let end = Instant::now().after(LONGEST_TRIGGER_NS);
        while self.triggers.load(Ordering::Acquire) != 0 && Instant::now() < end {
            pause(SHORTEST_SLEEP_NS);
        }
        match self.waits.load(Ordering::Acquire) + self.triggers.load(Ordering::Acquire) {
            0 => Ok(()),
            waits => Err(Error::without_storage(Reason::CancelInUse { waits })),
        }
    }
}

/// Waits that long. No cancellation point, and a signal handler may be here.
fn pause(nanoseconds: u64) {
    let until = Instant::now().after(nanoseconds);
    if nanoseconds >= SHORTEST_SLEEP_NS {
        let nobodys = AtomicU32::new(0);
        futex::wait(&nobodys, 0, until);
    }
    while nanoseconds < SHORTEST_SLEEP_NS && Instant::now() < until {
        hint::spin_loop();
    }
}

/// Fails if `cancel` ends the wait for lock `id`.
pub(crate) fn check(cancel: Option<&Cancel>, id: u32) -> std::result::Result<(), Reason> {
    match cancel {
        Some(cancel) if cancel.is_triggered() => Err(Reason::Cancelled { id }),
        _ => Ok(()),
    }
}

/// The instant to look again: `otherwise`, or sooner if there is a cancel object, which cannot wake the wait.
pub(crate) fn next_look(cancel: Option<&Cancel>, otherwise: Instant) -> Instant {
    match cancel {
        Some(_) => otherwise.min(Instant::now().after(LOOK_INTERVAL_NS)),
        None => otherwise,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_of_a_process_are_of_all_classes_in_turn_and_of_none_of_the_waiters() {
        let classes: u32 = (0..CLASSES).map(|_| Cancel::new().class()).fold(0, |all, class| all | class);
        assert_eq!(classes & ((1 << FIRST_CLASS) - 1), 0);
        // Other tests may take some of them.
        assert!(classes.count_ones() > CLASSES / 2, "{classes:#x}");
    }

    #[test]
    fn an_object_is_in_use_while_a_trigger_runs() {
        let cancel = Cancel::new();
        cancel.triggers.store(1, Ordering::Relaxed);
        assert!(cancel.check_unused().is_err());
        cancel.triggers.store(0, Ordering::Relaxed);
        cancel.trigger();
        cancel.check_unused().unwrap();
    }
}
