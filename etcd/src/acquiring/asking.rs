// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The parts that the transactions of an acquisition are made of.

use serde_json::Value;

use super::Acquiring;
use crate::host::name_of;
use crate::keys::{Held, json_of};
use crate::shared::{Common, Told};
use crate::wire;

impl Acquiring {
    /// Notes this key as the lock's holder.
    pub(super) fn put_held(&self, common: &Common, told: Told) -> Value {
        let died = told == Told::OwnerDied;
        wire::put(&common.keys.held(self.wait.id), &json_of(&Held { key: self.key.clone(), died }), 0)
    }

    /// The operations that note this key as the lock's holder, and whether a holder died before it.
    pub(super) fn hold_ops(&self, common: &Common) -> Value {
        let none_left = wire::if_created(&common.keys.held(self.wait.id), 0);
        wire::nested(wire::txn(
            &[none_left],
            &[self.put_held(common, Told::Clean)],
            &[self.put_held(common, Told::OwnerDied)],
        ))
    }

    /// The operations that look at the lock's keys.
    pub(super) fn look_ops(&self, common: &Common) -> Vec<Value> {
        let (keys, id) = (&common.keys, self.wait.id);
        vec![wire::get(&self.key), wire::get_all(&keys.queue(id)), wire::get(&keys.held(id)), wire::get(&keys.config())]
    }

    pub(super) fn put_own(&self) -> Value {
        wire::put(&self.key, &json_of(&self.party), self.lease)
    }

    /// That the storage is the one that was opened, and no request by the key's name is void.
    pub(super) fn may_enter(&self, common: &Common) -> [Value; 2] {
        let fence = common.keys.fence(&name_of(self.lease, self.serial));
        [wire::if_created(&common.keys.config(), common.epoch), wire::if_created(&fence, 0)]
    }
}
