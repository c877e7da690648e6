// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the rounds of one contender in one case come to.

use std::collections::HashMap;

use crate::method::quantile;
use crate::results::Figure;

/// Of the rounds' ratios that many are left out at each end before it is asked whether the rest includes 1.
const LEFT_OUT: f64 = 0.05;

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
        let median = quantile(&mut ratios, 0.5);
        let (low, high) = (quantile(&mut ratios, LEFT_OUT), quantile(&mut ratios, 1.0 - LEFT_OUT));
        let same = (low <= 1.0 && high >= 1.0) || apart(median) <= noise;
        Some(if same { Self::NoDifference } else { Self::Shown(median) })
    }
}

/// How far a ratio is from 1, to either side.
fn apart(ratio: f64) -> f64 {
    ratio.max(1.0 / ratio) - 1.0
}

/// How far two measurements of the same code are from each other: nine tenths of the rounds are within it.
pub fn noise(once: &[&Figure], again: &[&Figure]) -> Option<f64> {
    let by_round: HashMap<(&str, usize), f64> =
        once.iter().map(|figure| ((figure.case.as_str(), figure.round), figure.value)).collect();
    let mut distances: Vec<f64> = again
        .iter()
        .filter_map(|figure| Some(apart(figure.value / by_round.get(&(figure.case.as_str(), figure.round))?)))
        .collect();
    (!distances.is_empty()).then(|| quantile(&mut distances, 0.9))
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
}
