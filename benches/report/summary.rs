// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the rounds of one contender in one case come to.

use std::collections::HashMap;

use crate::method::quantile;
use crate::results::Figure;

/// Half the width, in ranks and for one round, of the interval in which the true median lies 95 times in 100: order
/// statistics, which suppose nothing of the distribution.
const HALF_WIDTH: f64 = 0.98;

/// The middle and the band of all rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Band {
    pub median: f64,
    pub least: f64,
    pub greatest: f64,
}

impl Band {
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        (!values.is_empty()).then(|| Self {
            median: quantile(&mut values, 0.5),
            least: quantile(&mut values, 0.0),
            greatest: quantile(&mut values, 1.0),
        })
    }
}

/// Two contenders beside each other, round by round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ratio {
    Shown(f64),
    /// What was measured is no more than the noise.
    NoDifference,
}

impl Ratio {
    /// Of the figures to the reference's of the same rounds.
    pub fn within_rounds(figures: &[&Figure], reference: &[&Figure], noise: f64) -> Option<Self> {
        if figures.iter().chain(reference).any(|figure| !figure.value.is_finite()) {
            return None;
        }
        let by_round: HashMap<usize, f64> = reference.iter().map(|figure| (figure.round, figure.value)).collect();
        let mut ratios: Vec<f64> =
            figures.iter().filter_map(|figure| Some(figure.value / by_round.get(&figure.round)?)).collect();
        if ratios.is_empty() || ratios.iter().any(|ratio| !ratio.is_finite() || *ratio == 0.0) {
            return None;
        }
        let (low, high) = interval_of_the_median(&mut ratios);
        let median = quantile(&mut ratios, 0.5);
        let same = (low <= 1.0 && high >= 1.0) || apart(median) <= noise;
        Some(if same { Self::NoDifference } else { Self::Shown(median) })
    }
}

/// How far a ratio is from 1, to either side.
fn apart(ratio: f64) -> f64 {
    ratio.max(1.0 / ratio) - 1.0
}

/// In which the median lies, as far as the rounds tell: of seven rounds, all of their band.
fn interval_of_the_median(values: &mut [f64]) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let last = (values.len() - 1) as f64;
    let half = HALF_WIDTH * (values.len() as f64).sqrt();
    let rank = |rank: f64| values[rank.clamp(0.0, last) as usize];
    (rank((last / 2.0 - half).floor()), rank((last / 2.0 + half).ceil()))
}

/// How far the median of two measurements of the same code may be from 1: a smaller difference says nothing.
pub fn noise(once: &[&Figure], again: &[&Figure]) -> Option<f64> {
    let mut ratios = ratios_by_round(once, again);
    if ratios.is_empty() {
        return None;
    }
    let (low, high) = interval_of_the_median(&mut ratios);
    Some(apart(low).max(apart(high)))
}

/// How far two measurements of the same code are from each other in nine of ten rounds.
pub fn noise_of_a_round(once: &[&Figure], again: &[&Figure]) -> Option<f64> {
    let mut distances: Vec<f64> = ratios_by_round(once, again).into_iter().map(apart).collect();
    (!distances.is_empty()).then(|| quantile(&mut distances, 0.9))
}

fn ratios_by_round(once: &[&Figure], again: &[&Figure]) -> Vec<f64> {
    let by_round: HashMap<(&str, usize), f64> =
        once.iter().map(|figure| ((figure.case.as_str(), figure.round), figure.value)).collect();
    let ratio = |figure: &&Figure| Some(figure.value / by_round.get(&(figure.case.as_str(), figure.round))?);
    again.iter().filter_map(ratio).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Better;

    fn figures(values: &[f64]) -> Vec<Figure> {
        let figure = |(round, &value): (usize, &f64)| Figure {
            work: String::new(),
            case: String::new(),
            quantity: String::new(),
            unit: String::new(),
            better: Better::Less,
            contender: String::new(),
            round,
            value,
            state: None,
        };
        values.iter().enumerate().map(figure).collect()
    }

    fn ratio(ours: &[f64], theirs: &[f64], noise: f64) -> Option<Ratio> {
        let (ours, theirs) = (figures(ours), figures(theirs));
        Ratio::within_rounds(&theirs.iter().collect::<Vec<_>>(), &ours.iter().collect::<Vec<_>>(), noise)
    }

    #[test]
    fn a_ratio_is_formed_within_the_round() {
        // The machine is ten times as slow in the second round: both are.
        assert_eq!(ratio(&[1.0, 10.0, 1.0], &[2.0, 20.0, 2.0], 0.0), Some(Ratio::Shown(2.0)));
    }

    #[test]
    fn what_the_noise_explains_is_no_difference() {
        assert_eq!(ratio(&[1.0, 1.0, 1.0], &[1.02, 1.03, 1.02], 0.05), Some(Ratio::NoDifference));
        assert_eq!(ratio(&[1.0, 1.0, 1.0], &[0.5, 1.5, 1.5], 0.05), Some(Ratio::NoDifference));
        assert_eq!(ratio(&[1.0, 1.0, 1.0], &[1.2, 1.3, 1.2], 0.05), Some(Ratio::Shown(1.2)));
    }

    #[test]
    fn a_lock_that_nobody_gets_has_no_ratio() {
        assert_eq!(ratio(&[1.0], &[f64::INFINITY], 0.0), None);
    }

    #[test]
    fn noise_is_the_distance_of_the_same_from_itself() {
        let (once, again) = (figures(&[1.0, 2.0]), figures(&[1.1, 2.2]));
        let noise = noise(&once.iter().collect::<Vec<_>>(), &again.iter().collect::<Vec<_>>());
        assert!(noise.is_some_and(|noise| (noise - 0.1).abs() < 1e-9), "{noise:?}");
    }

    #[test]
    fn the_more_rounds_the_narrower_the_interval_of_their_median() {
        let mut seven: Vec<f64> = (1..=7).map(f64::from).collect();
        assert_eq!(interval_of_the_median(&mut seven), (1.0, 7.0));
        let mut many: Vec<f64> = (1..=201).map(f64::from).collect();
        assert_eq!(interval_of_the_median(&mut many), (87.0, 115.0));
    }
}
