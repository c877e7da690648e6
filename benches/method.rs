// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! How everything is measured.
//!
//! - **Interleaved rounds.** Each round measures every contender once, in an order that moves on by one from round to
//!   round, so that a slow minute of the machine is everybody's. There are seven rounds at least.
//! - **Medians with the band of all rounds.** No round is thrown away: the band goes from the least to the greatest.
//! - **Ratios within the round.** A ratio is formed between two figures of one round, and then the median of the ratios
//!   is taken, with their band.
//! - **Noise is measured.** One contender stands in each round twice, as two; how far the two differ is what the
//!   machine does by itself. A difference that is smaller, or that the rounds do not agree on, is not called one
//!   (`report/summary.rs`).
//! - **The state is kept.** A round of a contended work begins with a probe of the machine (`machine.rs`).

use std::time::{Duration, Instant};

use crate::contenders::Contender;
use crate::machine::State;
use crate::progress;
use crate::results::{Figure, Quantity, Results};

/// How long the whole may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effort {
    /// A minute.
    Quick,
    /// Ten minutes.
    Full,
}

/// No figure is of fewer.
pub const ROUNDS: usize = 7;

impl Effort {
    /// The one value or the other.
    pub fn pick<T>(self, quick: T, full: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Full => full,
        }
    }

    pub fn slice(self) -> Duration {
        Duration::from_millis(self.pick(12, 120))
    }
}

/// What one contender does in one round: a value for each quantity.
pub struct Entry<'a> {
    pub contender: String,
    pub measure: Box<dyn FnMut(usize) -> Vec<f64> + 'a>,
}

impl<'a> Entry<'a> {
    /// For a case with one quantity.
    pub fn new(contender: &str, mut measure: impl FnMut() -> f64 + 'a) -> Self {
        Self::of_several(contender, move |_| vec![measure()])
    }

    /// The round's number is given, for those that vary with it.
    pub fn of_several(contender: &str, measure: impl FnMut(usize) -> Vec<f64> + 'a) -> Self {
        Self { contender: contender.to_owned(), measure: Box::new(measure) }
    }
}

/// Whether a case depends on the state that the machine is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contended {
    Yes,
    No,
}

/// A run: what was asked for, and what it has found.
pub struct Run {
    pub effort: Effort,
    pub results: Results,
}

impl Run {
    /// Measures all entries in that many rounds.
    pub fn rounds(
        &mut self,
        work: &str,
        case: &str,
        quantities: &[Quantity],
        rounds: usize,
        contended: Contended,
        mut entries: Vec<Entry<'_>>,
    ) {
        for round in 0..rounds {
            progress::at(&format!("{work}: {case}"), round, rounds);
            let state = (contended == Contended::Yes).then(|| State::probe(&Contender::raw()));
            let next = usize::from(entries.len() > 1);
            entries.rotate_left(next);
            for entry in &mut entries {
                let values = (entry.measure)(round);
                assert_eq!(values.len(), quantities.len(), "a value for each quantity");
                for (quantity, value) in quantities.iter().zip(values) {
                    self.keep(work, case, quantity, &entry.contender, round, value, state);
                }
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of a figure")]
    pub fn keep(
        &mut self,
        work: &str,
        case: &str,
        quantity: &Quantity,
        contender: &str,
        round: usize,
        value: f64,
        state: Option<State>,
    ) {
        self.results.figures.push(Figure {
            work: work.to_owned(),
            case: case.to_owned(),
            quantity: quantity.name.to_owned(),
            unit: quantity.unit.to_owned(),
            better: quantity.better,
            contender: contender.to_owned(),
            round,
            value,
            state,
        });
    }

    /// Keeps a figure that is the same in each round.
    pub fn fixed(&mut self, work: &str, case: &str, quantity: &Quantity, contender: &str, value: f64) {
        self.keep(work, case, quantity, contender, 0, value, None);
    }
}

/// Nanoseconds a call of `work`, of which `calls` are made.
#[inline]
pub fn nanoseconds(calls: u32, mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        work();
    }
    start.elapsed().as_nanos() as f64 / f64::from(calls)
}

/// Microseconds that one call takes, and what it returns.
pub fn microseconds<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed().as_nanos() as f64 / 1000.0, result)
}

/// The value below which that share of the values lies; the values are not empty.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share).round() as usize]
}

pub fn median(mut values: Vec<f64>) -> f64 {
    quantile(&mut values, 0.5)
}
