// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the SIGKILL of a holder to the next holder: what share of the deaths was over by then.

use std::path::Path;

use plotters::prelude::*;

use super::canvas::{Drawn, GREY, INK, Outcome, PAPER, colour, decades, text, tick};
use crate::contenders::NATIVE;
use crate::report::states::States;
use crate::report::tables::{in_order, of};
use crate::results::{Figure, Results};

const SIZE: (u32, u32) = (860, 460);

pub fn draw(results: &Results, _states: &States, path: &Path) -> Drawn {
    let figures: Vec<&Figure> = results.of("recovery").filter(|figure| figure.case == "a small holder").collect();
    let Some(axis) = decades(figures.iter().map(|figure| figure.value)) else { return Ok(Outcome::NothingToDraw) };
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&PAPER)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("A holder is killed: when does the next one have the lock?", text(18))
        .margin(12)
        .margin_right(24)
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d(axis.clone().log_scale(), 0.0..102.0)?;
    chart
        .configure_mesh()
        .x_desc("milliseconds after the SIGKILL, logarithmic")
        .y_desc("% of the deaths")
        .x_label_formatter(&|value| tick(*value))
        .y_labels(6)
        .label_style(text(13))
        .axis_desc_style(text(13))
        .axis_style(INK)
        .bold_line_style(GREY.mix(0.4))
        .light_line_style(GREY.mix(0.12))
        .draw()?;
    let mut contenders = in_order(&figures, |figure| &figure.contender);
    contenders.sort_by_key(|name| *name != NATIVE);
    let passes_on = |name: &&str| of(&figures, name).iter().any(|figure| figure.value.is_finite());
    let (passed_on, never): (Vec<&str>, Vec<&str>) = contenders.into_iter().partition(passes_on);
    for (number, name) in passed_on.iter().enumerate() {
        let mut values: Vec<f64> = of(&figures, name).iter().map(|figure| figure.value).collect();
        values.sort_by(f64::total_cmp);
        let width = if *name == NATIVE { 4 } else { 2 };
        let style = colour(number).stroke_width(width);
        chart
            .draw_series(LineSeries::new(steps(&values, &axis), style))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    if !never.is_empty() {
        let style = INK.stroke_width(3);
        chart
            .draw_series(LineSeries::new([(axis.start, 0.4), (axis.end, 0.4)], style))?
            .label(format!("never: {}", never.join(", ")))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::Coordinate(80, 60))
        .background_style(PAPER)
        .border_style(GREY)
        .label_font(text(12))
        .draw()?;
    root.present()?;
    Ok(Outcome::Drawn)
}

/// Up by one step at each value.
fn steps(sorted: &[f64], axis: &std::ops::Range<f64>) -> Vec<(f64, f64)> {
    let share = |count: usize| 100.0 * count as f64 / sorted.len() as f64;
    let mut points = vec![(axis.start, 0.0)];
    for (count, &value) in sorted.iter().enumerate().filter(|(_, value)| value.is_finite()) {
        points.extend([(value, share(count)), (value, share(count + 1))]);
    }
    let top = points.last().map_or(0.0, |point| point.1);
    points.push((axis.end, top));
    points
}
