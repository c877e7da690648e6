// SPDX-License-Identifier: MIT OR Apache-2.0
//! The native layout, whose segments tell who waits and since when, count acquisitions and grow.

use std::fs;
use std::process::Stdio;

use serde_json::Value;

use crate::puppet::Puppet;
use crate::stage::{Place, command, eventually, lockctl, skip};

/// A segment with lock 3 allocated; `None`: this library has no such layout.
fn segment() -> Option<Place> {
    let place = Place::unused();
    if lockctl(["create", "--layout", "native", "--max-locks", "256", &place.name, "64"]).code != Some(0) {
        skip("this library has no native layout");
        return None;
    }
    assert_eq!(lockctl(["allocate", &place.name, "3"]).with(0), "3\n");
    Some(place)
}

fn lock(place: &Place) -> Value {
    let look: Value = serde_json::from_str(&lockctl(["list", "--json", &place.name]).with(0)).unwrap();
    look["locks"].as_array().unwrap().iter().find(|lock| lock["id"] == 3).unwrap().clone()
}

#[test]
fn a_waiter_that_the_segment_tells_of_and_that_proc_shows_is_one_and_its_time_is_known() {
    let Some(place) = segment() else { return };
    let holder = Puppet::holding(&place, &[3]);
    holder.stop();
    let mut waiter = Puppet::of(&place);
    waiter.begins("lock 3");
    let mut found = Value::Null;
    eventually("the segment tells of the waiter", || {
        found = lock(&place);
        found["waiting"][0]["seen"] == "storage"
    });
    assert_eq!(found["waiters"], 1, "{found}");
    assert_eq!(found["waiting"].as_array().unwrap().len(), 1, "{found}");
    assert_eq!(found["waiting"][0]["pid"], waiter.pid(), "{found}");
    assert_eq!(found["holder"]["pid"], holder.pid(), "{found}");
    assert!(found["held_for_ns_at_least"].as_u64().unwrap() > 0, "{found}");
    assert!(lockctl(["list", "-n", "-o", "held-for", &place.name]).with(0).starts_with(">="));
    eventually("check knows the time without measuring it", || {
        let said = lockctl(["check", "--max-wait", "0.5", &place.name]);
        said.code == Some(1) && said.out.contains("has waited for") && said.out.contains("holder is stopped")
    });
    holder.go_on();
}

#[test]
fn a_dead_holder_is_no_holder_any_more_and_the_next_is_told() {
    let Some(place) = segment() else { return };
    Puppet::holding(&place, &[3]).kill();
    lockctl(["repair", &place.name]).with(0);
    assert_eq!(lockctl(["list", "-n", "-o", "state,note", &place.name]).with(0), "unlocked  owner died\n");
    assert_eq!(lockctl(["check", &place.name]).code, Some(1));
    assert!(lockctl(["run", &place.name, "3", "--", "true"]).err.contains("its last holder died"));
}

#[test]
fn it_grows_while_others_work_and_says_how_far() {
    let Some(place) = segment() else { return };
    let _user = Puppet::holding(&place, &[3]);
    assert!(lockctl(["allocate", "-c", "100", &place.name]).failure(75).contains("`lockctl grow`"));
    let said = lockctl(["grow", &place.name, "128"]).with(0);
    assert_eq!(said, format!("{}: 128 locks now, 256 at most\n", place.name));
    assert_eq!(lockctl(["allocate", &place.name, "127"]).with(0), "127\n");
    assert!(lockctl(["grow", &place.name, "300"]).failure(64).contains("at most 256"));
    assert!(lockctl(["grow", &place.name, "64"]).failure(64).contains("cannot shrink"));
}

/// Runs lockctl to its end, which must not take as long as every lock times every record or every id takes.
#[track_caller]
fn soon(arguments: &[&str]) {
    let mut process = command(arguments).stdout(Stdio::null()).spawn().unwrap();
    eventually("it has ended", || process.try_wait().unwrap().is_some());
    assert_eq!(process.wait().unwrap().code(), Some(0), "{arguments:?}");
}

#[test]
fn the_largest_segments_are_read_in_one_pass() {
    let place = Place::unused();
    if lockctl(["create", "--layout", "native", &place.name, "1048576"]).code != Some(0) {
        return skip("this library has no native layout, or there is no room for so many locks");
    }
    for verb in ["list", "graph", "check", "repair"] {
        soon(&[verb, &place.name]);
    }
    let ids = lockctl(["allocate", "--count", "200000", &place.name]).with(0);
    let list = place.beside("in-use");
    fs::write(&list, ids).unwrap();
    soon(&["reconcile", &place.name, "--in-use", list.to_str().unwrap()]);
}
