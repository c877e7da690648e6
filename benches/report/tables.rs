// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tables in Markdown.

use std::fmt::Write as _;

use super::states::noise_among;
use super::summary::{Band, Ratio};
use crate::contenders::{Contender, Death};
use crate::method::quantile;
use crate::results::{Better, Figure};

/// The values of a field in the order in which they come first.
pub fn in_order<'a>(figures: &[&'a Figure], field: impl Fn(&'a Figure) -> &'a str) -> Vec<&'a str> {
    let mut seen = Vec::new();
    for figure in figures {
        let value = field(figure);
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    seen
}

/// The figures of one contender.
pub fn of<'a>(figures: &[&'a Figure], contender: &str) -> Vec<&'a Figure> {
    figures.iter().copied().filter(|figure| figure.contender == contender).collect()
}

/// A row for each contender, a column for each case; the figures are of one quantity. The noise is that of cases which
/// did not measure their own.
pub fn matrix(figures: &[&Figure], reference: &str, noise: f64) -> String {
    let cases = in_order(figures, |figure| &figure.case);
    let mut text = format!("| {} | {} |\n|{}\n", heading(figures), cases.join(" | "), " --- |".repeat(cases.len() + 1));
    for contender in sorted(figures, reference) {
        let _ = write!(text, "| {contender} |");
        for case in &cases {
            let here: Vec<&Figure> = figures.iter().copied().filter(|figure| figure.case == *case).collect();
            let (own, reference_figures) = (of(&here, contender), of(&here, reference));
            let noise = noise_among(&here).unwrap_or(noise);
            let ratio = Ratio::within_rounds(&own, &reference_figures, noise).filter(|_| contender != reference);
            let _ = write!(text, " {} |", cell(&own, ratio));
        }
        text.push('\n');
    }
    text
}

/// A row for each contender and case: quantiles of many events, each of which counts.
pub fn distribution(figures: &[&Figure], reference: &str) -> String {
    let mut text = String::new();
    for case in in_order(figures, |figure| &figure.case) {
        let here: Vec<&Figure> = figures.iter().copied().filter(|figure| figure.case == case).collect();
        let _ = writeln!(text, "| {case}: {} | median | p90 | p99 | longest | events |", heading(&here));
        text.push_str("| --- | --- | --- | --- | --- | --- |\n");
        for contender in sorted(&here, reference) {
            let own = of(&here, contender);
            let mut values: Vec<f64> = own.iter().map(|figure| figure.value).collect();
            let _ = write!(text, "| {contender}{} |", told(&own[0].work, contender));
            for share in [0.5, 0.9, 0.99, 1.0] {
                let _ = write!(text, " {} |", number(quantile(&mut values, share), &own[0].unit));
            }
            let _ = writeln!(text, " {} |", values.len());
        }
        text.push('\n');
    }
    text
}

/// What the next holder knows of a death.
fn told(work: &str, contender: &str) -> &'static str {
    if work != "recovery" {
        return "";
    }
    match Contender::death_of(contender) {
        Some(Death::Told) => ", told",
        Some(Death::Untold) => ", not told",
        _ => "",
    }
}

fn heading(figures: &[&Figure]) -> String {
    let Some(first) = figures.first() else { return String::new() };
    let more = if first.better == Better::More { "; more is better" } else { "" };
    let unit = if first.unit.is_empty() { String::new() } else { format!(", {}", first.unit) };
    format!("{}{unit}{more}", first.quantity)
}

/// The reference first, the others from the best to the worst in the first case.
fn sorted<'a>(figures: &[&'a Figure], reference: &str) -> Vec<&'a str> {
    let mut contenders = in_order(figures, |figure| &figure.contender);
    let first_case = |contender: &str| {
        let own = of(figures, contender);
        let case = own[0].case.as_str();
        let better = own[0].better;
        let value = Band::of(own.iter().filter(|figure| figure.case == case).map(|figure| figure.value).collect());
        let median = value.map_or(f64::INFINITY, |band| band.median);
        if better == Better::More { -median } else { median }
    };
    contenders.sort_by(|a, b| first_case(a).total_cmp(&first_case(b)));
    if let Some(place) = contenders.iter().position(|contender| *contender == reference) {
        contenders[..=place].rotate_right(1);
    }
    contenders
}

fn cell(figures: &[&Figure], ratio: Option<Ratio>) -> String {
    let Some(band) = Band::of(figures.iter().map(|figure| figure.value).collect()) else { return "–".to_owned() };
    let unit = &figures[0].unit;
    let mut text = number(band.median, unit);
    if figures.len() > 1 {
        let _ = write!(text, " ({} to {})", number(band.least, unit), number(band.greatest, unit));
    }
    match ratio {
        Some(Ratio::Shown(ratio)) => {
            let _ = write!(text, " **{} ×**", times(ratio));
        }
        Some(Ratio::NoDifference) => text.push_str(" ≈"),
        None => {}
    }
    text
}

/// A value as a reader wants it: rates with k or M, what never happened in words.
pub fn number(value: f64, unit: &str) -> String {
    if value.is_infinite() {
        return "never".to_owned();
    }
    match unit {
        "turns/s" if value >= 1e6 => format!("{} M", digits(value / 1e6)),
        "turns/s" if value >= 1e4 => format!("{} k", digits(value / 1e3)),
        _ => digits(value),
    }
}

/// A ratio: nobody asks how much less than a thousandth.
pub fn times(ratio: f64) -> String {
    if ratio < 0.001 { "under 0.001".to_owned() } else { digits(ratio) }
}

/// Three digits, or all before the point.
fn digits(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let decimals = (2 - value.abs().log10().floor() as i32).clamp(0, 6) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_prefix_where_they_are_rates() {
        assert_eq!(number(9_123_456.0, "turns/s"), "9.12 M");
        assert_eq!(number(91_234.0, "turns/s"), "91.2 k");
        assert_eq!(number(12_345.0, "ns"), "12345");
        assert_eq!(number(0.01234, "ms"), "0.0123");
        assert_eq!(number(50.0, "ms"), "50");
        assert_eq!(number(f64::INFINITY, "ms"), "never");
    }
}
