// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Looking at locks, and allocating them: questions that concern no acquisition.

use std::collections::BTreeMap;

use crate::answers::NoAnswer;
use crate::engine::Engine;
use crate::failure::{Failure, Outcome};
use crate::keeper::Keeper;
use crate::keys::{Held, Keys, Party};
use crate::shared::key_of;
use crate::sys;
use crate::wire::{self, KeyValue, RangeResponse, TxnResponse};

/// What etcd knows of a lock.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Whether it is allocated.
    pub allocated: bool,
    /// Who holds it, with its fencing token.
    pub holder: Option<(Party, u64)>,
    /// Whether its last holder died, and nobody has taken it since.
    pub owner_died: bool,
    /// Who waits, in the order in which they get it.
    pub waiters: Vec<Party>,
}

fn removed() -> NoAnswer {
    NoAnswer::Refused(Failure::removed())
}

/// A transaction that needs the storage to be there, and what it then answers.
fn in_storage(
    keeper: &mut Keeper,
    compare: &[serde_json::Value],
    success: &[serde_json::Value],
    failure: &[serde_json::Value],
) -> Result<TxnResponse, NoAnswer> {
    let config = keeper.common.keys.config();
    let epoch = keeper.common.epoch;
    let mut compare = compare.to_vec();
    compare.push(wire::if_created(&config, epoch));
    let mut failure = failure.to_vec();
    failure.push(wire::get(&config));
    let answer = keeper.ask_txn(&wire::txn(&compare, success, &failure))?;
    if !answer.succeeded {
        let there = answer.responses.last().and_then(|response| response.response_range.as_ref());
        let revision = there.and_then(|range| range.kvs.first()).map(|kv| kv.create_revision);
        if revision != Some(epoch) {
            return Err(removed());
        }
    }
    Ok(answer)
}

fn ids(range: &RangeResponse, before: &str) -> Vec<u32> {
    let mut ids: Vec<u32> = range.kvs.iter().filter_map(|kv| Keys::id_in(&kv.key, before)).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Whether an allocation that wrote that mark made the key.
fn is_marked(there: Option<RangeResponse>, mark: &str) -> bool {
    there.is_some_and(|range| range.kvs.first().is_some_and(|kv| kv.value == mark))
}

fn parsed<T: serde::de::DeserializeOwned>(kv: &KeyValue) -> Option<T> {
    serde_json::from_str(&kv.value).ok()
}

/// What three ranges say of locks: which are allocated, who is in the queues, and which keys hold locks.
fn known(keys: &Keys, answer: TxnResponse) -> BTreeMap<u32, Known> {
    let mut ranges = answer.into_ranges();
    let mut next = || ranges.next().map(|range| range.kvs).unwrap_or_default();
    let (allocated, mut queues, held) = (next(), next(), next());
    let mut locks: BTreeMap<u32, Known> = BTreeMap::new();
    for id in allocated.iter().filter_map(|kv| Keys::id_in(&kv.key, &keys.allocated_all())) {
        locks.entry(id).or_default().allocated = true;
    }
    let holding: BTreeMap<u32, Held> =
        held.iter().filter_map(|kv| Some((Keys::id_in(&kv.key, &keys.held_all())?, parsed(kv)?))).collect();
    queues.sort_by_key(|kv| kv.create_revision);
    for kv in &queues {
        let (Some(id), Some(party)) = (Keys::id_in(&kv.key, &keys.queues()), parsed::<Party>(kv)) else { continue };
        let lock = locks.entry(id).or_default();
        if holding.get(&id).is_some_and(|held| held.key == kv.key) {
            lock.holder = Some((party, kv.create_revision as u64));
        } else {
            lock.waiters.push(party);
        }
    }
    for id in holding.into_keys() {
        let lock = locks.entry(id).or_default();
        lock.owner_died = lock.holder.is_none();
    }
    locks
}

impl Engine {
    /// Allocates the lowest id that is free. One transaction, if the guess is right that the last one knew.
    pub(crate) fn allocate(&self) -> Outcome<u32> {
        let (mut guess, mark) = (0, self.mark()?);
        self.ask(move |keeper| {
            let (keys, num_locks) = (keeper.common.keys.clone(), keeper.common.num_locks);
            loop {
                let key = keys.allocated(guess);
                let look = [wire::get(&key), wire::list(&keys.allocated_all())];
                let answer = in_storage(keeper, &[wire::if_created(&key, 0)], &[wire::put(&key, &mark, 0)], &look)?;
                if answer.succeeded {
                    return Ok(guess);
                }
                let mut ranges = answer.into_ranges();
                if is_marked(ranges.next(), &mark) {
                    return Ok(guess);
                }
                let taken = ranges.next().map(|range| ids(&range, &keys.allocated_all())).unwrap_or_default();
                let free = (0..num_locks).zip(taken.iter().map(Some).chain(std::iter::repeat(None)));
                match free.into_iter().find(|(id, taken)| *taken != Some(id)) {
                    Some((id, _)) => guess = id,
                    None => {
                        let text = format!(
                            "all {num_locks} locks are allocated; free some, or make others with another prefix"
                        );
                        return Err(NoAnswer::Refused(Failure::new(libc::ENOLCK, text)));
                    }
                }
            }
        })
    }

    pub(crate) fn allocate_given(&self, id: u32) -> Outcome<()> {
        let mark = self.mark()?;
        self.ask(move |keeper| {
            let key = keeper.common.keys.allocated(id);
            let put = wire::put(&key, &mark, 0);
            let answer = in_storage(keeper, &[wire::if_created(&key, 0)], &[put], &[wire::get(&key)])?;
            if answer.succeeded || is_marked(answer.into_ranges().next(), &mark) {
                return Ok(());
            }
            let text = format!("lock {id} is already allocated; retrieve it, or allocate another one");
            Err(NoAnswer::Refused(Failure::new(libc::EEXIST, text)))
        })
    }

    /// What an allocation writes, so that it is known again if its answer was lost. Nobody else ever writes the same.
    fn mark(&self) -> Outcome<String> {
        let common = self.here()?;
        let (host, serial) = (common.identity.host_id(), common.next_serial());
        Ok(format!("{host} {} {} {serial}", std::process::id(), sys::boot_time()))
    }

    pub(crate) fn free(&self, id: u32) -> Outcome<()> {
        let mut is_in_doubt = false;
        self.ask(move |keeper| {
            let key = keeper.common.keys.allocated(id);
            // Of a key that is not there, no comparison is true but that of 0.
            let answer = in_storage(keeper, &[wire::if_created(&key, 0)], &[], &[wire::delete(&key)]);
            let answer = answer.inspect_err(|no| is_in_doubt |= no.is_in_doubt())?;
            // It may have been freed by a question whose answer was lost.
            if answer.succeeded && !is_in_doubt {
                let text =
                    format!("lock {id} is not allocated, so it cannot be freed; lock_info tells which locks are");
                return Err(NoAnswer::Refused(Failure::new(libc::ENOENT, text)));
            }
            Ok(())
        })
    }

    pub(crate) fn free_all(&self) -> Outcome<()> {
        self.ask(|keeper| {
            let all = keeper.common.keys.allocated_all();
            in_storage(keeper, &[], &[wire::delete_all(&all)], &[]).map(|_| ())
        })
    }

    pub(crate) fn available(&self) -> Outcome<u32> {
        self.ask(|keeper| {
            let all = keeper.common.keys.allocated_all();
            let counted = keeper.ask_txn(&wire::txn(&[], &[wire::count(&all)], &[]))?.into_ranges().next();
            let allocated = counted.map_or(0, |range| range.count);
            Ok(keeper.common.num_locks.saturating_sub(u32::try_from(allocated).unwrap_or(u32::MAX)))
        })
    }

    /// The locks that somebody holds, ascending.
    pub(crate) fn locks_held(&self) -> Outcome<Vec<u32>> {
        self.ask(|keeper| {
            let keys = keeper.common.keys.clone();
            let question = wire::txn(&[], &[wire::list(&keys.queues()), wire::get_all(&keys.held_all())], &[]);
            let mut ranges = keeper.ask_txn(&question)?.into_ranges();
            let (queues, held) = (ranges.next().unwrap_or_default(), ranges.next().unwrap_or_default());
            let is_there = |key: &str| queues.kvs.iter().any(|kv| kv.key == key);
            let is_held = |kv: &&KeyValue| parsed::<Held>(kv).is_some_and(|held| is_there(&held.key));
            let kvs = held.kvs.iter().filter(is_held).cloned().collect();
            Ok(ids(&RangeResponse { kvs, ..RangeResponse::default() }, &keys.held_all()))
        })
    }

    /// What is known of one lock.
    pub(crate) fn look(&self, id: u32) -> Outcome<Known> {
        self.ask(move |keeper| {
            let keys = keeper.common.keys.clone();
            let questions = [wire::get(&keys.allocated(id)), wire::get_all(&keys.queue(id)), wire::get(&keys.held(id))];
            let ranges = keeper.ask_txn(&wire::txn(&[], &questions, &[]))?;
            Ok(known(&keys, ranges).remove(&id).unwrap_or_default())
        })
    }

    /// What is known of all locks that are allocated, held, left by the dead, or waited for, at one revision.
    #[cfg(feature = "rust")]
    pub(crate) fn look_at_all(&self) -> Outcome<BTreeMap<u32, Known>> {
        self.ask(|keeper| {
            let keys = keeper.common.keys.clone();
            let questions =
                [wire::list(&keys.allocated_all()), wire::get_all(&keys.queues()), wire::get_all(&keys.held_all())];
            let ranges = keeper.ask_txn(&wire::txn(&[], &questions, &[]))?;
            Ok(known(&keys, ranges))
        })
    }

    /// The comparison for a transaction of etcd's that is true only while the lock is held by its present holder, as JSON.
    pub(crate) fn guard(&self, id: u32) -> Outcome<String> {
        let record = self.held(id)?;
        Ok(wire::if_created(&key_of(&self.here()?.keys, id, &record), record.revision).to_string())
    }

    /// Whether a party is of this host.
    pub(crate) fn is_here(&self, party: &Party) -> bool {
        self.here().is_ok_and(|common| party.host_id == common.identity.host_id())
    }
}
