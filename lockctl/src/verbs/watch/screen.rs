// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! `watch` on a terminal: draws the board, and does what the keys say.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::Source;
use super::board::{self, Board, Entry, HISTORY, Order, TITLES};
use crate::cli::Watch;
use crate::exit::{Failure, Outcome};
use crate::output::table;
use crate::verbs::list::beside;

/// Where nothing is due because the view is paused.
const PAUSE: Duration = Duration::from_secs(1);

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
    end_by_signal().map_err(|error| Failure::system("catching signals", &error))?;
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

/// From here on a signal gives the terminal back and then does what it does to any program. In a thread of its own: the
/// one that reads keys never comes back from a terminal that is gone.
fn end_by_signal() -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGHUP, SIGINT])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            // Fails where the terminal is gone.
            let _ = ratatui::try_restore();
            let _ = emulate_default_handler(signal);
        }
    })?;
    Ok(())
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
    let rows = entries.iter().map(|entry| Row::new(board::cells(entry).map(Cell::from)).style(style(entry)));
    let digits = entries.iter().map(|entry| entry.row.lock.id.to_string().len()).max().unwrap_or(0) as u16;
    let widths = [
        Constraint::Length(digits.max(2)),
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Length(8),
        Constraint::Length(HISTORY as u16),
        Constraint::Length(8),
        Constraint::Fill(3),
        Constraint::Fill(1),
    ];
    let table = Table::new(rows, widths)
        .header(Row::new(TITLES).style(Style::new().add_modifier(Modifier::REVERSED)))
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
