// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! A look as a table: a row a lock, columns that can be chosen. Colours and a width only on a terminal.

use std::io::{self, Write};

use clap::ValueEnum;
use clap::builder::styling::{AnsiColor, Style};

use super::text::{cut, duration, padding, width};
use crate::proc::process;
use crate::survey::abroad::Host;
use crate::survey::holding::{self, Holding, Mode};
use crate::survey::notes::Note;
use crate::survey::waiting::Waiting;
use crate::survey::{Row, Survey};

/// A column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Column {
    /// The lock
    Id,
    /// held, shared (which is held by readers), or unlocked
    State,
    /// The holder's process; of several readers the first, as in tid, command, owner and namespace
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
    /// How often it was acquired exclusively
    Acquisitions,
    /// Whether a thread or its process owns the lock
    Owner,
    /// The holder's PID namespace
    Namespace,
    /// The processes that wait
    WaitingPids,
    /// How many hold it shared
    Readers,
    /// The processes that hold it
    HolderPids,
    /// The holder's host, if it is another than this one
    Host,
}

/// What is shown where nothing else was asked for.
pub const USUAL: [Column; 7] =
    [Column::Id, Column::State, Column::Pid, Column::Command, Column::HeldFor, Column::Waiters, Column::Note];

/// The same of locks that several hosts share.
pub const USUAL_ABROAD: [Column; 8] = [
    Column::Id,
    Column::State,
    Column::Host,
    Column::Pid,
    Column::Command,
    Column::HeldFor,
    Column::Waiters,
    Column::Note,
];

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
            Self::Readers => "READERS",
            Self::HolderPids => "HOLDER PIDS",
            Self::Host => "HOST",
        }
    }

    /// Numbers stand at the right, where their digits line up.
    fn is_number(self) -> bool {
        matches!(
            self,
            Self::Id | Self::Pid | Self::Tid | Self::HeldFor | Self::Waiters | Self::Acquisitions | Self::Readers
        )
    }

    pub fn cell(self, row: &Row) -> String {
        let lock = &row.lock;
        let number = |number: u64| if number == 0 { NOTHING.to_owned() } else { number.to_string() };
        let of_holder = |known: fn(&Holding) -> u64| number(row.holder().map_or(0, known));
        match self {
            Self::Id => lock.id.to_string(),
            Self::State => state(row).to_owned(),
            Self::Pid => of_holder(|holder| holder.pid.unsigned_abs().into()),
            Self::Tid => of_holder(|holder| holder.tid.unsigned_abs().into()),
            Self::Command => {
                row.holder().and_then(|holder| holder.command.clone()).unwrap_or_else(|| NOTHING.to_owned())
            }
            Self::HeldFor => {
                row.held_for_ns().map_or_else(|| NOTHING.to_owned(), |time| format!(">={}", duration(time)))
            }
            Self::Waiters => row.waiters().to_string(),
            Self::Note => {
                let notes: Vec<String> = row.notes.iter().map(|note| note.text()).collect();
                if notes.is_empty() { NOTHING.to_owned() } else { notes.join(", ") }
            }
            Self::Allocated => (if lock.allocated { "yes" } else { "no" }).to_owned(),
            Self::Acquisitions => number(lock.acquisitions),
            Self::Owner => row.holder().map_or(NOTHING, |holder| owner(holder)).to_owned(),
            Self::Namespace => of_holder(|holder| holder.pid_namespace),
            Self::WaitingPids => pids(row.waiting.iter().map(|wait| wait.pid)),
            Self::Readers => number(row.readers() as u64),
            Self::HolderPids => pids(row.holders.iter().map(|holder| holder.pid)),
            Self::Host => {
                row.holder().and_then(|holder| holder.host_name.clone()).unwrap_or_else(|| NOTHING.to_owned())
            }
        }
    }
}

/// Processes, those that are seen from here.
fn pids(pids: impl Iterator<Item = i32>) -> String {
    let mut pids: Vec<i32> = pids.filter(|&pid| pid != 0).collect();
    pids.dedup();
    let pids: Vec<String> = pids.iter().map(i32::to_string).collect();
    if pids.is_empty() { NOTHING.to_owned() } else { pids.join(",") }
}

/// The state of a lock in a word.
pub fn state(row: &Row) -> &'static str {
    match row.holder().map(|holder| holder.mode) {
        None => "unlocked",
        Some(Mode::Exclusive) => "held",
        Some(Mode::Shared) => "shared",
    }
}

/// Who owns a hold: a thread, or its process.
pub fn owner(holder: &Holding) -> &'static str {
    match holder.ownership {
        lock_manager::Ownership::Thread => "thread",
        lock_manager::Ownership::Process => "process",
    }
}

/// Whether a row is about that process of this host: it holds the lock, or waits for it.
pub fn is_about(row: &Row, pid: i32) -> bool {
    row.holders.iter().any(|holder| holder.host == Host::HERE && holder.pid == pid)
        || row.waiting.iter().any(|wait| wait.host == Host::HERE && wait.pid == pid)
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
    let shared = match survey.shared() {
        0 => String::new(),
        number => format!(" ({number} shared)"),
    };
    format!(
        "{}{of} allocated, {} held{shared}, {}",
        survey.allocated,
        survey.held(),
        super::text::count(survey.waiters(), "thread waits", "threads wait"),
    )
}

/// By whom the lock of a row is held, what is remarkable about that, and whose turn it is next, as in a sentence.
pub fn held_by(row: &Row) -> String {
    // Beside one name; of several each has its own.
    let is_said = |note: &&Note| row.holders.len() == 1 && **note != Note::WriterNext;
    let notes: Vec<String> = row.notes.iter().filter(is_said).map(|note| format!(": {}", note.text())).collect();
    let next = row.next().map(|wait| format!("; next: {}", next(wait))).unwrap_or_default();
    holding::sentence(&row.holders) + &notes.concat() + &next
}

fn next(wait: &Waiting) -> String {
    let who =
        if wait.pid == 0 { "a writer that is not seen from here".to_owned() } else { process::described(wait.pid) };
    wait.waited_ns.map_or_else(|| who.clone(), |time| format!("{who}, waiting {}", duration(time)))
}
