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
use crate::survey::edges::{self, Edge, Thread};
use crate::survey::{Survey, Which, deadlock};

/// Everybody who waits, for whom, and which of them wait for ever.
pub struct Picture {
    pub survey: Survey,
    pub edges: Vec<Edge>,
    pub deadlocks: Vec<Vec<Edge>>,
}

/// How many looks at most. One is read thread by thread while they go on, so a circle in it may never have been, and a
/// waiter that looked around just then is not in it.
const LOOKS: usize = 4;

/// The deadlocks of looks one after another. One is believed that was whole in two of them.
#[derive(Default)]
struct Looks {
    /// The waits of each look that are part of a deadlock.
    looks: Vec<BTreeSet<Edge>>,
    believed: BTreeSet<Edge>,
}

impl Looks {
    fn add(&mut self, edges: &[Edge]) {
        let look = waits(&deadlock::deadlocks(edges));
        for before in &self.looks {
            let both: Vec<Edge> = before.intersection(&look).copied().collect();
            self.believed.extend(waits(&deadlock::deadlocks(&both)));
        }
        self.looks.push(look);
    }

    /// Whether more looks would say the same: there are deadlocks, and each of them, in this look as well, is believed.
    fn are_sure(&self) -> bool {
        !self.believed.is_empty()
            && self.looks.iter().all(|look| look.is_subset(&self.believed))
            && self.looks.last() == Some(&self.believed)
    }

    fn deadlocks(&self) -> Vec<Vec<Edge>> {
        let believed: Vec<Edge> = self.believed.iter().copied().collect();
        deadlock::deadlocks(&believed)
    }
}

fn waits(deadlocks: &[Vec<Edge>]) -> BTreeSet<Edge> {
    deadlocks.iter().flatten().copied().collect()
}

impl Picture {
    pub fn take(storage: &Storage, opened: &Opened) -> Result<Self, Failure> {
        let mut looks = Looks::default();
        loop {
            let survey = Survey::take(storage, opened, Which::InUse)?;
            let edges = edges::edges(&survey);
            looks.add(&edges);
            // Where nobody waits nobody is in a circle.
            if edges.is_empty() || looks.looks.len() == LOOKS || looks.are_sure() {
                return Ok(Self { survey, edges, deadlocks: looks.deadlocks() });
            }
        }
    }

    /// The waits that are part of a deadlock.
    fn deadlocked(&self) -> BTreeSet<Edge> {
        waits(&self.deadlocks)
    }

    /// How long each of them has waited, where somebody knows.
    fn waited(&self) -> BTreeMap<(u32, Thread), u64> {
        let waits = self.survey.rows.iter().flat_map(|row| &row.waiting);
        waits.filter_map(|wait| Some(((wait.id, Thread::from(wait)), wait.waited_ns?))).collect()
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
    Ok(if picture.deadlocks.is_empty() { 0 } else { exit::NO })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::abroad::Host;
    use crate::survey::edges::Part;

    fn edge(waiter: i32, holder: i32) -> Edge {
        let thread = |number| Thread { host: Host::HERE, pid: number, tid: number };
        Edge { waiter: thread(waiter), lock: 0, holder: thread(holder), part: Part::HoldsExclusively, bound: true }
    }

    fn after(looks: &[&[Edge]]) -> Looks {
        let mut all = Looks::default();
        looks.iter().for_each(|edges| all.add(edges));
        all
    }

    #[test]
    fn a_deadlock_is_believed_once_two_looks_saw_all_of_it() {
        let circle = [edge(1, 2), edge(2, 1)];
        assert_eq!(after(&[&circle]).deadlocks().len(), 0);
        assert!(after(&[&circle, &circle]).are_sure());
        assert_eq!(after(&[&circle, &[], &circle]).deadlocks(), [circle]);
        // Who comes and goes beside it changes nothing.
        let more = [edge(1, 2), edge(2, 1), edge(2, 3), edge(3, 2)];
        let looks = after(&[&more, &circle]);
        assert_eq!(looks.deadlocks(), [circle]);
        assert!(!looks.are_sure());
    }

    #[test]
    fn what_no_two_looks_saw_whole_is_none() {
        let (small, large) = ([edge(1, 2), edge(2, 1)], [edge(1, 2), edge(2, 3), edge(3, 1)]);
        assert_eq!(after(&[&small, &large, &[], &[]]).deadlocks().len(), 0);
    }
}
