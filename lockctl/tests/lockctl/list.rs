// SPDX-License-Identifier: MIT OR Apache-2.0
//! `lockctl list`: who holds which lock, and how many wait.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::puppet::Puppet;
use crate::stage::{LOCKCTL, Place, command, eventually, lockctl, sees_waiters_or_skips};
use crate::terminal::Terminal;

/// The table of a storage, with the numbers of these processes replaced by their letters.
fn table(place: &Place, options: &[&str], processes: &[(&str, u32)]) -> String {
    let mut shown = lockctl(["list", &place.name].iter().chain(options)).with(0);
    for (letter, pid) in processes {
        let number = pid.to_string();
        shown = shown.replace(&number, &format!("{letter:>width$}", width = number.len()));
    }
    shown
}

fn json(place: &Place) -> Value {
    serde_json::from_str(&lockctl(["list", "--json", &place.name]).with(0)).unwrap()
}

/// Until `list` counts that many waiters for a lock; gives the look.
fn once_waited_for(place: &Place, id: usize, waiters: u64) -> Value {
    let mut look = Value::Null;
    eventually("the waiters are seen", || {
        look = json(place);
        look["locks"].as_array().unwrap().iter().any(|lock| lock["id"] == id && lock["waiters"] == waiters)
    });
    look["locks"].as_array().unwrap().iter().find(|lock| lock["id"] == id).unwrap().clone()
}

#[test]
fn a_row_for_each_lock_that_is_allocated_held_or_marked() {
    let place = Place::segment(64, &[0, 1, 40]);
    Puppet::holding(&place, &[40]).kill();
    let holder = Puppet::holding(&place, &[1, 33]);
    let columns = ["-o", "id,state,pid,held-for,waiters,note"];
    let width = holder.pid().to_string().len();
    let expected = [
        format!("ID  STATE     {:>width$}  HELD FOR  WAITERS  NOTE", "PID"),
        format!(" 0  unlocked  {:>width$}         -        0  -", "-"),
        format!(" 1  held      {:>width$}         -        0  -", "H"),
        format!("33  held      {:>width$}         -        0  not allocated", "H"),
        format!("40  unlocked  {:>width$}         -        0  owner died", "-"),
    ];
    let shown = table(&place, &columns, &[("H", holder.pid())]);
    assert_eq!(shown.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn columns_heading_and_process_can_be_chosen() {
    let place = Place::segment(32, &[0, 1, 2]);
    let holder = Puppet::holding(&place, &[1]);
    assert_eq!(lockctl(["list", "-n", "-o", "ID,State", &place.name]).with(0), "0  unlocked\n1  held\n2  unlocked\n");
    let pid = holder.pid().to_string();
    assert_eq!(lockctl(["list", "-n", "-o", "id,pid", "-p", &pid, &place.name]).with(0), format!("1  {pid}\n"));
    assert_eq!(lockctl(["list", "-n", "-p", "1", &place.name]).with(0), "");
    assert_eq!(lockctl(["list", "--all", "-n", "-o", "id", &place.name]).with(0).lines().count(), 32);
    assert!(lockctl(["list", "-n", "-o", "command", &place.name]).with(0).contains("is_played_by_this_binary"));
    assert_eq!(lockctl(["list", "-o", "nonsense", &place.name]).code, Some(64));
}

#[test]
fn every_way_to_name_a_segment_means_the_same() {
    let place = Place::segment(32, &[5]);
    let path = place.path.to_str().unwrap();
    for name in [place.name.as_str(), path, &place.name[1..]] {
        assert_eq!(lockctl(["list", "-n", "-o", "id", name]).with(0), "5\n", "{name}");
    }
    let relative =
        command(["list", "-n", "-o", "id", &format!("./{}", &place.name[1..])]).current_dir("/dev/shm").output();
    assert_eq!(relative.unwrap().stdout, b"5\n");
}

#[test]
fn a_wedged_segment_shows_the_stopped_holder_and_all_who_wait() {
    if !sees_waiters_or_skips() {
        return;
    }
    let place = Place::segment(32, &[3]);
    let holder = Puppet::holding(&place, &[3]);
    holder.stop();
    let mut waiters: Vec<Puppet> = (0..3).map(|_| Puppet::of(&place)).collect();
    for waiter in &mut waiters {
        waiter.begins("lock 3");
    }
    let lock = once_waited_for(&place, 3, 3);
    assert_eq!(lock["holder"]["pid"], holder.pid());
    assert_eq!(lock["notes"], serde_json::json!(["holder is stopped"]));
    let seen: BTreeSet<u64> =
        lock["waiting"].as_array().unwrap().iter().map(|wait| wait["pid"].as_u64().unwrap()).collect();
    assert_eq!(seen, waiters.iter().map(|waiter| waiter.pid().into()).collect());
    // Also by the number of one who waits.
    let pid = waiters[0].pid().to_string();
    eventually("-p finds a waiter", || lockctl(["list", "-n", "-o", "id", "-p", &pid, &place.name]).with(0) == "3\n");
    holder.go_on();
}

#[test]
fn looking_changes_no_byte_and_clears_no_mark() {
    let place = Place::segment(64, &[0, 1]);
    Puppet::holding(&place, &[0]).kill();
    let holder = Puppet::holding(&place, &[1]);
    holder.stop();
    let before = place.bytes();
    for verb in [
        &["list", "--all"][..],
        &["list", "--json"],
        &["graph"],
        &["graph", "--dot"],
        &["check", "--max-wait", "0"],
        &["watch", "-c", "2", "-d", "0.05"],
        &["reconcile", "--in-use", "/dev/null"],
        &["reconcile", "--record", "/dev/null"],
    ] {
        let answer = lockctl(verb.iter().copied().chain([place.name.as_str()]));
        assert!(matches!(answer.code, Some(0 | 1)), "{verb:?}: {answer:?}");
        assert!(place.bytes() == before, "{verb:?} changed the segment");
    }
    holder.go_on();
}

#[test]
fn the_json_has_the_fields_of_its_schema_and_no_others() {
    if !sees_waiters_or_skips() {
        return;
    }
    let place = Place::segment(32, &[0, 3]);
    let _holder = Puppet::holding(&place, &[3]);
    let mut waiter = Puppet::of(&place);
    waiter.begins("lock 3");
    let lock = once_waited_for(&place, 3, 1);
    let look = json(&place);
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<String>>();
    let named = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<String>>();
    assert_eq!(look["schema"], 2, "a change of the fields below is a change of the schema");
    let document = [
        "schema",
        "storage",
        "kind",
        "layout",
        "num_locks",
        "max_locks",
        "allocated",
        "attached",
        "users",
        "removed",
        "locks",
        "remarks",
        "not_seen",
    ];
    assert_eq!(keys(&look), named(&document));
    let of_lock = [
        "id",
        "allocated",
        "held",
        "owner_died",
        "holder",
        "holders",
        "readers",
        "draining",
        "stale",
        "held_for_ns_at_least",
        "waiters",
        "waiting",
        "acquisitions",
        "notes",
    ];
    assert_eq!(keys(&lock), named(&of_lock));
    let of_holder = ["host", "pid", "tid", "pid_namespace", "command", "owner", "shared", "note"];
    assert_eq!(keys(&lock["holder"]), named(&of_holder));
    assert_eq!(lock["holders"], serde_json::json!([lock["holder"]]));
    let of_waiting = ["host", "pid", "tid", "pid_namespace", "command", "waited_ns", "seen", "draining"];
    assert_eq!(keys(&lock["waiting"][0]), named(&of_waiting));
    assert_eq!((&lock["readers"], &lock["draining"], &lock["stale"]), (&0.into(), &false.into(), &0.into()));
    assert_eq!(keys(&look["not_seen"]), named(&["processes", "proc_hides", "outside_pid_namespace"]));
    assert_eq!((&look["kind"], &look["layout"]), (&"shm".into(), &"libpod".into()));
    assert_eq!((&look["num_locks"], &look["allocated"], &look["removed"]), (&32.into(), &2.into(), &false.into()));
    assert_eq!(lock["waiting"][0]["seen"], "futex");
}

#[test]
fn what_is_not_there_or_no_segment_is_one_sentence_with_a_way_out() {
    let place = Place::unused();
    let said = lockctl(["list", &place.name]).failure(66);
    assert!(said.contains(&place.name) && said.contains("lockctl create"), "{said}");
    std::fs::write(&place.path, b"no segment at all").unwrap();
    let said = lockctl(["list", &place.name]).failure(65);
    assert!(said.contains("does not hold locks"), "{said}");
    assert!(lockctl(["list", "no-such-name"]).failure(66).contains("give a shm name"));
    assert_eq!(lockctl(["list"]).code, Some(64));
    assert_eq!(lockctl(["nonsense"]).code, Some(64));
}

#[test]
fn a_removed_segment_is_said_to_be_gone_for_those_who_have_it_open() {
    let place = Place::segment(32, &[]);
    let mut watch = command(["watch", "-d", "0.1", &place.name]);
    let mut watching = watch.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("watch has it open", || {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", watching.id())).unwrap_or_default();
        maps.contains(&place.name)
    });
    std::fs::remove_file(&place.path).unwrap();
    let mut said = BufReader::new(watching.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.any(|line| line.contains("the storage was removed")));
    watching.kill().unwrap();
    watching.wait().unwrap();
}

#[test]
fn who_has_read_enough_ends_it_without_a_word() {
    let place = Place::segment(65_536, &[]);
    let script = format!("{} list --all {} | head -n 1", crate::stage::LOCKCTL, place.name);
    let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!said.contains("writing") && !said.contains("Broken pipe"), "{said}");
}

#[test]
fn a_list_in_a_terminal_has_colours_and_keeps_to_its_width() {
    let place = Place::segment(32, &[2]);
    let _holder = Puppet::holding(&place, &[2]);
    let Some(terminal) = Terminal::running(&place, &format!("{LOCKCTL} list {}", place.name)) else { return };
    let screen = terminal.until("the list", |screen| screen.contains("ended with 0"));
    let rows: Vec<&str> = screen.lines().take_while(|line| !line.starts_with("lockctl:")).take(2).collect();
    assert!(rows[0].starts_with("ID  STATE") && rows[1].starts_with(" 2  held"), "{screen}");
    assert!(rows[1].contains('…') && rows[1].ends_with("not allocated") | rows[1].ends_with('-'), "{screen}");
    let coloured = terminal.tmux(&["capture-pane", "-p", "-e"]);
    assert!(coloured.contains("\x1b[1m"), "the heading is not bold: {coloured:?}");
    // Not into a pipe.
    assert!(!lockctl(["list", &place.name]).with(0).contains('\x1b'));
}
