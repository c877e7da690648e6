// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! `watch` on a terminal: draws the board, and does what the keys say.

use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState};

use super::Source;
use super::board::{self, Board, Entry, HISTORY, Order, TITLES};
use crate::cli::Watch;
use crate::exit::{Failure, Outcome};
use crate::output::table::{self, Column};
use crate::sys::signals;
use crate::verbs::list::beside;

/// Where nothing is due because the view is paused.
const PAUSE: Duration = Duration::from_secs(1);

/// Columns of [`TITLES`] that a table always has.
const ID: usize = 0;
const HOLDER: usize = 6;

/// The others, those that are missed least first: LATELY, RATE, HELD FOR, STATE, NOTE, WAITERS.
const DISPENSABLE: [usize; 6] = [4, 3, 5, 1, 7, 2];

/// What the user has chosen.
struct View {
    order: Order,
    filter: String,
    /// Whether keys go into the filter.
    is_typing: bool,
    is_paused: bool,
    state: TableState,
}

#[derive(PartialEq, Eq)]
enum Answer {
    GoOn,
    Quit,
}

/// Gives the terminal back as it was, however the view ends.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

pub fn show(arguments: &Watch, source: &mut Source) -> Outcome {
    // In a thread of its own, since the one that reads keys never comes back from a terminal that is gone.
    let give_back = || drop(ratatui::try_restore());
    signals::end_after(give_back).map_err(|error| Failure::system("catching signals", &error))?;
    // The first look before the screen is taken: what fails is said where it can be read.
    let mut survey = source.look()?;
    let mut looked = Instant::now();
    let mut board = Board::default();
    board.update(&survey, looked);
    let mut terminal = ratatui::try_init().map_err(|error| Failure::system("setting up the terminal", &error))?;
    let _restored = Restored;
    let mut view = View {
        order: Order::Contention,
        filter: String::new(),
        is_typing: false,
        is_paused: false,
        state: TableState::default(),
    };
    let mut looks = 1;
    loop {
        let heading = format!("{}: {}", source.storage.shown(), table::summary(&survey));
        terminal.draw(|frame| draw(frame, &board, &mut view, &heading, &beside(&survey)))?;
        let rest = if view.is_paused { PAUSE } else { arguments.delay.saturating_sub(looked.elapsed()) };
        if rest.is_zero() && arguments.count == Some(looks) {
            return Ok(0);
        }
        if event::poll(rest)? && answer(&mut view, &event::read()?) == Answer::Quit {
            return Ok(0);
        }
        if !view.is_paused && looked.elapsed() >= arguments.delay {
            survey = source.look()?;
            looked = Instant::now();
            board.update(&survey, looked);
            looks += 1;
        }
    }
}

/// Does what the event says.
fn answer(view: &mut View, event: &Event) -> Answer {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) = *event else { return Answer::GoOn };
    if code == KeyCode::Char('c') && modifiers.contains(KeyModifiers::CONTROL) {
        return Answer::Quit;
    }
    if view.is_typing {
        match code {
            KeyCode::Enter => view.is_typing = false,
            KeyCode::Esc => {
                view.is_typing = false;
                view.filter.clear();
            }
            KeyCode::Backspace => {
                view.filter.pop();
            }
            KeyCode::Char(character) => view.filter.push(character),
            _ => {}
        }
        return Answer::GoOn;
    }
    match code {
        KeyCode::Char('q') | KeyCode::Esc => return Answer::Quit,
        KeyCode::Char('s') => view.order = view.order.next(),
        KeyCode::Char('/') => view.is_typing = true,
        KeyCode::Char(' ') => view.is_paused = !view.is_paused,
        KeyCode::Down | KeyCode::Char('j') => view.state.select_next(),
        KeyCode::Up | KeyCode::Char('k') => view.state.select_previous(),
        KeyCode::Home => view.state.select_first(),
        KeyCode::End => view.state.select_last(),
        KeyCode::PageDown => view.state.scroll_down_by(10),
        KeyCode::PageUp => view.state.scroll_up_by(10),
        _ => {}
    }
    Answer::GoOn
}

/// Which columns of [`TITLES`] so wide a table has room for, and how wide each is at least. Where a terminal is narrow
/// whole columns go, those first that say least: cut to a letter or two, none of them says anything.
fn columns_in(width: u16, digits: u16, notes: u16) -> Vec<(usize, u16)> {
    let mut columns =
        vec![(ID, digits.max(2)), (1, 8), (2, 7), (3, 8), (4, HISTORY as u16), (5, 8), (HOLDER, 8), (7, notes.max(4))];
    let needed = |columns: &[(usize, u16)]| {
        columns.iter().map(|&(_, width)| usize::from(width) + 1).sum::<usize>().saturating_sub(1)
    };
    for dispensable in DISPENSABLE {
        if needed(&columns) <= usize::from(width) {
            break;
        }
        columns.retain(|&(column, _)| column != dispensable);
    }
    columns
}

fn draw(frame: &mut Frame<'_>, board: &Board, view: &mut View, heading: &str, beside: &[String]) {
    let lines = u16::try_from(beside.len()).unwrap_or(u16::MAX);
    let [top, middle, below, bottom] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(2),
        Constraint::Length(lines.min(3)),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(heading).style(Style::new().add_modifier(Modifier::BOLD)), top);
    let notes: Vec<Line<'_>> = beside.iter().map(|sentence| Line::from(sentence.as_str())).collect();
    frame.render_widget(Paragraph::new(notes).style(Style::new().fg(Color::Yellow)), below);

    let entries = board.shown(view.order, &view.filter);
    let digits = entries.iter().map(|entry| entry.row.lock.id.to_string().len()).max().unwrap_or(0) as u16;
    let notes = entries.iter().map(|entry| Column::Note.cell(&entry.row).chars().count()).max().unwrap_or(0) as u16;
    let columns = columns_in(middle.width, digits, notes);
    let rows = entries.iter().map(|entry| {
        let cells = board::cells(entry);
        Row::new(columns.iter().map(|&(column, _)| Cell::from(cells[column].clone()))).style(style(entry))
    });
    let widths = columns.iter().map(|&(column, width)| match column {
        HOLDER => Constraint::Fill(1),
        _ => Constraint::Length(width),
    });
    let table = Table::new(rows, widths)
        .header(
            Row::new(columns.iter().map(|&(column, _)| TITLES[column]))
                .style(Style::new().add_modifier(Modifier::REVERSED)),
        )
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    frame.render_stateful_widget(table, middle, &mut view.state);
    frame.render_widget(Paragraph::new(keys(view)), bottom);
}

fn style(entry: &Entry) -> Style {
    let row = &entry.row;
    if row.lock.owner_died {
        Style::new().fg(Color::Red)
    } else if row.waiters() > 0 {
        Style::new().fg(Color::Yellow)
    } else if row.lock.held {
        Style::new()
    } else {
        Style::new().add_modifier(Modifier::DIM)
    }
}

/// The last line: the keys, and what is chosen by them.
fn keys(view: &View) -> String {
    if view.is_typing {
        return format!("filter: {}_   (Enter keeps it, Esc drops it)", view.filter);
    }
    let order = view.order.text();
    let filter = if view.filter.is_empty() { "none" } else { &view.filter };
    let paused = if view.is_paused { "   PAUSED" } else { "" };
    format!("q quit   s sort: {order}   / filter: {filter}   space pause{paused}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles(width: u16, notes: u16) -> Vec<&'static str> {
        columns_in(width, 2, notes).into_iter().map(|(column, _)| TITLES[column]).collect()
    }

    #[test]
    fn a_narrow_terminal_has_fewer_columns_and_whole_notes() {
        assert_eq!(titles(100, 17), TITLES);
        assert_eq!(titles(80, 17), ["ID", "STATE", "WAITERS", "RATE", "HELD FOR", "HOLDER", "NOTE"]);
        assert_eq!(titles(20, 1), ["ID", "WAITERS", "HOLDER"]);
        assert_eq!(titles(1, 1), ["ID", "HOLDER"]);
    }
}
