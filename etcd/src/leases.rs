// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The keeper's leases: its own, and those of other processes of the host that a key depends on which was handed on.

use serde_json::json;

use crate::http::NoAnswer;
use crate::keeper::{Keeper, nanoseconds};
use crate::shared::PAUSE;
use crate::sys;
use crate::wire::{LeaseResponse, Streamed};

/// The part of a lease that is not relied on: for the time that an answer may take, and clocks that differ in pace.
const MARGIN_PART: u64 = 10;
const LEAST_MARGIN_NS: u64 = 200_000_000;
const NANOSECONDS: i64 = 1_000_000_000;

impl Keeper {
    /// The lease of new keys, granted if there is none.
    pub(crate) fn lease(&mut self) -> Result<i64, NoAnswer> {
        if let Some(lease) = self.own_lease {
            let good_until = self.common.lock().leases.get(&lease).copied().unwrap_or(0);
            if sys::boot_time() < good_until {
                return Ok(lease);
            }
        }
        let asked_at = sys::boot_time();
        let question = json!({"TTL": self.common.options.ttl.as_secs().to_string()});
        let granted: LeaseResponse = self.ask("/v3/lease/grant", &question)?;
        self.own_lease = Some(granted.id);
        let mut shared = self.common.lock();
        shared.leases.insert(granted.id, good_until(asked_at, granted.ttl));
        drop(shared);
        self.renew_at = sys::monotonic() + nanoseconds(self.common.options.renewal());
        Ok(granted.id)
    }

    /// Lets go of a lease that is over, and of what was held by it.
    pub(crate) fn forget_lease(&mut self, lease: i64) {
        let mut shared = self.common.lock();
        for hold in shared.holds.values_mut().filter(|hold| hold.record.lease == lease) {
            hold.is_lost = true;
        }
        shared.leases.remove(&lease);
        self.common.set_alarm(&shared);
        drop(shared);
        self.own_lease = self.own_lease.filter(|own| *own != lease);
    }

    pub(crate) fn renew_if_due(&mut self) {
        let now = sys::monotonic();
        self.note_what_is_over();
        let own = self.own_lease;
        let is_new = |lease: &i64| Some(*lease) != own;
        let leases: Vec<i64> = {
            let mut shared = self.common.lock();
            let used: Vec<i64> = shared.holds.values().map(|hold| hold.record.lease).collect();
            shared.leases.retain(|lease, _| Some(*lease) == own || used.contains(lease));
            shared.leases.keys().copied().collect()
        };
        // The lease of another process, which may have ended since, is renewed at once.
        let has_foreign = leases.iter().any(is_new);
        if now < self.renew_at && !(has_foreign && self.look_at <= now) {
            return;
        }
        let mut is_answered = true;
        for lease in leases {
            is_answered &= self.renew(lease);
        }
        let pause = if is_answered { self.common.options.renewal() } else { PAUSE };
        self.renew_at = sys::monotonic() + nanoseconds(pause);
        if self.own_lease.is_none() {
            // Granted before it is needed: then an acquisition is one question.
            let _granted_when_needed = self.lease();
        }
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
        let before = shared.leases.get(&lease).copied().unwrap_or(0);
        // What was over once is lost, though the lease goes on: its holder may have been told.
        let is_over = ttl <= 0 || asked_at >= before;
        if is_over {
            for hold in shared.holds.values_mut().filter(|hold| hold.record.lease == lease) {
                hold.is_lost = true;
            }
            shared.leases.remove(&lease);
        } else {
            shared.leases.insert(lease, good_until(asked_at, ttl));
        }
        self.common.set_alarm(&shared);
        drop(shared);
        if is_over && self.own_lease == Some(lease) {
            self.own_lease = None;
        }
        true
    }

    /// Marks what was lost, and lets go of the lease that it was lost with.
    fn note_what_is_over(&mut self) {
        let now = sys::boot_time();
        let mut shared = self.common.lock();
        let over: Vec<i64> =
            shared.leases.iter().filter(|&(_, &until)| now >= until).map(|(&lease, _)| lease).collect();
        for hold in shared.holds.values_mut().filter(|hold| over.contains(&hold.record.lease)) {
            hold.is_lost = true;
        }
        shared.leases.retain(|lease, _| !over.contains(lease));
        drop(shared);
        self.own_lease = self.own_lease.filter(|lease| !over.contains(lease));
    }
}

/// Until when a lease is relied on that was asked for at that instant.
fn good_until(asked_at: u64, ttl: i64) -> u64 {
    let granted = ttl.saturating_mul(NANOSECONDS).max(0) as u64;
    let margin = (granted / MARGIN_PART).max(LEAST_MARGIN_NS);
    asked_at.saturating_add(granted.saturating_sub(margin))
}
