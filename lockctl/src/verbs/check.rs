// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! `lockctl check`, for monitoring: a line for each thing that is wrong.

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use lock_manager::UNLIMITED;

use super::graph::Picture;
use crate::cli::Check;
use crate::exit::{self, Failure, Outcome};
use crate::output::table;
use crate::output::text::duration;
use crate::proc::process;
use crate::storage::{Opened, Storage};
use crate::survey::waiting::Waiting;
use crate::survey::{Row, Survey, Which};

/// Between two looks at waiters that nobody knows the beginning of.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

pub fn check(arguments: &Check) -> Outcome {
    let storage = Storage::named(&arguments.storage.storage)?;
    let opened = storage.look()?;
    let picture = Picture::take(&storage, &opened)?;
    let survey = &picture.survey;
    let mut wrong = Vec::new();
    if survey.info.retired {
        wrong.push(
            "the storage was removed: end those that still have it open, they are apart from newcomers".to_owned(),
        );
    }
    wrong.extend(fullness(survey, arguments.warn));
    for row in survey.rows.iter().filter(|row| row.lock.owner_died) {
        wrong.push(format!(
            "lock {}: its last holder died holding it and nobody has taken it since: what it protects may be half written",
            row.lock.id
        ));
    }
    for cycle in &picture.cycles {
        let waits: Vec<String> = cycle
            .iter()
            .map(|edge| format!("{} waits for lock {}", process::described(edge.waiter.pid), edge.lock))
            .collect();
        wrong.push(format!("deadlock: {}: end one of them", waits.join(", ")));
    }
    wrong.extend(long_waits(&storage, &opened, survey, arguments.max_wait)?);

    let mut out = io::stdout().lock();
    if wrong.is_empty() {
        writeln!(out, "fine: {}", table::summary(survey))?;
    }
    for sentence in &wrong {
        writeln!(out, "{sentence}")?;
    }
    super::list::tell_beside(survey);
    Ok(if wrong.is_empty() { 0 } else { exit::NO })
}

fn fullness(survey: &Survey, warn: u8) -> Option<String> {
    let most = survey.info.num_locks;
    if most == UNLIMITED || most == 0 {
        return None;
    }
    let percent = u64::from(survey.allocated) * 100 / u64::from(most);
    (percent >= warn.into()).then(|| {
        format!(
            "{} of {most} locks are allocated, {percent} % where {warn} % is the limit: free some (`lockctl reconcile` \
             finds what was left behind), or make room for more",
            survey.allocated
        )
    })
}

/// A waiter at a lock, and who held it: as long as all of that stays, the wait is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OneWait {
    id: u32,
    waiter: (i32, i32),
    holder: (i32, i32),
}

/// Waits that have lasted longer than that. Where nobody knows since when, looks until they have, or are over.
fn long_waits(storage: &Storage, opened: &Opened, survey: &Survey, most: Duration) -> Result<Vec<String>, Failure> {
    let start = Instant::now();
    let mut wrong = Vec::new();
    let mut unknown = Vec::new();
    for row in &survey.rows {
        let longest = row.held_for_ns().unwrap_or(row.lock.waited_ns);
        if u128::from(longest) >= most.as_nanos() && longest > 0 {
            wrong.push(sentence(row, row.waiting.first(), longest));
        } else {
            unknown.extend(row.waiting.iter().filter(|wait| wait.waited_ns.is_none()).map(|wait| one(row, wait)));
        }
    }
    // A millisecond of this on a busy machine would be no wait at all, so the pauses are real ones.
    let mut last = None;
    while !unknown.is_empty() && start.elapsed() < most {
        thread::sleep(BETWEEN_LOOKS.min(most.saturating_sub(start.elapsed())));
        let again = Survey::take(storage, opened, Which::InUse)?;
        let now: Vec<OneWait> =
            again.rows.iter().flat_map(|row| row.waiting.iter().map(move |wait| one(row, wait))).collect();
        unknown.retain(|wait| now.contains(wait));
        last = Some(again);
    }
    let survey = last.as_ref().unwrap_or(survey);
    for row in &survey.rows {
        let wait = row.waiting.iter().find(|wait| unknown.contains(&one(row, wait)));
        wrong.extend(wait.map(|wait| sentence(row, Some(wait), most.as_nanos() as u64)));
    }
    Ok(wrong)
}

fn one(row: &Row, wait: &Waiting) -> OneWait {
    OneWait { id: row.lock.id, waiter: (wait.pid, wait.tid), holder: (row.lock.pid, row.lock.tid) }
}

fn sentence(row: &Row, wait: Option<&Waiting>, waited_ns: u64) -> String {
    let waiter = wait.filter(|wait| wait.pid != 0);
    let waiter = waiter.map_or_else(|| "a thread".to_owned(), |wait| process::described(wait.pid));
    let notes: Vec<String> = row.notes.iter().map(|note| format!(": {}", note.text())).collect();
    let (id, holder, time) = (row.lock.id, table::holder(row), duration(waited_ns));
    format!("lock {id}: {waiter} has waited for {time} or longer; it is held by {holder}{}", notes.concat())
}
