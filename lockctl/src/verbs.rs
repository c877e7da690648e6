// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! What each verb does.

/// Is anything wrong?
mod check;
/// Man pages and completions.
mod generate;
/// Who waits for whom.
mod graph;
/// Who holds what.
mod list;
/// Segments and directories, and the ids in them.
mod pool;
/// Ids that were left behind.
mod reconcile;
/// Locks of the dead.
mod repair;
/// A command under a lock.
mod run;
/// The live view.
mod watch;

use crate::cli::Verb;
use crate::exit::Outcome;

/// Does what was asked for.
pub fn perform(verb: Verb) -> Outcome {
    match verb {
        Verb::List(arguments) => list::list(&arguments),
        Verb::Graph(arguments) => graph::graph(&arguments),
        Verb::Watch(arguments) => watch::watch(&arguments),
        Verb::Check(arguments) => check::check(&arguments),
        Verb::Run(arguments) => run::run(&arguments),
        Verb::Repair(arguments) => repair::repair(&arguments),
        Verb::Create(arguments) => pool::create(&arguments),
        Verb::Allocate(arguments) => pool::allocate(&arguments),
        Verb::Free(arguments) => pool::free(&arguments),
        Verb::FreeAll(arguments) => pool::free_all(&arguments),
        Verb::Grow(arguments) => pool::grow(&arguments),
        Verb::Remove(arguments) => pool::remove(&arguments),
        Verb::Reconcile(arguments) => reconcile::reconcile(&arguments),
        Verb::Generate(arguments) => generate::generate(&arguments),
    }
}
