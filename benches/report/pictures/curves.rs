// SPDX-License-Identifier: MIT OR Apache-2.0
//! Panels of curves on logarithmic axes.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::SHOWN;
use super::canvas::{Drawn, GREY, INK, Outcome, PAPER, colour, decades, text, tick};
use crate::contenders::{LIBPOD, NATIVE};
use crate::report::states::States;
use crate::report::summary::Band;
use crate::results::{Figure, Results};
use crate::work::contended::{Inside, case_name};

const PANEL: (u32, u32) = (430, 320);
const LEGEND: u32 = 46;

/// One contender's points: where, and the band there.
struct Curve {
    name: &'static str,
    colour: usize,
    points: Vec<(f64, Band)>,
}

struct Panel<'a> {
    title: String,
    x: &'a str,
    y: &'a str,
    curves: Vec<Curve>,
}

/// Turns over the number of workers; a panel for each length of the section.
pub fn contended(results: &Results, states: &States, path: &Path) -> Drawn {
    let state = states.names()[0];
    let panel = |inside: Inside| {
        let band = |name: &str, workers: usize| {
            let case = case_name(workers, inside);
            let figures = results.of("contended").filter(|f| f.case == case && f.contender == name);
            Band::of(figures.filter(|figure| states.has(state, figure)).map(|figure| figure.value).collect())
        };
        let points =
            |name: &str| [1, 2, 4, 8, 16, 32, 64].iter().filter_map(|&w| Some((w as f64, band(name, w)?))).collect();
        Panel {
            title: format!("{} inside", inside.name()),
            x: "workers on one lock",
            y: "turns a second",
            curves: curves(points),
        }
    };
    draw(&Inside::ALL.map(panel), path)
}

/// The waits of fifty processes by their rank.
pub fn fairness(results: &Results, states: &States, path: &Path) -> Drawn {
    const RANKS: [(&str, f64); 4] =
        [("wait p50", 2.0), ("wait p99", 100.0), ("wait p99.9", 1000.0), ("longest wait", 2000.0)];
    let state = states.names()[0];
    let points = |name: &str| {
        let band = |quantity: &str| {
            let figures: Vec<&Figure> =
                results.of("fairness").filter(|f| f.contender == name && f.quantity == quantity).collect();
            Band::of(figures.iter().filter(|figure| states.has(state, figure)).map(|figure| figure.value).collect())
        };
        RANKS.iter().filter_map(|(quantity, x)| Some((*x, band(quantity)?))).collect()
    };
    let panel = Panel {
        title: "fifty processes, 1 ms inside: how long one waits".to_owned(),
        x: "one wait in so many is longer; the last point: the longest",
        y: "wait, milliseconds",
        curves: curves(points),
    };
    draw(&[panel], path)
}

/// The first allocation of a process, of a pool in which one is free.
pub fn pool(results: &Results, _states: &States, path: &Path) -> Drawn {
    let names = [NATIVE, LIBPOD, "search from the start"];
    let figures: Vec<&Figure> = results.of("pool first").filter(|figure| figure.case.ends_with("one free")).collect();
    let points = |name: &str| {
        let mut points: Vec<(f64, Band)> = Vec::new();
        for locks in [32, 2048, 65_536, 1_048_576] {
            let case = format!("{locks} locks one free");
            let here = figures.iter().filter(|figure| figure.case == case && figure.contender == name);
            points.extend(Band::of(here.map(|figure| figure.value).collect()).map(|band| (f64::from(locks), band)));
        }
        points
    };
    let curves = names.iter().enumerate().map(|(colour, name)| Curve { name, colour, points: points(name) }).collect();
    let panel = Panel {
        title: "a process's first allocation, one lock free".to_owned(),
        x: "locks in the pool",
        y: "microseconds",
        curves,
    };
    draw(&[panel], path)
}

fn curves(points: impl Fn(&str) -> Vec<(f64, Band)>) -> Vec<Curve> {
    let all = SHOWN.iter().enumerate().map(|(colour, name)| Curve { name, colour, points: points(name) });
    all.filter(|curve| !curve.points.is_empty()).collect()
}

fn draw(panels: &[Panel<'_>], path: &Path) -> Drawn {
    let panels: Vec<&Panel<'_>> =
        panels.iter().filter(|panel| panel.curves.iter().any(|curve| curve.points.len() > 1)).collect();
    let Some(first) = panels.first() else { return Ok(Outcome::NothingToDraw) };
    let columns = if panels.len() > 1 { 2 } else { 1 };
    let rows = panels.len().div_ceil(columns);
    let width = if columns == 1 { 2 * PANEL.0 } else { columns as u32 * PANEL.0 };
    let root = SVGBackend::new(path, (width, rows as u32 * PANEL.1 + LEGEND)).into_drawing_area();
    root.fill(&PAPER)?;
    let (legend, rest) = root.split_vertically(LEGEND);
    names(&legend, &first.curves, width)?;
    for (area, panel) in rest.split_evenly((rows, columns)).iter().zip(panels) {
        draw_panel(area, panel)?;
    }
    root.present()?;
    Ok(Outcome::Drawn)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Failed = Box<dyn std::error::Error>;

/// The names with their colours, in two rows.
fn names(area: &Area<'_>, curves: &[Curve], width: u32) -> Result<(), Failed> {
    const IN_A_ROW: usize = 4;
    for (place, curve) in curves.iter().enumerate() {
        let x = 16 + (place % IN_A_ROW) as i32 * (width as i32 - 32) / IN_A_ROW as i32;
        let y = 14 + (place / IN_A_ROW) as i32 * 18;
        area.draw(&PathElement::new([(x, y), (x + 18, y)], colour(curve.colour).stroke_width(3)))?;
        area.draw(&Text::new(curve.name, (x + 24, y - 7), text(13)))?;
    }
    Ok(())
}

fn draw_panel(area: &Area<'_>, panel: &Panel<'_>) -> Result<(), Failed> {
    let all = || panel.curves.iter().flat_map(|curve| curve.points.iter());
    let Some(y) = decades(all().map(|(_, band)| band.median)) else { return Ok(()) };
    let (first, last) = all().fold((f64::INFINITY, 0.0f64), |(a, b), (x, _)| (a.min(*x), b.max(*x)));
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, text(15))
        .margin(10)
        .x_label_area_size(38)
        .y_label_area_size(64)
        .build_cartesian_2d((first * 0.9..last * 1.1).log_scale(), y.clone().log_scale())?;
    let mut places: Vec<f64> = all().map(|(x, _)| *x).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_label_formatter(&|_| String::new())
        .set_tick_mark_size(LabelAreaPosition::Bottom, 0)
        .x_desc(panel.x)
        .y_desc(panel.y)
        .y_label_formatter(&|value| tick(*value))
        .label_style(text(12))
        .axis_desc_style(text(12))
        .axis_style(INK)
        .bold_line_style(GREY.mix(0.4))
        .light_line_style(GREY.mix(0.12))
        .draw()?;
    let page = area.strip_coord_spec();
    for x in places {
        let (pixel, bottom) = chart.backend_coord(&(x, y.start));
        let (left, top) = area.get_pixel_range();
        let place = (pixel - left.start - 6, bottom - top.start + 6);
        page.draw(&Text::new(tick(x), place, text(12)))?;
    }
    for curve in panel.curves.iter().rev() {
        let style = colour(curve.colour);
        let edge = curve.points.iter().map(|(x, band)| (*x, band.greatest));
        let back = curve.points.iter().rev().map(|(x, band)| (*x, band.least));
        let band: Vec<(f64, f64)> = edge.chain(back).map(|(x, value)| (x, value.clamp(y.start, y.end))).collect();
        chart.draw_series([Polygon::new(band, style.mix(0.15).filled())])?;
        let middle = curve.points.iter().map(|(x, band)| (*x, band.median));
        let width = if curve.name == NATIVE { 3 } else { 2 };
        chart.draw_series(LineSeries::new(middle.clone(), style.stroke_width(width)))?;
        chart.draw_series(middle.map(|point| Circle::new(point, 3, style.filled())))?;
    }
    Ok(())
}
