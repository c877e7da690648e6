// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The locks of a storage as one process knows them: which of its threads holds which, and who waits. What excludes
//! other processes is the storage's own affair ([`Storage`]).
//!
//! ```text
//!            take() begins              take() succeeds
//!   Free ─────────────────▶ Taking ──────────────────────▶ Held
//!    ▲ ◀──────────────────────┘ held elsewhere, or failed    │
//!    └───────────────────────────────────────────────────────┘ unlock, or its thread ends
//! ```

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::Reason;
use crate::cancel::{Cancel, Cancellable};
use crate::manager::{Acquired, Ownership, Wait};
use crate::sys::clock::Instant;
use crate::sys::process::Process;
use crate::sys::thread::Thread;
use crate::thread_end::{self, Bereaved};

/// The longest sleep in one go: half of the 100 ms within which it must be noticed that the storage was removed.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);

/// What excludes this process from others, lock by lock.
pub(crate) trait Storage: Send + Sync + 'static {
    /// What keeps a lock taken. Dropping it does what a death does: the lock is free, and its next holder is told.
    type Hold: Send;

    /// Takes lock `id` for `holder` if nobody outside of this process holds it; never waits.
    fn take(&self, id: u32, holder: &Holder) -> Result<Option<(Self::Hold, Acquired)>, Reason>;

    /// Gives back a lock in good order. It is free afterwards, whatever is returned.
    fn give_back(&self, id: u32, hold: Self::Hold) -> Result<(), Reason>;

    /// Whether it makes sense to wait on, asked now and then.
    fn check(&self) -> Result<(), Reason>;

    /// How long a waiter sleeps before it tries again to take what somebody outside of this process holds.
    const RETRY_NS: u64;
}

/// A thread of this process that holds a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holder {
    /// The manager it took the lock through.
    pub(crate) manager: u64,
    pub(crate) ownership: Ownership,
    serial: u64,
    /// The thread's id in its PID namespace.
    pub(crate) tid: u32,
}

/// A lock as this process knows it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Look {
    pub(crate) holder: Option<Holder>,
    pub(crate) waiters: u32,
    /// How long the one has waited that waits longest.
    pub(crate) waited_ns: u64,
}

/// The table. In an `Arc`, because ending threads find back to it.
pub(crate) struct Table<S: Storage> {
    pub(crate) storage: S,
    process: &'static Process,
    /// In which process the locks were taken.
    epoch: u64,
    slots: Mutex<Slots<S::Hold>>,
    itself: Weak<Self>,
}

type Slots<H> = HashMap<u32, Slot<H>, BuildHasherDefault<IdHasher>>;

struct Slot<H> {
    state: State<H>,
    /// Since when each waiter waits, and through which manager.
    waiters: Vec<(Instant, u64)>,
    released: Option<Arc<Condvar>>,
    /// Before that, a waiter need not try: another one of this process just did.
    next_try: Instant,
}

enum State<H> {
    Free,
    Taking,
    Held(H, Holder),
}

impl<H> Default for Slot<H> {
    fn default() -> Self {
        Self { state: State::Free, waiters: Vec::new(), released: None, next_try: Instant::EVER }
    }
}

/// Ids are small and dense: they are hash enough.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 << 8) | u64::from(byte);
        }
    }

    fn write_u32(&mut self, id: u32) {
        // The map takes its buckets from the low bits and its tags from the high ones: a multiplication fills both.
        self.0 = u64::from(id).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

impl<S: Storage> Table<S> {
    pub(crate) fn new(process: &'static Process, storage: S) -> Arc<Self> {
        Arc::new_cyclic(|itself| Self {
            storage,
            process,
            epoch: process.epoch(),
            slots: Mutex::default(),
            itself: Weak::clone(itself),
        })
    }

    /// Takes a lock for the calling thread, waiting as `wait` says and as long as `cancel` lets it.
    pub(crate) fn acquire(
        &self,
        manager: u64,
        ownership: Ownership,
        id: u32,
        wait: Wait,
        cancel: Option<&Cancel>,
    ) -> Result<Acquired, Reason> {
        let cancellable = Cancellable::new(cancel);
        cancellable.check(id)?;
        let thread = Thread::named(self.process).map_err(|_| Reason::ClonedChild)?;
        let holder = Holder { manager, ownership, serial: thread.serial(), tid: thread.id() as u32 };
        let mut slots = self.slots.lock();
        let taken = match self.attempt(&mut slots, id, &holder, Turn::First)? {
            Some(acquired) => acquired,
            None => self.wait_for(&mut slots, id, &holder, wait, &cancellable)?,
        };
        drop(slots);
        if ownership == Ownership::Thread {
            thread_end::remember(self.itself.clone(), id, holder.serial);
        }
        Ok(taken)
    }

    /// Takes the lock if it is free, here and elsewhere.
    fn attempt(
        &self,
        slots: &mut MutexGuard<'_, Slots<S::Hold>>,
        id: u32,
        holder: &Holder,
        turn: Turn,
    ) -> Result<Option<Acquired>, Reason> {
        let slot = slots.entry(id).or_default();
        if !matches!(slot.state, State::Free) || (turn == Turn::Later && Instant::now() < slot.next_try) {
            return Ok(None);
        }
        slot.state = State::Taking;
        // Without the table's mutex: a storage may have to ask a slow disk.
        let taken = MutexGuard::unlocked(slots, || self.storage.take(id, holder));
        let slot = slots.entry(id).or_default();
        if let Ok(Some((hold, acquired))) = taken {
            slot.state = State::Held(hold, *holder);
            return Ok(Some(acquired));
        }
        slot.state = State::Free;
        slot.next_try = Instant::now().after(S::RETRY_NS);
        if let Err(reason) = taken {
            Self::pass_on(slots, id);
            return Err(reason);
        }
        Ok(None)
    }

    #[cold]
    fn wait_for(
        &self,
        slots: &mut MutexGuard<'_, Slots<S::Hold>>,
        id: u32,
        holder: &Holder,
        wait: Wait,
        cancellable: &Cancellable<'_>,
    ) -> Result<Acquired, Reason> {
        let since = Instant::now();
        let deadline = match wait {
            Wait::Try => since,
            Wait::Forever | Wait::Nanoseconds(u64::MAX) => Instant::NEVER,
            Wait::Nanoseconds(timeout) => since.after(timeout),
        };
        let mut counted = false;
        let ended = loop {
            let slot = slots.entry(id).or_default();
            if let Err(reason) = slot.check_wait(id, holder, wait, deadline).and_then(|()| cancellable.check(id)) {
                break Err(reason);
            }
            if !counted {
                slot.waiters.push((since, holder.manager));
                counted = true;
            }
            // A holder of this process wakes its waiters; of others there is no word.
            let again = if matches!(slot.state, State::Free) { slot.next_try } else { Instant::NEVER };
            let released = Arc::clone(slot.released.get_or_insert_default());
            let left = cancellable.next_look(deadline.min(again)).since(Instant::now());
            released.wait_for(slots, Duration::from_nanos(left).min(LONGEST_SLEEP));
            match self.attempt(slots, id, holder, Turn::Later) {
                Ok(None) => {
                    if let Err(reason) = MutexGuard::unlocked(slots, || self.storage.check()) {
                        break Err(reason);
                    }
                }
                Ok(Some(acquired)) => break Ok(acquired),
                Err(reason) => break Err(reason),
            }
        };
        if counted {
            let waiters = &mut slots.entry(id).or_default().waiters;
            if let Some(place) = waiters.iter().position(|&other| other == (since, holder.manager)) {
                waiters.swap_remove(place);
            }
        }
        if ended.is_err() {
            // It may have been woken for a lock that it now does not take.
            Self::pass_on(slots, id);
        }
        ended
    }

    /// Gives back what the caller holds.
    pub(crate) fn release(&self, manager: u64, id: u32) -> Result<(), Reason> {
        let thread = Thread::named(self.process).map_err(|_| Reason::NotHolder { id })?;
        let mut slots = self.slots.lock();
        let slot = slots.get_mut(&id).ok_or(Reason::NotHolder { id })?;
        let (hold, holder) = match std::mem::replace(&mut slot.state, State::Taking) {
            State::Held(hold, holder)
                if holder.manager == manager
                    && (holder.ownership == Ownership::Process || holder.serial == thread.serial()) =>
            {
                (hold, holder)
            }
            other => {
                slot.state = other;
                return Err(Reason::NotHolder { id });
            }
        };
        let given = MutexGuard::unlocked(&mut slots, || self.storage.give_back(id, hold));
        self.set_free(&mut slots, id);
        drop(slots);
        if holder.ownership == Ownership::Thread {
            let itself: Weak<dyn Bereaved> = self.itself.clone();
            thread_end::forget(&itself, id);
        }
        given
    }

    fn set_free(&self, slots: &mut Slots<S::Hold>, id: u32) {
        if let Some(slot) = slots.get_mut(&id) {
            slot.state = State::Free;
            slot.next_try = Instant::EVER;
        }
        Self::pass_on(slots, id);
    }

    /// Wakes a waiter if there is one, else forgets the slot, if nobody holds it.
    fn pass_on(slots: &mut Slots<S::Hold>, id: u32) {
        let Some(slot) = slots.get(&id) else { return };
        if !matches!(slot.state, State::Free) {
            return;
        }
        if slot.waiters.is_empty() {
            slots.remove(&id);
        } else if let Some(released) = &slot.released {
            released.notify_one();
        }
    }

    /// What this process knows of a lock.
    pub(crate) fn look(&self, id: u32) -> Look {
        let slots = self.slots.lock();
        let Some(slot) = slots.get(&id) else { return Look::default() };
        Look {
            holder: match slot.state {
                State::Held(_, holder) => Some(holder),
                State::Free | State::Taking => None,
            },
            waiters: slot.waiters.len() as u32,
            waited_ns: slot.waiters.iter().min().map_or(0, |&(since, _)| Instant::now().since(since)),
        }
    }

    /// The locks that this process holds, ascending.
    pub(crate) fn held(&self) -> Vec<u32> {
        self.held_where(|_| true)
    }

    /// One lock that is held through that manager.
    pub(crate) fn held_through(&self, manager: u64) -> Option<u32> {
        self.held_where(|holder| holder.manager == manager).first().copied()
    }

    /// How many threads wait in calls on that manager.
    pub(crate) fn waiting_through(&self, manager: u64) -> u32 {
        let slots = self.slots.lock();
        slots.values().flat_map(|slot| &slot.waiters).filter(|&&(_, through)| through == manager).count() as u32
    }

    fn held_where(&self, wanted: impl Fn(&Holder) -> bool) -> Vec<u32> {
        let slots = self.slots.lock();
        let is_wanted = |slot: &Slot<_>| matches!(&slot.state, State::Held(_, holder) if wanted(holder));
        let mut ids: Vec<u32> = slots.iter().filter(|(_, slot)| is_wanted(slot)).map(|(&id, _)| id).collect();
        ids.sort_unstable();
        ids
    }

    /// Whether the calling process is the one whose locks these are.
    pub(crate) fn is_current(&self) -> bool {
        self.process.epoch() == self.epoch
    }
}

/// Whether an attempt is a caller's first, or one of a waiter's, of which there need not be many at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    First,
    Later,
}

impl<H> Slot<H> {
    /// Whether it makes sense to wait (on).
    fn check_wait(&self, id: u32, waiter: &Holder, wait: Wait, deadline: Instant) -> Result<(), Reason> {
        let holder = match &self.state {
            State::Held(_, holder) => Some(holder),
            State::Free | State::Taking => None,
        };
        let tid = holder.map_or(0, |holder| holder.tid);
        if wait == Wait::Try {
            return Err(Reason::Held { id, holder: tid });
        }
        if holder.is_some_and(|holder| holder.ownership == Ownership::Thread && holder.serial == waiter.serial) {
            return Err(Reason::SelfDeadlock { id });
        }
        if Instant::now() >= deadline {
            let timeout_ns = if let Wait::Nanoseconds(timeout) = wait { timeout } else { 0 };
            return Err(Reason::TimedOut { id, timeout_ns, holder: tid });
        }
        Ok(())
    }
}

impl<S: Storage> Bereaved for Table<S> {
    fn holder_ended(&self, id: u32, serial: u64) {
        let mut slots = self.slots.lock();
        let Some(slot) = slots.get_mut(&id) else { return };
        if !matches!(&slot.state, State::Held(_, holder) if holder.serial == serial) {
            return;
        }
        let abandoned = std::mem::replace(&mut slot.state, State::Taking);
        MutexGuard::unlocked(&mut slots, || drop(abandoned));
        self.set_free(&mut slots, id);
    }

    fn is_of_this_process(&self) -> bool {
        self.is_current()
    }
}
