// SPDX-License-Identifier: MIT OR Apache-2.0
//! `lockctl run`: a command under a lock, with flock(1)'s manners.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, test_kill_process_group};

use crate::puppet::Puppet;
use crate::running::{Left, Running};
use crate::stage::{Answer, LOCKCTL, Place, command, eventually, lockctl, sees_waiters_or_skips, state_of};

pub fn run(place: &Place, options: &[&str], command: &[&str]) -> Answer {
    lockctl(["run", &place.name, "3"].iter().chain(options).chain(&["--"]).chain(command))
}

pub fn is_held(place: &Place) -> bool {
    lockctl(["list", "--all", "-o", "id,state", &place.name]).with(0).contains("3  held")
}

#[test]
fn the_command_runs_with_the_lock_held_and_knows_which() {
    let place = Place::segment(32, &[3]);
    let script = format!("echo $LOCK_ID $LOCK_STORAGE; {LOCKCTL} list -n -o id,state {}; cat", place.name);
    assert_eq!(run(&place, &[], &["sh", "-c", &script]).with(0), format!("3 {}\n3  held\n", place.name));
    assert!(!is_held(&place));
}

#[test]
fn the_status_is_the_commands_or_128_and_its_signal() {
    let place = Place::segment(32, &[3]);
    for status in [0, 1, 7, 255] {
        assert_eq!(run(&place, &[], &["sh", "-c", &format!("exit {status}")]).code, Some(status));
    }
    assert_eq!(run(&place, &[], &["sh", "-c", "kill -KILL $$"]).code, Some(128 + 9));
    assert_eq!(run(&place, &[], &["sh", "-c", "kill -TERM $$"]).code, Some(128 + 15));
    let said = run(&place, &[], &["/no/such/command"]).failure(69);
    assert!(said.contains("failed to execute /no/such/command"), "{said}");
    assert!(!is_held(&place), "the lock was kept");
    assert!(lockctl(["list", "-n", "-o", "note", &place.name]).with(0).starts_with('-'), "a mark was left");
}

#[test]
fn a_held_lock_is_a_conflict_at_once_or_when_the_time_is_up() {
    let place = Place::segment(32, &[3]);
    let holder = Puppet::holding(&place, &[3]);
    for options in [&["-n"][..], &["--nonblock"], &["-w", "0.05"], &["--timeout", "0"], &["-w", "0"]] {
        let answer = run(&place, options, &["echo", "in"]);
        assert_eq!((answer.code, answer.out.as_str(), answer.err.as_str()), (Some(1), "", ""), "{options:?}");
    }
    assert_eq!(run(&place, &["-n", "-E", "42"], &["true"]).code, Some(42));
    assert_eq!(run(&place, &["-w", "0.05", "-E", "0"], &["false"]).code, Some(0));
    let said = run(&place, &["-n", "--verbose"], &["true"]);
    assert!(said.err.contains("failed to get lock 3; it is held by"), "{said:?}");
    assert!(said.err.contains(&holder.pid().to_string()), "{said:?}");
    assert!(run(&place, &["-w", "0.05", "--verbose"], &["true"]).err.contains("timeout while waiting to get lock 3"));
}

#[test]
fn verbose_says_how_long_it_took_and_what_is_run() {
    let place = Place::segment(32, &[3]);
    let answer = run(&place, &["--verbose"], &["echo", "in"]);
    assert_eq!((answer.code, answer.out.as_str()), (Some(0), "in\n"));
    let lines: Vec<&str> = answer.err.lines().collect();
    let seconds = lines[0].strip_prefix("lockctl: getting lock 3 took ").and_then(|rest| rest.strip_suffix(" seconds"));
    assert!(seconds.is_some_and(|seconds| seconds.parse::<f64>().is_ok()), "{lines:?}");
    assert_eq!(lines[1..], ["lockctl: executing echo in"]);
}

#[test]
fn it_waits_for_its_turn() {
    if !sees_waiters_or_skips() {
        return;
    }
    let place = Place::segment(32, &[3]);
    let mut holder = Puppet::holding(&place, &[3]);
    let waiting = command(["run", &place.name, "3", "--", "true"]).spawn().unwrap();
    eventually("it waits", || lockctl(["graph", &place.name]).out.contains(&format!("  {} (", waiting.id())));
    holder.does("unlock 3");
    assert_eq!(waiting.wait_with_output().unwrap().status.code(), Some(0));
}

#[test]
fn a_death_is_said_and_the_command_runs_with_the_lock_held() {
    let place = Place::segment(32, &[3]);
    Puppet::holding(&place, &[3]).kill();
    let answer = run(&place, &[], &["echo", "mended"]);
    assert_eq!(answer.out, "mended\n");
    assert!(answer.err.starts_with("lockctl: lock 3: its last holder died holding it"), "{answer:?}");
    assert_eq!(run(&place, &[], &["true"]).err, "", "a death is told once");
}

#[test]
fn the_command_inherits_no_descriptor_and_no_mapping() {
    // What it has without lockctl, as whoever runs the tests may leave some open.
    let list = Command::new("ls").arg("/proc/self/fd").stdin(Stdio::null()).output().unwrap();
    let without = String::from_utf8(list.stdout).unwrap();
    for place in [Place::segment(32, &[3]), Place::directory(&[3])] {
        assert_eq!(run(&place, &[], &["ls", "/proc/self/fd"]).with(0), without);
        let name = place.path.file_name().unwrap().to_str().unwrap();
        let maps = run(&place, &[], &["cat", "/proc/self/maps"]).with(0);
        assert!(!maps.contains(name), "{maps}");
    }
}

#[test]
fn what_the_command_leaves_running_does_not_keep_the_lock() {
    for place in [Place::segment(32, &[3]), Place::directory(&[3])] {
        let _left = Left::of(&run(&place, &[], &["sh", "-c", "sleep 1000 > /dev/null 2>&1 & echo $!"]).with(0));
        assert!(!is_held(&place));
    }
}

#[test]
fn a_lockctl_that_is_killed_is_told_to_the_next() {
    let place = Place::segment(32, &[3]);
    let (running, command) = Running::start(&place, 3, "echo $$; exec sleep 1000");
    let command = Left::of(&command);
    running.kill();
    assert!(state_of(command.pid()).is_some_and(|state| state != 'Z'), "the command died with lockctl");
    assert!(run(&place, &[], &["true"]).err.contains("its last holder died"));
}

#[test]
fn what_it_needs_is_asked_for() {
    let place = Place::segment(32, &[]);
    assert_eq!(lockctl(["run", &place.name, "3"]).code, Some(64));
    assert_eq!(lockctl(["run", &place.name, "x", "--", "true"]).code, Some(64));
    assert!(lockctl(["run", &place.name, "32", "--", "true"]).failure(64).contains("ids from 0 to 31"));
    assert_eq!(run(&place, &["-E", "256"], &["true"]).code, Some(64));
    for seconds in ["-1", "1e30", "soon"] {
        let said = run(&place, &["-w", seconds], &["true"]).failure(64);
        assert!(said.contains("from 0 to 18446744073, such as 2.5; to wait without end, leave it out"), "{said}");
    }
}

#[test]
fn a_shell_may_run_one_line() {
    let place = Place::segment(32, &[3]);
    let line = |shell: Option<&str>, options: &[&str]| {
        let mut command = command(["run", &place.name, "3"].iter().chain(options));
        match shell {
            Some(shell) => command.env("SHELL", shell),
            None => command.env_remove("SHELL"),
        };
        Answer::of(command.output().unwrap())
    };
    let script = "echo $LOCK_ID; false || exit 7";
    for shell in [None, Some(""), Some("/bin/sh")] {
        assert_eq!(line(shell, &["-c", script]).with(7), "3\n");
    }
    assert_eq!(line(None, &["--command", script]).with(7), "3\n");
    assert_eq!(line(Some("/bin/echo"), &["-c", "line"]).with(0), "-c line\n", "the user's shell was not asked");
    assert_eq!(line(None, &["-c", script, "--", "true"]).code, Some(64));
    assert!(line(None, &["--verbose", "-c", "true"]).err.ends_with("lockctl: executing /bin/sh -c true\n"));
}

#[test]
fn the_letters_of_flock_are_taken_or_refused_with_the_reason() {
    let place = Place::segment(32, &[3]);
    for options in [&["-x"][..], &["--exclusive"], &["-e"], &["-o"], &["--close"], &["-xon"]] {
        assert_eq!(run(&place, options, &["echo", "in"]).with(0), "in\n", "{options:?}");
    }
    for (options, reason) in [(["-u", "--unlock"], "ends with the command"), (["-F", "--no-fork"], "would lose it")] {
        for option in options {
            let said = run(&place, &[option], &["echo", "in"]).failure(64);
            assert!(said.contains(options[1]) && said.contains(reason), "{said}");
        }
    }
    assert!(lockctl(["run", &place.name, "3", "-u"]).failure(64).contains("ends with the command"));
    assert_eq!(run(&place, &["-s", "-x"], &["true"]).code, Some(64));
}

#[test]
fn no_process_is_left() {
    let place = Place::segment(32, &[3]);
    // All that lockctl starts is of this group.
    let mut lockctl = command(["run", &place.name, "3", "--", "true"]).process_group(0).spawn().unwrap();
    let group = Pid::from_child(&lockctl);
    assert_eq!(lockctl.wait().unwrap().code(), Some(0));
    assert!(test_kill_process_group(group).is_err(), "somebody lives");
}
