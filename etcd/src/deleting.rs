// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Deleting a key that holds a lock: only that key, and never another holder's.

use serde_json::Value;

use crate::host::Record;
use crate::shared::{Common, key_of};
use crate::wire::{self, TxnResponse};

/// A key that is to be deleted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deletion {
    pub(crate) id: u32,
    pub(crate) record: Record,
    /// Whether the next holder is told of a death.
    pub(crate) is_death: bool,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deleted {
    Now,
    /// It was gone.
    Before,
    /// The whole storage was removed.
    WithAll,
}

impl Deletion {
    pub(crate) fn question(&self, common: &Common) -> Value {
        let Self { id, record, is_death } = self;
        let key = key_of(&common.keys, *id, record);
        let mut operations = vec![wire::delete(&key)];
        if !is_death {
            operations.push(wire::delete(&common.keys.held(*id)));
        }
        if record.is_doubtful {
            operations.push(wire::put(&common.keys.fence(&record.name()), "", record.lease));
        }
        let config = wire::get(&common.keys.config());
        wire::txn(&[wire::if_created(&key, record.revision)], &operations, &[config])
    }

    pub(crate) fn understood(&self, common: &Common, answer: TxnResponse) -> Deleted {
        if answer.succeeded {
            return Deleted::Now;
        }
        let config = answer.into_ranges().next().and_then(|range| range.kvs.into_iter().next());
        let is_there = config.is_some_and(|config| config.create_revision == common.epoch);
        if is_there { Deleted::Before } else { Deleted::WithAll }
    }
}
