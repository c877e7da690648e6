// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! `lockctl check`, for monitoring: a line for each thing that is wrong.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use lock_manager::UNLIMITED;

use super::graph::Picture;
use crate::cli::Check;
use crate::exit::{self, Failure, Outcome};
use crate::output::table;
use crate::output::text::{count, duration};
use crate::storage::{Opened, Storage};
use crate::survey::abroad::Abroad;
use crate::survey::edges::{Edge, Thread};
use crate::survey::holding::Holding;
use crate::survey::waiting::Waiting;
use crate::survey::{Row, Survey, Which, deadlock};

/// Between two looks at waiters that nobody knows the beginning of.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// How many waits of a deadlock a sentence names; `lockctl graph` shows all.
const MOST_WAITS: usize = 8;

/// How many locks a sentence names.
const MOST_IDS: usize = 8;

pub fn check(arguments: &Check) -> Outcome {
    let storage = Storage::named(&arguments.storage.storage)?;
    let opened = storage.look()?;
    let picture = Picture::take(&storage, &opened)?;
    let survey = &picture.survey;
    let mut wrong = Vec::new();
    if survey.info.retired {
        wrong.push(
            "the storage was removed: end the processes that still have it open, they share no locks with those that open it now".to_owned(),
        );
    }
    wrong.extend(fullness(survey, arguments.warn));
    wrong.extend(survey.rows.iter().filter(|row| row.lock.owner_died).map(abandoned));
    wrong.extend(picture.deadlocks.iter().map(|waits| deadlocked(waits, &survey.abroad)));
    wrong.extend(long_waits(&storage, &opened, survey, arguments.max_wait)?);

    let mut out = io::stdout().lock();
    if wrong.is_empty() {
        writeln!(out, "fine: {}", table::summary(survey))?;
    }
    for sentence in &wrong {
        writeln!(out, "{sentence}")?;
    }
    if let Some(sentence) = stale(survey) {
        crate::say(&sentence);
    }
    super::list::tell_beside(survey);
    Ok(if wrong.is_empty() { 0 } else { exit::NO })
}

fn abandoned(row: &Row) -> String {
    let who = if row.readers() > 0 {
        "its last writer died holding it and no writer has taken it since, though readers hold it"
    } else {
        "its last holder died holding it and nobody has taken it since"
    };
    format!("lock {}: {who}: what it protects may be half written", row.lock.id)
}

fn deadlocked(deadlock: &[Edge], abroad: &Abroad) -> String {
    // Who waits for several readers of a lock waits once.
    let mut seen = BTreeSet::new();
    let waits: Vec<&Edge> = deadlock.iter().filter(|edge| seen.insert((edge.waiter, edge.lock))).collect();
    let wait = |edge: &&Edge| format!("{} waits for lock {}", abroad.described(edge.waiter), edge.lock);
    let named: Vec<String> = waits.iter().take(MOST_WAITS).map(wait).collect();
    let more = match waits.len().saturating_sub(MOST_WAITS) {
        0 => String::new(),
        more => format!(" and {}", count(more, "more wait", "more waits")),
    };
    let end = if deadlock::is_one_circle(deadlock) { "end one of them" } else { "end one of them and look again" };
    format!("deadlock: {}{more}: {end}", named.join(", "))
}

/// What dead readers, and writers that died before they held a lock, have left. It is told, but nothing is wrong.
fn stale(survey: &Survey) -> Option<String> {
    let ids: Vec<String> =
        survey.rows.iter().filter(|row| row.lock.stale > 0).map(|row| row.lock.id.to_string()).collect();
    let more = match ids.len().saturating_sub(MOST_IDS) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let locks = if ids.len() == 1 { "lock" } else { "locks" };
    let named = ids.iter().take(MOST_IDS).cloned().collect::<Vec<_>>().join(", ");
    (!ids.is_empty()).then(|| {
        format!(
            "{locks} {named}{more}: readers that died, or a writer that died before it had its turn, have left marks; they \
             changed nothing, and the next writer clears the marks; `lockctl repair` clears them now"
        )
    })
}

fn fullness(survey: &Survey, warn: u8) -> Option<String> {
    let most = survey.info.num_locks;
    if most == UNLIMITED || most == 0 {
        return None;
    }
    let percent = u64::from(survey.allocated) * 100 / u64::from(most);
    (percent >= warn.into()).then(|| {
        format!(
            "{} of {most} locks are allocated, which is {percent} %, and the limit is {warn} %: free some (`lockctl reconcile` \
             finds what was left behind), or make room for more",
            survey.allocated
        )
    })
}

/// A waiter of ours looks around between its sleeps and may be missed by a look then. One that is missed by so many in a
/// row waits no more.
const MISSED_LOOKS: usize = 3;

/// A waiter at a lock, and who held it: as long as one of those does, the wait is one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct OneWait {
    id: u32,
    waiter: Thread,
    holders: Vec<Thread>,
}

impl OneWait {
    fn of(row: &Row, wait: &Waiting) -> Self {
        Self { id: row.lock.id, waiter: wait.into(), holders: holders_of(row) }
    }

    /// Whether the lock was held by one of the same all the time, or by nobody. Of readers that come and go one may have
    /// let the waiter in between.
    fn is_behind_the_same(&self, row: &Row) -> bool {
        let now = holders_of(row);
        self.id == row.lock.id
            && if self.holders.is_empty() { now.is_empty() } else { self.holders.iter().any(|held| now.contains(held)) }
    }

    fn is_in(&self, row: &Row) -> bool {
        self.is_behind_the_same(row) && row.waiting.iter().any(|wait| Thread::from(wait) == self.waiter)
    }
}

/// Waits that have lasted longer than that. Where nobody knows since when, looks until they have, or are over.
fn long_waits(storage: &Storage, opened: &Opened, survey: &Survey, most: Duration) -> Result<Vec<String>, Failure> {
    let start = Instant::now();
    let mut wrong = Vec::new();
    let mut unknown = Vec::new();
    for row in &survey.rows {
        let longest = row.held_for_ns().unwrap_or(row.lock.waited_ns);
        if longest > 0 && longest >= nanoseconds(most) {
            wrong.push(sentence(row, row.waiting.first().map(Thread::from), longest, &survey.abroad));
        } else {
            let of_row = |wait| OneWait::of(row, wait);
            unknown.extend(row.waiting.iter().filter(|wait| wait.waited_ns.is_none()).map(of_row));
        }
    }
    let mut unknown: Vec<(OneWait, usize)> = unknown.into_iter().map(|wait| (wait, 0)).collect();
    let mut last = None;
    while !unknown.is_empty() && start.elapsed() < most {
        thread::sleep(BETWEEN_LOOKS.min(most.saturating_sub(start.elapsed())));
        let again = Survey::take(storage, opened, Which::InUse)?;
        for (wait, missed) in &mut unknown {
            let is_there = again.rows.iter().any(|row| wait.is_in(row));
            *missed = if is_there { 0 } else { *missed + 1 };
        }
        unknown.retain(|(_, missed)| *missed < MISSED_LOOKS);
        last = Some(again);
    }
    let survey = last.as_ref().unwrap_or(survey);
    for row in &survey.rows {
        // One that the very last looks missed waits still if the same holder has the lock: it cannot have got it.
        let wait = unknown.iter().map(|(wait, _)| wait).find(|wait| wait.is_behind_the_same(row));
        wrong.extend(wait.map(|wait| sentence(row, Some(wait.waiter), nanoseconds(most), &survey.abroad)));
    }
    Ok(wrong)
}

/// Empty: nobody.
fn holders_of(row: &Row) -> Vec<Thread> {
    row.holders.iter().map(|&Holding { host, pid, tid, .. }| Thread { host, pid, tid }).collect()
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn sentence(row: &Row, waiter: Option<Thread>, waited_ns: u64, abroad: &Abroad) -> String {
    let waiter = waiter.filter(|waiter| waiter.pid != 0);
    let waiter = waiter.map_or_else(|| "a thread".to_owned(), |waiter| abroad.described(waiter));
    let (id, time) = (row.lock.id, duration(waited_ns));
    if row.holders.is_empty() && row.lock.draining {
        return format!(
            "lock {id}: {waiter} has waited for {time} or longer; its readers have left, but the writer that is next does not \
             take it: it may be stopped, and `kill -CONT` resumes it"
        );
    }
    if row.holders.is_empty() {
        return format!(
            "lock {id}: {waiter} has waited for {time} or longer though nobody holds it, so its wake-up was lost: end it \
             and start it again"
        );
    }
    format!("lock {id}: {waiter} has waited for {time} or longer; it is {}", table::held_by(row))
}
