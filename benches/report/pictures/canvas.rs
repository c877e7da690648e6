// SPDX-License-Identifier: MIT OR Apache-2.0
//! What all pictures have in common: colours, type, and light and dark.

use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;

use plotters::prelude::*;

/// Whether there was anything to draw.
pub enum Outcome {
    Drawn,
    NothingToDraw,
}

pub type Drawn = Result<Outcome, Box<dyn Error>>;

/// What is replaced by the reader's own ground and ink.
pub const PAPER: RGBColor = RGBColor(255, 255, 255);
pub const INK: RGBColor = RGBColor(0, 0, 0);
/// Between the two, for lines that only help.
pub const GREY: RGBColor = RGBColor(128, 128, 128);

/// Told apart by most eyes, and seen on white and on black.
const COLOURS: [RGBColor; 8] = [
    RGBColor(213, 94, 0),
    RGBColor(230, 159, 0),
    RGBColor(30, 136, 210),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(128, 128, 128),
    RGBColor(140, 100, 220),
    RGBColor(86, 180, 233),
];

pub fn colour(number: usize) -> RGBColor {
    COLOURS[number % COLOURS.len()]
}

pub fn text(size: i32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// A number on a logarithmic axis.
pub fn tick(value: f64) -> String {
    match value {
        value if value >= 999_500.0 => format!("{} M", value / 1e6),
        value if value >= 999.5 => format!("{} k", value / 1e3),
        value => format!("{value}"),
    }
}

/// The powers of ten around the values, as the ends of an axis.
pub fn decades(values: impl Iterator<Item = f64>) -> Option<std::ops::Range<f64>> {
    let (least, greatest) = values
        .filter(|value| value.is_finite() && *value > 0.0)
        .fold((f64::INFINITY, 0.0f64), |(least, greatest), value| (least.min(value), greatest.max(value)));
    let power = |value: f64| 10f64.powf(value);
    (greatest > 0.0).then(|| power(least.log10().floor())..power((greatest * 1.01).log10().ceil()))
}

/// Makes ground and ink those of the reader's scheme.
pub fn follow_the_reader(path: &Path) -> io::Result<()> {
    const STYLE: &str = "<style>text{font-variant-numeric:tabular-nums}\
        @media (prefers-color-scheme:dark){[fill=\"#FFFFFF\"]{fill:#0d1117}[fill=\"#000000\"]{fill:#e6edf3}\
        [stroke=\"#000000\"]{stroke:#e6edf3}}</style>\n";
    let svg = fs::read_to_string(path)?;
    let start = svg.find("<svg").and_then(|svg_tag| Some(svg_tag + svg[svg_tag..].find('>')? + 1));
    let start = start.ok_or_else(|| io::Error::other("no SVG"))?;
    let (head, rest) = svg.split_at(start);
    fs::write(path, format!("{head}\n{STYLE}{}", rest.trim_start()))
}
