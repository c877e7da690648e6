// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ten rows and the picture that the README shows.

use std::fmt::Write as _;

use super::states::States;
use super::summary::Ratio;
use super::tables::{number, times};
use crate::contenders::NATIVE;
use crate::method::quantile;
use crate::peers;
use crate::results::{Figure, Results};
use crate::work::contended::{Inside, case_name};

/// What a row shows of the rounds.
#[derive(Clone, Copy)]
enum Of {
    Median,
    Longest,
}

struct Row {
    text: &'static str,
    work: &'static str,
    case: String,
    quantity: &'static str,
    of: Of,
    peer: &'static str,
}

fn chosen() -> [Row; 10] {
    let row =
        |text, work, case: &str, quantity, of, peer| Row { text, work, case: case.to_owned(), quantity, of, peer };
    let fifty = case_name(2, Inside::FiftyNanoseconds);
    let crowd = "50 processes; 1 ms inside";
    [
        row("lock + unlock, nobody waits", "uncontended", "nobody waits", "lock + unlock", Of::Median, peers::RAW),
        row("the same beside a record lock", "uncontended", "nobody waits", "lock + unlock", Of::Median, peers::OFD),
        row("two processes, one lock, 50 ns inside", "contended", &fifty, "turns", Of::Median, peers::RAW),
        row("fifty processes, 1 ms inside: Jain's index", "fairness", crowd, "Jain's index", Of::Median, peers::RAW),
        row("… the longest wait", "fairness", crowd, "longest wait", Of::Median, peers::RAW),
        row(
            "SIGKILL of the holder to the next holder",
            "recovery",
            "a small holder",
            "SIGKILL to the next holder",
            Of::Longest,
            peers::BOOST,
        ),
        row(
            "a waiter is killed at its wake-up: others stranded, of 400",
            "killed-waiter",
            "a waiter is killed at its wake-up",
            "stranded",
            Of::Median,
            peers::RAW,
        ),
        row(
            "lock + unlock for reading",
            "sharing pair",
            "nobody waits",
            "lock + unlock",
            Of::Median,
            "pthread_rwlock for reading",
        ),
        row(
            "allocate the last free of 1,048,576, a process's first call",
            "pool first",
            "1048576 locks one free",
            "first allocation of a process",
            Of::Median,
            "search from the start",
        ),
        row("create 2048 locks", "storage", "2048 locks", "create", Of::Median, crate::contenders::LIBPOD),
    ]
}

/// The README's lines around what is put there.
const BEGIN: &str = "<!-- figures, made by `make bench` -->\n";
const END: &str = "<!-- end of the figures -->\n";

/// The README with other rows between its two marks.
pub fn with_rows(readme: &str, rows: &str) -> Result<String, String> {
    let parts = readme.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) =
        parts.ok_or("README.md has no lines between which the figures go; see benches/report/readme.rs")?;
    Ok([before, BEGIN, "\n", rows, "\n", END, after].concat())
}

pub fn rows(results: &Results, states: &States) -> String {
    let mut text = String::new();
    text.push_str("![From the SIGKILL of a holder to the next holder](docs/benchmarks/recovery.svg)\n\n");
    let _ = writeln!(
        text,
        "| {} | lock_manager | peer | lock_manager ÷ peer |\n| --- | --- | --- | --- |",
        results.fact("processor")
    );
    for row in chosen() {
        for state in states.names() {
            let Some(line) = line(results, states, state, &row) else { continue };
            text.push_str(&line);
            // Only what depends on the state has a row for each.
            if !results.of(row.work).any(|figure| figure.state.is_some()) {
                break;
            }
        }
    }
    text
}

fn line(results: &Results, states: &States, state: &str, row: &Row) -> Option<String> {
    let of = |contender: &str| -> Vec<&Figure> {
        let here = results.of(row.work).filter(|figure| figure.case == row.case && figure.quantity == row.quantity);
        here.filter(|figure| figure.contender == contender && states.has(state, figure)).collect()
    };
    let name = if row.work == "sharing pair" { "lock_manager shared" } else { NATIVE };
    let (ours, theirs) = (of(name), of(row.peer));
    let value = |figures: &[&Figure]| {
        let mut values: Vec<f64> = figures.iter().map(|figure| figure.value).collect();
        let share = match row.of {
            Of::Median => 0.5,
            Of::Longest => 1.0,
        };
        (!values.is_empty())
            .then(|| format!("{} {}", number(quantile(&mut values, share), &figures[0].unit), figures[0].unit))
    };
    let how = match row.of {
        Of::Median => String::new(),
        Of::Longest => format!(", the longest of {}", ours.len()),
    };
    let state = if state.is_empty() || ours.first()?.state.is_none() { String::new() } else { format!(", {state}") };
    let ratio = match Ratio::within_rounds(&ours, &theirs, 0.0) {
        Some(Ratio::Shown(ratio)) => format!("{} ×", times(ratio)),
        Some(Ratio::NoDifference) => "≈".to_owned(),
        None => String::new(),
    };
    let (here, there) = (value(&ours)?, value(&theirs)?);
    let there = there.replace("never ms", "never");
    Some(format!("| {}{how}{state} | {} | {} ({}) | {ratio} |\n", row.text, here.trim(), there.trim(), row.peer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_becomes_other() {
        let readme = format!("# Title\n{BEGIN}\nold\n\n{END}the rest\n");
        let expected = format!("# Title\n{BEGIN}\nnew\n\n{END}the rest\n");
        assert_eq!(with_rows(&readme, "new\n"), Ok(expected));
        assert!(with_rows("# Title\n", "new\n").is_err());
    }

    #[test]
    fn the_readme_has_the_marks() {
        let readme = include_str!("../../README.md");
        assert!(with_rows(readme, "").is_ok());
    }
}
