// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The keeper's watch: of the keys that its waits wait for, and of those that hold locks here.
//!
//! The server may end a lease early. Then the watch tells the holder, at about the time at which the next host is told, and
//! not only the next renewal.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde_json::json;

use crate::acquiring::Acquiring;
use crate::handing::LONGEST_KEPT_NS;
use crate::http::Stream;
use crate::keeper::{Keeper, nanoseconds};
use crate::keys::Keys;
use crate::shared::{Hold, Looks, Loss, PAUSE, key_of};
use crate::sys;
use crate::wire::{self, WatchResponse};

/// For how long a lock is held before its key is watched. A shorter hold is not worth a request.
pub(crate) const WATCHED_AFTER: Duration = Duration::from_millis(50);

/// A key, and the revision from which on its end is to be told.
type Since = (String, i64);

#[derive(Default)]
pub(crate) struct Watch {
    pub(crate) stream: Option<Stream>,
    /// What the stream watches.
    watched: Vec<Since>,
    /// Keys that hold locks here.
    held: Vec<Since>,
    /// Whether something is to be watched that is not.
    is_behind: bool,
    rewatch_at: u64,
}

impl Watch {
    /// When it is to be gone on with, whatever else happens.
    pub(crate) fn next(&self) -> u64 {
        if self.is_behind { self.rewatch_at } else { u64::MAX }
    }

    fn has(&self, key: &str) -> bool {
        self.stream.is_some() && self.watched.iter().any(|(watched, _)| watched == key)
    }
}

impl Keeper {
    /// Has the keys of holds watched that have lasted for a while. When to look again.
    pub(crate) fn looks_at(&mut self, held: &[(u32, Hold)]) -> Looks {
        let now = sys::boot_time();
        let known = std::mem::take(&mut self.watch.held);
        let mut looks = Looks::Slowly;
        for (id, hold) in held {
            let record = &hold.record;
            let key = key_of(&self.common.keys, *id, record);
            if !self.watch.has(&key) {
                looks = Looks::Soon;
            }
            // A key that goes from hand to hand is soon given back, unless somebody holds it for longer than that.
            let kept = if hold.is_shared { LONGEST_KEPT_NS } else { 0 };
            if now.saturating_sub(record.since) >= kept + nanoseconds(WATCHED_AFTER) {
                let from = known.iter().find(|(known, _)| *known == key).map_or(record.revision + 1, |(_, from)| *from);
                self.watch.held.push((key, from));
            }
        }
        looks
    }

    /// Watches the keys that are to be watched, from the revisions on in which they were seen.
    pub(crate) fn watch_keys(&mut self) {
        let held = self.watch.held.iter().cloned();
        let wanted: Vec<Since> = self.waits.iter().flat_map(Acquiring::watched).chain(held).collect();
        if wanted.is_empty() {
            self.watch.stream = None;
            self.watch.watched.clear();
            self.watch.is_behind = false;
            return;
        }
        let is_covered = wanted.iter().all(|(key, _)| self.watch.has(key));
        self.watch.is_behind = !is_covered;
        if is_covered || sys::monotonic() < self.watch.rewatch_at {
            return;
        }
        let mut body = String::new();
        for (index, (key, revision)) in wanted.iter().enumerate() {
            let create = json!({"create_request": {"key": wire::base64_of(key), "filters": ["NOPUT"],
                "start_revision": revision.to_string(), "watch_id": (index + 1).to_string()}});
            body.push_str(&create.to_string());
            body.push('\n');
        }
        self.watch.stream = None;
        let timeout = self.common.options.request_timeout();
        let opened = self.common.cluster.lock().unwrap_or_else(PoisonError::into_inner).watch(&body, timeout);
        match opened {
            Ok(stream) => {
                self.watch.stream = Some(stream);
                self.watch.watched = wanted;
                self.watch.is_behind = false;
            }
            Err(_) => {
                self.watch.watched.clear();
                self.watch_later();
            }
        }
    }

    fn watch_later(&mut self) {
        self.watch.rewatch_at = sys::monotonic() + nanoseconds(PAUSE);
    }

    pub(crate) fn read_stream(&mut self) {
        let Some(stream) = &mut self.watch.stream else { return };
        let Some(messages) = stream.messages::<WatchResponse>() else {
            // The server has ended it, or refused it, perhaps because the login is over.
            self.common.cluster.lock().unwrap_or_else(PoisonError::into_inner).forget_token();
            self.end_stream();
            self.watch_later();
            return;
        };
        for message in messages {
            if message.canceled {
                self.waits.iter_mut().for_each(Acquiring::look_soon);
                self.look_at_held_keys();
            }
            for event in message.events {
                self.waits.iter_mut().for_each(|wait| wait.hear_of(&event.kv.key));
                self.lose_key(&event.kv.key);
            }
        }
    }

    /// Whatever was watched may have changed unseen.
    pub(crate) fn end_stream(&mut self) {
        self.watch.stream = None;
        self.watch.watched.clear();
        self.waits.iter_mut().for_each(Acquiring::look_soon);
    }

    /// The server has forgotten what was in the revision from which on a key was to be watched: looks whether the keys are
    /// there, and watches them from now on.
    fn look_at_held_keys(&mut self) {
        for (key, from) in std::mem::take(&mut self.watch.held) {
            let answer = self.ask_txn(&wire::txn(&[], &[wire::get(&key)], &[]));
            let Ok(answer) = answer else {
                self.watch.held.push((key, from));
                continue;
            };
            let revision = answer.header.revision;
            // A key is never made anew by its name, except by a request that is void by then.
            if answer.into_ranges().any(|range| !range.kvs.is_empty()) {
                self.watch.held.push((key, revision + 1));
            } else {
                self.lose_key(&key);
            }
        }
        self.end_stream();
        self.watch_later();
    }

    /// A key is gone. If it holds a lock here, that is lost, and the lease may be over.
    fn lose_key(&mut self, key: &str) {
        let common = Arc::clone(&self.common);
        let Some(id) = Keys::id_in(key, &common.keys.queues()) else { return };
        let mut shared = common.lock();
        let Some(hold) = shared.holds.get_mut(&id).filter(|hold| key_of(&common.keys, id, &hold.record) == key) else {
            return;
        };
        hold.loss = Some(Loss::KeyGone);
        common.settle(&shared);
        self.renew_at = 0;
    }
}
