// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! `lockctl list`: who holds which lock, and how many wait.

use std::io::{self, IsTerminal, Write};

use crate::cli::List;
use crate::exit::Outcome;
use crate::output::json;
use crate::output::table::{self, Look, USUAL, USUAL_ABROAD};
use crate::storage::{Place, Storage};
use crate::survey::{Row, Survey, Which};

pub fn list(arguments: &List) -> Outcome {
    let storage = Storage::named(&arguments.storage.storage)?;
    let opened = storage.look()?;
    let which = if arguments.all { Which::All } else { Which::InUse };
    let survey = Survey::take(&storage, &opened, which)?;
    let is_wanted = |row: &&Row| arguments.pid.is_none_or(|pid| table::is_about(row, pid));
    let rows: Vec<&Row> = survey.rows.iter().filter(is_wanted).collect();

    let mut out = io::BufWriter::new(io::stdout().lock());
    if arguments.json {
        json::write(&mut out, &storage, &survey, &rows)?;
        out.flush()?;
        return Ok(0);
    }
    let columns = match storage.place {
        _ if !arguments.columns.is_empty() => arguments.columns.clone(),
        Place::Etcd(_) => USUAL_ABROAD.to_vec(),
        _ => USUAL.to_vec(),
    };
    let is_terminal = io::stdout().is_terminal();
    let look = Look {
        columns,
        heading: !arguments.no_heading,
        width: if is_terminal { terminal_width() } else { None },
        colour: is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    };
    table::write(&mut out, &rows, &look)?;
    out.flush()?;
    tell_beside(&survey);
    Ok(0)
}

/// Says on the standard error what is to be known beside the answer.
pub fn tell_beside(survey: &Survey) {
    for sentence in beside(survey) {
        crate::say(&sentence);
    }
}

/// What is to be known beside the answer, a sentence each.
pub fn beside(survey: &Survey) -> Vec<String> {
    survey.remarks().into_iter().chain(survey.blind.sentences()).collect()
}

fn terminal_width() -> Option<usize> {
    let (columns, _) = ratatui::crossterm::terminal::size().ok()?;
    (columns > 0).then_some(columns.into())
}
