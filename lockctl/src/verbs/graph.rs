// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! `lockctl graph`: who waits for whom.

/// The drawing for graphviz.
mod dot;
/// The text, holders first and who waits for them indented below.
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use crate::cli::Graph;
use crate::exit::{self, Failure, Outcome};
use crate::storage::{Opened, Storage};
use crate::survey::deadlock::{self, Edge};
use crate::survey::{Survey, Which};

/// Everybody who waits, for whom, and which of them wait for ever.
pub struct Picture {
    pub survey: Survey,
    pub edges: Vec<Edge>,
    pub cycles: Vec<Vec<Edge>>,
}

/// How many looks at most. One is read thread by thread while they go on, so a circle in it may never have been, and a
/// waiter that looked around just then is not in it.
const LOOKS: usize = 4;

/// In how many of them a circle must be.
const SEEN_IN: usize = 2;

impl Picture {
    pub fn take(storage: &Storage, opened: &Opened) -> Result<Self, Failure> {
        let mut seen: BTreeMap<Vec<Edge>, usize> = BTreeMap::new();
        for look in 1.. {
            let survey = Survey::take(storage, opened, Which::InUse)?;
            let edges = deadlock::edges(&survey);
            let cycles = deadlock::cycles(&edges);
            let is_whole = cycles.len() >= seen.len();
            for cycle in cycles {
                *seen.entry(cycle).or_default() += 1;
            }
            let are_all_sure = !seen.is_empty() && seen.values().all(|&times| times >= SEEN_IN);
            // Where nobody waits nobody is in a circle.
            if edges.is_empty() || look == LOOKS || (is_whole && are_all_sure) {
                seen.retain(|_, times| *times >= SEEN_IN);
                return Ok(Self { survey, edges, cycles: seen.into_keys().collect() });
            }
        }
        unreachable!("the last look returns")
    }

    /// The waits that are part of a deadlock.
    fn deadlocked(&self) -> BTreeSet<Edge> {
        self.cycles.iter().flatten().copied().collect()
    }
}

pub fn graph(arguments: &Graph) -> Outcome {
    let storage = Storage::named(&arguments.storage.storage)?;
    let opened = storage.look()?;
    let picture = Picture::take(&storage, &opened)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    if arguments.dot {
        dot::write(&mut out, &storage, &picture)?;
    } else {
        tree::write(&mut out, &picture)?;
    }
    out.flush()?;
    super::list::tell_beside(&picture.survey);
    Ok(if picture.cycles.is_empty() { 0 } else { exit::NO })
}
