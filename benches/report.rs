// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! docs/benchmarks.md and its pictures, from the raw figures alone.

mod model;
mod pictures;
mod readme;
mod sections;
mod states;
mod summary;
mod tables;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::results::Results;
use sections::SECTIONS;
use states::States;

const HOW: &str = include_str!("report/how.md");

/// Writes the page, its pictures, and what the README shows of them.
pub fn write(results: &Results, into: &Path) -> Result<(), String> {
    let pictures = into.join("docs/benchmarks");
    fs::create_dir_all(&pictures).map_err(|error| format!("{}: {error}", pictures.display()))?;
    let states = States::of(results);
    let drawn = pictures::draw(results, &states, &pictures)?;
    save(&into.join("docs/benchmarks.md"), &page(results, &states, &drawn))?;
    let rows = readme::rows(results, &states);
    let readme = into.join("README.md");
    match fs::read_to_string(&readme) {
        Ok(text) => save(&readme, &readme::with_rows(&text, &rows)?),
        // Not in the tree of the project: what the README would get has a file of its own.
        Err(_) => save(&pictures.join("readme-rows.md"), &rows),
    }
}

fn save(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    crate::progress::line(&format!("written: {}", path.display()));
    Ok(())
}

fn page(results: &Results, states: &States, drawn: &[&str]) -> String {
    let mut page = String::from("<!-- SPDX-License-Identifier: MIT OR Apache-2.0 -->\n\n# Benchmarks\n\n");
    page.push_str("<!-- Made by `make bench` from benches/results/; change benches/report/, not this file. -->\n\n");
    if results.fact("effort") == "quick" {
        page.push_str("**A quick run: its samples are too short to quote. `make bench` takes ten minutes.**\n\n");
    }
    page.push_str("Measured on this machine, all of it in one run:\n\n| | |\n| --- | --- |\n");
    for (name, value) in results.facts.iter().filter(|(name, _)| name != "SPDX-License-Identifier") {
        let _ = writeln!(page, "| {name} | {value} |");
    }
    let _ = write!(page, "\n{HOW}\n{}", states.paragraph(results));
    for section in SECTIONS {
        let tables = section.tables(results, states);
        if tables.is_empty() {
            continue;
        }
        let _ = write!(page, "\n## {}\n\n{}\n\n", section.title, section.prose);
        if let Some(picture) = section.picture.filter(|picture| drawn.contains(picture)) {
            let _ = write!(page, "![{}](benchmarks/{picture}.svg)\n\n", section.title);
        }
        page.push_str(&tables);
    }
    page.push_str(&model::section(results));
    page
}
