// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The text: deadlocks first, then each holder that waits for nobody, with those who wait for it indented below.

use std::collections::BTreeSet;
use std::io::{self, Write};

use super::Picture;
use crate::output::text::duration;
use crate::proc::process;
use crate::survey::deadlock::{Edge, Thread};

pub fn write(out: &mut dyn Write, picture: &Picture) -> io::Result<()> {
    let mut told = Told { picture, shown: BTreeSet::new() };
    for (index, cycle) in picture.cycles.iter().enumerate() {
        told.cycle(out, index + 1, cycle)?;
    }
    for holder in told.roots() {
        if holder.pid == 0 {
            writeln!(out, "holders that are not seen from here")?;
        } else {
            writeln!(out, "{}", name(holder))?;
        }
        told.waiters_of(out, holder, 1)?;
    }
    // What is left hangs on a thread that is itself shown nowhere, such as one that only may be another.
    for edge in picture.edges.iter().filter(|edge| !told.shown.contains(edge)) {
        writeln!(out, "{}", told.wait(edge))?;
    }
    told.unnamed(out)?;
    if picture.survey.waiters() == 0 {
        writeln!(out, "nobody waits")?;
    }
    Ok(())
}

/// What has been written already.
struct Told<'p> {
    picture: &'p Picture,
    shown: BTreeSet<Edge>,
}

impl Told<'_> {
    fn cycle(&mut self, out: &mut dyn Write, number: usize, cycle: &[Edge]) -> io::Result<()> {
        writeln!(out, "DEADLOCK {number}: each of these waits for what the next one holds, for ever")?;
        self.shown.extend(cycle);
        for edge in cycle {
            writeln!(out, "  {}", self.wait(edge))?;
        }
        for edge in cycle {
            self.waiters_of(out, edge.holder, 2)?;
        }
        Ok(())
    }

    /// Holders that somebody waits for and that wait for nobody.
    fn roots(&self) -> BTreeSet<Thread> {
        let waits = |holder: Thread| self.picture.edges.iter().any(|edge| edge.waiter.may_be(holder));
        self.picture.edges.iter().map(|edge| edge.holder).filter(|&holder| !waits(holder)).collect()
    }

    fn waiters_of(&mut self, out: &mut dyn Write, holder: Thread, depth: usize) -> io::Result<()> {
        let picture = self.picture;
        for edge in &picture.edges {
            let is_of_holder = edge.holder == holder || edge.holder.may_be(holder);
            if is_of_holder && self.shown.insert(*edge) {
                writeln!(out, "{:indent$}{}", "", self.wait(edge), indent = 2 * depth)?;
                self.waiters_of(out, edge.waiter, depth + 1)?;
            }
        }
        Ok(())
    }

    fn wait(&self, edge: &Edge) -> String {
        let row = self.picture.survey.rows.iter().find(|row| row.lock.id == edge.lock);
        let since = row
            .and_then(|row| row.waiting.iter().find(|wait| (wait.pid, wait.tid) == (edge.waiter.pid, edge.waiter.tid)))
            .and_then(|wait| wait.waited_ns)
            .map_or_else(String::new, |time| format!(", since {}", duration(time)));
        let holder = if edge.holder.pid == 0 { "nobody seen from here".to_owned() } else { number(edge.holder) };
        format!("{} waits for lock {}, held by {holder}{since}", name(edge.waiter), edge.lock)
    }

    /// Waiters that have no number here, and waiters for locks that nobody holds any more.
    fn unnamed(&self, out: &mut dyn Write) -> io::Result<()> {
        for row in &self.picture.survey.rows {
            let shown = self.picture.edges.iter().filter(|edge| edge.lock == row.lock.id).count();
            let rest = row.waiters().saturating_sub(shown);
            if rest > 0 {
                let threads = crate::output::text::count(rest, "thread waits", "threads wait");
                let why = if row.lock.held { "not seen from here" } else { "nobody holds it: about to be taken" };
                writeln!(out, "{threads} for lock {} ({why})", row.lock.id)?;
            }
        }
        Ok(())
    }
}

/// A thread with the name of its process.
fn name(thread: Thread) -> String {
    match process::command(thread.pid) {
        Some(command) => format!("{} ({command})", number(thread)),
        None => number(thread),
    }
}

/// The process, and the thread where it is another than the first.
pub fn number(thread: Thread) -> String {
    match thread.tid {
        tid if tid == 0 || tid == thread.pid => thread.pid.to_string(),
        tid => format!("{}, thread {tid}", thread.pid),
    }
}
