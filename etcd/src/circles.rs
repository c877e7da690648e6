// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Looking whether a wait is part of a circle of hosts, and ending it if it is the victim.

use std::sync::Arc;
use std::time::Duration;

use crate::acquiring::{Acquiring, after};
use crate::answers::NoAnswer;
use crate::deadlock;
use crate::failure::Failure;
use crate::handing::rewriting;
use crate::keeper::Keeper;
use crate::owner::Ownership;
use crate::wire;

/// How long a wait lasts before it is looked at for a deadlock, and then again after twice the time, to a limit.
pub(crate) const FIRST_DEADLOCK_LOOK: Duration = Duration::from_millis(200);
const LONGEST_DEADLOCK_LOOK: Duration = Duration::from_secs(5);

impl Acquiring {
    /// Tells etcd which keys the waiting thread has, of those that went from hand to hand. It gives none of them on while it
    /// waits, and none to this host afterwards.
    fn pin(&mut self, keeper: &mut Keeper) -> Result<(), NoAnswer> {
        let common = Arc::clone(&keeper.common);
        let mut pinned = Vec::new();
        {
            // While this is locked, the thread does not leave its wait, so it gives nothing on.
            let state = self.wait.state();
            if state.outcome.is_some() || state.is_abandoned {
                return Ok(());
            }
            let mut shared = common.lock();
            for (&id, hold) in shared.holds.iter_mut().filter(|(_, hold)| hold.is_shared) {
                if common.slots.is_held(id) && common.host_locks.holder(id) == Some(self.wait.tid) {
                    hold.is_pinned = true;
                    pinned.push((id, hold.record));
                }
            }
            common.settle(&shared);
        }
        for (id, record) in pinned {
            keeper.ask_txn(&rewriting(&common, id, &record, &self.party))?;
        }
        Ok(())
    }

    pub(crate) fn look_for_deadlock(&mut self, keeper: &mut Keeper) -> Result<bool, NoAnswer> {
        self.deadlock_look = (2 * self.deadlock_look).min(LONGEST_DEADLOCK_LOOK);
        self.look_for_deadlock_at = after(self.deadlock_look);
        if self.wait.ownership == Ownership::ByProcess {
            return Ok(false);
        }
        self.pin(keeper)?;
        let keys = keeper.common.keys.clone();
        let question = wire::txn(&[], &[wire::get_all(&keys.queues()), wire::get_all(&keys.held_all())], &[]);
        let mut ranges = keeper.ask_txn(&question)?.into_ranges();
        let (queues, held) = (ranges.next().unwrap_or_default(), ranges.next().unwrap_or_default());
        let Some(cycle) = deadlock::cycle_from(&keys, &self.key, &queues.kvs, &held.kvs) else { return Ok(false) };
        if cycle.victim != self.key {
            return Ok(false);
        }
        // A cycle in one revision was one; it still is, if none of its keys has changed.
        let compare: Vec<_> = cycle.keys.iter().map(|(key, revision)| wire::if_created(key, *revision)).collect();
        if !keeper.ask_txn(&wire::txn(&compare, &[wire::delete(&self.key)], &[]))?.succeeded {
            return Ok(false);
        }
        let wait = Arc::clone(&self.wait);
        let text = format!("waiting for lock {} would never end: {}", self.wait.id, cycle.text);
        wait.tell(&mut wait.state(), Err(Failure::new(libc::EDEADLK, text)));
        Ok(true)
    }
}
