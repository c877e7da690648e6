// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the page has, in this order.

use std::fmt::Write as _;

use super::states::{States, noise_of};
use super::tables;
use crate::contenders::NATIVE;
use crate::results::{Figure, Results};

/// How a work's figures are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Matrix,
    Distribution,
}

/// A part of the page: works that belong together.
pub struct Section {
    pub title: &'static str,
    pub prose: &'static str,
    pub picture: Option<&'static str>,
    works: &'static [(&'static str, Form)],
    /// Whom the ratios are to.
    reference: &'static str,
}

use Form::{Distribution, Matrix};

pub const SECTIONS: &[Section] = &[
    Section {
        title: "A lock that nobody else wants",
        prose: "Lock and unlock, again and again, in one process. The floor is what no lock of two processes can do without.",
        picture: Some("pair"),
        works: &[("uncontended", Matrix)],
        reference: NATIVE,
    },
    Section {
        title: "One lock, many who want it",
        prose: "All turns together, without a pause between one's turns. Inside, each raises a shared counter, which also \
                shows that the lock excludes, and works for the time that the column names.",
        picture: Some("contended"),
        works: &[("contended", Matrix)],
        reference: NATIVE,
    },
    Section {
        title: "Neighbouring locks",
        prose: "Two processes, each on its own lock: side by side, and far from each other.",
        picture: None,
        works: &[("neighbours", Matrix)],
        reference: NATIVE,
    },
    Section {
        title: "Fairness",
        prose: "Jain's index is 1 where all had as many turns, and 0.02 where one of fifty had all. The waits are of all \
                processes; one that the end of the run cuts short counts as it is.",
        picture: Some("fairness"),
        works: &[("fairness", Matrix)],
        reference: NATIVE,
    },
    Section {
        title: "A holder is killed",
        prose: "From the SIGKILL to the lock in a waiter's hands. *told*: the next holder learns that the last one died \
                inside. *never*: nobody gets the lock, however long one waits.",
        picture: Some("recovery"),
        works: &[("recovery", Distribution)],
        reference: NATIVE,
    },
    Section {
        title: "A waiter is killed",
        prose: "Two wait; the first is killed at the moment of its wake-up. In how many of 400 such rounds does the second \
                sleep on beside a free lock?",
        picture: None,
        works: &[("killed-waiter", Matrix)],
        reference: NATIVE,
    },
    Section {
        title: "Deadlock",
        prose: "From the moment at which a ring of waiting processes closes to one of them being told. No peer tells.",
        picture: None,
        works: &[("deadlock", Distribution)],
        reference: NATIVE,
    },
    Section {
        title: "Readers and writers",
        prose: "`pthread_rwlock` is not robust: a reader or writer that dies keeps it. It lets readers pass a writer \
                that waits, or, asked for writers first, writers pass the readers.",
        picture: None,
        works: &[
            ("sharing pair", Matrix),
            ("sharing", Matrix),
            ("sharing waits", Matrix),
            ("sharing recovery", Distribution),
        ],
        reference: NATIVE,
    },
    Section {
        title: "A try at a lock that is held",
        prose: "By another process, which lives.",
        picture: None,
        works: &[("held", Matrix)],
        reference: NATIVE,
    },
    Section {
        title: "Waits that end without the lock",
        prose: "By cancellation from another thread, and by a timeout of 8 ms.",
        picture: None,
        works: &[("endings", Distribution)],
        reference: NATIVE,
    },
    Section {
        title: "Pools of locks",
        prose: "*search from the start* is allocation in the shape that libpod's has: bitmaps under one robust mutex, searched \
                from the first.",
        picture: Some("pool"),
        works: &[("pool", Matrix), ("pool first", Matrix), ("pool count", Matrix), ("pool list", Matrix)],
        reference: NATIVE,
    },
    Section {
        title: "Segments",
        prose: "Memory is what the file system has given to the segment, divided by its locks.",
        picture: None,
        works: &[("storage", Matrix), ("storage grow", Matrix), ("storage memory", Matrix)],
        reference: NATIVE,
    },
    Section {
        title: "What comes first",
        prose: "A fresh process opens a segment of 2048 locks and takes its first; a new thread takes its first.",
        picture: None,
        works: &[("first-lock", Matrix)],
        reference: NATIVE,
    },
    Section {
        title: "Files",
        prose: "The file manager. *every name from 0*: allocation as libpod's file manager does it. Its pair is the row *open \
                F_SETLKW close* of the first table.",
        picture: None,
        works: &[("files", Matrix), ("files pair", Matrix), ("files list", Matrix), ("files hand over", Distribution)],
        reference: crate::contenders::FILES,
    },
    Section {
        title: "Go",
        prose: "Through the module in `go/`, in rounds of Go's own. *two bare calls*: what calling C twice costs, and so what \
                no pair through cgo is below.",
        picture: None,
        works: &[("go", Matrix)],
        reference: NATIVE,
    },
];

impl Section {
    /// The section's tables; empty where nothing of it was measured.
    pub fn tables(&self, results: &Results, states: &States) -> String {
        let mut text = String::new();
        for (work, form) in self.works {
            let all: Vec<&Figure> = results.of(work).collect();
            for name in states.names() {
                let here: Vec<&Figure> = all.iter().copied().filter(|figure| states.has(name, figure)).collect();
                let probed = all.iter().any(|figure| figure.state.is_some());
                if !probed && *name != states.names()[0] {
                    continue;
                }
                if probed && !name.is_empty() && !here.is_empty() {
                    let _ = write!(text, "In the rounds with {name}:\n\n");
                }
                let noise = noise_of(results, work).unwrap_or(0.0);
                text.push_str(&self.tables_of(&here, *form, noise));
            }
        }
        text
    }

    fn tables_of(&self, figures: &[&Figure], form: Form, noise: f64) -> String {
        /// Wider tables are cut: a page is not as wide.
        const CASES: usize = 6;
        let mut text = String::new();
        for quantity in tables::in_order(figures, |figure| &figure.quantity) {
            let of_quantity: Vec<&Figure> =
                figures.iter().copied().filter(|figure| figure.quantity == quantity).collect();
            if form == Distribution {
                text.push_str(&tables::distribution(&of_quantity, self.reference));
                continue;
            }
            for cases in tables::in_order(&of_quantity, |figure| &figure.case).chunks(CASES) {
                let here: Vec<&Figure> =
                    of_quantity.iter().copied().filter(|figure| cases.contains(&figure.case.as_str())).collect();
                text.push_str(&tables::matrix(&here, self.reference, noise));
                text.push('\n');
            }
        }
        text
    }
}
