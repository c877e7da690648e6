// SPDX-License-Identifier: MIT OR Apache-2.0
//! `lockctl check`: a line and exit status 1 for each thing that is wrong.

use crate::graph::deadlock;
use crate::puppet::Puppet;
use crate::stage::{Answer, Place, eventually, lockctl, sees_waiters_or_skips};

fn check(place: &Place, options: &[&str]) -> Answer {
    lockctl(["check", &place.name].iter().chain(options))
}

#[test]
fn what_is_fine_is_said_to_be() {
    let place = Place::segment(32, &[0, 1, 2]);
    let _holder = Puppet::holding(&place, &[1]);
    assert_eq!(check(&place, &[]).with(0), "fine: 3 of 32 allocated, 1 held, 0 threads wait\n");
}

#[test]
fn nearly_full_is_from_the_percentage_on() {
    let ids: Vec<u32> = (0..16).collect();
    let place = Place::segment(32, &ids);
    assert_eq!(check(&place, &["--warn", "51"]).code, Some(0));
    let said = check(&place, &["--warn", "50"]).with(1);
    assert!(said.starts_with("16 of 32 locks are allocated, which is 50 %"), "{said}");
    assert_eq!(said.lines().count(), 1);
    assert_eq!(check(&place, &["--warn", "0"]).code, Some(64));
    assert_eq!(check(&place, &["--warn", "101"]).code, Some(64));
}

#[test]
fn the_mark_of_a_dead_owner_is_wrong_until_somebody_takes_the_lock() {
    let place = Place::segment(32, &[4]);
    Puppet::holding(&place, &[4]).kill();
    let said = check(&place, &[]).with(1);
    assert!(said.starts_with("lock 4: its last holder died"), "{said}");
    assert_eq!(lockctl(["run", &place.name, "4", "--", "true"]).code, Some(0));
    assert_eq!(check(&place, &[]).code, Some(0));
}

#[test]
fn a_wait_that_outlasts_the_limit_is_wrong_and_names_both() {
    if !sees_waiters_or_skips() {
        return;
    }
    let place = Place::segment(32, &[2]);
    let holder = Puppet::holding(&place, &[2]);
    let mut waiter = Puppet::of(&place);
    waiter.begins("lock 2");
    let mut said = String::new();
    // The waiter may not have begun by the first.
    eventually("the wait is found", || {
        let answer = check(&place, &["--max-wait", "0.3"]);
        said = answer.out;
        answer.code == Some(1)
    });
    assert!(said.starts_with("lock 2: ") && said.contains(&format!("{} (", waiter.pid())), "{said}");
    assert!(said.contains(&format!("held by {} (", holder.pid())), "{said}");
}

#[test]
fn a_wait_that_ends_before_the_limit_is_fine() {
    if !sees_waiters_or_skips() {
        return;
    }
    let place = Place::segment(32, &[2]);
    let mut holder = Puppet::holding(&place, &[2]);
    let mut waiter = Puppet::of(&place);
    waiter.begins("lock 2");
    eventually("the waiter is seen", || lockctl(["graph", &place.name]).out.contains("waits for lock 2"));
    let checking = crate::stage::command(["check", "--max-wait", "20", &place.name])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    eventually("check has the segment open", || {
        std::fs::read_to_string(format!("/proc/{}/maps", checking.id())).unwrap_or_default().contains(&place.name)
    });
    holder.does("unlock 2");
    waiter.finishes();
    assert_eq!(checking.wait_with_output().unwrap().status.code(), Some(0));
}

#[test]
fn a_deadlock_is_wrong() {
    if !sees_waiters_or_skips() {
        return;
    }
    let place = Place::segment(32, &[0, 1]);
    let (first, second) = deadlock(&place);
    let mut said = String::new();
    eventually("the deadlock is found", || {
        said = check(&place, &["--max-wait", "0.2"]).out;
        said.contains("deadlock: ")
    });
    let line = said.lines().find(|line| line.starts_with("deadlock: ")).unwrap();
    assert!(line.contains(&first.pid().to_string()) && line.contains(&second.pid().to_string()), "{line}");
}

#[test]
fn what_cannot_be_looked_at_is_a_failure_and_no_answer() {
    assert_eq!(check(&Place::unused(), &[]).code, Some(66));
    assert_eq!(check(&Place::segment(32, &[]), &["--max-wait", "-1"]).code, Some(64));
}
