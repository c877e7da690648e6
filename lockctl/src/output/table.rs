// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! A look as a table: a row a lock, columns that can be chosen. Colours and a width only on a terminal.

use std::io::{self, Write};

use clap::ValueEnum;
use clap::builder::styling::{AnsiColor, Style};

use super::text::{cut, duration, padding, width};
use crate::proc::process;
use crate::survey::{Row, Survey};

/// A column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Column {
    /// The lock
    Id,
    /// held, or unlocked
    State,
    /// The holder's process
    Pid,
    /// The holder's thread
    Tid,
    /// How the holder was called
    Command,
    /// How long it is held at least: as long as its longest waiter has waited
    HeldFor,
    /// How many threads wait
    Waiters,
    /// Owner died, other PID namespace, thread gone, …
    Note,
    /// Whether it is allocated
    Allocated,
    /// How often it was acquired
    Acquisitions,
    /// Whether a thread or its process owns the lock
    Owner,
    /// The holder's PID namespace
    Namespace,
    /// The processes that wait
    WaitingPids,
}

/// What is shown where nothing else was asked for.
pub const USUAL: [Column; 7] =
    [Column::Id, Column::State, Column::Pid, Column::Command, Column::HeldFor, Column::Waiters, Column::Note];

/// Where nothing is known.
const NOTHING: &str = "-";

/// The narrowest that a command is cut to.
const SHORTEST_COMMAND: usize = 12;

const GAP: &str = "  ";

/// How a table is to look.
#[derive(Debug, Clone)]
pub struct Look {
    pub columns: Vec<Column>,
    pub heading: bool,
    /// Of the terminal; `None`: it is none, so nothing is cut or coloured.
    pub width: Option<usize>,
    pub colour: bool,
}

impl Column {
    pub fn title(self) -> &'static str {
        match self {
            Self::Id => "ID",
            Self::State => "STATE",
            Self::Pid => "PID",
            Self::Tid => "TID",
            Self::Command => "COMMAND",
            Self::HeldFor => "HELD FOR",
            Self::Waiters => "WAITERS",
            Self::Note => "NOTE",
            Self::Allocated => "ALLOCATED",
            Self::Acquisitions => "ACQUISITIONS",
            Self::Owner => "OWNER",
            Self::Namespace => "NAMESPACE",
            Self::WaitingPids => "WAITING PIDS",
        }
    }

    /// Numbers stand at the right, where their digits line up.
    fn is_number(self) -> bool {
        matches!(self, Self::Id | Self::Pid | Self::Tid | Self::HeldFor | Self::Waiters | Self::Acquisitions)
    }

    pub fn cell(self, row: &Row) -> String {
        let lock = &row.lock;
        let number = |number: u64| if number == 0 { NOTHING.to_owned() } else { number.to_string() };
        let of_holder = |known: i32| if lock.held { number(known.unsigned_abs().into()) } else { NOTHING.to_owned() };
        match self {
            Self::Id => lock.id.to_string(),
            Self::State => state(row).to_owned(),
            Self::Pid => of_holder(lock.pid),
            Self::Tid => of_holder(lock.tid),
            Self::Command => row.command.clone().unwrap_or_else(|| NOTHING.to_owned()),
            Self::HeldFor => {
                row.held_for_ns().map_or_else(|| NOTHING.to_owned(), |time| format!(">={}", duration(time)))
            }
            Self::Waiters => row.waiters().to_string(),
            Self::Note => {
                let notes: Vec<&str> = row.notes.iter().map(|note| note.text()).collect();
                if notes.is_empty() { NOTHING.to_owned() } else { notes.join(", ") }
            }
            Self::Allocated => (if lock.allocated { "yes" } else { "no" }).to_owned(),
            Self::Acquisitions => number(lock.acquisitions),
            Self::Owner => owner(row).unwrap_or(NOTHING).to_owned(),
            Self::Namespace => {
                if lock.held {
                    number(lock.pid_namespace)
                } else {
                    NOTHING.to_owned()
                }
            }
            Self::WaitingPids => {
                let mut pids: Vec<i32> = row.waiting.iter().map(|wait| wait.pid).filter(|&pid| pid != 0).collect();
                pids.dedup();
                let pids: Vec<String> = pids.iter().map(i32::to_string).collect();
                if pids.is_empty() { NOTHING.to_owned() } else { pids.join(",") }
            }
        }
    }
}

/// The state of a lock in a word.
pub fn state(row: &Row) -> &'static str {
    if row.lock.held { "held" } else { "unlocked" }
}

/// Who owns a lock that is held: a thread, or its process.
pub fn owner(row: &Row) -> Option<&'static str> {
    match (row.lock.held, row.lock.ownership) {
        (false, _) => None,
        (true, lock_manager::Ownership::Thread) => Some("thread"),
        (true, lock_manager::Ownership::Process) => Some("process"),
    }
}

/// Whether a row is about that process: it holds the lock, or waits for it.
pub fn is_about(row: &Row, pid: i32) -> bool {
    (row.lock.held && row.lock.pid == pid) || row.waiting.iter().any(|wait| wait.pid == pid)
}

/// Writes the rows.
pub fn write(out: &mut dyn Write, rows: &[&Row], look: &Look) -> io::Result<()> {
    let mut lines: Vec<Vec<String>> =
        rows.iter().map(|row| look.columns.iter().map(|column| column.cell(row)).collect()).collect();
    if look.heading {
        lines.insert(0, look.columns.iter().map(|column| column.title().to_owned()).collect());
    }
    let mut widths: Vec<usize> = vec![0; look.columns.len()];
    for line in &lines {
        for (widest, cell) in widths.iter_mut().zip(line) {
            *widest = (*widest).max(width(cell));
        }
    }
    if let Some(most) = look.width {
        shorten_command(&look.columns, &mut widths, most);
    }
    for (index, line) in lines.iter().enumerate() {
        let of_row = if look.heading { index.checked_sub(1) } else { Some(index) };
        let style = if look.colour { style(of_row.and_then(|index| rows.get(index)).copied()) } else { Style::new() };
        let text = aligned(line, &look.columns, &widths);
        writeln!(out, "{style}{text}{style:#}")?;
    }
    Ok(())
}

fn aligned(line: &[String], columns: &[Column], widths: &[usize]) -> String {
    let cells: Vec<String> = line
        .iter()
        .zip(columns)
        .zip(widths)
        .map(|((cell, column), &width)| {
            let cell = cut(cell, width);
            let padding = padding(&cell, width);
            if column.is_number() { padding + &cell } else { cell + &padding }
        })
        .collect();
    cells.join(GAP).trim_end().to_owned()
}

/// Takes from the command what the terminal is too narrow for.
fn shorten_command(columns: &[Column], widths: &mut [usize], most: usize) {
    let whole: usize = widths.iter().sum::<usize>() + GAP.len() * columns.len().saturating_sub(1);
    let Some(index) = columns.iter().position(|column| *column == Column::Command) else { return };
    let excess = whole.saturating_sub(most);
    if excess > 0 {
        widths[index] = widths[index].min(widths[index].saturating_sub(excess).max(SHORTEST_COMMAND));
    }
}

/// Of a row; `None`: of the heading.
fn style(row: Option<&Row>) -> Style {
    match row {
        None => Style::new().bold(),
        Some(row) if row.lock.owner_died => Style::new().fg_color(Some(AnsiColor::Red.into())),
        Some(row) if row.waiters() > 0 => Style::new().fg_color(Some(AnsiColor::Yellow.into())),
        Some(row) if row.lock.held => Style::new(),
        Some(_) => Style::new().dimmed(),
    }
}

/// What one line says of the whole storage.
pub fn summary(survey: &Survey) -> String {
    let of = match survey.info.num_locks {
        lock_manager::UNLIMITED => String::new(),
        most => format!(" of {most}"),
    };
    format!(
        "{}{of} allocated, {} held, {}",
        survey.allocated,
        survey.held(),
        super::text::count(survey.waiters(), "thread waits", "threads wait"),
    )
}

/// The holder of a row as in a sentence.
pub fn holder(row: &Row) -> String {
    if row.lock.pid == 0 { "a holder that is not seen from here".to_owned() } else { process::described(row.lock.pid) }
}
