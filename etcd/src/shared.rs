// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! What a manager's callers and its keeper thread share.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::acquiring::Acquiring;
use crate::answers::NoAnswer;
use crate::core::HostLocks;
use crate::failure::{Failure, Outcome};
use crate::host::{Record, Records, name_of};
use crate::http::Cluster;
use crate::keeper::Keeper;
use crate::keys::Keys;
use crate::options::Options;
use crate::owner::{Identity, Ownership};
use crate::slots::{self, Slots};
use crate::sys::{self, Alarm, Bell};

/// A pause between two rounds of questions that nobody answered.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// How long a caller waits itself for an answer, before it leaves the rest to the keeper. Less than the 10 ms within which
/// a wait that is cancelled ends.
const QUICK: Duration = Duration::from_millis(8);
/// A cluster whose last answer took longer than this is asked by the keeper alone.
const QUICK_ANSWER_NS: u64 = 4_000_000;

/// A key that this process has heard of: of a lock that it holds, or that goes from hand to hand on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) record: Record,
    /// What the next holder is told, if nobody unlocks it.
    pub(crate) told: Told,
    pub(crate) loss: Option<Loss>,
    /// Whether it goes from hand to hand on the host.
    pub(crate) is_shared: bool,
    /// Whether it does no more: etcd was told which thread has it, so that a circle through that thread is found.
    pub(crate) is_pinned: bool,
}

impl Hold {
    /// On a key that etcd has given.
    pub(crate) fn of(record: Record, told: Told) -> Self {
        Self { record, told, loss: None, is_shared: false, is_pinned: false }
    }

    /// Why it is lost, for people.
    pub(crate) fn why_lost(&self) -> &'static str {
        self.loss.unwrap_or(Loss::LeaseOver).why()
    }
}

/// What a holder is told of the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Clean,
    OwnerDied,
}

/// How a hold was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Its lease may be over.
    LeaseOver,
    /// etcd has no such key any more.
    KeyGone,
}

impl Loss {
    /// Why, for people.
    pub(crate) fn why(self) -> &'static str {
        match self {
            Self::LeaseOver => {
                "its lease was not renewed in time, because this process was paused, or no endpoint of etcd answered"
            }
            Self::KeyGone => "its key is gone, because somebody deleted it, or etcd ended its lease",
        }
    }
}

/// When the keeper looks after the holds by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Looks {
    /// There was none when it looked last.
    #[default]
    Never,
    /// Some times in a renewal's time. etcd tells it if one of their keys goes.
    Slowly,
    /// Soon: there may be one whose key is not watched yet.
    Soon,
}

/// What the keeper is asked to do.
pub(crate) enum Task {
    Acquire(Box<Acquiring>),
    /// Gives back what a wait got that is over.
    GiveBack(u32, Hold),
    /// Looks after a key that goes from hand to hand.
    Watch(u32),
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
    /// Until it is asked again, and the longest that this becomes, in nanoseconds.
    pub(crate) pause: u64,
    pub(crate) longest_pause: u64,
}

#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) inbox: Vec<Task>,
    pub(crate) holds: BTreeMap<u32, Hold>,
    /// The lease of new keys.
    pub(crate) own_lease: Option<i64>,
    pub(crate) looks: Looks,
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
    pub(crate) records: Records,
    pub(crate) host_locks: HostLocks,
    pub(crate) bell: Bell,
    pub(crate) alarm: Alarm,
    pub(crate) slots: Slots,
    pub(crate) shared: Mutex<Shared>,
    /// The connection for questions: the keeper's, and a caller's while the keeper does not need it.
    pub(crate) cluster: Mutex<Cluster>,
    /// How long the last answer took, in nanoseconds.
    pub(crate) last_answer: AtomicU64,
    pub(crate) last_serial: AtomicU64,
    /// For how long a lease must be good for a kept key to be taken, and to be kept, in nanoseconds.
    pub(crate) needed_to_take: u64,
    pub(crate) needed_to_keep: u64,
}

impl Common {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn leave_task(&self, task: Task) {
        self.lock().inbox.push(task);
        self.bell.ring();
    }

    pub(crate) fn next_serial(&self) -> u64 {
        self.last_serial.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The lease of new keys, if there is one that is good.
    pub(crate) fn ready_lease(&self) -> Option<i64> {
        let shared = self.lock();
        let lease = shared.own_lease?;
        (sys::boot_time() < shared.good_until(lease)).then_some(lease)
    }

    /// Asks one endpoint.
    pub(crate) fn ask<T: DeserializeOwned>(&self, path: &str, question: &Value) -> Result<T, NoAnswer> {
        let mut cluster = self.cluster.lock().unwrap_or_else(PoisonError::into_inner);
        self.timed(|| cluster.ask(path, question, self.options.request_timeout()))
    }

    /// Asks in the caller's own thread, if the connection is free and the cluster quick; `None`: that is for the keeper. So
    /// an answer costs no hand-over between two threads. `left`: how long the caller may wait, in nanoseconds.
    pub(crate) fn ask_at_once<T: DeserializeOwned>(
        &self,
        path: &str,
        question: &Value,
        left: u64,
    ) -> Option<Result<T, NoAnswer>> {
        if self.last_answer.load(Ordering::Relaxed) > QUICK_ANSWER_NS.min(left) {
            return None;
        }
        let mut cluster = match self.cluster.try_lock() {
            Ok(cluster) => cluster,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        if !cluster.is_ready() {
            return None;
        }
        Some(self.timed(|| cluster.ask(path, question, QUICK.min(Duration::from_nanos(left)))))
    }

    /// Whether the last question took about as long as one that nobody answers.
    pub(crate) fn was_silence(&self) -> bool {
        self.last_answer.load(Ordering::Relaxed) >= (self.options.request_timeout() / 2).as_nanos() as u64
    }

    fn timed<T>(&self, ask: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let answer = ask();
        self.last_answer.store(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        answer
    }

    /// After each change of the holds or the leases: tells the slots of the leases, and sets the alarm to when the first lock
    /// that is held may be lost.
    pub(crate) fn settle(&self, shared: &Shared) {
        let mut first = None;
        for (&id, hold) in &shared.holds {
            let good_until = shared.good_until_of(hold);
            let Some(slot) = self.slots.of(id) else { continue };
            let is_shared = if hold.is_shared && !hold.is_pinned { slots::Shared::Yes } else { slots::Shared::No };
            slot.know(hold.record.revision, good_until, is_shared);
            if slot.is_held() {
                first = Some(first.map_or(good_until, |first: u64| first.min(good_until)));
            }
        }
        self.alarm.set(first);
    }

    /// Notes a key whose lock the caller holds from here on.
    pub(crate) fn hold(&self, shared: &mut Shared, id: u32, hold: Hold) {
        self.slots.set_held(id, slots::Held::Yes);
        shared.holds.insert(id, hold);
        self.settle(shared);
        if std::mem::replace(&mut shared.looks, Looks::Soon) != Looks::Soon {
            self.bell.ring();
        }
    }

    /// Forgets a key.
    pub(crate) fn forget(&self, shared: &mut Shared, id: u32) -> Option<Hold> {
        let hold = shared.holds.remove(&id);
        if let Some(slot) = self.slots.of(id) {
            slot.forget();
        }
        self.settle(shared);
        hold
    }
}

impl Shared {
    pub(crate) fn good_until(&self, lease: i64) -> u64 {
        self.leases.get(&lease).copied().unwrap_or(0)
    }

    /// Until when a hold is good; 0: it is lost.
    pub(crate) fn good_until_of(&self, hold: &Hold) -> u64 {
        if hold.loss.is_some() { 0 } else { self.good_until(hold.record.lease) }
    }

    /// Marks what depends on a lease as lost, and lets go of the lease.
    pub(crate) fn lose(&mut self, lease: i64, loss: Loss) {
        for hold in self.holds.values_mut().filter(|hold| hold.record.lease == lease) {
            hold.loss.get_or_insert(loss);
        }
        self.leases.remove(&lease);
        self.own_lease = self.own_lease.filter(|own| *own != lease);
    }
}

/// An acquisition, as its caller and the keeper see it.
pub(crate) struct Wait {
    pub(crate) id: u32,
    pub(crate) tid: i32,
    pub(crate) ownership: Ownership,
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
    pub(crate) outcome: Option<Outcome<Told>>,
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
    pub(crate) fn tell(&self, state: &mut WaitState, outcome: Outcome<Told>) {
        state.outcome = Some(outcome);
        self.word.store(1, Ordering::Release);
        sys::wake_all(&self.word);
    }
}

/// The last part of the key of a record's.
pub(crate) fn key_of(keys: &Keys, id: u32, record: &Record) -> String {
    keys.queued(id, &name_of(record.lease, record.serial))
}
