// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this library and the locks that one could take instead cost, in one run on one machine.
//!
//! `make bench` runs all of it, `make bench-quick` the same with less patience; benches/README.md is the way in.

#![allow(clippy::expect_used, reason = "a program of its own, which stops where it cannot go on")]

mod contenders;
mod library;
mod machine;
mod method;
mod peers;
mod processes;
mod progress;
mod report;
mod results;
mod work;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use method::{Effort, Run};
use results::Results;

const USAGE: &str = "usage: lock-manager-bench measure quick|full PREFIX INTO [WORK]...
       lock-manager-bench report RESULTS INTO
       lock-manager-bench list
PREFIX: where the library is installed. INTO: the directory that gets benches/results/ and docs/.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["measure", "quick", prefix, into, works @ ..] => measure(Effort::Quick, prefix, Path::new(into), works),
        ["measure", "full", prefix, into, works @ ..] => measure(Effort::Full, prefix, Path::new(into), works),
        ["report", results, into] => {
            Results::read(Path::new(results)).and_then(|results| report::write(&results, Path::new(into)))
        }
        ["list"] => {
            work::ALL.iter().for_each(|(name, _)| progress::line(name));
            Ok(())
        }
        [work::first_lock::CHILD, prefix, segment] => {
            library::load(Path::new(prefix));
            work::first_lock::child(segment);
            Ok(())
        }
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            progress::line(&why);
            ExitCode::FAILURE
        }
    }
}

/// Measures, and writes the raw figures and the report.
fn measure(effort: Effort, prefix: &str, into: &Path, wanted: &[&str]) -> Result<(), String> {
    let unknown = wanted.iter().find(|wanted| work::ALL.iter().all(|(name, _)| name != *wanted));
    if let Some(unknown) = unknown {
        return Err(format!("{unknown}: no such work; `lock-manager-bench list` names them"));
    }
    library::load(Path::new(prefix));
    let mut run = Run { effort, results: Results::default() };
    run.results.facts = machine::facts();
    run.results.facts.push(("effort".to_owned(), format!("{effort:?}").to_lowercase()));
    let works: Vec<_> = work::ALL.iter().filter(|(name, _)| wanted.is_empty() || wanted.contains(name)).collect();
    let start = Instant::now();
    for (number, (name, work)) in works.iter().enumerate() {
        progress::begins(number + 1, works.len(), name, start.elapsed().as_secs_f64());
        work(&mut run);
    }
    contenders::clean_up();
    run.results.facts.push(("load after".to_owned(), machine::load()));
    run.results.facts.push(("seconds".to_owned(), format!("{:.0}", start.elapsed().as_secs_f64())));
    let file = results_file(into)?;
    run.results.write(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    progress::line(&format!("{:.0} s; the raw figures are in {}", start.elapsed().as_secs_f64(), file.display()));
    report::write(&run.results, into)
}

/// One file a machine.
fn results_file(into: &Path) -> Result<PathBuf, String> {
    let directory = into.join("benches/results");
    std::fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    Ok(directory.join(format!("{}.csv", machine::slug())))
}
