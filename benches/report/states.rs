// SPDX-License-Identifier: MIT OR Apache-2.0
//! The states that the machine was in, and how noisy it was.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::summary::{noise, noise_of_a_round};
use crate::contenders::NATIVE;
use crate::machine::State;
use crate::method::median;
use crate::results::{Figure, Results};
use crate::work::AGAIN;

/// Two states are told apart only by a gap as wide between the probes of one and of the other.
const GAP: f64 = 1.5;
/// Fewer rounds than that are no state.
const ROUNDS_OF_A_STATE: usize = 5;

/// Which rounds belong together.
#[derive(Debug, PartialEq)]
pub struct States {
    /// Millions of turns a second of the raw mutex, between the two states.
    border: Option<f64>,
    probes: Vec<State>,
}

impl States {
    pub fn of(results: &Results) -> Self {
        let probed = results
            .figures
            .iter()
            .filter_map(|figure| Some(((figure.work.as_str(), figure.case.as_str(), figure.round), figure.state?)));
        let probes: Vec<State> = probed.collect::<BTreeMap<_, _>>().into_values().collect();
        Self { border: border(probes.iter().map(|probe| probe.raw_rate).collect()), probes }
    }

    /// The states that occurred, by name.
    pub fn names(&self) -> &'static [&'static str] {
        if self.border.is_some() { &["cheap wake-ups", "dear wake-ups"] } else { &[""] }
    }

    /// Whether a figure belongs to the state of that name.
    pub fn has(&self, name: &str, figure: &Figure) -> bool {
        match (self.border, figure.state) {
            (Some(border), Some(state)) => (name == self.names()[0]) == (state.raw_rate > border),
            _ => true,
        }
    }

    /// What is said of the states and the noise.
    pub fn paragraph(&self, results: &Results) -> String {
        let mut text = String::from("\n## The machine while it measured\n\n");
        for name in self.names() {
            let mine = |probe: &&State| {
                self.border.is_none_or(|border| (*name == self.names()[0]) == (probe.raw_rate > border))
            };
            let mine: Vec<&State> = self.probes.iter().filter(mine).collect();
            if mine.is_empty() {
                continue;
            }
            let raw = median(mine.iter().map(|probe| probe.raw_rate).collect());
            let wake = median(mine.iter().map(|probe| probe.wake_up_us).collect());
            let state = if name.is_empty() { "One state" } else { name };
            let _ = writeln!(
                text,
                "- {state}, {} rounds: two processes have {raw:.1} M turns/s on a raw robust mutex with 50 ns inside, and \
                 a wake-up takes {wake:.1} µs.",
                mine.len()
            );
        }
        for (work, what) in [("uncontended", "alone on a lock"), ("contended", "in a crowd")] {
            let figures: Vec<&Figure> = results.of(work).collect();
            if let Some(noise) = twice(&figures, noise_of_a_round) {
                let _ = writeln!(
                    text,
                    "- Noise, {what}: the same code measured twice in a round differs by up to {:.1} % in nine of ten rounds.",
                    noise * 100.0
                );
            }
        }
        text
    }
}

/// How far a work's figures of the same code are from each other; those of a lone lock where it did not measure that.
pub fn noise_of(results: &Results, work: &str) -> Option<f64> {
    let of = |work: &str| noise_among(&results.of(work).collect::<Vec<_>>());
    of(work).or_else(|| of("uncontended"))
}

/// How far the same code is from itself among these figures, if they have it twice.
pub fn noise_among(figures: &[&Figure]) -> Option<f64> {
    twice(figures, noise)
}

/// What is asked of the two measurements of the same code.
fn twice(figures: &[&Figure], question: impl Fn(&[&Figure], &[&Figure]) -> Option<f64>) -> Option<f64> {
    let of = |contender: &str| -> Vec<&Figure> {
        figures.iter().copied().filter(|figure| figure.contender == contender).collect()
    };
    question(&of(NATIVE), &of(AGAIN))
}

/// Where the widest gap is, if it is wide enough and both sides have enough rounds.
fn border(mut rates: Vec<f64>) -> Option<f64> {
    rates.sort_by(f64::total_cmp);
    let (at, gap) = rates.windows(2).map(|pair| pair[1] / pair[0]).enumerate().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let (below, above) = (at + 1, rates.len() - at - 1);
    (gap >= GAP && below.min(above) >= ROUNDS_OF_A_STATE).then(|| (rates[at] * rates[at + 1]).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_states_are_told_apart_by_the_gap_between_them() {
        let two = [2.5, 2.6, 2.4, 2.5, 2.5, 6.7, 7.1, 6.9, 6.8, 7.0];
        assert!(border(two.into()).is_some_and(|border| border > 2.6 && border < 6.7));
        let one = [6.7, 7.1, 6.9, 6.8, 7.0, 6.5, 5.9, 6.1, 6.2, 6.3];
        assert_eq!(border(one.into()), None);
        let an_outlier = [2.5, 6.7, 7.1, 6.9, 6.8, 7.0];
        assert_eq!(border(an_outlier.into()), None);
        assert_eq!(border(Vec::new()), None);
    }
}
