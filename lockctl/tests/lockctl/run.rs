// SPDX-License-Identifier: MIT OR Apache-2.0
//! `lockctl run`: a command under a lock, with flock(1)'s manners.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::puppet::Puppet;
use crate::running::{Left, Running};
use crate::stage::{Answer, LOCKCTL, Place, command, eventually, lockctl, sees_waiters_or_skips, state_of};
use crate::terminal::Terminal;

fn run(place: &Place, options: &[&str], command: &[&str]) -> Answer {
    lockctl(["run", &place.name, "3"].iter().chain(options).chain(&["--"]).chain(command))
}

fn is_held(place: &Place) -> bool {
    lockctl(["list", "--all", "-o", "id,state", &place.name]).with(0).contains("3  held")
}

#[test]
fn the_command_runs_with_the_lock_held_and_knows_which() {
    let place = Place::segment(32, &[3]);
    let script = format!("echo $LOCK_ID; {LOCKCTL} list -n -o id,state {}; cat", place.name);
    assert_eq!(run(&place, &[], &["sh", "-c", &script]).with(0), "3\n3  held\n");
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
    assert!(lines[0].starts_with("lockctl: getting lock 3 took 0.") && lines[0].ends_with(" seconds"), "{lines:?}");
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
fn signals_go_to_the_command_and_the_lock_is_given_back() {
    let place = Place::segment(32, &[3]);
    for (signal, name) in [
        (Signal::TERM, "TERM"),
        (Signal::INT, "INT"),
        (Signal::HUP, "HUP"),
        (Signal::QUIT, "QUIT"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
    ] {
        let script = format!(
            "trap 'echo got {name}; exit 23' {name}; echo ready; for i in $(seq 3000); do sleep 0.01; done; exit 99"
        );
        let (mut running, first) = Running::start(&place, 3, &script);
        assert_eq!(first, "ready");
        running.send(signal);
        assert_eq!(running.says(), format!("got {name}"));
        assert_eq!(running.end().code(), Some(23), "{name}");
        assert!(!is_held(&place), "{name}");
    }
    // A command that dies of it.
    let (mut running, _) = Running::start(&place, 3, "echo ready; exec sleep 1000");
    running.send(Signal::TERM);
    assert_eq!(running.end().code(), Some(128 + 15));
    let rows = lockctl(["list", "-n", "-o", "state,note", &place.name]).with(0);
    assert_eq!(rows, "unlocked  -\n", "the lock was not given back well");
}

#[test]
fn the_interrupt_key_reaches_the_command_once() {
    let place = Place::segment(32, &[3]);
    let script = "trap 'echo got it' INT; trap 'exit 0' TERM; echo ready; for i in $(seq 3000); do sleep 0.01; done";
    let file = place.beside("script");
    std::fs::write(&file, script).unwrap();
    let command = format!("{LOCKCTL} run {} 3 -- sh {}", place.name, file.display());
    let Some(terminal) = Terminal::running(&place, &command) else { return };
    terminal.until("the command", |screen| screen.contains("ready"));
    terminal.press("C-c");
    terminal.until("the interrupt", |screen| screen.contains("got it"));
    // One that lockctl forwarded would be there before this one is.
    let holder = lockctl(["list", "-n", "-o", "pid", &place.name]).with(0);
    kill_process(Pid::from_raw(holder.trim().parse().unwrap()).unwrap(), Signal::TERM).unwrap();
    let screen = terminal.until("the end", |screen| screen.contains("ended with 0"));
    assert_eq!(screen.matches("got it").count(), 1, "{screen}");
}

#[test]
fn a_signal_ends_the_wait_and_leaves_no_mark() {
    if !sees_waiters_or_skips() {
        return;
    }
    let place = Place::segment(32, &[3]);
    let mut holder = Puppet::holding(&place, &[3]);
    let mut waiting = command(["run", &place.name, "3", "--", "true"]).spawn().unwrap();
    eventually("it waits", || lockctl(["graph", &place.name]).out.contains(&format!("  {} (", waiting.id())));
    kill_process(Pid::from_child(&waiting), Signal::TERM).unwrap();
    assert_eq!(waiting.wait().unwrap().signal(), Some(15));
    holder.does("unlock 3");
    assert_eq!(lockctl(["list", "-n", "-o", "state,note", &place.name]).with(0), "unlocked  -\n");
}

#[test]
fn what_was_ignored_stays_ignored_for_the_command() {
    let place = Place::segment(32, &[3]);
    let script = format!("trap '' HUP INT; exec {LOCKCTL} run {} 3 -- grep SigIgn /proc/self/status", place.name);
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let mask = u64::from_str_radix(said.split_ascii_whitespace().nth(1).unwrap(), 16).unwrap();
    assert_eq!(mask & 0b11, 0b11, "{said}");
    // And nothing else is: not what lockctl itself ignores. (The libc has two of its own.)
    let said = run(&place, &[], &["grep", "SigIgn", "/proc/self/status"]).with(0);
    let mask = u64::from_str_radix(said.split_ascii_whitespace().nth(1).unwrap(), 16).unwrap();
    assert_eq!(mask & 0x7fff_ffff, 0, "{said}");
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
    assert_eq!(run(&place, &["-w", "-1"], &["true"]).code, Some(64));
    assert_eq!(run(&place, &["-E", "256"], &["true"]).code, Some(64));
}
