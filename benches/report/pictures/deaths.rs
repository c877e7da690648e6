// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the SIGKILL of a holder to the next holder: what share of the deaths was over by then.

use std::path::Path;

use plotters::prelude::*;

use super::canvas::{Drawn, GREY, INK, Outcome, PAPER, colour, decades, text, tick};
use crate::contenders::{FILES, LIBPOD, NATIVE};
use crate::peers;
use crate::report::states::States;
use crate::report::tables::{in_order, of};
use crate::results::{Figure, Results};

const SIZE: (u32, u32) = (860, 420);
/// The rest is for the names.
const CHART_WIDTH: u32 = 630;
const NAME_HEIGHT: i32 = 22;
/// One of each kind; the others are as these, and in the table.
const SHOWN: [&str; 8] =
    [NATIVE, LIBPOD, peers::RAW, FILES, peers::SEMOP, peers::OFD, peers::FLOCK, peers::APR_PTHREAD];

pub fn draw(results: &Results, _states: &States, path: &Path) -> Drawn {
    let figures: Vec<&Figure> = results.of("recovery").filter(|figure| figure.case == "a small holder").collect();
    let Some(axis) = decades(figures.iter().map(|figure| figure.value)) else { return Ok(Outcome::NothingToDraw) };
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&PAPER)?;
    let (left, right) = root.split_horizontally(CHART_WIDTH);
    let mut chart = ChartBuilder::on(&left)
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
    let names = in_order(&figures, |figure| &figure.contender);
    let passes_on = |name: &str| of(&figures, name).iter().any(|figure| figure.value.is_finite());
    let mut listed = 0;
    let mut list = |name: &str, style: Option<ShapeStyle>| {
        let y = 50 + NAME_HEIGHT * listed;
        listed += 1;
        if let Some(style) = style {
            right.draw(&PathElement::new([(0, y), (20, y)], style))?;
        }
        right.draw(&Text::new(name.to_owned(), (28, y - 7), text(13)))
    };
    for (number, name) in SHOWN.iter().enumerate().filter(|(_, name)| names.contains(name) && passes_on(name)) {
        let mut values: Vec<f64> = of(&figures, name).iter().map(|figure| figure.value).collect();
        values.sort_by(f64::total_cmp);
        let style = colour(number).stroke_width(if *name == NATIVE { 4 } else { 2 });
        chart.draw_series(LineSeries::new(steps(&values, &axis), style))?;
        list(name, Some(style))?;
    }
    let never: Vec<&str> = names.into_iter().filter(|name| !passes_on(name)).collect();
    if !never.is_empty() {
        let style = INK.stroke_width(4);
        chart.draw_series(LineSeries::new([(axis.start, 0.6), (axis.end, 0.6)], style))?;
        list("never, however long one waits:", Some(style))?;
        for name in never {
            list(&format!("   {name}"), None)?;
        }
    }
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
