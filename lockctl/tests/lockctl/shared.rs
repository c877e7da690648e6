// SPDX-License-Identifier: MIT OR Apache-2.0
//! `lockctl run --shared`: commands that read, beside each other and beside no exclusive holder.

use std::fs;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::puppet::Puppet;
use crate::run::{is_held, run};
use crate::running::{Left, Running};
use crate::stage::{Answer, LOCKCTL, Place, command, eventually, lockctl};

/// Where locks can be shared.
pub fn places() -> [Place; 2] {
    [Place::native(&[3]), Place::directory(&[3])]
}

/// A command that reads lock 3 until it ends.
fn reader(place: &Place) -> Running {
    let (reader, said) =
        Running::begin(command(["run", "-s", &place.name, "3", "--", "sh", "-c", "echo in; exec sleep 1000"]));
    assert_eq!(said, "in");
    reader
}

/// What `list` says of lock 3.
pub fn lock(place: &Place) -> Value {
    let look: Value = serde_json::from_str(&lockctl(["list", "--json", &place.name]).with(0)).unwrap();
    look["locks"].as_array().unwrap().iter().find(|lock| lock["id"] == 3).unwrap().clone()
}

/// Until a writer that waits for lock 3 is next.
pub fn once_a_writer_is_next(place: &Place) -> Value {
    let mut found = Value::Null;
    eventually("the writer is next, and the storage tells who it is", || {
        found = lock(place);
        found["draining"] == true && found["waiting"][0]["draining"] == true
    });
    found
}

/// A run that waits to hold lock 3 exclusively.
fn writer(place: &Place) -> Child {
    let mut call = command(["run", &place.name, "3", "--", "echo", "wrote"]);
    let writer = call.stdout(Stdio::piped()).spawn().unwrap();
    once_a_writer_is_next(place);
    writer
}

/// Ends the command, and with it the run.
fn end(mut reader: Running) {
    reader.send(Signal::TERM);
    assert_eq!(reader.end().code(), Some(128 + 15));
}

#[test]
fn commands_share_a_lock_and_no_exclusive_holder_is_beside_them() {
    for place in places() {
        let first = reader(&place);
        let second = reader(&place);
        for options in [&["-s"][..], &["--shared"], &["-sn"], &["-s", "-w", "0"], &["-s", "-o"]] {
            assert_eq!(run(&place, options, &["echo", "in"]).with(0), "in\n", "{options:?}");
        }
        assert_eq!(lock(&place)["readers"], 2);
        assert_eq!(run(&place, &["-n"], &["echo", "in"]).with(1), "");
        assert_eq!(run(&place, &["-w", "0.05", "-E", "42"], &["echo", "in"]).with(42), "");
        let said = run(&place, &["-n", "--verbose"], &["true"]).err;
        assert!(said.contains("failed to get lock 3; it is held shared by 2: "), "{said}");
        for reader in [&first, &second] {
            assert!(said.contains(&format!("{} (lockctl run -s", reader.pid())), "{said}");
        }
        end(first);
        assert_eq!(run(&place, &["-n"], &["true"]).code, Some(1), "there is one left");
        end(second);
        assert_eq!(run(&place, &["-n"], &["echo", "alone"]).with(0), "alone\n");
        assert!(!is_held(&place));
    }
}

#[test]
fn what_is_held_exclusively_is_not_shared() {
    for place in places() {
        let holder = Puppet::holding(&place, &[3]);
        for options in [&["-sn"][..], &["-s", "-w", "0.05"]] {
            let answer = run(&place, options, &["echo", "in"]);
            assert_eq!((answer.code, answer.out.as_str(), answer.err.as_str()), (Some(1), "", ""), "{options:?}");
        }
        let said = run(&place, &["-sn", "--verbose"], &["true"]).err;
        assert!(said.contains(&format!("failed to get lock 3; it is held by {} (", holder.pid())), "{said}");
        assert!(run(&place, &["-s", "-w", "0.05", "--verbose"], &["true"]).err.contains("timeout while waiting"));
        drop(holder);
    }
}

#[test]
fn the_status_is_the_commands_or_128_and_its_signal() {
    for place in places() {
        assert_eq!(run(&place, &["-s"], &["sh", "-c", "exit 7"]).code, Some(7));
        assert_eq!(run(&place, &["-s"], &["sh", "-c", "kill -KILL $$"]).code, Some(128 + 9));
        assert!(run(&place, &["-s"], &["/no/such/command"]).failure(69).contains("failed to execute"));
        let script = format!("echo $LOCK_ID; {LOCKCTL} list -n -o id,state,readers {}", place.name);
        assert_eq!(run(&place, &["-s"], &["sh", "-c", &script]).with(0), "3\n3  shared  1\n");
        assert_eq!(lockctl(["list", "-n", "-o", "state", &place.name]).with(0), "unlocked\n", "the lock was kept");
    }
}

#[test]
fn a_signal_ends_the_wait_of_a_reader() {
    for place in places() {
        let mut holder = Puppet::holding(&place, &[3]);
        let mut waiting = command(["run", "-s", &place.name, "3", "--", "echo", "in"]).spawn().unwrap();
        eventually("it waits", || lock(&place)["waiters"] == 1);
        kill_process(Pid::from_child(&waiting), Signal::TERM).unwrap();
        let ended = waiting.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(15));
        holder.does("unlock 3");
        assert_eq!(run(&place, &["-n"], &["true"]).code, Some(0), "who gave up left something");
    }
}

#[test]
fn a_writer_that_waits_keeps_later_readers_out_and_has_its_turn() {
    for place in places() {
        let first = reader(&place);
        let writer = writer(&place);
        assert_eq!(run(&place, &["-sn"], &["echo", "in"]).with(1), "");
        let said = run(&place, &["-s", "-w", "0.05", "--verbose"], &["true"]);
        assert_eq!(said.code, Some(1));
        assert!(said.err.contains("it is held shared by ") && said.err.contains("a writer is next"), "{said:?}");
        let later =
            command(["run", "-s", &place.name, "3", "--", "echo", "read"]).stdout(Stdio::piped()).spawn().unwrap();
        end(first);
        assert_eq!(Answer::of(writer.wait_with_output().unwrap()).with(0), "wrote\n");
        assert_eq!(Answer::of(later.wait_with_output().unwrap()).with(0), "read\n");
    }
}

#[test]
fn each_reader_is_told_of_a_dead_writer_until_one_has_had_the_lock() {
    for place in places() {
        Puppet::holding(&place, &[3]).kill();
        for _ in 0..2 {
            let answer = run(&place, &["-s"], &["echo", "read"]);
            assert!(answer.err.contains("lock 3: its last holder died holding it"), "{answer:?}");
            assert!(answer.err.contains("held shared now, and each reader is told"), "{answer:?}");
            assert_eq!(answer.with(0), "read\n");
        }
        assert!(lockctl(["check", &place.name]).with(1).contains("may be half written"));
        assert!(run(&place, &[], &["true"]).err.contains("its last holder died holding it"));
        assert_eq!(run(&place, &["-s"], &["true"]).err, "", "a writer was told, who could mend it");
        assert_eq!(lockctl(["check", &place.name]).code, Some(0));
    }
}

#[test]
fn nobody_is_told_of_a_lockctl_that_read_and_was_killed() {
    for place in places() {
        let call = command(["run", "-s", &place.name, "3", "--", "sh", "-c", "echo $$; exec sleep 1000"]);
        let (running, command) = Running::begin(call);
        let _command = Left::of(&command);
        running.kill();
        let answer = run(&place, &[], &["echo", "alone"]);
        assert_eq!((answer.code, answer.out.as_str(), answer.err.as_str()), (Some(0), "alone\n", ""));
    }
}

#[test]
fn what_has_no_shared_locks_says_so_and_the_way_out() {
    let libpod = Place::segment(32, &[3]);
    let old = Place::native(&[3]);
    make_version_1(&old);
    for (place, why) in [(libpod, "libpod layout"), (old, "format version 1")] {
        for options in [&["-s"][..], &["-sn"], &["-s", "-w", "1", "-E", "42"]] {
            let said = run(&place, options, &["echo", "in"]).failure(69);
            assert!(said.contains(&format!("{}: --shared: ", place.name)) && said.contains(why), "{said}");
            assert!(said.contains("leave --shared out") && said.contains("lockctl create"), "{said}");
        }
        // Nothing else is missing.
        assert_eq!(run(&place, &[], &["echo", "alone"]).with(0), "alone\n");
        assert_eq!(lockctl(["list", "-n", "-o", "id,state,readers", &place.name]).with(0), "3  unlocked  -\n");
    }
}

/// Makes of a new native segment what a library made that knew no readers: by docs/segment-format.md the cell table is left
/// out, and what stands behind it, in the header and in the file, stands so much earlier.
fn make_version_1(place: &Place) {
    const VERSION: std::ops::Range<usize> = 8..12;
    const OFFSETS: [usize; 3] = [64, 72, 96];
    const TABLE: usize = 104;
    const PLACES: std::ops::Range<usize> = 56..64;
    let mut bytes = place.bytes();
    let number = |bytes: &[u8], at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
    let start = number(&bytes, TABLE);
    let length = number(&bytes, OFFSETS[0]) - start;
    for at in OFFSETS {
        let moved = number(&bytes, at) - length;
        bytes[at..at + 8].copy_from_slice(&moved.to_ne_bytes());
    }
    bytes[VERSION].copy_from_slice(&1u32.to_ne_bytes());
    bytes[PLACES].fill(0);
    bytes.copy_within(TABLE + 8..168, TABLE);
    bytes[160..168].fill(0);
    bytes.drain(start as usize..(start + length) as usize);
    // Into the same file: its inode is in the header.
    fs::write(&place.path, bytes).unwrap();
}

/// What the inner run says and exits with, in a script under lock 3.
fn inner(place: &Place, outer: &[&str], call: &str) -> (String, i32) {
    let script = format!("{call} 2>&1; echo $?");
    let said = run(place, outer, &["sh", "-c", &script]).with(0);
    let (said, status) = said.trim_end().rsplit_once('\n').unwrap_or(("", said.trim_end()));
    (said.to_owned(), status.parse().unwrap())
}

#[test]
fn within_a_run_that_has_the_lock_either_way_another_does_not_wait_for_it() {
    for place in places() {
        for (outer, inner_options, how) in
            [(&["-s"][..], "", "is held shared by"), (&["-s"], "-s", "is held shared by"), (&[], "-s", "is held by")]
        {
            // Another reader comes first in some of the cells: it is no ancestor.
            let other = if outer.is_empty() { None } else { Some(reader(&place)) };
            let call = |options: &str| format!("{LOCKCTL} run {inner_options} {options} {} 3 -- echo in", place.name);
            let (said, status) = inner(&place, outer, &call(""));
            assert_eq!(status, 69, "{said}");
            assert!(said.contains(how) && said.contains("(lockctl run") && said.contains("would never end"), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
            assert_eq!(inner(&place, outer, &call("-w 1000 -E 42")).1, 42);
            let other_lock = format!("{LOCKCTL} run {inner_options} {} 4 -- echo in", place.name);
            assert_eq!(inner(&place, outer, &other_lock), ("in".to_owned(), 0));
            drop(other);
        }
    }
}
