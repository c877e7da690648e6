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
use crate::output::text::{count, duration};
use crate::proc::process;
use crate::storage::{Opened, Storage};
use crate::survey::waiting::Waiting;
use crate::survey::{Row, Survey, Which, deadlock};

/// Between two looks at waiters that nobody knows the beginning of.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// How many waits of a deadlock a sentence names; `lockctl graph` shows all.
const MOST_WAITS: usize = 8;

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
    for deadlock in &picture.deadlocks {
        let waits: Vec<String> = deadlock
            .iter()
            .take(MOST_WAITS)
            .map(|edge| format!("{} waits for lock {}", process::described(edge.waiter.pid), edge.lock))
            .collect();
        let more = match deadlock.len().saturating_sub(MOST_WAITS) {
            0 => String::new(),
            more => format!(" and {}", count(more, "more wait", "more waits")),
        };
        let end = if deadlock::is_one_circle(deadlock) { "end one of them" } else { "end one of them and look again" };
        wrong.push(format!("deadlock: {}{more}: {end}", waits.join(", ")));
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

/// A waiter of ours looks around between its sleeps and may be missed by a look then. One that is missed by so many in a
/// row waits no more.
const MISSED_LOOKS: usize = 3;

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
        if longest > 0 && longest >= nanoseconds(most) {
            wrong.push(sentence(row, row.waiting.first().map_or(0, |wait| wait.pid), longest));
        } else {
            unknown.extend(row.waiting.iter().filter(|wait| wait.waited_ns.is_none()).map(|wait| one(row, wait)));
        }
    }
    let mut unknown: Vec<(OneWait, usize)> = unknown.into_iter().map(|wait| (wait, 0)).collect();
    let mut last = None;
    while !unknown.is_empty() && start.elapsed() < most {
        thread::sleep(BETWEEN_LOOKS.min(most.saturating_sub(start.elapsed())));
        let again = Survey::take(storage, opened, Which::InUse)?;
        for (wait, missed) in &mut unknown {
            let row = again.rows.iter().find(|row| row.lock.id == wait.id);
            let is_there = row.is_some_and(|row| row.waiting.iter().any(|other| one(row, other) == *wait));
            *missed = if is_there { 0 } else { *missed + 1 };
        }
        unknown.retain(|(_, missed)| *missed < MISSED_LOOKS);
        last = Some(again);
    }
    let survey = last.as_ref().unwrap_or(survey);
    for row in &survey.rows {
        // One that the very last looks missed waits still if the same holder has the lock: it cannot have got it.
        let is_still = |wait: &OneWait| wait.id == row.lock.id && wait.holder == holder_of(row);
        let wait = unknown.iter().map(|(wait, _)| wait).find(|wait| is_still(wait));
        wrong.extend(wait.map(|wait| sentence(row, wait.waiter.0, nanoseconds(most))));
    }
    Ok(wrong)
}

fn one(row: &Row, wait: &Waiting) -> OneWait {
    OneWait { id: row.lock.id, waiter: (wait.pid, wait.tid), holder: holder_of(row) }
}

/// Zeros: nobody.
fn holder_of(row: &Row) -> (i32, i32) {
    if row.lock.held { (row.lock.pid, row.lock.tid) } else { (0, 0) }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn sentence(row: &Row, waiter: i32, waited_ns: u64) -> String {
    let waiter = if waiter == 0 { "a thread".to_owned() } else { process::described(waiter) };
    let (id, time) = (row.lock.id, duration(waited_ns));
    if !row.lock.held {
        return format!(
            "lock {id}: {waiter} has waited for {time} or longer though nobody holds it, so its wake-up was lost: end it \
             and start it again"
        );
    }
    let notes: Vec<String> = row.notes.iter().map(|note| format!(": {}", note.text())).collect();
    format!(
        "lock {id}: {waiter} has waited for {time} or longer; it is held by {}{}",
        table::holder(row),
        notes.concat()
    )
}
