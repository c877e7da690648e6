// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The text: deadlocks first, then each holder that waits for nobody, with those who wait for it indented below. Each
//! wait is written once, however many paths lead to it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use super::Picture;
use crate::output::text::{count, duration};
use crate::survey::abroad::{Abroad, Host};
use crate::survey::deadlock;
use crate::survey::edges::{Edge, Part, Thread};

/// How deep lines are indented at most: a chain of thousands would be mostly blanks.
const DEEPEST: usize = 40;

/// What stands after a waiter that others wait for, where they have been written elsewhere.
const SEE_ABOVE: &str = " (who waits for it: see above)";

pub fn write(out: &mut dyn Write, picture: &Picture) -> io::Result<()> {
    let mut told = Told::of(picture);
    for (index, waits) in picture.deadlocks.iter().enumerate() {
        told.deadlock(out, index + 1, waits)?;
    }
    for holder in told.roots() {
        if holder.pid == 0 {
            writeln!(out, "holders that are not seen from here")?;
        } else {
            writeln!(out, "{}", told.name(holder))?;
        }
        told.waiters_of(out, holder, 1)?;
    }
    // What is left hangs on a thread that is itself shown nowhere, such as one that only may be another.
    for edge in &picture.edges {
        if !told.shown.contains(edge) {
            writeln!(out, "{}", told.wait(edge))?;
        }
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
    waited: BTreeMap<(u32, Thread), u64>,
    /// The waits for each process.
    for_process: BTreeMap<(Host, i32), Vec<Edge>>,
    /// The threads of each process that wait.
    waiting: BTreeMap<(Host, i32), BTreeSet<Thread>>,
}

impl<'p> Told<'p> {
    fn of(picture: &'p Picture) -> Self {
        let mut for_process: BTreeMap<(Host, i32), Vec<Edge>> = BTreeMap::new();
        let mut waiting: BTreeMap<(Host, i32), BTreeSet<Thread>> = BTreeMap::new();
        for &edge in &picture.edges {
            for_process.entry(edge.holder.process()).or_default().push(edge);
            waiting.entry(edge.waiter.process()).or_default().insert(edge.waiter);
        }
        Self { picture, shown: BTreeSet::new(), waited: picture.waited(), for_process, waiting }
    }

    fn deadlock(&mut self, out: &mut dyn Write, number: usize, waits: &[Edge]) -> io::Result<()> {
        let whom = if deadlock::is_one_circle(waits) { "the next one" } else { "another one" };
        let is_next = waits.iter().any(|edge| edge.part == Part::IsNext);
        let has = if is_next { "holds, or is next to hold" } else { "holds" };
        writeln!(out, "DEADLOCK {number}: each of these waits for what {whom} {has}, for ever")?;
        self.shown.extend(waits);
        for edge in waits {
            writeln!(out, "  {}", self.wait(edge))?;
        }
        for edge in waits {
            self.waiters_of(out, edge.holder, 2)?;
        }
        Ok(())
    }

    /// Holders that somebody waits for and that wait for nobody.
    fn roots(&self) -> BTreeSet<Thread> {
        let waits = |holder: Thread| {
            self.waiting
                .get(&holder.process())
                .is_some_and(|threads| threads.iter().any(|&waiter| waiter.may_be(holder)))
        };
        self.picture.edges.iter().map(|edge| edge.holder).filter(|&holder| !waits(holder)).collect()
    }

    /// Those who wait for a thread, and those who wait for them. With a stack of its own: a chain may be long.
    fn waiters_of(&mut self, out: &mut dyn Write, holder: Thread, depth: usize) -> io::Result<()> {
        let mut next: Vec<(Edge, usize)> = self.waits_for(holder).rev().map(|edge| (edge, depth)).collect();
        while let Some((edge, depth)) = next.pop() {
            if !self.shown.insert(edge) {
                continue;
            }
            let behind: Vec<Edge> = self.waits_for(edge.waiter).collect();
            let are_shown = !behind.is_empty() && behind.iter().all(|edge| self.shown.contains(edge));
            let note = if are_shown { SEE_ABOVE } else { "" };
            writeln!(out, "{:indent$}{}{note}", "", self.wait(&edge), indent = 2 * depth.min(DEEPEST))?;
            next.extend(
                behind.into_iter().rev().filter(|edge| !self.shown.contains(edge)).map(|edge| (edge, depth + 1)),
            );
        }
        Ok(())
    }

    fn waits_for(&self, holder: Thread) -> impl DoubleEndedIterator<Item = Edge> {
        let waits = self.for_process.get(&holder.process()).into_iter().flatten();
        waits.copied().filter(move |edge| edge.holder == holder || edge.holder.may_be(holder))
    }

    fn wait(&self, edge: &Edge) -> String {
        let since = self.waited.get(&(edge.lock, edge.waiter));
        let since = since.map_or_else(String::new, |&time| format!(", since {}", duration(time)));
        let holder = if edge.holder.pid == 0 { "nobody seen from here".to_owned() } else { self.number(edge.holder) };
        let how = match edge.part {
            Part::HoldsExclusively => format!("held by {holder}"),
            Part::Reads => format!("held shared by {holder}"),
            Part::IsNext => format!("which {holder} is next to hold"),
        };
        format!("{} waits for lock {}, {how}{since}", self.name(edge.waiter), edge.lock)
    }

    /// A thread with the name of its process.
    fn name(&self, thread: Thread) -> String {
        match self.picture.survey.abroad.command(thread) {
            Some(command) => format!("{} ({command})", self.number(thread)),
            None => self.number(thread),
        }
    }

    fn number(&self, thread: Thread) -> String {
        number(thread, &self.picture.survey.abroad)
    }

    /// Waiters that have no number here, and waiters for locks that nobody holds any more.
    fn unnamed(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut shown: BTreeMap<u32, BTreeSet<Thread>> = BTreeMap::new();
        for edge in &self.picture.edges {
            shown.entry(edge.lock).or_default().insert(edge.waiter);
        }
        for row in &self.picture.survey.rows {
            let rest = row.waiters().saturating_sub(shown.get(&row.lock.id).map_or(0, BTreeSet::len));
            if rest > 0 {
                let threads = count(rest, "thread waits", "threads wait");
                let why = if row.lock.held { "not seen from here" } else { "nobody holds it: about to be taken" };
                writeln!(out, "{threads} for lock {} ({why})", row.lock.id)?;
            }
        }
        Ok(())
    }
}

/// The process, the thread where it is another than the first, and the host where it is not this one.
pub fn number(thread: Thread, abroad: &Abroad) -> String {
    let host = abroad.name(thread.host).map_or_else(String::new, |host| format!(" on {host}"));
    match thread.tid {
        tid if tid == 0 || tid == thread.pid => format!("{}{host}", thread.pid),
        tid => format!("{}, thread {tid}{host}", thread.pid),
    }
}

#[cfg(test)]
mod tests {
    use lock_manager::{InMemoryManager, Manager, UNLIMITED};

    use super::*;
    use crate::survey::{Blind, Survey};

    /// Numbers that no process has, so that none is looked up.
    const FIRST: i32 = 1 << 24;

    /// The lines for these waits: who waits, and who holds.
    fn drawn(waits: impl Iterator<Item = (i32, i32)>) -> Vec<String> {
        let some = |number: i32| Thread { host: Host::HERE, pid: FIRST + number, tid: 0 };
        let edge = |(waiter, holder): (i32, i32)| Edge {
            waiter: some(waiter),
            lock: holder.unsigned_abs(),
            holder: some(holder),
            part: Part::HoldsExclusively,
            bound: true,
        };
        let edges: Vec<Edge> = waits.map(edge).collect();
        let info = InMemoryManager::new(1).unwrap().info().unwrap();
        let (rows, users, elsewhere) = (Vec::new(), Vec::new(), Vec::new());
        let (abroad, blind) = (Abroad::default(), Blind::default());
        let survey = Survey { info, allocated: UNLIMITED, rows, users, elsewhere, abroad, blind };
        let mut out = Vec::new();
        write(&mut out, &Picture { deadlocks: deadlock::deadlocks(&edges), survey, edges }).unwrap();
        let text = String::from_utf8(out).unwrap();
        text.lines().filter(|line| *line != "nobody waits").map(str::to_owned).collect()
    }

    #[test]
    fn each_wait_is_written_once_however_many_paths_lead_to_it() {
        let number = 40;
        let lines = drawn((1..=number).flat_map(|waiter| (waiter + 1..=number).map(move |holder| (waiter, holder))));
        assert_eq!(lines.len(), 1 + (number * (number - 1) / 2) as usize, "{lines:#?}");
        let all: BTreeSet<&str> = lines.iter().map(|line| line.trim().trim_end_matches(SEE_ABOVE)).collect();
        assert_eq!(all.len(), lines.len());
        assert!(lines.iter().any(|line| line.ends_with(SEE_ABOVE)), "{lines:#?}");
    }

    #[test]
    fn a_long_chain_is_written_in_lines_that_can_be_read() {
        let lines = drawn((1..5000).map(|waiter| (waiter, waiter + 1)));
        assert_eq!(lines.len(), 5000);
        let longest = lines.iter().map(String::len).max().unwrap();
        assert!(longest < 200, "{longest}");
    }

    #[test]
    fn a_deadlock_of_several_circles_does_not_say_that_it_is_one() {
        let lines = drawn([(1, 2), (2, 1), (2, 3), (3, 2)].into_iter());
        assert_eq!(lines.len(), 5, "{lines:#?}");
        assert!(lines[0].contains("what another one holds"), "{lines:#?}");
        assert!(drawn([(1, 2), (2, 1)].into_iter())[0].contains("what the next one holds"));
    }
}
