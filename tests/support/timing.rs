// SPDX-License-Identifier: MIT OR Apache-2.0
//! Promises of time on a machine that is busy with other things.

use std::time::Duration;

/// Within that, a dead holder's lock is somebody else's. The promise is 10 ms; the rest is for the machine's other work.
pub const RECOVERED: Duration = Duration::from_millis(50);

/// Runs five rounds, each of which tells how long it took, and asserts that most were within the bound.
#[track_caller]
pub fn mostly_within(bound: Duration, what: &str, round: impl FnMut(u32) -> Duration) {
    let mut times: Vec<Duration> = (0..5).map(round).collect();
    times.sort_unstable();
    super::note(format_args!("{what}: {times:?}"));
    assert!(times[times.len() / 2] < bound, "{what}: {times:?}, not within {bound:?}");
}
