// SPDX-License-Identifier: MIT OR Apache-2.0
//! What follows for more processors than were measured: a model, and marked as one.

use std::fmt::Write as _;

use super::tables::number;
use crate::contenders::{LIBPOD, NATIVE};
use crate::machine::LINE_TRANSFER;
use crate::method::median;
use crate::results::Results;
use crate::work::contended::{Inside, case_name};

/// A turn that moves the lock to another processor: the word comes for the acquisition, the data come with it, and the
/// word comes back for the release if a waiter has read it meanwhile.
const LINES_OF_A_MOVED_TURN: f64 = 3.0;
/// Processors, and how much dearer a line is between them than between two neighbours: a supposition, not measured.
const SIZES: [(u32, f64); 2] = [(16, 1.0), (64, 2.5)];
const TURNS: &str = "turns/s";

pub fn section(results: &Results) -> String {
    let Some(line_ns) = results.fact(LINE_TRANSFER).split(' ').next().and_then(|ns| ns.parse::<f64>().ok()) else {
        return String::new();
    };
    let rows: Vec<String> = [NATIVE, LIBPOD].iter().filter_map(|contender| row(results, contender, line_ns)).collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut text = String::from("\n## A model of more processors\n\n**A model, not a measurement.** ");
    let _ = write!(
        text,
        "A turn on a lock that everybody wants costs what it costs alone, and a cache line's way ({line_ns:.0} ns here) for \
         each line that has gone to another processor. The misses a turn come from the figures above: what a turn of two \
         costs more than a turn of one, in lines. With more processors a turn has at least as many misses, as long as the \
         lock mostly stays where it is, and at most {LINES_OF_A_MOVED_TURN:.0}, when each turn moves it: the word, the data, \
         and the word again for the release, because a waiter has read it. More waiters do not add to these three: their \
         copies of the line are taken away together, and they read again after pauses that double. A line is supposed to be \
         as dear among 16 processors of one die as between the two here, and {:.1} times as dear among 64 of several. One \
         lock is no faster on more processors in any case: what a model can say is how much slower.\n\n",
        SIZES[1].1
    );
    text.push_str(
        "| 50 ns inside | alone, ns a turn | two, ns a turn | misses a turn | 16 processors | 64 processors |\n",
    );
    text.push_str("| --- | --- | --- | --- | --- | --- |\n");
    text.push_str(&rows.concat());
    text
}

fn row(results: &Results, contender: &str, line_ns: f64) -> Option<String> {
    let ns_a_turn = |workers: usize| {
        let case = case_name(workers, Inside::FiftyNanoseconds);
        let figures = results.of("contended").filter(|figure| figure.case == case && figure.contender == contender);
        let rates: Vec<f64> = figures.map(|figure| figure.value).collect();
        (!rates.is_empty()).then(|| 1e9 / median(rates))
    };
    let (alone, two) = (ns_a_turn(1)?, ns_a_turn(2)?);
    let misses = ((two - alone) / line_ns).max(0.0);
    let mut text = format!("| {contender} | {alone:.0} | {two:.0} | {misses:.2} |");
    for (_, dearer) in SIZES {
        let rate = |misses: f64| number(1e9 / (alone + misses * line_ns * dearer), TURNS);
        let _ = write!(text, " {} to {} turns/s |", rate(misses.max(LINES_OF_A_MOVED_TURN)), rate(misses));
    }
    text.push('\n');
    Some(text)
}
