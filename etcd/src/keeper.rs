// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The one thread of a manager: it talks to etcd, keeps leases alive, and goes on with the acquisitions.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::acquiring::Acquiring;
use crate::answers::{NoAnswer, Sent};
use crate::core::Tried;
use crate::deleting::{Deleted, Deletion};
use crate::host::State;
use crate::http::Stream;
use crate::shared::{Common, Hold, Job, Looks, PAUSE, Task, Told};
use crate::sys;
use crate::watching::{WATCHED_AFTER, Watch};
use crate::wire::{self, TxnResponse};

/// How soon a kept key is looked after that nobody came for.
const KEPT_LOOK_NS: u64 = 5_000_000;

/// A key that goes from hand to hand, as it was seen last, and when to look again.
#[derive(Debug, Clone, Copy)]
struct Watched {
    id: u32,
    state: u64,
    due: u64,
    pause: u64,
}

/// How often the locks that are held are looked after for threads that ended with them, in a renewal's time.
const LOOKS: u32 = 4;

pub(crate) struct Keeper {
    pub(crate) common: Arc<Common>,
    pub(crate) renew_at: u64,
    pub(crate) look_at: u64,
    jobs: Vec<Job>,
    shared_keys: Vec<Watched>,
    pub(crate) waits: Vec<Acquiring>,
    pub(crate) watch: Watch,
}

pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

impl Keeper {
    pub(crate) fn new(common: Arc<Common>) -> Self {
        Self {
            common,
            renew_at: 0,
            look_at: 0,
            jobs: Vec::new(),
            shared_keys: Vec::new(),
            waits: Vec::new(),
            watch: Watch::default(),
        }
    }

    pub(crate) fn run(mut self) {
        loop {
            let (tasks, is_closing) = {
                let mut shared = self.common.lock();
                (std::mem::take(&mut shared.inbox), shared.is_closing)
            };
            for task in tasks {
                self.take(task);
            }
            if is_closing {
                return self.close();
            }
            self.renew_if_due();
            self.look_after_shared_keys();
            self.look_after_held();
            self.ask_jobs();
            self.advance_waits();
            self.watch_keys();
            self.sleep();
            self.read_stream();
        }
    }

    fn take(&mut self, task: Task) {
        match task {
            Task::Acquire(acquiring) => self.waits.push(*acquiring),
            Task::GiveBack(id, hold) => self.give_back(id, hold),
            Task::Watch(id) => self.watch_key(id),
            Task::Ask(job) => self.jobs.push(job),
        }
    }

    /// Deletes a key. Asks until there is an answer: one of a lease that is over is gone, too.
    pub(crate) fn give_back(&mut self, id: u32, hold: Hold) {
        let deletion = Deletion { id, record: hold.record, is_death: hold.told == Told::OwnerDied };
        let attempt = move |keeper: &mut Self| match keeper.delete_key(&deletion) {
            // Whatever it was refused for: a key whose lease somebody renews would lock the lock for ever.
            Err(NoAnswer::Unreachable(failure, _) | NoAnswer::Refused(failure)) => {
                Err(NoAnswer::Unreachable(failure, Sent::Maybe))
            }
            _ => Ok(()),
        };
        self.jobs.push(Job {
            attempt: Box::new(attempt),
            give_up: Box::new(|_| {}),
            until: u64::MAX,
            not_before: 0,
            pause: nanoseconds(PAUSE),
            longest_pause: nanoseconds(self.common.options.renewal() / LOOKS),
        });
    }

    /// Asks one endpoint.
    pub(crate) fn ask_txn(&mut self, question: &Value) -> Result<TxnResponse, NoAnswer> {
        self.ask(wire::TXN, question)
    }

    pub(crate) fn ask<T: serde::de::DeserializeOwned>(&mut self, path: &str, question: &Value) -> Result<T, NoAnswer> {
        let answer = self.common.ask(path, question);
        match &answer {
            Err(NoAnswer::Unreachable(failure, _)) => {
                self.common.lock().trouble = Some(failure.clone());
                // A stream from there may be as silent.
                self.end_stream();
            }
            Err(NoAnswer::Refused(failure)) => self.common.lock().trouble = Some(failure.clone()),
            _ => self.common.lock().trouble = None,
        }
        answer
    }

    pub(crate) fn delete_key(&mut self, deletion: &Deletion) -> Result<Deleted, NoAnswer> {
        let answer = self.ask_txn(&deletion.question(&self.common))?;
        Ok(deletion.understood(&self.common, answer))
    }

    fn ask_jobs(&mut self) {
        for mut job in std::mem::take(&mut self.jobs) {
            let now = sys::monotonic();
            if now < job.not_before {
                self.jobs.push(job);
                continue;
            }
            match (job.attempt)(self) {
                Err(NoAnswer::Unreachable(failure, _)) if sys::monotonic() >= job.until => (job.give_up)(failure),
                Err(NoAnswer::Unreachable(..)) => {
                    job.not_before = sys::monotonic() + job.pause;
                    job.pause = (2 * job.pause).min(job.longest_pause);
                    self.jobs.push(job);
                }
                _ => {}
            }
            // Many jobs are long together. One without an answer is long by itself, and so would this be.
            if !self.common.was_silence() {
                self.renew_if_due();
            }
        }
    }

    fn watch_key(&mut self, id: u32) {
        if !self.shared_keys.iter().any(|watched| watched.id == id) {
            let (state, due) = (self.common.records.state_word(id), sys::monotonic() + KEPT_LOOK_NS);
            self.shared_keys.push(Watched { id, state, due, pause: KEPT_LOOK_NS });
        }
    }

    /// Looks after the keys that go from hand to hand. One that nobody has come for is given back. One that the host does not
    /// have any more is forgotten.
    fn look_after_shared_keys(&mut self) {
        let now = sys::monotonic();
        for watched in std::mem::take(&mut self.shared_keys) {
            if now < watched.due {
                self.shared_keys.push(watched);
            } else if let Some(again) = self.look_after_shared_key(watched) {
                self.shared_keys.push(again);
            }
        }
    }

    fn look_after_shared_key(&mut self, watched: Watched) -> Option<Watched> {
        let common = Arc::clone(&self.common);
        let (id, record, state) = (watched.id, common.records.read(watched.id), common.records.state_word(watched.id));
        let mut shared = common.lock();
        let hold = shared.holds.get(&id)?;
        let is_its = record.revision == hold.record.revision && matches!(record.state, State::Held | State::Kept);
        if !is_its && !common.slots.is_held(id) {
            common.forget(&mut shared, id);
            return None;
        }
        // Who has it by now may have it for long.
        common.settle(&shared);
        drop(shared);
        let is_unchanged = state == watched.state;
        // Kept and nobody came, or held by a process that has died.
        if is_unchanged && !common.slots.is_held(id) && self.take_up(id) {
            return None;
        }
        let longest = nanoseconds(common.options.renewal() / LOOKS);
        let pause = if is_unchanged { (2 * watched.pause).min(longest) } else { KEPT_LOOK_NS };
        Some(Watched { id, state, due: sys::monotonic() + pause, pause })
    }

    /// Gives back keys whose holder died or ended without unlocking, so that other hosts hear of it. A native lock that is
    /// free says so.
    fn look_after_held(&mut self) {
        let now = sys::monotonic();
        let common = Arc::clone(&self.common);
        if common.lock().looks == Looks::Soon {
            self.look_at = self.look_at.min(now + nanoseconds(WATCHED_AFTER));
        }
        if now < self.look_at {
            return;
        }
        let held: Vec<(u32, Hold)> = {
            let shared = common.lock();
            let is_held = |(id, _): &(&u32, &Hold)| common.slots.is_held(**id);
            shared.holds.iter().filter(is_held).map(|(&id, hold)| (id, hold.clone())).collect()
        };
        let held: Vec<_> = held.into_iter().filter(|(id, _)| !self.take_up(*id)).collect();
        let looks = self.looks_at(&held);
        let mut shared = common.lock();
        shared.looks = if shared.holds.is_empty() { Looks::Never } else { looks };
        let pause = if looks == Looks::Soon { WATCHED_AFTER } else { common.options.renewal() / LOOKS };
        self.look_at = now + nanoseconds(pause);
    }

    /// Deletes a key that nobody on the host holds, as the native lock says, which is taken for a moment only. Whether that is
    /// under way.
    fn take_up(&mut self, id: u32) -> bool {
        if self.common.host_locks.try_lock(id) == Tried::Busy {
            return false;
        }
        let record = self.common.records.read(id);
        // A record that says "held" stays: whoever comes next on this host deletes the key, too, before anything else.
        if record.state == State::Kept {
            self.common.records.set_state(id, State::Leaving);
        }
        self.common.forget(&mut self.common.lock(), id);
        self.common.host_locks.unlock(id);
        if matches!(record.state, State::Held | State::Kept) {
            let told = if record.state == State::Held { Told::OwnerDied } else { Told::Clean };
            self.give_back(id, Hold::of(record, told));
        }
        true
    }

    fn advance_waits(&mut self) {
        for mut wait in std::mem::take(&mut self.waits) {
            if !wait.advance(self) {
                self.waits.push(wait);
            }
        }
    }

    fn sleep(&self) {
        let now = sys::monotonic();
        let kept = self.shared_keys.iter().map(|watched| watched.due);
        let jobs = self.jobs.iter().map(|job| job.not_before);
        let waits = self.waits.iter().map(Acquiring::next);
        let look = if self.common.lock().looks == Looks::Never { u64::MAX } else { self.look_at };
        let due = kept.chain(jobs).chain(waits).chain([self.renew_at, look, self.watch.next()]).min().unwrap_or(0);
        let mut descriptors = vec![std::os::fd::AsRawFd::as_raw_fd(&self.common.bell)];
        descriptors.extend(self.watch.stream.as_ref().map(Stream::descriptor));
        if due > now {
            sys::wait_readable(&descriptors, Duration::from_nanos(due - now));
        }
        self.common.bell.silence();
    }

    /// Gives back what is kept, and the lease unless another process of the host relies on it.
    fn close(&mut self) {
        for watched in std::mem::take(&mut self.shared_keys) {
            let hold = self.common.lock().holds.get(&watched.id).cloned();
            let record = self.common.records.read(watched.id);
            if record.state == State::Kept && hold.is_some_and(|hold| hold.record.revision == record.revision) {
                self.take_up(watched.id);
            }
        }
        for mut job in std::mem::take(&mut self.jobs) {
            if let Err(NoAnswer::Unreachable(failure, _)) = (job.attempt)(self) {
                (job.give_up)(failure);
            }
        }
        let (lease, has_handed_on) = {
            let shared = self.common.lock();
            (shared.own_lease, shared.has_handed_on)
        };
        if let (Some(lease), false) = (lease, has_handed_on) {
            let _ends_by_itself = self.ask::<Value>("/v3/lease/revoke", &json!({"ID": lease.to_string()}));
        }
    }
}
