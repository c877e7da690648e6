// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! What the benchmark says while it runs.

use std::io::{IsTerminal, Write as _, stderr};

/// A work begins: which of how many, and for how long the run has gone on.
pub fn begins(number: usize, of: usize, work: &str, seconds: f64) {
    line(&format!("[{number:>2}/{of}] {:>4.0} s  {work}", seconds));
}

/// Where in the work it is; only on a terminal.
pub fn at(case: &str, round: usize, rounds: usize) {
    if stderr().is_terminal() {
        let _ = write!(stderr(), "\r\x1b[K        {case}, round {} of {rounds}", round + 1);
        let _ = stderr().flush();
    }
}

pub fn skipped(what: &str, why: &str) {
    line(&format!("skipped: {what}: {why}"));
}

pub fn line(text: &str) {
    let clear = if stderr().is_terminal() { "\r\x1b[K" } else { "" };
    let _ = writeln!(stderr(), "{clear}{text}");
}
