// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The drawing, in the language of graphviz: threads are boxes, locks are ellipses, a deadlock is red.

use std::collections::BTreeSet;
use std::io::{self, Write};

use super::Picture;
use super::tree::number;
use crate::output::text::duration;
use crate::storage::Storage;
use crate::survey::abroad::Abroad;
use crate::survey::edges::{Part, Thread};

/// How a deadlock is drawn.
const RED: &str = ", color=red, penwidth=2";

pub fn write(out: &mut dyn Write, storage: &Storage, picture: &Picture) -> io::Result<()> {
    let abroad = &picture.survey.abroad;
    let (deadlocked, waited) = (picture.deadlocked(), picture.waited());
    let red_waits: BTreeSet<(Thread, u32)> = deadlocked.iter().map(|edge| (edge.waiter, edge.lock)).collect();
    let red_holds: BTreeSet<(u32, Thread)> = deadlocked.iter().map(|edge| (edge.lock, edge.holder)).collect();
    writeln!(out, "digraph locks {{")?;
    writeln!(out, "  label={};", quoted(&storage.shown()))?;
    writeln!(out, "  rankdir=LR;")?;
    let threads: BTreeSet<Thread> = picture.edges.iter().flat_map(|edge| [edge.waiter, edge.holder]).collect();
    for thread in threads {
        let command = abroad.command(thread).unwrap_or_default();
        let label = if thread.pid == 0 {
            "not seen from here".to_owned()
        } else {
            format!("{}\n{command}", number(thread, abroad))
        };
        writeln!(out, "  {} [shape=box, label={}];", node(thread, abroad), quoted(&label))?;
    }
    let locks: BTreeSet<u32> = picture.edges.iter().map(|edge| edge.lock).collect();
    for lock in locks {
        writeln!(out, "  {} [label={}];", quoted(&format!("lock {lock}")), quoted(&format!("lock {lock}")))?;
    }
    let waits: BTreeSet<(Thread, u32)> = picture.edges.iter().map(|edge| (edge.waiter, edge.lock)).collect();
    for (waiter, lock) in waits {
        let colour = if red_waits.contains(&(waiter, lock)) { RED } else { "" };
        let time = waited.get(&(lock, waiter)).copied().map(duration);
        let label = time.map_or_else(|| "waits".to_owned(), |time| format!("waits {time}"));
        let lock = quoted(&format!("lock {lock}"));
        writeln!(out, "  {} -> {lock} [label={}{colour}];", node(waiter, abroad), quoted(&label))?;
    }
    let held: BTreeSet<(u32, Thread, Part)> =
        picture.edges.iter().map(|edge| (edge.lock, edge.holder, edge.part)).collect();
    for (lock, holder, part) in held {
        let colour = if red_holds.contains(&(lock, holder)) { RED } else { "" };
        let label = match part {
            Part::HoldsExclusively => "held by",
            Part::Reads => "held shared by",
            Part::IsNext => "next",
        };
        let lock = quoted(&format!("lock {lock}"));
        writeln!(out, "  {lock} -> {} [label=\"{label}\"{colour}];", node(holder, abroad))?;
    }
    writeln!(out, "}}")
}

fn node(thread: Thread, abroad: &Abroad) -> String {
    quoted(&number(thread, abroad))
}

/// A string of the language. What the text has escaped already keeps its backslash.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_cannot_end_its_string() {
        assert_eq!(quoted("7\nsh -c \"a\\n\""), "\"7\\nsh -c \\\"a\\\\n\\\"\"");
    }
}
