// SPDX-License-Identifier: MIT OR Apache-2.0
//! A `lockctl run` within another: under the same lock it would wait for its own ancestor, and says so instead.

use std::os::unix::fs::symlink;

use crate::puppet::Puppet;
use crate::running::Running;
use crate::stage::{Answer, LOCKCTL, Place, command, lockctl};

/// What the inner run says and exits with, in a script under lock 3.
fn inner(place: &Place, call: &str) -> (String, i32) {
    let script = format!("{call} 2>&1; echo $?");
    let said = lockctl(["run", &place.name, "3", "--", "sh", "-c", &script]).with(0);
    let (said, status) = said.trim_end().rsplit_once('\n').unwrap_or(("", said.trim_end()));
    (said.to_owned(), status.parse().unwrap())
}

#[test]
fn it_does_not_wait_for_its_own_ancestor() {
    let native = Place::unused();
    lockctl(["create", "--layout", "native", &native.name, "64"]).with(0);
    for place in [Place::segment(32, &[3]), Place::directory(&[3]), native] {
        let run = |options: &str| format!("{LOCKCTL} run {options} {} 3 -- echo in", place.name);
        let (said, status) = inner(&place, &run(""));
        assert_eq!(status, 69, "{said}");
        assert!(said.contains(&format!("{}: lock 3 is held by ", place.name)), "{said}");
        assert!(said.contains("(lockctl run") && said.contains("waiting for it would never end"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        for (options, expected) in [("-n", 1), ("-w 1000", 1), ("-w 1000 -E 42", 42), ("-n -E 0", 0)] {
            let (said, status) = inner(&place, &run(options));
            assert_eq!(status, expected, "{options}: {said}");
            assert!(said.contains("would never end"), "{options}: {said}");
        }
        // Not the child, but somebody further below.
        let (said, status) = inner(&place, &format!("sh -c 'sh -c \"{}\"; exit $?'", run("")));
        assert_eq!(status, 69, "{said}");
        // Another lock is another matter, and the one above is known below it, too.
        let below = format!("{LOCKCTL} run {0} 4 -- {LOCKCTL} run {0} 3 -- echo in", place.name);
        assert_eq!(inner(&place, &below).1, 69);
        let other = format!("{LOCKCTL} run {0} 4 -- {LOCKCTL} run {0} 5 -- echo in", place.name);
        assert_eq!(inner(&place, &other), ("in".to_owned(), 0));
    }
}

#[test]
fn another_name_is_the_same_lock() {
    let place = Place::segment(32, &[3]);
    let link = place.beside("link");
    symlink("/dev/shm", &link).unwrap();
    let file = place.path.file_name().unwrap().to_str().unwrap();
    let names = [
        file.to_owned(),
        place.path.to_str().unwrap().to_owned(),
        format!("/dev/../dev/shm/{file}"),
        format!("{}/{file}", link.display()),
    ];
    for name in names {
        let (said, status) = inner(&place, &format!("{LOCKCTL} run {name} 3 -- echo in"));
        assert_eq!(status, 69, "{name}: {said}");
    }
}

#[test]
fn an_environment_that_outlived_its_run_refuses_nothing() {
    let native = Place::unused();
    lockctl(["create", "--layout", "native", &native.name, "64"]).with(0);
    for place in [Place::segment(32, &[3]), native] {
        let runs = lockctl(["run", &place.name, "3", "--", "sh", "-c", "echo $LOCKCTL_RUNS"]).with(0);
        assert_eq!(runs.split(':').count(), 4, "{runs}");
        let again = |options: &[&str]| {
            let words =
                ["run", &place.name, "3"].into_iter().chain(options.iter().copied()).chain(["--", "echo", "in"]);
            Answer::of(command(words).env("LOCKCTL_RUNS", runs.trim_end()).output().unwrap())
        };
        assert_eq!(again(&[]).with(0), "in\n");
        // Held by somebody who is no ancestor: a conflict as any other.
        let holder = Puppet::holding(&place, &[3]);
        let answer = again(&["-n", "--verbose"]);
        assert_eq!(answer.code, Some(1), "{answer:?}");
        assert!(answer.err.contains(&format!("failed to get lock 3; it is held by {}", holder.pid())), "{answer:?}");
        assert!(again(&["-w", "0.05", "--verbose"]).err.contains("timeout while waiting"));
    }
}

#[test]
fn whoever_may_wait_says_so() {
    let place = Place::segment(32, &[3]);
    let call = format!("env -u LOCKCTL_RUNS {LOCKCTL} run -w 0.05 --verbose {} 3 -- echo in", place.name);
    let (said, status) = inner(&place, &call);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("timeout while waiting to get lock 3"), "{said}");
}

#[test]
fn one_in_the_background_whose_parent_is_gone_gets_its_turn() {
    let place = Place::segment(32, &[3]);
    let call = format!("{LOCKCTL} run {} 3 -- echo later", place.name);
    let orphan = format!("sh -c '(while [ -d /proc/$$ ]; do sleep 0.01; done; exec {call}) & exit 0'");
    let (mut running, first) = Running::start(&place, 3, &format!("{orphan}; echo first; sleep 0.2"));
    assert_eq!(first, "first");
    assert_eq!(running.says(), "later");
    assert_eq!(running.end().code(), Some(0));
}
