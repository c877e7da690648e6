// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! `watch` without a terminal: a table at each look, until it is ended, or nobody reads it any more.

use std::io::{self, Write};
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::Source;
use super::board::{self, Board, Order, TITLES};
use crate::cli::Watch;
use crate::exit::{Failure, Outcome};
use crate::output::{table, text};
use crate::say;
use crate::sys::signals;
use crate::verbs::list::beside;

pub fn show(arguments: &Watch, source: &mut Source) -> Outcome {
    signals::end_after(|| {}).map_err(|error| Failure::system("catching signals", &error))?;
    let mut board = Board::default();
    let mut looks = 0;
    // What was said beside the last table is not said again.
    let mut told: Vec<String> = Vec::new();
    loop {
        let start = Instant::now();
        let survey = source.look()?;
        board.update(&survey, start);
        let mut out = io::BufWriter::new(io::stdout().lock());
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        writeln!(out, "{} at {seconds}: {}", source.storage.shown(), table::summary(&survey))?;
        let mut lines = vec![TITLES.map(str::to_owned)];
        lines.extend(board.shown(Order::Contention, "").into_iter().map(board::cells));
        let width = |column: usize| lines.iter().map(|line| text::width(&line[column])).max().unwrap_or(0);
        let widths: Vec<usize> = (0..TITLES.len()).map(width).collect();
        for line in &lines {
            let cells: Vec<String> =
                line.iter().zip(&widths).map(|(cell, &width)| cell.clone() + &text::padding(cell, width)).collect();
            writeln!(out, "{}", cells.join("  ").trim_end())?;
        }
        writeln!(out)?;
        out.flush()?;
        let beside = beside(&survey);
        for sentence in beside.iter().filter(|sentence| !told.contains(sentence)) {
            say(sentence);
        }
        told = beside;
        looks += 1;
        if arguments.count == Some(looks) {
            return Ok(0);
        }
        thread::sleep(arguments.delay.saturating_sub(start.elapsed()));
    }
}
