// SPDX-License-Identifier: MIT OR Apache-2.0
//! `lockctl graph`: who waits for whom, and deadlocks.

use crate::puppet::Puppet;
use crate::stage::{Answer, Place, eventually, lockctl, sees_waiters_or_skips};

fn graph(place: &Place) -> Answer {
    lockctl(["graph", &place.name])
}

/// Until `graph` says all of that; gives its answer.
fn once_it_says(place: &Place, what: &[String]) -> Answer {
    let mut answer = graph(place);
    eventually(&format!("graph says {what:?}"), || {
        answer = graph(place);
        what.iter().all(|part| answer.out.contains(part))
    });
    answer
}

/// Two processes, each of which holds what the other waits for.
pub fn deadlock(place: &Place) -> (Puppet, Puppet) {
    let (mut first, mut second) = (Puppet::holding(place, &[0]), Puppet::holding(place, &[1]));
    first.begins("lock 1");
    second.begins("lock 0");
    (first, second)
}

#[test]
fn nobody_waits_and_that_is_said() {
    let place = Place::segment(32, &[0]);
    let _holder = Puppet::holding(&place, &[0]);
    assert_eq!(graph(&place).with(0), "nobody waits\n");
}

#[test]
fn a_chain_is_drawn_from_who_holds_to_who_waits_and_is_no_deadlock() {
    if !sees_waiters_or_skips() {
        return;
    }
    let place = Place::segment(32, &[0, 1]);
    let first = Puppet::holding(&place, &[0]);
    let mut second = Puppet::holding(&place, &[1]);
    second.begins("lock 0");
    let mut third = Puppet::of(&place);
    third.begins("lock 1");
    let (second, third) = (second.pid(), third.pid());
    let answer = once_it_says(&place, &["waits for lock 0".to_owned(), "waits for lock 1".to_owned()]);
    let lines: Vec<String> = answer.with(0).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with(&format!("{}", first.pid())), "{lines:?}");
    assert!(lines[1].starts_with(&format!("  {second}")) && lines[1].contains("waits for lock 0"), "{lines:?}");
    assert!(lines[2].starts_with(&format!("    {third}")) && lines[2].contains("waits for lock 1"), "{lines:?}");
}

#[test]
fn two_holders_that_wait_for_each_other_are_one_deadlock_and_exit_with_1() {
    if !sees_waiters_or_skips() {
        return;
    }
    let place = Place::segment(32, &[0, 1]);
    let (first, second) = deadlock(&place);
    let mut behind = Puppet::of(&place);
    behind.begins("lock 1");
    let what = ["DEADLOCK 1".to_owned(), format!("    {}", behind.pid())];
    let said = once_it_says(&place, &what).with(1);
    assert!(!said.contains("DEADLOCK 2"), "{said}");
    for (waiter, lock) in [(&first, 1), (&second, 0)] {
        let line = said.lines().find(|line| line.starts_with(&format!("  {}", waiter.pid()))).unwrap();
        assert!(line.contains(&format!("waits for lock {lock}")), "{said}");
    }
    // Once one of them is gone there is none.
    first.kill();
    eventually("the deadlock is over", || graph(&place).code == Some(0));
}

#[test]
fn the_drawing_marks_the_deadlock_and_nothing_else() {
    if !sees_waiters_or_skips() {
        return;
    }
    let place = Place::segment(32, &[0, 1]);
    let (first, second) = deadlock(&place);
    let mut behind = Puppet::of(&place);
    behind.begins("lock 1");
    once_it_says(&place, &["DEADLOCK 1".to_owned(), format!("    {}", behind.pid())]);
    let mut drawn = String::new();
    eventually("all three are drawn", || {
        let answer = lockctl(["graph", "--dot", &place.name]);
        drawn = answer.out;
        drawn.matches("waits").count() == 3 && answer.code == Some(1)
    });
    assert!(drawn.starts_with("digraph locks {\n") && drawn.ends_with("}\n"), "{drawn}");
    let edge =
        |pid: u32| drawn.lines().find(|line| line.contains(&format!("\"{pid}")) && line.contains("waits")).unwrap();
    assert!(edge(first.pid()).contains("color=red") && edge(second.pid()).contains("color=red"), "{drawn}");
    assert!(!edge(behind.pid()).contains("color=red"), "{drawn}");
}
