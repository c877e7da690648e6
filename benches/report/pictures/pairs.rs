// SPDX-License-Identifier: MIT OR Apache-2.0
//! The price of a pair that nobody waits for: a row for each contender, its middle and its band.

use std::path::Path;

use plotters::prelude::*;

use super::canvas::{Drawn, GREY, INK, Outcome, PAPER, colour, decades, text, tick};
use crate::contenders::NATIVE;
use crate::report::states::States;
use crate::report::summary::Band;
use crate::report::tables::{in_order, number, of};
use crate::results::{Figure, Results};
use crate::work::AGAIN;

const WIDTH: u32 = 860;
const ROW: u32 = 26;
const MARGINS: u32 = 90;

pub fn draw(results: &Results, _states: &States, path: &Path) -> Drawn {
    let figures: Vec<&Figure> = results.of("uncontended").filter(|figure| figure.contender != AGAIN).collect();
    let mut bands: Vec<(&str, Band)> = in_order(&figures, |figure| &figure.contender)
        .into_iter()
        .filter_map(|name| Some((name, Band::of(of(&figures, name).iter().map(|figure| figure.value).collect())?)))
        .collect();
    let Some(axis) = decades(bands.iter().map(|(_, band)| band.median)) else { return Ok(Outcome::NothingToDraw) };
    bands.sort_by(|a, b| b.1.median.total_cmp(&a.1.median));

    let root = SVGBackend::new(path, (WIDTH, MARGINS + ROW * bands.len() as u32)).into_drawing_area();
    root.fill(&PAPER)?;
    let rows = bands.len() as f64;
    let mut chart = ChartBuilder::on(&root)
        .caption("lock + unlock that nobody waits for", text(18))
        .margin(12)
        .margin_right(90)
        .x_label_area_size(40)
        .y_label_area_size(200)
        .build_cartesian_2d(axis.clone().log_scale(), -0.5..rows - 0.5)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(0)
        .x_desc("nanoseconds, logarithmic; the line is the band of all rounds")
        .x_label_formatter(&|value| tick(*value))
        .label_style(text(13))
        .axis_desc_style(text(13))
        .axis_style(INK)
        .bold_line_style(GREY.mix(0.4))
        .light_line_style(GREY.mix(0.12))
        .draw()?;
    for (row, (name, band)) in bands.iter().enumerate() {
        let (y, ours) = (row as f64, name.starts_with(NATIVE));
        let style = if ours { colour(0) } else { colour(2) };
        let ends = [(band.least.max(axis.start), y), (band.greatest.min(axis.end), y)];
        chart.draw_series([PathElement::new(ends, style.mix(0.6).stroke_width(3))])?;
        chart.draw_series([Circle::new((band.median, y), 5, style.filled())])?;
        let (x, pixel) = chart.backend_coord(&(axis.start, y));
        let area = root.strip_coord_spec();
        let left = text(13).pos(plotters::style::text_anchor::Pos::new(
            plotters::style::text_anchor::HPos::Right,
            plotters::style::text_anchor::VPos::Center,
        ));
        area.draw(&Text::new((*name).to_owned(), (x - 8, pixel), left))?;
        let (x, _) = chart.backend_coord(&(band.median, y));
        let label = format!("{} ns", number(band.median, "ns"));
        area.draw(&Text::new(label, (x + 10, pixel - 14), text(11)))?;
    }
    root.present()?;
    Ok(Outcome::Drawn)
}
