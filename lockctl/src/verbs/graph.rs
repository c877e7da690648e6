// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! `lockctl graph`: who waits for whom.

/// The drawing for graphviz.
mod dot;
/// The text, holders first and who waits for them indented below.
mod tree;

use std::collections::BTreeSet;
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

impl Picture {
    /// One look is read thread by thread while they go on, so a circle in it may never have been. It is one if a second
    /// look finds all of it again.
    pub fn take(storage: &Storage, opened: &Opened) -> Result<Self, Failure> {
        let survey = Survey::take(storage, opened, Which::InUse)?;
        let edges = deadlock::edges(&survey);
        let mut cycles = deadlock::cycles(&edges);
        if !cycles.is_empty() {
            let again = Survey::take(storage, opened, Which::InUse)?;
            let confirmed = deadlock::cycles(&deadlock::edges(&again));
            cycles.retain(|cycle| confirmed.contains(cycle));
        }
        Ok(Self { survey, edges, cycles: cycles.into_iter().collect() })
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
