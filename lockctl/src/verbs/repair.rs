// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! `lockctl repair`: marks locks whose holder is provably dead, and says of which it could not be said.

use std::io::{self, Write};

use lock_manager::{Manager, Reason};

use crate::cli::Repair;
use crate::exit::{self, Failure, Outcome};
use crate::storage::{Place, Storage};

/// What became of one lock.
enum Repaired {
    /// It was held by somebody dead.
    Marked,
    /// Nobody held it.
    NothingToDo,
    Lives(String),
    CannotJudge(String),
}

/// What became of locks, up to the one at which it failed.
struct Tried {
    repaired: Vec<(u32, Repaired)>,
    failure: Option<Failure>,
}

pub fn repair(arguments: &Repair) -> Outcome {
    let storage = Storage::named(&arguments.storage.storage)?;
    let opened = storage.open()?;
    let manager = opened.manager();
    let ids = match (arguments.id, &storage.place) {
        (Some(id), _) => vec![id],
        // The kernel itself gives back the record locks of the dead.
        (None, Place::Directory(_)) => manager.locks_held()?,
        // All: what another program has made unrecoverable is held by nobody, and mended on the way.
        (None, Place::Segment(_)) => (0..manager.num_locks()?).collect(),
    };
    let mut out = io::stdout().lock();
    let (mut marked, mut lives, mut unjudged) = (0, 0, 0);
    let Tried { repaired, failure } = repair_all(manager, &ids)?;
    for (id, repaired) in repaired {
        match repaired {
            Repaired::Marked => {
                marked += 1;
                writeln!(out, "lock {id}: its holder is gone; marked, so that the next to take it is told")?;
            }
            Repaired::NothingToDo if arguments.id.is_some() => {
                writeln!(out, "lock {id}: nothing to repair, nobody holds it")?;
            }
            Repaired::NothingToDo => {}
            Repaired::Lives(sentence) => {
                lives += 1;
                if arguments.id.is_some() {
                    writeln!(out, "{sentence}")?;
                }
            }
            Repaired::CannotJudge(sentence) => {
                unjudged += 1;
                writeln!(out, "{sentence}")?;
            }
        }
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    if arguments.id.is_none() {
        writeln!(out, "{marked} marked, {lives} held by the living, {unjudged} could not be judged")?;
    }
    let is_no = unjudged > 0 || (arguments.id.is_some() && lives > 0);
    Ok(if is_no { exit::NO } else { 0 })
}

/// Tries each, and says what became of those that were tried before one failed. What was known of all of them is asked
/// for before and after rather than at each: every look reads all who wait.
fn repair_all(manager: &dyn Manager, ids: &[u32]) -> Result<Tried, Failure> {
    let before = manager.lock_infos(ids)?;
    let mut tried = Vec::with_capacity(ids.len());
    let mut failure = None;
    for &id in ids {
        match manager.repair_lock(id) {
            Ok(()) => tried.push(Repaired::NothingToDo),
            Err(error) => match error.reason() {
                Reason::HolderLives { .. } => tried.push(Repaired::Lives(error.to_string())),
                Reason::CannotJudge { .. } => tried.push(Repaired::CannotJudge(error.to_string())),
                _ => {
                    failure = Some(error.into());
                    break;
                }
            },
        }
    }
    let after = manager.lock_infos(&ids[..tried.len()])?;
    let became = tried.into_iter().zip(before.iter().zip(&after)).map(|(repaired, (before, after))| {
        let is_marked = !before.owner_died && after.owner_died;
        let repaired = if is_marked && matches!(repaired, Repaired::NothingToDo) { Repaired::Marked } else { repaired };
        (after.id, repaired)
    });
    Ok(Tried { repaired: became.collect(), failure })
}
