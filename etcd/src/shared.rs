// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! What a manager's callers and its keeper thread share.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::core::HostLocks;
use crate::failure::{Failure, Outcome};
use crate::host::{Record, Records, name_of};
use crate::http::NoAnswer;
use crate::keeper::Keeper;
use crate::keys::Keys;
use crate::options::Options;
use crate::owner::Identity;
use crate::sys::{self, Alarm, Bell};

/// A pause between two rounds of questions that nobody answered.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// A lock that this process holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) record: Record,
    /// Whether its holder was told of a death.
    pub(crate) died: bool,
    pub(crate) is_lost: bool,
    /// Whether another process or thread of the host had the key just before.
    pub(crate) is_handed_on: bool,
}

impl Hold {
    /// On a key that etcd has given.
    pub(crate) fn of(record: Record, died: bool) -> Self {
        Self { record, died, is_lost: false, is_handed_on: false }
    }
}

/// What the keeper is asked to do.
pub(crate) enum Task {
    Acquire(Arc<Wait>),
    /// Gives back what a wait got that is over.
    GiveBack(u32, Hold),
    /// Looks whether a key that was kept found somebody.
    Kept(u32, Record),
    Ask(Job),
}

/// Asks once. Unreachable: to be asked again.
type Attempt = dyn FnMut(&mut Keeper) -> Result<(), NoAnswer> + Send;

/// A question, repeated until there is an answer or its time is over.
pub(crate) struct Job {
    pub(crate) attempt: Box<Attempt>,
    pub(crate) give_up: Box<dyn FnOnce(Failure) + Send>,
    pub(crate) until: u64,
    pub(crate) not_before: u64,
}

#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) inbox: Vec<Task>,
    pub(crate) holds: BTreeMap<u32, Hold>,
    /// Until when each lease is good that something here depends on, by the clock of leases.
    pub(crate) leases: HashMap<i64, u64>,
    /// What the last question without an answer met.
    pub(crate) trouble: Option<Failure>,
    pub(crate) is_closing: bool,
    /// Whether another process of the host may rely on this one's lease.
    pub(crate) has_handed_on: bool,
}

/// What all threads of one manager use.
pub(crate) struct Common {
    pub(crate) options: Options,
    pub(crate) keys: Keys,
    pub(crate) identity: Identity,
    pub(crate) num_locks: u32,
    /// The create revision of the storage's first key.
    pub(crate) epoch: i64,
    pub(crate) segment: String,
    pub(crate) records: Records,
    pub(crate) host_locks: HostLocks,
    pub(crate) bell: Bell,
    pub(crate) alarm: Alarm,
    pub(crate) shared: Mutex<Shared>,
}

impl Common {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn leave_task(&self, task: Task) {
        self.lock().inbox.push(task);
        self.bell.ring();
    }

    /// Sets the alarm to when the first lock that is held may be lost.
    pub(crate) fn set_alarm(&self, shared: &Shared) {
        let good_until = |hold: &Hold| {
            let until = shared.leases.get(&hold.record.lease).copied().unwrap_or(0);
            if hold.is_lost { 0 } else { until }
        };
        self.alarm.set(shared.holds.values().map(good_until).min());
    }
}

/// An acquisition, as its caller and the keeper see it.
pub(crate) struct Wait {
    pub(crate) id: u32,
    pub(crate) tid: i32,
    pub(crate) by_process: bool,
    pub(crate) is_try: bool,
    pub(crate) timeout_ns: u64,
    pub(crate) deadline_ns: u64,
    /// What the host had of the lock when the acquisition began.
    pub(crate) left: Record,
    pub(crate) word: AtomicU32,
    pub(crate) state: Mutex<WaitState>,
}

#[derive(Debug, Default)]
pub(crate) struct WaitState {
    pub(crate) outcome: Option<Outcome<bool>>,
    pub(crate) is_taken: bool,
    pub(crate) is_abandoned: bool,
    /// Who is in the way, for people.
    pub(crate) in_the_way: Option<String>,
}

impl Wait {
    pub(crate) fn state(&self) -> MutexGuard<'_, WaitState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the caller. The state is the caller's, so that nothing comes between.
    pub(crate) fn tell(&self, state: &mut WaitState, outcome: Outcome<bool>) {
        state.outcome = Some(outcome);
        self.word.store(1, Ordering::Release);
        sys::wake_all(&self.word);
    }
}

/// The last part of the key of a record's.
pub(crate) fn key_of(keys: &Keys, id: u32, record: &Record) -> String {
    keys.queued(id, &name_of(record.lease, record.serial))
}
