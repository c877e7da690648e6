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
    for id in ids {
        match repair_one(manager, id)? {
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
    if arguments.id.is_none() {
        writeln!(out, "{marked} marked, {lives} held by the living, {unjudged} could not be judged")?;
    }
    let is_no = unjudged > 0 || (arguments.id.is_some() && lives > 0);
    Ok(if is_no { exit::NO } else { 0 })
}

fn repair_one(manager: &dyn Manager, id: u32) -> Result<Repaired, Failure> {
    let was_marked = manager.lock_info(id)?.owner_died;
    match manager.repair_lock(id) {
        Ok(()) if !was_marked && manager.lock_info(id)?.owner_died => Ok(Repaired::Marked),
        Ok(()) => Ok(Repaired::NothingToDo),
        Err(error) => match error.reason() {
            Reason::HolderLives { .. } => Ok(Repaired::Lives(error.to_string())),
            Reason::CannotJudge { .. } => Ok(Repaired::CannotJudge(error.to_string())),
            _ => Err(error.into()),
        },
    }
}
