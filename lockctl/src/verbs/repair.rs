// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! `lockctl repair`: marks locks whose holder is provably dead, clears what dead readers left, and says of which it could
//! not be said.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

use lock_manager::{Manager, Reason};

use crate::cli::Repair;
use crate::exit::{self, Failure, Outcome};
use crate::output::text::count;
use crate::storage::{Place, Storage};
use crate::survey::ids_in;

/// What became of one lock.
enum Repaired {
    /// It was held by somebody dead.
    Marked,
    /// So many marks of dead readers, or of one that died before its turn, were cleared; nobody has to be told.
    Cleared(u32),
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
        (None, Place::Directory(path)) => held_or_stale(manager, path)?,
        // All: what another program has made unrecoverable is held by nobody, and mended on the way.
        (None, Place::Segment(_) | Place::Etcd(_)) => (0..manager.num_locks()?).collect(),
    };
    let mut out = io::stdout().lock();
    let (mut marked, mut cleared, mut lives, mut unjudged) = (0, 0, 0, 0);
    let Tried { repaired, failure } = repair_all(manager, &ids)?;
    for (id, repaired) in repaired {
        match repaired {
            Repaired::Marked => {
                marked += 1;
                writeln!(out, "lock {id}: its holder is dead; marked, so that the next holder is told")?;
            }
            Repaired::Cleared(left) => {
                cleared += 1;
                let marks = count(left as usize, "mark", "marks");
                writeln!(out, "lock {id}: cleared {marks} of dead readers, or of a writer that died before its turn")?;
            }
            Repaired::NothingToDo if arguments.id.is_some() => {
                writeln!(out, "lock {id}: nothing to repair: nobody holds it")?;
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
        let cleared = if cleared > 0 { format!(" {cleared} cleared,") } else { String::new() };
        writeln!(out, "{marked} marked,{cleared} {lives} held by living holders, {unjudged} could not be judged")?;
    }
    let is_no = unjudged > 0 || (arguments.id.is_some() && lives > 0);
    Ok(if is_no { exit::NO } else { 0 })
}

/// The locks of a directory that somebody holds, or that dead readers have left marks of.
fn held_or_stale(manager: &dyn Manager, directory: &Path) -> Result<Vec<u32>, Failure> {
    let mut ids: BTreeSet<u32> = manager.locks_held()?.into_iter().collect();
    let locks = manager.lock_infos(&ids_in(directory)?)?;
    ids.extend(locks.iter().filter(|lock| lock.stale > 0).map(|lock| lock.id));
    Ok(ids.into_iter().collect())
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
        let cleared = before.stale.saturating_sub(after.stale);
        let repaired = match repaired {
            Repaired::NothingToDo if is_marked => Repaired::Marked,
            Repaired::NothingToDo if cleared > 0 => Repaired::Cleared(cleared),
            other => other,
        };
        (after.id, repaired)
    });
    Ok(Tried { repaired: became.collect(), failure })
}
