// SPDX-License-Identifier: MIT OR Apache-2.0
//! Promises of time on a machine that is busy with other things.

use std::time::{Duration, Instant};

/// How much slower than usual this machine is: LOCK_MANAGER_TEST_TIME_FACTOR at the time when the tests are compiled, else 1.
/// An emulated machine is compiled for, and constants stay constants.
pub const FACTOR: u32 = match option_env!("LOCK_MANAGER_TEST_TIME_FACTOR") {
    None => 1,
    Some(text) => match u32::from_str_radix(text, 10) {
        Ok(factor) if factor > 0 => factor,
        _ => panic!("LOCK_MANAGER_TEST_TIME_FACTOR is a whole number from 1 on"),
    },
};

/// What takes at most `usual` on a usual machine takes at most that here.
pub const fn scaled(usual: Duration) -> Duration {
    usual.saturating_mul(FACTOR)
}

/// Whether a storm that began at `start` goes on: as long as it is to, and on a slow or busy machine until it `was_one`,
/// though not for ever.
pub fn storm_goes_on(start: Instant, usual: Duration, was_one: impl FnOnce() -> bool) -> bool {
    const AT_MOST: Duration = scaled(Duration::from_secs(40));
    let elapsed = start.elapsed();
    elapsed < usual || (elapsed < AT_MOST && !was_one())
}

/// Within that, a dead holder's lock is somebody else's. The promise is 10 ms; the rest is for the machine's other work.
pub const RECOVERED: Duration = Duration::from_millis(50);

/// The last of many threads is as late as the machine's other work has it.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Runs five rounds, each of which tells how long it took, and asserts that most were within the bound, scaled.
#[track_caller]
pub fn mostly_within(bound: Duration, what: &str, round: impl FnMut(u32) -> Duration) {
    let bound = scaled(bound);
    let mut times: Vec<Duration> = (0..5).map(round).collect();
    times.sort_unstable();
    super::note(format_args!("{what}: {times:?}"));
    assert!(times[times.len() / 2] < bound, "{what}: {times:?}, not within {bound:?}");
}
