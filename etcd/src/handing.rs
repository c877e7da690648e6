// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Turns of one host: a key that is unlocked stays for whoever comes next there, for a while.
//!
//! The first time, other hosts are told, and the keeper begins to look after the key. From then on a turn changes one word.

use serde_json::Value;

use crate::engine::Engine;
use crate::host::{Record, State};
use crate::keeper::Keeper;
use crate::keys::{NO_THREAD, Party, json_of};
use crate::owner::Ownership;
use crate::shared::{Common, Hold, Shared, Task, Told, Wait, key_of};
use crate::slots::Held;
use crate::sys;
use crate::wire::{self, TXN, TxnResponse};

/// For how long a host may keep a key that others on it wait for, so that other hosts get their turn.
pub(crate) const LONGEST_KEPT_NS: u64 = 100_000_000;

impl Engine {
    /// Takes a lock whose key is kept for whoever comes next on the host. The caller has the native lock, and nothing here
    /// fails, waits or allocates: a process that has taken the key before asks nobody. A forked child that has asked for
    /// nothing yet finds its parent's, in which all slots are empty by then.
    #[inline]
    pub(crate) fn take_kept(&self, id: u32) -> bool {
        let common = self.here_or_of_parent();
        let Some(slot) = common.slots.of(id) else { return false };
        if State::of(common.records.state_word(id)) != State::Kept {
            return false;
        }
        let Some(good_until) = slot.good_until_if_shared(common.records.revision(id)) else { return false };
        if sys::boot_time().saturating_add(common.needed_to_take) > good_until {
            return false;
        }
        slot.set_held(Held::Yes);
        common.records.set_state(id, State::Held);
        true
    }

    /// Keeps a key for whoever comes next on the host. As [`take_kept`](Self::take_kept).
    #[inline]
    pub(crate) fn keep(&self, id: u32) -> bool {
        let common = self.here_or_of_parent();
        let Some(slot) = common.slots.of(id) else { return false };
        if State::of(common.records.state_word(id)) != State::Held || !slot.is_held() {
            return false;
        }
        let Some(good_until) = slot.good_until_if_shared(common.records.revision(id)) else { return false };
        if !common.may_keep(common.records.since(id), good_until) {
            return false;
        }
        common.records.set_good_until(id, good_until);
        slot.set_held(Held::No);
        common.records.set_state(id, State::Kept);
        true
    }

    /// Keeps a key for whoever comes next on the host, for the first time. Whether it is kept. Other hosts are told first:
    /// who looks for a circle must not take the thread in the key for the holder from here on.
    pub(crate) fn hand_on(&self, id: u32, hold: &Hold) -> bool {
        let Ok(common) = self.here() else { return false };
        let party = Party { handed_on: true, ..common.identity.party(NO_THREAD, Ownership::ByThread) };
        if !hold.is_shared && !self.rewrite(id, hold.record, &party) {
            return false;
        }
        let mut shared = common.lock();
        let good_until = shared.good_until_of(hold);
        if shared.is_closing || !common.may_keep(hold.record.since, good_until) {
            return false;
        }
        keep_first(common, &mut shared, id, good_until);
        drop(shared);
        common.leave_task(Task::Watch(id));
        true
    }

    /// Writes who holds the lock of a key. Whether that is known to be done.
    fn rewrite(&self, id: u32, record: Record, party: &Party) -> bool {
        let Ok(common) = self.here() else { return false };
        let question = rewriting(common, id, &record, party);
        let understood = |answer: TxnResponse| answer.succeeded;
        match common.ask_at_once(TXN, &question, u64::MAX) {
            Some(answer) => answer.is_ok_and(understood),
            None => {
                let ask = move |keeper: &mut Keeper| keeper.ask_txn(&question).map(understood);
                self.ask_for(common.options.request_timeout(), ask).unwrap_or(false)
            }
        }
    }
}

/// Takes a key that the host has kept, if its lease is good for long enough.
pub(crate) fn take_over(common: &Common, wait: &Wait) -> bool {
    let (id, left) = (wait.id, wait.left);
    let mut shared = common.lock();
    if left.state == State::None && !shared.holds.contains_key(&id) {
        return false;
    }
    let known = shared.holds.get(&id).filter(|hold| hold.record.revision == left.revision);
    let good_until = match known {
        Some(hold) => shared.good_until_of(hold),
        None => left.good_until.max(shared.good_until(left.lease)),
    };
    if left.state != State::Kept || sys::boot_time().saturating_add(common.needed_to_take) > good_until {
        // A key that is not taken over is not this process's.
        common.forget(&mut shared, id);
        return false;
    }
    shared.leases.entry(left.lease).or_insert(good_until);
    let record = Record { state: State::Held, ..left };
    common.records.set_state(id, State::Held);
    common.hold(&mut shared, id, Hold { is_shared: true, ..Hold::of(record, Told::Clean) });
    drop(shared);
    common.leave_task(Task::Watch(id));
    true
}

/// The transaction that writes who holds the lock of a key, if it is still that key.
pub(crate) fn rewriting(common: &Common, id: u32, record: &Record, party: &Party) -> Value {
    let key = key_of(&common.keys, id, record);
    wire::txn(&[wire::if_created(&key, record.revision)], &[wire::put(&key, &json_of(party), record.lease)], &[])
}

/// Keeps a key for the first time.
fn keep_first(common: &Common, shared: &mut Shared, id: u32, good_until: u64) {
    if let Some(hold) = shared.holds.get_mut(&id) {
        hold.is_shared = true;
    }
    shared.has_handed_on = true;
    common.slots.set_held(id, Held::No);
    common.settle(shared);
    common.records.set_good_until(id, good_until);
    common.records.set_state(id, State::Kept);
}

impl Common {
    /// Whether a key that the host has had since then may stay, so that other hosts get their turns.
    #[inline]
    pub(crate) fn may_keep(&self, since: u64, good_until: u64) -> bool {
        let now = sys::boot_time();
        now.saturating_sub(since) < LONGEST_KEPT_NS && now.saturating_add(self.needed_to_keep) < good_until
    }
}
