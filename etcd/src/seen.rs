// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! What an acquisition sees of its lock's keys.

use crate::keys::{Held, Party};
use crate::shared::Told;
use crate::wire::{KeyValue, RangeResponse, TxnResponse};

/// What a lock's keys are.
pub(crate) struct Seen {
    pub(crate) own: Option<KeyValue>,
    /// In the order of their create revisions.
    pub(crate) queue: Vec<KeyValue>,
    pub(crate) held: Option<Held>,
    pub(crate) has_config: bool,
    pub(crate) revision: i64,
}

/// What to tell the new holder: whether the transaction within found that one had left its mark.
pub(crate) fn told_by(answer: &TxnResponse) -> Told {
    let mut nested = answer.responses.iter().filter_map(|response| response.response_txn.as_ref());
    if nested.any(|nested| !nested.succeeded) { Told::OwnerDied } else { Told::Clean }
}

impl Seen {
    /// What the look operations found.
    pub(crate) fn of(answer: TxnResponse, own: &str, epoch: i64) -> Self {
        let revision = answer.header.revision;
        let mut ranges = answer.into_ranges();
        let mut next = || ranges.next().map(|RangeResponse { kvs, .. }| kvs).unwrap_or_default();
        let (first, mut queue, held, config) = (next(), next(), next(), next());
        queue.sort_by_key(|kv| kv.create_revision);
        Self {
            own: first.into_iter().find(|kv| kv.key == own),
            queue,
            held: held.first().and_then(|kv| serde_json::from_str(&kv.value).ok()),
            has_config: config.first().is_some_and(|kv| kv.create_revision == epoch),
            revision,
        }
    }

    /// Who holds the lock.
    pub(crate) fn holder(&self) -> Option<Party> {
        let held = self.held.as_ref()?;
        let holder = self.queue.iter().find(|kv| kv.key == held.key)?;
        serde_json::from_str(&holder.value).ok()
    }
}
