// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The one thread of a manager: it talks to etcd, keeps leases alive, and goes on with the acquisitions.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::acquiring::Acquiring;
use crate::core::Tried;
use crate::host::{Record, State};
use crate::http::{Cluster, NoAnswer, Stream};
use crate::shared::{Common, Hold, Job, PAUSE, Task, key_of};
use crate::sys;
use crate::wire::{self, TxnResponse, WatchResponse};

/// How soon a kept key is looked after that nobody came for.
const KEPT_LOOK_NS: u64 = 5_000_000;
/// How often the locks that are held are looked after for threads that ended with them, in a renewal's time.
const LOOKS: u32 = 4;

pub(crate) struct Keeper {
    pub(crate) common: Arc<Common>,
    cluster: Cluster,
    /// The lease of new keys.
    pub(crate) own_lease: Option<i64>,
    next_serial: u64,
    pub(crate) renew_at: u64,
    pub(crate) look_at: u64,
    jobs: Vec<Job>,
    kept: Vec<(u32, Record, u64)>,
    waits: Vec<Acquiring>,
    stream: Option<Stream>,
    /// What the stream watches.
    watched: Vec<(String, i64)>,
    rewatch_at: u64,
}

/// What came of deleting a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deleted {
    Now,
    /// It was gone.
    Before,
    /// The whole storage was removed.
    WithAll,
}

pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

impl Keeper {
    pub(crate) fn new(common: Arc<Common>, cluster: Cluster) -> Self {
        Self {
            common,
            cluster,
            own_lease: None,
            next_serial: 1,
            renew_at: 0,
            look_at: 0,
            jobs: Vec::new(),
            kept: Vec::new(),
            waits: Vec::new(),
            stream: None,
            watched: Vec::new(),
            rewatch_at: 0,
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
            self.look_after_kept();
            self.look_after_held();
            self.ask_jobs();
            self.advance_waits();
            self.watch_what_is_waited_for();
            self.sleep();
            self.read_stream();
        }
    }

    fn take(&mut self, task: Task) {
        match task {
            Task::Acquire(wait) => self.waits.push(Acquiring::new(wait)),
            Task::GiveBack(id, hold) => self.give_back(id, hold),
            Task::Kept(id, record) => self.kept.push((id, record, sys::monotonic() + KEPT_LOOK_NS)),
            Task::Ask(job) => self.jobs.push(job),
        }
    }

    /// Deletes a key until that is done, or its lease is over.
    pub(crate) fn give_back(&mut self, id: u32, hold: Hold) {
        let Hold { record, died, .. } = hold;
        let attempt = move |keeper: &mut Self| keeper.delete_key(id, &record, died).map(|_| ());
        let until = sys::monotonic() + nanoseconds(self.common.options.ttl);
        let job = Job { attempt: Box::new(attempt), give_up: Box::new(|_| {}), until, not_before: 0 };
        self.jobs.push(job);
    }

    /// Asks one endpoint.
    pub(crate) fn ask_txn(&mut self, question: &Value) -> Result<TxnResponse, NoAnswer> {
        self.ask("/v3/kv/txn", question)
    }

    pub(crate) fn ask<T: serde::de::DeserializeOwned>(&mut self, path: &str, question: &Value) -> Result<T, NoAnswer> {
        let answer = self.cluster.ask(path, question, self.common.options.request_timeout());
        match &answer {
            Err(NoAnswer::Unreachable(failure)) => {
                self.common.lock().trouble = Some(failure.clone());
                // A stream from there may be as silent.
                self.end_stream();
            }
            _ => self.common.lock().trouble = None,
        }
        answer
    }

    /// Deletes a key that holds a lock. With `is_death` the next holder is told of one.
    pub(crate) fn delete_key(&mut self, id: u32, record: &Record, is_death: bool) -> Result<Deleted, NoAnswer> {
        let key = key_of(&self.common.keys, id, record);
        let held = self.common.keys.held(id);
        let mut operations = vec![wire::delete(&key)];
        if !is_death {
            operations.push(wire::delete(&held));
        }
        if record.is_doubtful {
            operations.push(wire::put(&self.common.keys.fence(&record.name()), "", record.lease));
        }
        let config = wire::get(&self.common.keys.config());
        let question = wire::txn(&[wire::if_created(&key, record.revision)], &operations, &[config]);
        let answer = self.ask_txn(&question)?;
        if answer.succeeded {
            return Ok(Deleted::Now);
        }
        let config = answer.into_ranges().next().and_then(|range| range.kvs.into_iter().next());
        let is_there = config.is_some_and(|config| config.create_revision == self.common.epoch);
        Ok(if is_there { Deleted::Before } else { Deleted::WithAll })
    }

    fn ask_jobs(&mut self) {
        for mut job in std::mem::take(&mut self.jobs) {
            let now = sys::monotonic();
            if now < job.not_before {
                self.jobs.push(job);
                continue;
            }
            match (job.attempt)(self) {
                Err(NoAnswer::Unreachable(failure)) if sys::monotonic() >= job.until => (job.give_up)(failure),
                Err(NoAnswer::Unreachable(_)) => {
                    job.not_before = sys::monotonic() + nanoseconds(PAUSE);
                    self.jobs.push(job);
                }
                _ => {}
            }
        }
    }

    pub(crate) fn next_serial(&mut self) -> u64 {
        self.next_serial += 1;
        self.next_serial
    }

    /// Gives back kept keys that nobody came for.
    fn look_after_kept(&mut self) {
        let now = sys::monotonic();
        let kept = std::mem::take(&mut self.kept);
        for (id, record, due) in kept {
            if now < due {
                self.kept.push((id, record, due));
            } else if self.common.records.read(id) == record && !self.take_up(id) {
                self.kept.push((id, record, sys::monotonic() + KEPT_LOOK_NS));
            }
        }
    }

    /// Gives back keys whose holder died or ended without unlocking, so that other hosts hear of it. A native lock that is
    /// free says so.
    fn look_after_held(&mut self) {
        let now = sys::monotonic();
        if now < self.look_at {
            return;
        }
        self.look_at = now + nanoseconds(self.common.options.renewal() / LOOKS);
        let held: Vec<u32> = self.common.lock().holds.keys().copied().collect();
        for id in held {
            self.take_up(id);
        }
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
            self.common.records.write(id, &Record { state: State::Leaving, ..record });
        }
        let mut shared = self.common.lock();
        shared.holds.remove(&id);
        self.common.set_alarm(&shared);
        drop(shared);
        self.common.host_locks.unlock(id);
        if matches!(record.state, State::Held | State::Kept) {
            self.give_back(id, Hold::of(record, record.state == State::Held));
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

    /// Watches the keys that the waits wait for, from the revisions on in which they were seen.
    fn watch_what_is_waited_for(&mut self) {
        let wanted: Vec<(String, i64)> = self.waits.iter().flat_map(Acquiring::watched).collect();
        let is_covered = wanted.iter().all(|(key, _)| self.watched.iter().any(|(watched, _)| watched == key));
        if wanted.is_empty() {
            self.stream = None;
            self.watched.clear();
            return;
        }
        if (is_covered && self.stream.is_some()) || sys::monotonic() < self.rewatch_at {
            return;
        }
        let mut body = String::new();
        for (index, (key, revision)) in wanted.iter().enumerate() {
            let create = json!({"create_request": {"key": wire::base64_of(key), "filters": ["NOPUT"],
                "start_revision": revision.to_string(), "watch_id": (index + 1).to_string()}});
            body.push_str(&create.to_string());
            body.push('\n');
        }
        self.stream = None;
        match self.cluster.watch(&body, self.common.options.request_timeout()) {
            Ok(stream) => {
                self.stream = Some(stream);
                self.watched = wanted;
            }
            Err(_) => {
                self.watched.clear();
                self.rewatch_at = sys::monotonic() + nanoseconds(PAUSE);
            }
        }
    }

    fn read_stream(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        let Some(messages) = stream.messages::<WatchResponse>() else {
            self.end_stream();
            return;
        };
        for message in messages {
            if message.canceled {
                self.waits.iter_mut().for_each(Acquiring::look_soon);
            }
            for event in message.events {
                self.waits.iter_mut().for_each(|wait| wait.hear_of(&event.kv.key));
            }
        }
    }

    /// Whatever was watched may have changed unseen.
    fn end_stream(&mut self) {
        self.stream = None;
        self.watched.clear();
        self.waits.iter_mut().for_each(Acquiring::look_soon);
    }

    fn sleep(&self) {
        let now = sys::monotonic();
        let kept = self.kept.iter().map(|(_, _, due)| *due);
        let jobs = self.jobs.iter().map(|job| job.not_before);
        let waits = self.waits.iter().map(Acquiring::next);
        let look = if self.common.lock().holds.is_empty() { u64::MAX } else { self.look_at };
        let due = kept.chain(jobs).chain(waits).chain([self.renew_at, look]).min().unwrap_or(0);
        let mut descriptors = vec![std::os::fd::AsRawFd::as_raw_fd(&self.common.bell)];
        descriptors.extend(self.stream.as_ref().map(Stream::descriptor));
        if due > now {
            sys::wait_readable(&descriptors, Duration::from_nanos(due - now));
        }
        self.common.bell.silence();
    }

    /// Gives back what is kept, and the lease unless another process of the host relies on it.
    fn close(&mut self) {
        for (id, record, _) in std::mem::take(&mut self.kept) {
            if self.common.records.read(id) == record {
                self.take_up(id);
            }
        }
        for mut job in std::mem::take(&mut self.jobs) {
            if let Err(NoAnswer::Unreachable(failure)) = (job.attempt)(self) {
                (job.give_up)(failure);
            }
        }
        let has_handed_on = self.common.lock().has_handed_on;
        if let (Some(lease), false) = (self.own_lease, has_handed_on) {
            let _ends_by_itself = self.ask::<Value>("/v3/lease/revoke", &json!({"ID": lease.to_string()}));
        }
    }
}
