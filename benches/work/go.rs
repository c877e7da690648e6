// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! What Go has: this library through its module, and the peers of Go's own. `benches/go/` measures in rounds of its own
//! and prints a line for each figure.

use std::process::{Command, Stdio};

use crate::library::library;
use crate::method::Run;
use crate::progress;
use crate::results::Quantity;

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/go");
const QUANTITIES: [Quantity; 2] = [Quantity::less("lock + unlock", "ns"), Quantity::less("cancel to return", "ms")];

pub fn run(run: &mut Run) {
    match figures(run.effort.pick("7", "41")) {
        Ok(lines) => lines.lines().for_each(|line| {
            keep(run, line).unwrap_or_else(|| panic!("benches/go printed what is no figure: {line}"));
        }),
        Err(why) => progress::skipped("Go", &why),
    }
}

fn figures(rounds: &str) -> Result<String, String> {
    let lib = library().prefix().join("lib");
    let lib = lib.canonicalize().map_err(|error| format!("{}: {error}", lib.display()))?;
    let path = format!("{}:/usr/local/go/bin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("go");
    command.args(["run", ".", rounds]).current_dir(DIRECTORY).env("PATH", path);
    command.env("PKG_CONFIG_PATH", lib.join("pkgconfig")).env("LD_LIBRARY_PATH", &lib);
    let output = command.stderr(Stdio::piped()).output().map_err(|error| format!("go: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(complaint.lines().last().unwrap_or("go run fails, and says nothing").to_owned())
}

/// `case,quantity,contender,round,value`
fn keep(run: &mut Run, line: &str) -> Option<()> {
    let fields: Vec<&str> = line.split(',').collect();
    let &[case, quantity, contender, round, value] = fields.as_slice() else { return None };
    let quantity = QUANTITIES.iter().find(|known| known.name == quantity)?;
    run.keep("go", case, quantity, contender, round.parse().ok()?, value.parse().ok()?, None);
    Some(())
}
