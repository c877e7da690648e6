// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! One acquisition, as the keeper goes on with it.
//!
//! A lock that nobody wants is taken by one transaction. Otherwise the acquisition puts a key into the lock's queue, watches
//! the key before its own and its own, and takes the lock by a second transaction when no older key is left. A request whose
//! answer was lost may still be on its way: each transaction can be repeated, and one that was given up is fenced off.

mod asking;

use std::sync::Arc;
use std::time::Duration;

use crate::answers::{NoAnswer, Sent};
use crate::circles::FIRST_DEADLOCK_LOOK;
use crate::deleting::Deletion;
use crate::failure::Failure;
use crate::host::{Record, State, name_of};
use crate::keeper::Keeper;
use crate::keys::Party;
use crate::seen::{Seen, told_by};
use crate::shared::{Common, Hold, Loss, PAUSE, Told, Wait};
use crate::sys;
use crate::wire::{self, TxnResponse};

/// How often a waiter looks by itself, in case that a watch is silent.
const LOOK: Duration = Duration::from_secs(1);

enum Stage {
    /// What the host has left of the lock's key goes first.
    Clear,
    /// Takes the lock, or enters the queue.
    Enter,
    /// Waits in the queue.
    Queued,
    /// Takes the key out of the queue again.
    Withdraw,
}

pub(crate) struct Acquiring {
    pub(crate) wait: Arc<Wait>,
    stage: Stage,
    lease: i64,
    serial: u64,
    pub(crate) key: String,
    /// The create revision of the key.
    revision: i64,
    pub(crate) party: Party,
    /// The key that is to go first, and the revision from which on its end is to be told.
    before: Option<(String, i64)>,
    /// Whether a request to enter may still be on its way, and make the key anew when it is gone.
    is_unsure: bool,
    next: u64,
    pub(crate) deadlock_look: Duration,
    pub(crate) look_for_deadlock_at: u64,
    /// When etcd answered last.
    heard_at: u64,
    /// Until the key is tried to be taken out of the queue again.
    pause: Duration,
}

/// The answer came too late to rely on it.
struct TooLate;

pub(crate) fn after(pause: Duration) -> u64 {
    sys::monotonic() + pause.as_nanos() as u64
}

impl Acquiring {
    pub(crate) fn new(wait: Arc<Wait>) -> Self {
        let stage = if wait.left.state == State::None { Stage::Enter } else { Stage::Clear };
        Self {
            wait,
            stage,
            lease: 0,
            serial: 0,
            key: String::new(),
            revision: 0,
            party: Party::default(),
            before: None,
            is_unsure: false,
            next: 0,
            deadlock_look: FIRST_DEADLOCK_LOOK,
            look_for_deadlock_at: u64::MAX,
            heard_at: sys::monotonic(),
            pause: PAUSE,
        }
    }

    /// When it is to be gone on with, whatever else happens.
    pub(crate) fn next(&self) -> u64 {
        match self.stage {
            Stage::Queued => self.next.min(self.look_for_deadlock_at),
            _ => self.next,
        }
    }

    pub(crate) fn look_soon(&mut self) {
        if matches!(self.stage, Stage::Queued) {
            self.next = 0;
        }
    }

    /// The keys whose end is waited for, each from a revision on.
    pub(crate) fn watched(&self) -> impl Iterator<Item = (String, i64)> {
        let before = self.before.clone().filter(|_| matches!(self.stage, Stage::Queued));
        let own = before.as_ref().map(|(_, from)| (self.key.clone(), *from));
        before.into_iter().chain(own)
    }

    /// A key was deleted.
    pub(crate) fn hear_of(&mut self, key: &str) {
        if self.key == key || self.before.as_ref().is_some_and(|(before, _)| before == key) {
            self.next = 0;
        }
    }

    /// Goes on, if it is time. Whether this was the end.
    pub(crate) fn advance(&mut self, keeper: &mut Keeper) -> bool {
        if self.wait.state().is_abandoned && !matches!(self.stage, Stage::Withdraw) {
            if self.key.is_empty() {
                return true;
            }
            self.stage = Stage::Withdraw;
            self.next = 0;
        }
        let now = sys::monotonic();
        if now < self.next() {
            return false;
        }
        let gone_on = match self.stage {
            Stage::Clear => self.clear(keeper),
            Stage::Enter => self.enter(keeper),
            Stage::Queued if now >= self.next => self.take(keeper),
            Stage::Queued => self.look_for_deadlock(keeper),
            Stage::Withdraw => self.withdraw(keeper),
        };
        match gone_on {
            Ok(is_over) => {
                self.heard_at = sys::monotonic();
                is_over
            }
            Err(NoAnswer::NoLease) => {
                // The key went with its lease.
                keeper.forget_lease(self.lease, Loss::KeyGone);
                self.enter_anew();
                matches!(self.stage, Stage::Withdraw)
            }
            Err(NoAnswer::Refused(failure)) => self.end_with(failure),
            Err(NoAnswer::Unreachable(failure, sent)) => {
                self.is_unsure |= sent == Sent::Maybe && matches!(self.stage, Stage::Enter);
                self.next = after(PAUSE);
                let patience = keeper.common.options.patience.as_nanos() as u64;
                sys::monotonic().saturating_sub(self.heard_at) > patience && self.end_with(failure)
            }
        }
    }

    fn enter_anew(&mut self) {
        if !matches!(self.stage, Stage::Withdraw) {
            self.stage = Stage::Enter;
        }
        (self.before, self.is_unsure, self.next) = (None, false, 0);
        self.key.clear();
    }

    /// Ends the wait without the lock. Whether the key needs no more care.
    fn end_with(&mut self, failure: Failure) -> bool {
        if matches!(self.stage, Stage::Withdraw) {
            // As long as its lease is renewed for others, the key would be waited for by whoever comes after.
            self.next = after(self.pause);
            self.pause = (2 * self.pause).min(LOOK);
            return false;
        }
        let wait = Arc::clone(&self.wait);
        let mut state = wait.state();
        wait.tell(&mut state, Err(failure));
        drop(state);
        if self.key.is_empty() {
            return true;
        }
        self.stage = Stage::Withdraw;
        self.next = 0;
        false
    }

    fn clear(&mut self, keeper: &mut Keeper) -> Result<bool, NoAnswer> {
        let left = self.wait.left;
        let is_death = left.state == State::Held;
        keeper.delete_key(&Deletion { id: self.wait.id, record: left, is_death })?;
        keeper.common.records.set_state(self.wait.id, State::None);
        self.stage = Stage::Enter;
        self.enter(keeper)
    }

    /// Names the key, unless a request with its name may be on its way.
    fn name_key(&mut self, common: &Common, lease: i64) {
        if self.key.is_empty() || self.lease != lease {
            (self.lease, self.serial) = (lease, common.next_serial());
            self.key = common.keys.queued(self.wait.id, &name_of(self.lease, self.serial));
            self.party = common.identity.party(self.wait.tid, self.wait.ownership);
        }
    }

    /// Takes a lock that nobody wants and nobody left, in the caller's own thread, if that is quick. Whether it did; if not,
    /// the keeper goes on. The smallest transaction that there is for it: nothing is looked at.
    pub(crate) fn at_once(&mut self, common: &Common) -> bool {
        let left = if self.wait.is_try { u64::MAX } else { self.wait.deadline_ns.saturating_sub(sys::monotonic()) };
        let lease = common.ready_lease().filter(|_| matches!(self.stage, Stage::Enter));
        let Some(lease) = lease else { return false };
        self.name_key(common, lease);
        let [is_there, not_void] = self.may_enter(common);
        let nobody = wire::if_none(&common.keys.queue(self.wait.id));
        let none_left = wire::if_created(&common.keys.held(self.wait.id), 0);
        let question = wire::txn(
            &[is_there, not_void, nobody, none_left],
            &[self.put_own(), self.put_held(common, Told::Clean)],
            &[],
        );
        match common.ask_at_once::<TxnResponse>(wire::TXN, &question, left) {
            Some(Ok(answer)) if answer.succeeded => {
                self.revision = answer.header.revision;
                // Too late: the key goes with its lease, and the keeper makes another.
                matches!(self.hold(common, Told::Clean), Ok(true))
            }
            Some(Err(no)) => {
                self.is_unsure = no.is_in_doubt();
                false
            }
            _ => false,
        }
    }

    fn enter(&mut self, keeper: &mut Keeper) -> Result<bool, NoAnswer> {
        let lease = keeper.lease()?;
        let common = Arc::clone(&keeper.common);
        self.name_key(&common, lease);
        let (put_own, nobody) = (self.put_own(), wire::if_none(&common.keys.queue(self.wait.id)));
        let [is_there, not_void] = self.may_enter(&common);
        let compare = [is_there.clone(), not_void.clone(), nobody];
        let mut otherwise = Vec::new();
        if !self.wait.is_try {
            let compare = [is_there, not_void, wire::if_created(&self.key, 0)];
            otherwise.push(wire::nested(wire::txn(&compare, std::slice::from_ref(&put_own), &[])));
        }
        otherwise.extend(self.look_ops(&common));
        let question = wire::txn(&compare, &[put_own, self.hold_ops(&common)], &otherwise);
        let answer = keeper.ask_txn(&question)?;
        if answer.succeeded {
            let told = told_by(&answer);
            self.revision = answer.header.revision;
            return Ok(self.acquired(keeper, told));
        }
        let seen = Seen::of(answer, &self.key, common.epoch);
        self.settle(keeper, seen)
    }

    /// Takes the lock, if no older key is left.
    fn take(&mut self, keeper: &mut Keeper) -> Result<bool, NoAnswer> {
        let common = Arc::clone(&keeper.common);
        let (keys, epoch) = (&common.keys, common.epoch);
        let queue = keys.queue(self.wait.id);
        let compare = [
            wire::if_created(&keys.config(), epoch),
            wire::if_created(&self.key, self.revision),
            // Not yet taken by a request whose answer was lost.
            wire::if_version(&self.key, 1),
            wire::if_none_before(&queue, self.revision),
        ];
        let success = [self.put_own(), self.hold_ops(&common)];
        let answer = keeper.ask_txn(&wire::txn(&compare, &success, &self.look_ops(&common)))?;
        if answer.succeeded {
            let told = told_by(&answer);
            return Ok(self.acquired(keeper, told));
        }
        let seen = Seen::of(answer, &self.key, epoch);
        self.settle(keeper, seen)
    }

    /// Goes by what was seen where the lock was not to be had. Whether this was the end.
    fn settle(&mut self, keeper: &mut Keeper, seen: Seen) -> Result<bool, NoAnswer> {
        let id = self.wait.id;
        if !seen.has_config {
            return Err(NoAnswer::Refused(Failure::removed()));
        }
        let holder = seen.holder().map(|party| party.to_string());
        let Some(own) = &seen.own else {
            if self.wait.is_try {
                let holder = holder.unwrap_or_else(|| "another host".to_owned());
                let text = format!("lock {id} is held by {holder}; wait for it with lock or timed_lock");
                if !self.is_unsure {
                    self.key.clear();
                }
                return Err(NoAnswer::Refused(Failure::new(libc::EBUSY, text)));
            }
            // Somebody deleted it, or revoked the lease: in again, at the end.
            self.enter_anew();
            return Ok(false);
        };
        self.revision = own.create_revision;
        if let Some(held) = seen.held.as_ref().filter(|held| held.key == self.key) {
            // By a request whose answer was lost.
            let told = held.told();
            return Ok(self.acquired(keeper, told));
        }
        self.wait.state().in_the_way = holder;
        let before = seen.queue.iter().rev().find(|other| other.create_revision < self.revision);
        self.before = before.map(|other| (other.key.clone(), seen.revision + 1));
        // None before it: taken at once.
        self.next = if self.before.is_some() { after(LOOK) } else { 0 };
        if !matches!(self.stage, Stage::Queued) {
            self.stage = Stage::Queued;
            self.look_for_deadlock_at = after(self.deadlock_look);
        }
        Ok(false)
    }

    fn record(&self, good_until: u64) -> Record {
        let (lease, serial, revision) = (self.lease, self.serial, self.revision);
        let is_doubtful = self.is_unsure;
        Record { state: State::Held, is_doubtful, lease, serial, revision, good_until, since: sys::boot_time() }
    }

    /// The key holds the lock now. Tells the waiter, if there still is one. Whether this was the end.
    fn acquired(&mut self, keeper: &mut Keeper, told: Told) -> bool {
        let common = Arc::clone(&keeper.common);
        match self.hold(&common, told) {
            Ok(true) => true,
            Ok(false) => {
                keeper.give_back(self.wait.id, self.as_hold(told));
                true
            }
            Err(TooLate) => {
                keeper.forget_lease(self.lease, Loss::LeaseOver);
                keeper.give_back(self.wait.id, self.as_hold(told));
                self.enter_anew();
                false
            }
        }
    }

    fn as_hold(&self, told: Told) -> Hold {
        Hold::of(self.record(0), told)
    }

    /// Tells the waiter that it holds the lock. Whether there still is one.
    fn hold(&self, common: &Common, told: Told) -> Result<bool, TooLate> {
        let mut state = self.wait.state();
        if state.is_abandoned {
            return Ok(false);
        }
        let mut shared = common.lock();
        let good_until = shared.good_until(self.lease);
        if sys::boot_time() >= good_until {
            return Err(TooLate);
        }
        let record = self.record(good_until);
        common.records.put(self.wait.id, &record);
        common.hold(&mut shared, self.wait.id, Hold::of(record, told));
        drop(shared);
        self.wait.tell(&mut state, Ok(told));
        Ok(true)
    }

    /// Deletes the key, and sees to it that no request on its way makes it anew. Whether that is done.
    fn withdraw(&mut self, keeper: &mut Keeper) -> Result<bool, NoAnswer> {
        let keys = keeper.common.keys.clone();
        let id = self.wait.id;
        let mut success = Vec::new();
        if self.is_unsure {
            success.push(wire::put(&keys.fence(&name_of(self.lease, self.serial)), "", self.lease));
        }
        success.extend(self.look_ops(&keeper.common));
        let answer = keeper.ask_txn(&wire::txn(&[], &success, &[]))?;
        let seen = Seen::of(answer, &self.key, keeper.common.epoch);
        let Some(own) = &seen.own else { return Ok(true) };
        let is_holder = seen.held.as_ref().is_some_and(|held| held.key == self.key);
        let died = !is_holder || seen.held.as_ref().is_some_and(|held| held.died);
        let record = Record { revision: own.create_revision, ..self.record(0) };
        keeper.delete_key(&Deletion { id, record, is_death: died })?;
        Ok(true)
    }
}
