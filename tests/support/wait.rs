// SPDX-License-Identifier: MIT OR Apache-2.0
//! Waiting for what another thread or process does.

use std::thread;
use std::time::{Duration, Instant};

use super::timing::scaled;

/// Longer than anything here takes on a machine that is busy with other things.
pub const PATIENCE: Duration = scaled(Duration::from_secs(30));

/// Waits until `holds` does, and fails if that takes too long to be still going on.
#[track_caller]
pub fn eventually(what: &str, holds: impl FnMut() -> bool) {
    eventually_or(|| what.to_owned(), holds);
}

/// As [`eventually`]; what failed is asked for when it has failed, and may say how things stand then.
#[track_caller]
pub fn eventually_or(what: impl FnOnce() -> String, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() >= PATIENCE {
            panic!("not within {PATIENCE:?}: {}", what());
        }
        thread::sleep(Duration::from_micros(100));
    }
}
