// SPDX-License-Identifier: MIT OR Apache-2.0
//! Models of what several processes do to a native segment at once. They are made of the library's own sources, with
//! loom's atomics in the place of the machine's: loom runs every order of their steps, and lets every load see each value
//! that its ordering allows.
//!
//! Companion each model stand some with a rule broken, which must fail: a model that passes with a rule broken shows nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing helper is a failing test")]

#[path = "models/atomic.rs"]
mod atomic;
#[path = "models/bitmap_model.rs"]
mod bitmap_model;
#[path = "models/futex.rs"]
mod futex;
#[path = "models/lock.rs"]
mod lock;
#[path = "models/lockable_model.rs"]
mod lockable_model;
#[path = "models/sharing_model.rs"]
mod sharing_model;
#[path = "models/waits_for_model.rs"]
mod waits_for_model;
#[path = "models/word_model.rs"]
mod word_model;

#[path = "../src/shm/native/bitmap.rs"]
#[allow(dead_code, unreachable_pub, reason = "the models use a part of it")]
mod bitmap;
#[path = "../src/shm/native/cells.rs"]
#[allow(dead_code, unreachable_pub, reason = "the models use a part of it")]
mod cells;
#[path = "../src/shm/native/lockable.rs"]
#[allow(dead_code, unreachable_pub, reason = "the models use a part of it")]
mod lockable;
#[path = "../src/shm/native/waits_for.rs"]
#[allow(dead_code, unreachable_pub, reason = "the models use a part of it")]
mod waits_for;
#[path = "../src/shm/native/word.rs"]
#[allow(dead_code, unreachable_pub, reason = "the models use a part of it")]
mod word;

/// What the cells need of the format: a table that is small enough for loom.
mod format {
    pub const PLACES: usize = 8;
    pub const CELLS: usize = 2;

    pub const fn table_page_of(_place: usize) -> u32 {
        0
    }
}

/// What they need of the library otherwise.
mod abandoning {
    pub const ROUNDS: u32 = 2;
}

use std::process::Command;

use atomic::{Loads, set_loads};

/// The model of this test has a rule broken, and must fail with that in its message. It runs in a process of its own:
/// where loom meets a deadlock, it may end that.
macro_rules! fails {
    ($message:literal, $body:expr) => {{
        fn here() {}
        $crate::broken_model_fails(std::any::type_name_of_val(&here), $message, || $body)
    }};
}
use fails;

/// See [`fails!`]; `place` is the path of an item within the test.
fn broken_model_fails(place: &str, message: &str, model: impl FnOnce()) {
    /// Names the test that this process was started for.
    const TEST: &str = "LOCK_MANAGER_TEST_MODEL";
    let test = place.split_once("::").unwrap().1.trim_end_matches("::here");
    if std::env::var(TEST).is_ok_and(|name| name == test) {
        return model();
    }
    let output = Command::new("/proc/self/exe")
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(TEST, test)
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "the model does not notice");
    assert!(said.contains(message), "the model notices something else: {said}");
}

/// Runs a model in every order of its steps.
fn check(model: impl Fn() + Send + Sync + Copy + 'static) {
    run(None, &[Loads::Allowed, Loads::Newest], model);
}

/// Runs a model in every order of its steps in which a thread is interrupted at most `preemptions` times where it could
/// go on: for those that have too many orders otherwise.
fn check_within(preemptions: usize, model: impl Fn() + Send + Sync + Copy + 'static) {
    run(Some(preemptions), &[Loads::Allowed, Loads::Newest], model);
}

/// The same for models in which words are stored to, not only swapped.
fn check_as_loaded_within(preemptions: usize, model: impl Fn() + Send + Sync + Copy + 'static) {
    run(Some(preemptions), &[Loads::Allowed], model);
}

fn run(preemptions: Option<usize>, ways: &[Loads], model: impl Fn() + Send + Sync + Copy + 'static) {
    for &loads in ways {
        set_loads(loads);
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = preemptions;
        builder.check(model);
    }
}
