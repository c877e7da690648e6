// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! What comes first costs more: a fresh process opens a segment and takes its first lock; a new thread takes its first.

use std::ffi::CString;
use std::process::Command;
use std::sync::atomic::Ordering;

use crate::library::{Layout, Manager, Segment, library};
use crate::method::{Contended, Entry, Run, microseconds};
use crate::processes::{Words, in_child};
use crate::results::Quantity;

/// What makes this program a process that opens the segment named next, and nothing else.
pub const CHILD: &str = "open-first";

const PROCESS: [Quantity; 2] = [Quantity::less("open", "µs"), Quantity::less("first lock + unlock", "µs")];
const THREAD: Quantity = Quantity::less("first lock + unlock", "µs");
const LOCK: u32 = 7;

pub fn run(run: &mut Run) {
    let segments = Layout::BOTH.map(|layout| (layout, Segment::new(layout, 2048)));
    let rounds = run.effort.pick(9, 61);
    let entries =
        segments.iter().map(|(layout, segment)| Entry::of_several(layout.contender(), move |_| first_calls(segment)));
    run.rounds("first-lock", "of a fresh process", &PROCESS, rounds, Contended::No, entries.collect());

    let entries = segments.iter().map(|(layout, segment)| Entry::new(layout.contender(), move || of_a_thread(segment)));
    run.rounds("first-lock", "of a new thread", &[THREAD], rounds, Contended::No, entries.collect());
}

/// A process's first two calls: says how many microseconds each took.
#[allow(clippy::print_stdout, reason = "its parent reads it")]
pub fn child(segment: &str) {
    let path = CString::new(segment).expect("an argument has no NUL");
    let (opened, manager) = microseconds(|| library().open(&path));
    let (locked, ()) = microseconds(|| pair(manager));
    println!("{opened} {locked}");
}

fn pair(manager: Manager) {
    library().take(manager, LOCK);
    library().give_back(manager, LOCK);
}

fn first_calls(segment: &Segment) -> Vec<f64> {
    let program = std::env::current_exe().expect("the program has a path");
    let mut command = Command::new(program);
    command.arg(CHILD).arg(library().prefix()).arg(segment.path.to_str().expect("a name of the benchmark's own"));
    let output = String::from_utf8(command.output().expect("the program runs").stdout).expect("numbers");
    output.split_whitespace().map(|number| number.parse().expect("a number")).collect()
}

/// Of a thread in a process that has locked before.
fn of_a_thread(segment: &Segment) -> f64 {
    let took = Words::new(1);
    in_child(|| {
        pair(segment.manager);
        let manager = segment.manager as usize;
        let thread = std::thread::spawn(move || microseconds(|| pair(manager as Manager)).0);
        took[0].store(thread.join().expect("the thread").to_bits(), Ordering::Release);
    });
    f64::from_bits(took[0].load(Ordering::Acquire))
}
