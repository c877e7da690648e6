// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The raw figures: one line for each figure of each round, below what is said of the machine.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use crate::machine::State;

const HEADER: &str = "work,case,quantity,unit,better,contender,round,value,raw_mutex_mturns,wake_up_us";

/// Which of two values of a quantity is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    Less,
    More,
}

/// What is measured, and in which unit.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    pub name: &'static str,
    pub unit: &'static str,
    pub better: Better,
}

impl Quantity {
    pub const fn less(name: &'static str, unit: &'static str) -> Self {
        Self { name, unit, better: Better::Less }
    }

    pub const fn more(name: &'static str, unit: &'static str) -> Self {
        Self { name, unit, better: Better::More }
    }
}

/// One figure of one round.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    pub work: String,
    pub case: String,
    pub quantity: String,
    pub unit: String,
    pub better: Better,
    pub contender: String,
    pub round: usize,
    /// Infinite where it did not come to an end in the time given.
    pub value: f64,
    /// Where the work depends on the machine's state.
    pub state: Option<State>,
}

/// All figures of one machine.
#[derive(Default, Debug, PartialEq)]
pub struct Results {
    pub facts: Vec<(String, String)>,
    pub figures: Vec<Figure>,
}

impl Results {
    pub fn fact(&self, name: &str) -> &str {
        self.facts.iter().find(|(fact, _)| fact == name).map_or("", |(_, value)| value)
    }

    pub fn of<'a>(&'a self, work: &'a str) -> impl Iterator<Item = &'a Figure> + Clone {
        self.figures.iter().filter(move |figure| figure.work == work)
    }

    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = String::from("# SPDX-License-Identifier: MIT OR Apache-2.0\n");
        for (name, value) in &self.facts {
            let _ = writeln!(text, "# {name}: {value}");
        }
        let _ = writeln!(text, "{HEADER}");
        for figure in &self.figures {
            let Figure { work, case, quantity, unit, better, contender, round, value, state } = figure;
            let better = if *better == Better::Less { "less" } else { "more" };
            let state = state.map_or_else(|| ",".to_owned(), |s| format!("{:.3},{:.3}", s.raw_rate, s.wake_up_us));
            let value = significant(*value);
            debug_assert!(![work, case, quantity, contender].iter().any(|field| field.contains(',')));
            let _ = writeln!(text, "{work},{case},{quantity},{unit},{better},{contender},{round},{value},{state}");
        }
        fs::write(path, text)
    }

    /// Reads what `write` wrote.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut results = Self::default();
        for (number, line) in text.lines().enumerate() {
            if let Some(fact) = line.strip_prefix("# ") {
                results.facts.extend(fact.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned())));
            } else if line != HEADER {
                let figure = parse(line).ok_or_else(|| {
                    format!("{}:{}: not a figure as {HEADER:?} has them: {line}", path.display(), number + 1)
                })?;
                results.figures.push(figure);
            }
        }
        Ok(results)
    }
}

fn parse(line: &str) -> Option<Figure> {
    let fields: Vec<&str> = line.split(',').collect();
    let &[work, case, quantity, unit, better, contender, round, value, raw_rate, wake_up_us] = fields.as_slice() else {
        return None;
    };
    let better = match better {
        "less" => Better::Less,
        "more" => Better::More,
        _ => return None,
    };
    let state = match (raw_rate, wake_up_us) {
        ("", "") => None,
        (raw_rate, wake_up_us) => {
            Some(State { raw_rate: raw_rate.parse().ok()?, wake_up_us: wake_up_us.parse().ok()? })
        }
    };
    let [work, case, quantity, unit, contender] = [work, case, quantity, unit, contender].map(str::to_owned);
    Some(Figure {
        work,
        case,
        quantity,
        unit,
        better,
        contender,
        round: round.parse().ok()?,
        value: value.parse().ok()?,
        state,
    })
}

/// Five digits: more than any of them means.
fn significant(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let decimals = (4 - value.abs().log10().floor() as i32).clamp(0, 9) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let path = std::env::temp_dir().join(format!("lock_manager-bench-results-{}.csv", std::process::id()));
        let figure = Figure {
            work: "pair".into(),
            case: "uncontended".into(),
            quantity: "time".into(),
            unit: "ns".into(),
            better: Better::Less,
            contender: "a lock".into(),
            round: 3,
            value: 12.5,
            state: Some(State { raw_rate: 6.5, wake_up_us: 4.25 }),
        };
        let never = Figure { value: f64::INFINITY, state: None, better: Better::More, ..figure.clone() };
        let written = Results {
            facts: vec![
                ("SPDX-License-Identifier".into(), "MIT OR Apache-2.0".into()),
                ("kernel".into(), "6.1: a".into()),
            ],
            figures: vec![figure, never],
        };
        Results { facts: written.facts[1..].to_vec(), figures: written.figures.clone() }.write(&path).unwrap();
        assert_eq!(Results::read(&path).unwrap(), written);
        std::fs::write(&path, "pair,uncontended\n").unwrap();
        assert!(Results::read(&path).unwrap_err().contains(":1: not a figure"));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_value_has_five_digits() {
        assert_eq!(significant(123_456.7), "123457");
        assert_eq!(significant(1.234_567), "1.2346");
        assert_eq!(significant(0.001_234_567), "0.0012346");
    }
}
