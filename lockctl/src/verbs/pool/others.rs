// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Whom a change would hit: those who hold or wait for a lock, and those who have the storage open.

use std::collections::BTreeSet;

use crate::exit::Failure;
use crate::proc::process;
use crate::proc::users::Users;
use crate::storage::{Opened, Storage};
use crate::survey::{Survey, Which, holding};

/// How many of them a sentence names.
const MOST_NAMED: usize = 8;

/// Fails where somebody holds or waits for one of these locks.
pub fn none_at(storage: &Storage, opened: &Opened, ids: &[u32]) -> Result<(), Failure> {
    let survey = Survey::take(storage, opened, Which::InUse)?;
    let mut hit = Vec::new();
    let ids: BTreeSet<u32> = ids.iter().copied().collect();
    for row in survey.rows.iter().filter(|row| ids.contains(&row.lock.id)) {
        if !row.holders.is_empty() {
            hit.push(format!("lock {} is {}", row.lock.id, holding::sentence(&row.holders)));
        }
        for wait in &row.waiting {
            hit.push(format!("lock {} is waited for by {}", row.lock.id, described(wait.pid)));
        }
        let unnamed = row.waiters() - row.waiting.len();
        if unnamed > 0 {
            let threads = crate::output::text::count(unnamed, "thread", "threads");
            hit.push(format!("lock {} is waited for by {threads} not seen from here", row.lock.id));
        }
    }
    super::super::list::tell_beside(&survey);
    refuse(storage, "once these are freed, others may be given them while they are in use", hit)
}

/// Fails where anybody holds a lock or has the storage open.
pub fn none_in(storage: &Storage, opened: &Opened, effect: &str) -> Result<(), Failure> {
    let survey = Survey::take(storage, opened, Which::InUse)?;
    let mut pids = survey.users.clone();
    let waiting = survey.rows.iter().flat_map(|row| row.waiting.iter().map(|wait| wait.pid));
    let holders = || survey.rows.iter().flat_map(|row| &row.holders);
    pids.extend(waiting.chain(holders().map(|holder| holder.pid)).filter(|&pid| pid != 0));
    pids.sort_unstable();
    pids.dedup();
    let mut hit: Vec<String> = pids.into_iter().map(process::described).collect();
    let unseen = holders().filter(|holder| holder.pid == 0).count();
    if unseen > 0 {
        hit.push(crate::output::text::count(unseen, "holder not seen from here", "holders not seen from here"));
    }
    super::super::list::tell_beside(&survey);
    refuse(storage, effect, hit)
}

/// Fails where anybody has it open, whatever it is.
pub fn none_have_open(storage: &Storage) -> Result<(), Failure> {
    let hit = Users::of(storage).pids.into_iter().map(process::described).collect();
    refuse(storage, "once it is removed, these share no locks with processes that come later", hit)
}

fn refuse(storage: &Storage, effect: &str, hit: Vec<String>) -> Result<(), Failure> {
    if hit.is_empty() {
        return Ok(());
    }
    let more = hit.len().saturating_sub(MOST_NAMED);
    let mut named = hit.into_iter().take(MOST_NAMED).collect::<Vec<_>>().join(", ");
    if more > 0 {
        named.push_str(&format!(" and {more} more"));
    }
    Err(Failure::needs_force(format!(
        "{}: {effect}: {named}; nothing was changed. End them first, or give --force",
        storage.shown()
    )))
}

fn described(pid: i32) -> String {
    if pid == 0 { "a thread not seen from here".to_owned() } else { process::described(pid) }
}
