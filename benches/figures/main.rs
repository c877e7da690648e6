// SPDX-License-Identifier: MIT OR Apache-2.0
//! The figures that the README quotes, each beside what it is to be compared with, measured in the same run. Ratios
//! are what counts: machines are shared and noisy, and each figure is the median of many short, interleaved rounds.
//!
//! `make bench` runs it against the shared library, through its C functions, as a C program would.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a program of its own, which stops where it cannot go on")]

mod allocation;
mod contention;
mod deadlock;
mod death;
mod fairness;
mod files;
mod library;
mod looking;
mod peer;
mod sharing;
mod uncontended;

use std::time::Instant;

use library::Library;

/// A name, and what measures and prints.
type Group = (&'static str, fn(&Library));

/// What is measured, in this order; `cargo bench --bench figures -- NAME…` measures these alone.
const GROUPS: [Group; 9] = [
    ("uncontended", uncontended::run),
    ("allocation", allocation::run),
    ("contention", contention::run),
    ("looking", looking::run),
    ("death", death::run),
    ("deadlock", deadlock::run),
    ("fairness", fairness::run),
    ("files", files::run),
    ("sharing", sharing::run),
];

/// Nanoseconds a call of `work`, of which `calls` are made.
fn nanoseconds(calls: u32, mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        work();
    }
    start.elapsed().as_nanos() as f64 / f64::from(calls)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One row: ours, theirs, and how many times theirs ours is.
fn row(what: &str, unit: &str, ours: f64, theirs: f64, peer: &str) {
    println!("{what:<66} {ours:>10.1} {unit:<4} {theirs:>10.1} {unit:<4} {:>6.2} × {peer}", ours / theirs);
}

/// A figure for which there is nothing to compare with in the same run.
fn lone(what: &str, unit: &str, ours: f64) {
    println!("{what:<66} {ours:>10.3} {unit}");
}

fn main() {
    let library = Library::load();
    if let Some(path) = looking::asked_to_open() {
        return looking::open_first(&library, &path);
    }
    println!("{:<66} {:>10} {:<4} {:>10}", "figure", "here", "", "peer");
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    for (name, run) in GROUPS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            run(&library);
        }
    }
}
