// SPDX-License-Identifier: MIT OR Apache-2.0
//! `lockctl run` as process 1 of a PID namespace, as the entry point of a container is.

use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::puppet::Puppet;
use crate::running::Running;
use crate::stage::{LOCKCTL, Place, children_of, eventually, lockctl, skip};

/// A call that makes a program process 1, as whoever may: in a user namespace, or as root. `None`: neither.
fn unshare() -> Option<Command> {
    // Of the mounts, /proc alone is made private: in a plain chroot "/" is none.
    let namespaces = ["-pf", "--propagation", "unchanged", "--mount-proc", "--kill-child"];
    for user in [&["-r"][..], &[]] {
        let unshare = || {
            let mut command = Command::new("unshare");
            command.args(user).args(namespaces).stdin(Stdio::null());
            command
        };
        if unshare().arg("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
            return Some(unshare());
        }
    }
    skip("no PID namespace can be made here");
    None
}

fn run(place: &Place, script: &str) -> Option<Command> {
    let mut command = unshare()?;
    command.args([LOCKCTL, "run", &place.name, "3", "--", "sh", "-c", script]);
    Some(command)
}

/// The one process that `unshare` started.
fn process_1(unshare: u32) -> Pid {
    let mut children = Vec::new();
    eventually("process 1 is there", || {
        children = children_of(unshare);
        children.len() == 1
    });
    Pid::from_raw(children[0].cast_signed()).unwrap()
}

fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().cast_unsigned()
}

fn has_open(pid: Pid, segment: &Place) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", number(pid)));
    maps.is_ok_and(|maps| maps.contains(segment.path.to_str().unwrap()))
}

#[test]
fn it_takes_locks_of_either_layout() {
    let native = Place::unused();
    lockctl(["create", "--layout", "native", &native.name, "64"]).with(0);
    for place in [Place::segment(32, &[3]), native, Place::directory(&[3])] {
        let Some(mut command) = run(&place, "echo in") else { return };
        let output = command.output().unwrap();
        assert_eq!((output.status.code(), output.stdout), (Some(0), b"in\n".to_vec()), "{place:?}");
    }
}

/// Its ancestor cannot be seen from there; that nobody has taken the lock exclusively since tells.
#[test]
fn it_does_not_wait_for_its_ancestor_outside() {
    for (options, how) in [(&[][..], "held by"), (&["-s"], "held shared by")] {
        let native = Place::native(&[3]);
        let Some(inner) = run(&native, "echo in") else { return };
        let outer = Command::new(LOCKCTL)
            .arg("run")
            .args(options)
            .args([&native.name, "3", "--"])
            .arg(inner.get_program())
            .args(inner.get_args())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8(outer.stderr).unwrap();
        assert_eq!(outer.status.code(), Some(69), "{said}");
        assert!(said.contains(&format!("is {how} a holder that is not seen from here")), "{said}");
    }
}

#[test]
fn a_stop_while_it_waits_is_its_exit_status() {
    let place = Place::segment(32, &[3]);
    let _holder = Puppet::holding(&place, &[3]);
    for (signal, status) in [(Signal::TERM, 128 + 15), (Signal::HUP, 128 + 1), (Signal::QUIT, 128 + 3)] {
        let Some(mut command) = run(&place, "echo never") else { return };
        let mut waiting = command.spawn().unwrap();
        let lockctl = process_1(waiting.id());
        // And so takes signals: process 1 gets none that it does not ask for.
        eventually("it has the segment", || has_open(lockctl, &place));
        kill_process(lockctl, signal).unwrap();
        assert_eq!(waiting.wait().unwrap().code(), Some(status));
    }
}

#[test]
fn a_stop_while_the_command_runs_is_the_commands() {
    let place = Place::segment(32, &[3]);
    let script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done";
    let Some(command) = run(&place, script) else { return };
    let (mut running, _) = Running::begin(command);
    kill_process(process_1(running.pid()), Signal::TERM).unwrap();
    assert_eq!(running.end().code(), Some(5));
}

#[test]
fn a_command_that_dies_of_a_signal_is_said_as_a_shell_says_it() {
    let place = Place::segment(32, &[3]);
    for (name, number) in [("SEGV", 11), ("KILL", 9), ("TERM", 15)] {
        let Some(mut command) = run(&place, &format!("kill -{name} $$")) else { return };
        assert_eq!(command.status().unwrap().code(), Some(128 + number), "{name}");
    }
    let rows = lockctl(["list", "-n", "-o", "state,note", &place.name]).with(0);
    assert_eq!(rows, "unlocked  -\n", "the lock was not given back well");
}

#[test]
fn what_is_left_to_it_is_waited_for() {
    let place = Place::segment(32, &[3]);
    let script = "for i in 1 2 3 4 5; do (true &); done; echo ready; exec sleep 1000";
    let Some(command) = run(&place, script) else { return };
    let (mut running, _) = Running::begin(command);
    let first = process_1(running.pid());
    // The command, and the one that bears witness.
    eventually("the orphans are gone", || children_of(number(first)).len() == 2);
    // While it waits for the lock, too: the sleeper is its child once the shell has become lockctl.
    let Some(mut unshare) = unshare() else { return };
    let script = format!("sleep 0.2 & exec {LOCKCTL} run {} 3 -- true", place.name);
    let mut waiting = unshare.args(["sh", "-c", &script]).spawn().unwrap();
    let second = process_1(waiting.id());
    eventually("it is lockctl", || has_open(second, &place));
    eventually("the sleeper is gone", || children_of(number(second)).len() == 1);
    kill_process(first, Signal::TERM).unwrap();
    assert_eq!(running.end().code(), Some(128 + 15));
    assert_eq!(waiting.wait().unwrap().code(), Some(0));
}

#[test]
fn a_watcher_ends_when_it_is_stopped() {
    let place = Place::segment(32, &[3]);
    let Some(mut command) = unshare() else { return };
    command.args([LOCKCTL, "watch", &place.name]).stdout(Stdio::piped());
    let (mut running, _) = Running::begin(command);
    kill_process(process_1(running.pid()), Signal::TERM).unwrap();
    assert_eq!(running.end().code(), Some(128 + 15));
}
