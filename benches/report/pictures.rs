// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pictures. Each follows the reader's choice of light or dark, and has its own ground, so that it can be read on any.

mod canvas;
mod curves;
mod deaths;
mod pairs;

use std::path::Path;

use super::states::States;
use crate::results::Results;

/// The most important ones, in the order of their colours.
const SHOWN: [&str; 8] = [
    crate::contenders::NATIVE,
    crate::contenders::LIBPOD,
    crate::peers::RAW,
    crate::peers::SEMAPHORE,
    crate::peers::OFD,
    crate::peers::FLOCK,
    crate::peers::BOOST,
    crate::peers::PARKING_LOT,
];

/// A picture: draws, and says whether there was anything to draw.
type Picture = fn(&Results, &States, &Path) -> canvas::Drawn;

/// Draws what the figures are there for; returns the names of the pictures.
pub fn draw(results: &Results, states: &States, directory: &Path) -> Result<Vec<&'static str>, String> {
    let pictures: [(&str, Picture); 5] = [
        ("pair", pairs::draw),
        ("contended", curves::contended),
        ("fairness", curves::fairness),
        ("recovery", deaths::draw),
        ("pool", curves::pool),
    ];
    let mut drawn = Vec::new();
    for (name, picture) in pictures {
        let path = directory.join(format!("{name}.svg"));
        match picture(results, states, &path) {
            Ok(canvas::Outcome::Drawn) => {
                canvas::follow_the_reader(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                drawn.push(name);
            }
            Ok(canvas::Outcome::NothingToDraw) => {}
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
    }
    Ok(drawn)
}
