// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signals to `lockctl run`: each reaches the command, and reaches it once, and the lock is given back.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::puppet::Puppet;
use crate::run::{is_held, run};
use crate::running::{Left, Running};
use crate::stage::{LOCKCTL, Place, children_of, command, eventually, lockctl, sees_waiters_or_skips, skip, state_of};
use crate::terminal::Terminal;

/// Says each signal that it gets, a line each, until it gets SIGUSR2.
const LISTENER: &str = "
    for name in HUP INT QUIT TERM USR1 ALRM WINCH; do trap \"echo $name\" $name; done
    trap 'exit 23' USR2
    echo $$
    i=0; while [ $i -lt 1000 ]; do sleep 0.01; i=$((i + 1)); done; exit 99";

/// A listener whose lockctl is the first of a process group.
fn listener(place: &Place, script: &str) -> (Running, Pid, Pid) {
    let mut command = command(["run", &place.name, "3", "--", "sh", "-c", script]);
    let (running, said) = Running::begin({
        command.process_group(0);
        command
    });
    let number = |pid: u32| Pid::from_raw(pid.cast_signed()).unwrap();
    let (lockctl, listener) = (number(running.pid()), number(said.parse().unwrap()));
    (running, lockctl, listener)
}

/// Fails if anything was forwarded that the command had already: it would be there before the second of two more. (A
/// shell that has several at once says them in the order of their numbers.)
#[track_caller]
fn nothing_more_comes(running: &mut Running) {
    for _ in 0..2 {
        running.send(Signal::USR1);
        assert_eq!(running.says(), "USR1");
    }
}

#[test]
fn a_signal_to_lockctl_goes_to_the_command() {
    let place = Place::segment(32, &[3]);
    let (mut running, ..) = listener(&place, LISTENER);
    for (signal, name) in [
        (Signal::HUP, "HUP"),
        (Signal::INT, "INT"),
        (Signal::QUIT, "QUIT"),
        (Signal::TERM, "TERM"),
        (Signal::USR1, "USR1"),
        (Signal::ALARM, "ALRM"),
        (Signal::WINCH, "WINCH"),
    ] {
        running.send(signal);
        assert_eq!(running.says(), name);
    }
    nothing_more_comes(&mut running);
    running.send(Signal::USR2);
    assert_eq!(running.end().code(), Some(23));
    assert!(!is_held(&place));
}

#[test]
fn a_real_time_signal_goes_to_the_command() {
    let place = Place::segment(32, &[3]);
    // systemd is asked for an orderly end by SIGRTMIN+3, and so are containers that have it.
    let (mut running, said) = Running::start(&place, 3, "trap 'exit 24' 37; echo $PPID; while :; do sleep 0.01; done");
    assert!(Command::new("kill").args(["-37", &said]).status().unwrap().success());
    assert_eq!(running.end().code(), Some(24));
}

#[test]
fn a_command_that_dies_of_it_leaves_no_mark() {
    let place = Place::segment(32, &[3]);
    let (mut running, _) = Running::start(&place, 3, "echo ready; exec sleep 1000");
    running.send(Signal::TERM);
    assert_eq!(running.end().code(), Some(128 + 15));
    let rows = lockctl(["list", "-n", "-o", "state,note", &place.name]).with(0);
    assert_eq!(rows, "unlocked  -\n", "the lock was not given back well");
}

#[test]
fn a_signal_to_the_whole_group_reaches_the_command_once() {
    let place = Place::segment(32, &[3]);
    let (mut running, group, _) = listener(&place, LISTENER);
    for (signal, name) in [(Signal::TERM, "TERM"), (Signal::HUP, "HUP"), (Signal::INT, "INT")] {
        kill_process_group(group, signal).unwrap();
        assert_eq!(running.says(), name);
        nothing_more_comes(&mut running);
    }
    running.send(Signal::USR2);
    assert_eq!(running.end().code(), Some(23));
}

/// As timeout(1) does it.
#[test]
fn a_signal_to_lockctl_and_then_to_its_group_reaches_the_command_once() {
    let place = Place::segment(32, &[3]);
    let (mut running, group, _) = listener(&place, LISTENER);
    // Stopped meanwhile, so that it does not depend on how long this takes.
    running.send(Signal::STOP);
    running.send(Signal::TERM);
    kill_process_group(group, Signal::TERM).unwrap();
    running.send(Signal::CONT);
    assert_eq!(running.says(), "TERM");
    nothing_more_comes(&mut running);
    kill_process_group(group, Signal::USR2).unwrap();
    assert_eq!(running.end().code(), Some(23));
}

/// As systemd does it to a control group, the first process first.
#[test]
fn a_signal_to_each_process_in_turn_reaches_the_command_once() {
    let place = Place::segment(32, &[3]);
    let (mut running, lockctl, listener) = listener(&place, LISTENER);
    let number = |pid: Pid| pid.as_raw_nonzero().get().cast_unsigned();
    let others = children_of(number(lockctl)).into_iter().filter(|&pid| pid != number(listener));
    let others: Vec<Pid> = others.map(|pid| Pid::from_raw(pid.cast_signed()).unwrap()).collect();
    // Stopped meanwhile, so that it does not depend on how long this takes.
    running.send(Signal::STOP);
    for pid in [lockctl].iter().chain(&others).chain(&[listener]) {
        kill_process(*pid, Signal::TERM).unwrap();
    }
    running.send(Signal::CONT);
    assert_eq!(running.says(), "TERM");
    nothing_more_comes(&mut running);
    running.send(Signal::USR2);
    assert_eq!(running.end().code(), Some(23));
}

#[test]
fn a_command_that_left_the_group_gets_what_the_group_gets() {
    let place = Place::segment(32, &[3]);
    let script = format!("exec setsid sh -c '{}'", LISTENER.replace('\'', "'\\''"));
    let (mut running, group, _) = listener(&place, &script);
    kill_process_group(group, Signal::TERM).unwrap();
    assert_eq!(running.says(), "TERM");
    running.send(Signal::USR2);
    assert_eq!(running.end().code(), Some(23));
}

#[test]
fn where_nobody_can_bear_witness_the_command_gets_it_all_the_same() {
    let place = Place::segment(32, &[3]);
    let (mut running, lockctl, listener) = listener(&place, LISTENER);
    let number = |pid: Pid| pid.as_raw_nonzero().get().cast_unsigned();
    let others: Vec<u32> = children_of(number(lockctl)).into_iter().filter(|&pid| pid != number(listener)).collect();
    for &pid in &others {
        kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
        eventually("it is waited for", || state_of(pid).is_none());
    }
    running.send(Signal::TERM);
    assert_eq!(running.says(), "TERM");
    running.send(Signal::USR2);
    assert_eq!(running.end().code(), Some(23));
}

#[test]
fn the_interrupt_key_reaches_the_command_once() {
    let place = Place::segment(32, &[3]);
    let script = "trap 'echo got it' INT; trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done";
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

/// The kernel tells only the first process of the session, as which `ssh -t` and `xterm -e` start lockctl.
#[test]
fn a_terminal_that_hangs_up_ends_the_command() {
    let place = Place::segment(32, &[3]);
    let file = place.beside("pid");
    let command =
        format!("exec {LOCKCTL} run {} 3 -- sh -c 'echo $$ > {}; exec sleep 1000'", place.name, file.display());
    let Some(terminal) = Terminal::running(&place, &command) else { return };
    let said = || std::fs::read_to_string(&file).unwrap_or_default();
    eventually("the command says who it is", || said().ends_with('\n'));
    let sleeper = Left::of(&said());
    drop(terminal);
    eventually("the command has ended", || state_of(sleeper.pid()).is_none());
    eventually("the lock was given back", || !is_held(&place));
    assert_eq!(run(&place, &[], &["true"]).err, "", "it was not given back well");
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
    // One whose default is to do nothing.
    kill_process(Pid::from_child(&waiting), Signal::WINCH).unwrap();
    kill_process(Pid::from_child(&waiting), Signal::TERM).unwrap();
    assert_eq!(waiting.wait().unwrap().signal(), Some(15));
    holder.does("unlock 3");
    assert_eq!(lockctl(["list", "-n", "-o", "state,note", &place.name]).with(0), "unlocked  -\n");
}

/// The signals of one line of /proc/self/status as the command has them, where `env` did that before.
fn of_command(place: &Place, what: &[&str], line: &str) -> Option<u64> {
    let run = ["run", &place.name, "3", "--", "grep", line, "/proc/self/status"];
    let output = Command::new("env").args(what).arg(LOCKCTL).args(run).stdin(Stdio::null()).output().unwrap();
    if !output.status.success() {
        skip(&format!("env(1) does not know {what:?}: {}", String::from_utf8_lossy(&output.stderr)));
        return None;
    }
    let said = String::from_utf8(output.stdout).unwrap();
    Some(u64::from_str_radix(said.split_ascii_whitespace().nth(1).unwrap(), 16).unwrap())
}

fn bit(signal: Signal) -> u64 {
    1 << (signal.as_raw() - 1)
}

/// Of the signals that have a name; the libc has two of its own beside.
const NAMED: u64 = 0x7fff_ffff;

#[test]
fn what_was_ignored_stays_ignored_for_the_command() {
    let place = Place::segment(32, &[3]);
    let signals = [Signal::HUP, Signal::INT, Signal::PIPE, Signal::CHILD];
    if let Some(ignored) = of_command(&place, &["--ignore-signal=HUP,INT,PIPE,CHLD"], "SigIgn") {
        assert_eq!(ignored & NAMED, signals.into_iter().map(bit).sum::<u64>(), "{ignored:x}");
    }
    // And nothing else is: not what lockctl itself ignores.
    let ignored = of_command(&place, &[], "SigIgn").unwrap();
    assert_eq!(ignored & NAMED, 0, "{ignored:x}");
}

#[test]
fn what_was_blocked_is_blocked_for_the_command_and_nothing_else() {
    let place = Place::segment(32, &[3]);
    if let Some(blocked) = of_command(&place, &["--block-signal=TERM,CHLD,USR1"], "SigBlk") {
        assert_eq!(blocked, [Signal::TERM, Signal::CHILD, Signal::USR1].into_iter().map(bit).sum::<u64>());
    }
    assert_eq!(of_command(&place, &[], "SigBlk"), Some(0));
}

#[test]
fn a_parent_that_ignores_its_children_changes_no_status() {
    let place = Place::segment(32, &[3]);
    let can = Command::new("env").args(["--ignore-signal=CHLD", "true"]).stderr(Stdio::null()).status();
    if !can.is_ok_and(|status| status.success()) {
        return skip("there is no env(1) that ignores signals for others");
    }
    for status in [0, 7] {
        let exit = format!("exit {status}");
        let mut command = Command::new("env");
        command.args(["--ignore-signal=CHLD", LOCKCTL, "run", &place.name, "3", "--", "sh", "-c", &exit]);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{output:?}");
    }
}

#[test]
fn a_wait_goes_on_over_a_signal_that_was_blocked_and_the_command_is_sent_it() {
    if !sees_waiters_or_skips() {
        return;
    }
    let place = Place::segment(32, &[3]);
    let mut holder = Puppet::holding(&place, &[3]);
    let can = Command::new("env").args(["--block-signal=TERM", "perl", "-e", "1"]).status();
    if !can.is_ok_and(|status| status.success()) {
        return skip("there is no env(1) that blocks signals for others, or no perl");
    }
    // A shell would unblock it.
    let script = r#"for (1 .. 3000) {
            open(my $status, "<", "/proc/$$/status") or die;
            exit 25 if grep { /^ShdPnd:\s*0*4000$/ } <$status>;
            select(undef, undef, undef, 0.01);
        }"#;
    let mut command = Command::new("env");
    command.args(["--block-signal=TERM", LOCKCTL, "run", &place.name, "3", "--", "perl", "-e", script]);
    let mut waiting = command.stdin(Stdio::null()).spawn().unwrap();
    eventually("it waits", || lockctl(["graph", &place.name]).out.contains(&format!("  {} (", waiting.id())));
    kill_process(Pid::from_child(&waiting), Signal::TERM).unwrap();
    holder.does("unlock 3");
    assert_eq!(waiting.wait().unwrap().code(), Some(25));
}
