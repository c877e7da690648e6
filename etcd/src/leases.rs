// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The keeper's leases: its own, and those of other processes of the host that a key depends on which was handed on.

use serde_json::json;

use crate::answers::NoAnswer;
use crate::keeper::{Keeper, nanoseconds};
use crate::shared::{Loss, PAUSE};
use crate::sys;
use crate::wire::{LeaseResponse, Streamed};

/// The part of a lease that is not relied on: for the time that an answer may take, and clocks that differ in pace.
const MARGIN_PART: u64 = 10;
const LEAST_MARGIN_NS: u64 = 200_000_000;
const NANOSECONDS: i64 = 1_000_000_000;

impl Keeper {
    /// The lease of new keys, granted if there is none.
    pub(crate) fn lease(&mut self) -> Result<i64, NoAnswer> {
        if let Some(lease) = self.common.ready_lease() {
            return Ok(lease);
        }
        let asked_at = sys::boot_time();
        let question = json!({"TTL": self.common.options.ttl.as_secs().to_string()});
        let granted: LeaseResponse = self.ask("/v3/lease/grant", &question)?;
        let mut shared = self.common.lock();
        shared.own_lease = Some(granted.id);
        shared.leases.insert(granted.id, good_until(asked_at, granted.ttl));
        drop(shared);
        self.renew_at = sys::monotonic() + nanoseconds(self.common.options.renewal());
        Ok(granted.id)
    }

    /// Lets go of a lease that is over, and of what was held by it.
    pub(crate) fn forget_lease(&mut self, lease: i64, loss: Loss) {
        let mut shared = self.common.lock();
        shared.lose(lease, loss);
        self.common.settle(&shared);
    }

    pub(crate) fn renew_if_due(&mut self) {
        let now = sys::monotonic();
        let (own, leases) = self.used_leases();
        // The lease of another process, which may have ended since, is renewed at once.
        let has_foreign = leases.iter().any(|lease| Some(*lease) != own);
        if now < self.renew_at && !(has_foreign && self.look_at <= now) {
            return;
        }
        let mut is_answered = true;
        for lease in leases {
            is_answered &= self.renew(lease);
        }
        let pause = if is_answered { self.common.options.renewal() } else { PAUSE };
        self.renew_at = sys::monotonic() + nanoseconds(pause);
        // Granted before it is needed: then an acquisition is one question.
        let _granted_when_needed = self.lease();
    }

    /// The own lease, and all leases that something depends on. What is over is marked as lost.
    fn used_leases(&self) -> (Option<i64>, Vec<i64>) {
        let now = sys::boot_time();
        let mut shared = self.common.lock();
        let over: Vec<i64> =
            shared.leases.iter().filter(|&(_, &until)| now >= until).map(|(&lease, _)| lease).collect();
        over.iter().for_each(|lease| shared.lose(*lease, Loss::LeaseOver));
        let own = shared.own_lease;
        let used: Vec<i64> = shared.holds.values().map(|hold| hold.record.lease).collect();
        shared.leases.retain(|lease, _| Some(*lease) == own || used.contains(lease));
        if !over.is_empty() {
            self.common.settle(&shared);
        }
        (own, shared.leases.keys().copied().collect())
    }

    /// Whether there was an answer.
    fn renew(&mut self, lease: i64) -> bool {
        let asked_at = sys::boot_time();
        let answer = self.ask::<Streamed<LeaseResponse>>("/v3/lease/keepalive", &json!({"ID": lease.to_string()}));
        let ttl = match answer {
            Ok(Streamed { result: Some(renewed) }) => renewed.ttl,
            Ok(Streamed { result: None }) | Err(NoAnswer::NoLease) => 0,
            Err(_) => return false,
        };
        let mut shared = self.common.lock();
        // What was over once is lost, though the lease goes on: its holder may have been told.
        if asked_at >= shared.good_until(lease) {
            shared.lose(lease, Loss::LeaseOver);
        } else if ttl <= 0 {
            shared.lose(lease, Loss::KeyGone);
        } else {
            shared.leases.insert(lease, good_until(asked_at, ttl));
        }
        self.common.settle(&shared);
        true
    }
}

/// Until when a lease is relied on that was asked for at that instant.
fn good_until(asked_at: u64, ttl: i64) -> u64 {
    let granted = ttl.saturating_mul(NANOSECONDS).max(0) as u64;
    let margin = (granted / MARGIN_PART).max(LEAST_MARGIN_NS);
    asked_at.saturating_add(granted.saturating_sub(margin))
}
