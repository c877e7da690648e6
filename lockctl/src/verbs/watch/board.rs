// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! What `watch` knows from look to look: how often each lock is acquired, how that went lately, and in which order
//! locks are shown.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crate::output::table::{self, Column};
use crate::survey::holding::Holding;
use crate::survey::{Row, Survey};

/// How many looks a sparkline goes back.
pub const HISTORY: usize = 20;

/// From least to most.
const SPARKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The most waiters, then the most acquisitions.
    Contention,
    /// The most acquisitions.
    Rate,
    /// The lowest id.
    Id,
    /// The lowest process number of the holder.
    Holder,
}

impl Order {
    pub fn next(self) -> Self {
        match self {
            Self::Contention => Self::Rate,
            Self::Rate => Self::Id,
            Self::Id => Self::Holder,
            Self::Holder => Self::Contention,
        }
    }

    pub fn text(self) -> &'static str {
        match self {
            Self::Contention => "contention",
            Self::Rate => "rate",
            Self::Id => "id",
            Self::Holder => "holder",
        }
    }
}

/// A lock, with what became of it.
#[derive(Debug, Clone)]
pub struct Entry {
    pub row: Row,
    /// Acquisitions a second; `None`: the storage does not count them, or this is the first look.
    pub rate: Option<u64>,
    /// Acquisitions a second where they are counted, else waiters; the latest last.
    history: VecDeque<u64>,
}

impl Entry {
    pub fn rate(&self) -> String {
        self.rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate}/s"))
    }

    /// A character a look, as high as its share of the highest.
    pub fn sparkline(&self) -> String {
        let most = self.history.iter().copied().max().unwrap_or(0).max(1);
        let highest = SPARKS.len() as u64 - 1;
        self.history
            .iter()
            .map(|&value| SPARKS[usize::try_from((value * highest).div_ceil(most)).unwrap_or(0)])
            .collect()
    }
}

/// Every lock that is in use.
#[derive(Debug, Default)]
pub struct Board {
    entries: BTreeMap<u32, Entry>,
    looked: Option<Instant>,
}

impl Board {
    /// Takes a look in.
    pub fn update(&mut self, survey: &Survey, now: Instant) {
        let seconds = self.looked.map(|before| now.duration_since(before).as_secs_f64()).filter(|&time| time > 0.0);
        self.looked = Some(now);
        let mut before = std::mem::take(&mut self.entries);
        for row in &survey.rows {
            let known = before.remove(&row.lock.id);
            let rate = known.as_ref().zip(seconds).and_then(|(known, seconds)| {
                let acquired = row.lock.acquisitions.saturating_sub(known.row.lock.acquisitions);
                (row.lock.acquisitions > 0).then(|| (acquired as f64 / seconds).round() as u64)
            });
            let mut history = known.map(|known| known.history).unwrap_or_default();
            let counts = row.lock.acquisitions > 0;
            history.push_back(if counts { rate.unwrap_or(0) } else { row.waiters() as u64 });
            if history.len() > HISTORY {
                history.pop_front();
            }
            self.entries.insert(row.lock.id, Entry { row: row.clone(), rate, history });
        }
    }

    /// Those that the filter lets through, in that order. The filter is looked for in id, command and note.
    pub fn shown(&self, order: Order, filter: &str) -> Vec<&Entry> {
        let filter = filter.to_lowercase();
        let is_shown = |entry: &&Entry| {
            let has = |text: &str| text.to_lowercase().contains(&filter);
            filter.is_empty()
                || [Column::Id, Column::Note].iter().any(|column| has(&column.cell(&entry.row)))
                || entry.row.holders.iter().filter_map(|holder| holder.command.as_deref()).any(has)
        };
        let mut shown: Vec<&Entry> = self.entries.values().filter(is_shown).collect();
        let rate = |entry: &Entry| std::cmp::Reverse(entry.rate.unwrap_or(0));
        let waiters = |entry: &Entry| std::cmp::Reverse(entry.row.waiters());
        let is_free = |entry: &Entry| entry.row.holders.is_empty();
        let pid = |entry: &Entry| entry.row.holder().map(|holder| holder.pid);
        match order {
            Order::Contention => {
                shown.sort_by_key(|entry| (waiters(entry), rate(entry), is_free(entry), entry.row.lock.id));
            }
            Order::Rate => shown.sort_by_key(|entry| (rate(entry), entry.row.lock.id)),
            Order::Id => {}
            Order::Holder => shown.sort_by_key(|entry| (is_free(entry), pid(entry), entry.row.lock.id)),
        }
        shown
    }
}

/// What is shown of an entry, in the order of [`TITLES`].
pub fn cells(entry: &Entry) -> [String; 8] {
    let cell = |column: Column| column.cell(&entry.row);
    [
        cell(Column::Id),
        table::state(&entry.row).to_owned(),
        cell(Column::Waiters),
        entry.rate(),
        entry.sparkline(),
        cell(Column::HeldFor),
        holder(&entry.row),
        cell(Column::Note),
    ]
}

/// The heading of [`cells`].
pub const TITLES: [&str; 8] = ["ID", "STATE", "WAITERS", "RATE", "LATELY", "HELD FOR", "HOLDER", "NOTE"];

fn holder(row: &Row) -> String {
    let more = match row.holders.len().saturating_sub(1) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    match row.holder() {
        None => "-".to_owned(),
        Some(Holding { pid: 0, .. }) => format!("?{more}"),
        Some(Holding { pid, command, host_name, .. }) => {
            let command = command.as_ref().map_or_else(String::new, |command| format!(" {command}"));
            let host = host_name.as_ref().map_or_else(String::new, |host| format!(" on {host}"));
            format!("{pid}{command}{host}{more}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_shows_shares_of_the_highest_and_never_hides_what_is_there() {
        let row = |history: &[u64]| {
            let lock = lock_manager::LockInfo::default();
            let row = Row { lock, holders: Vec::new(), waiting: Vec::new(), notes: Vec::new() };
            Entry { row, rate: None, history: history.iter().copied().collect() }.sparkline()
        };
        assert_eq!(row(&[0, 7, 14, 1]), "▁▅█▂");
        assert_eq!(row(&[0, 0]), "▁▁");
        assert_eq!(row(&[]), "");
    }
}
