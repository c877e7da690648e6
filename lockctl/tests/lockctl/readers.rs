// SPDX-License-Identifier: MIT OR Apache-2.0
//! Locks that several hold at a time: what `list`, `graph`, `watch` and `check` show of them, and what `repair` does.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::puppet::Puppet;
use crate::shared::{lock, once_a_writer_is_next, places};
use crate::stage::{Answer, Place, eventually, lockctl, sees_waiters_or_skips};

fn check(place: &Place, options: &[&str]) -> Answer {
    lockctl(["check", &place.name].iter().chain(options))
}

/// Until `graph` says all of that; gives its answer.
fn graph_once_it_says(place: &Place, what: &[String]) -> String {
    let mut said = String::new();
    eventually(&format!("graph says {what:?}"), || {
        said = lockctl(["graph", &place.name]).with(0);
        what.iter().all(|part| said.contains(part))
    });
    said
}

fn pids(list: &Value) -> BTreeSet<u64> {
    list.as_array().unwrap().iter().map(|one| one["pid"].as_u64().unwrap()).collect()
}

#[test]
fn all_readers_are_listed_and_the_first_stands_for_them() {
    for place in places() {
        let readers: Vec<Puppet> = (0..7).map(|_| Puppet::reading(&place, &[3])).collect();
        let found = lock(&place);
        let expected: BTreeSet<u64> = readers.iter().map(|reader| reader.pid().into()).collect();
        assert_eq!(pids(&found["holders"]), expected);
        assert_eq!((&found["held"], &found["readers"], &found["draining"]), (&json!(true), &json!(7), &json!(false)));
        assert_eq!(found["holder"], found["holders"][0]);
        for holder in found["holders"].as_array().unwrap() {
            assert_eq!((&holder["shared"], &holder["owner"]), (&json!(true), &json!("thread")), "{holder}");
            assert!(holder["command"].as_str().unwrap().contains("is_played_by_this_binary"), "{holder}");
        }
        let first = found["holder"]["pid"].as_u64().unwrap();
        let row = lockctl(["list", "-n", "-o", "state,pid,readers,note", &place.name]).with(0);
        assert_eq!(row, format!("shared  {first}  7  7 readers\n"));
        let listed = lockctl(["list", "-n", "-o", "holder-pids", &place.name]).with(0);
        assert_eq!(listed.trim().split(',').map(|pid| pid.parse().unwrap()).collect::<BTreeSet<u64>>(), expected);
        for reader in &readers {
            let of = |pid: &str| lockctl(["list", "-n", "-o", "id", "-p", pid, &place.name]).with(0);
            assert_eq!(of(&reader.pid().to_string()), "3\n");
        }
        assert_eq!(lockctl(["graph", &place.name]).with(0), "nobody waits\n");
        let summary = check(&place, &[]).with(0);
        assert!(
            summary.starts_with("fine: 1 ") && summary.ends_with("allocated, 1 held (1 shared), 0 threads wait\n"),
            "{summary}"
        );
        let watched = lockctl(["watch", "-c", "1", &place.name]).with(0);
        let row = watched.lines().find(|line| line.starts_with("3 ")).unwrap();
        assert!(
            row.contains(" shared ") && row.contains(&format!(" {first} ")) && row.contains(", and 6 more"),
            "{row}"
        );
        assert!(row.ends_with("7 readers"), "{row}");
    }
}

#[test]
fn an_exclusive_holder_is_one_and_no_reader() {
    for place in places() {
        let holder = Puppet::holding(&place, &[3]);
        let found = lock(&place);
        assert_eq!(pids(&found["holders"]), BTreeSet::from([holder.pid().into()]));
        assert_eq!((&found["readers"], &found["holder"]["shared"]), (&json!(0), &json!(false)));
        let row = lockctl(["list", "-n", "-o", "state,readers,holder-pids", &place.name]).with(0);
        assert_eq!(row, format!("held  -  {}\n", holder.pid()));
    }
}

#[test]
fn who_is_next_waits_for_each_reader_and_the_others_for_it() {
    for place in places() {
        let readers = [Puppet::reading(&place, &[3]), Puppet::reading(&place, &[3])];
        let mut writer = Puppet::of(&place);
        writer.begins("lock 3");
        let found = once_a_writer_is_next(&place);
        assert_eq!((&found["waiting"][0]["pid"], &found["readers"]), (&json!(writer.pid()), &json!(2)));
        let note = lockctl(["list", "-n", "-o", "state,note", &place.name]).with(0);
        assert_eq!(note, "shared  2 readers, a writer is next\n");
        let mut later = Puppet::of(&place);
        later.begins("read 3");
        let what = [format!("    {}, thread", later.pid()), format!("waits for lock 3, which {}, ", writer.pid())];
        let said = graph_once_it_says(&place, &what);
        for reader in &readers {
            let wait = format!("waits for lock 3, held shared by {}, ", reader.pid());
            let line = said.lines().find(|line| line.contains(&wait));
            assert!(line.is_some_and(|line| line.starts_with(&format!("  {}, ", writer.pid()))), "{said}");
            assert!(said.lines().any(|line| line.starts_with(&format!("{}, ", reader.pid()))), "{said}");
        }
        assert_eq!(said.lines().count(), 5, "{said}");
        let drawn = lockctl(["graph", "--dot", &place.name]).with(0);
        assert_eq!(drawn.matches("[label=\"held shared by\"]").count(), 2, "{drawn}");
        assert_eq!(drawn.matches("[label=\"next\"]").count(), 1, "{drawn}");
        assert_eq!(drawn.matches("[label=\"waits").count(), 2, "{drawn}");

        let said = check(&place, &["--max-wait", "0"]).with(1);
        let line = said.lines().next().unwrap();
        assert!(line.starts_with(&format!("lock 3: {} (", writer.pid())), "{said}");
        let named = format!("; it is held shared by 2: {} (", found["holder"]["pid"]);
        assert!(line.contains(&named) && line.contains(&format!("; next: {} (", writer.pid())), "{said}");
        assert!(line.contains(", waiting ") && said.lines().count() == 1, "{said}");
    }
}

#[test]
fn a_stopped_reader_is_named_where_a_writer_waits_for_it() {
    let place = Place::native(&[3]);
    let (stopped, mut other) = (Puppet::reading(&place, &[3]), Puppet::reading(&place, &[3]));
    stopped.stop();
    let mut writer = Puppet::of(&place);
    writer.begins("lock 3");
    let found = once_a_writer_is_next(&place);
    let of = |pid: u32| found["holders"].as_array().unwrap().iter().find(|holder| holder["pid"] == pid).unwrap();
    assert_eq!((&of(stopped.pid())["note"], &of(other.pid())["note"]), (&json!("holder is stopped"), &Value::Null));
    let said = check(&place, &["--max-wait", "0"]).with(1);
    assert_eq!(said.matches("[holder is stopped]").count(), 1, "{said}");
    other.does("unread 3");
    eventually("check names the one that is left", || {
        let said = check(&place, &["--max-wait", "0"]);
        said.code == Some(1)
            && said.out.contains(&format!("held shared by {} (", stopped.pid()))
            && said.out.contains(": holder is stopped; next: ")
    });
    stopped.go_on();
}

/// Of six readers the first four stand in the lock's slot, and the others in the table.
#[test]
fn a_writer_that_sleeps_on_any_readers_cell_is_seen_as_one_that_waits_for_the_lock() {
    if !sees_waiters_or_skips() {
        return;
    }
    const LOOKS: usize = 5;
    let place = Place::native(&[3]);
    let readers: Vec<Puppet> = (0..6).map(|_| Puppet::reading(&place, &[3])).collect();
    let mut writer = Puppet::of(&place);
    writer.begins("lock 3");
    once_a_writer_is_next(&place);
    for mut reader in readers {
        for _ in 0..LOOKS {
            let answer = lockctl(["list", "-n", "-o", "waiters,waiting-pids", &place.name]);
            assert!(!answer.err.contains("but for no lock"), "{answer:?}");
            assert_eq!(answer.with(0), format!("1  {}\n", writer.pid()));
        }
        reader.does("unread 3");
    }
    writer.finishes();
}

#[test]
fn a_dead_reader_is_told_of_and_is_not_wrong() {
    for place in places() {
        let living = Puppet::reading(&place, &[3]);
        for _ in 0..2 {
            Puppet::reading(&place, &[3]).kill();
        }
        let found = lock(&place);
        assert_eq!((&found["readers"], &found["stale"]), (&json!(1), &json!(2)), "{found}");
        assert_eq!(pids(&found["holders"]), BTreeSet::from([living.pid().into()]));
        assert_eq!(found["notes"], json!(["marks of the dead"]));
        let answer = check(&place, &[]);
        assert!(
            answer.err.contains("lock 3: readers that died") && answer.err.contains("`lockctl repair`"),
            "{answer:?}"
        );
        assert!(answer.with(0).starts_with("fine: "));

        let said = lockctl(["repair", &place.name]).with(0);
        let cleared = "lock 3: cleared 2 marks of dead readers, or of a writer that died before its turn\n";
        assert_eq!(said, format!("{cleared}0 marked, 1 cleared, 0 held by living holders, 0 could not be judged\n"));
        assert_eq!(lock(&place)["stale"], 0);
        assert!(!check(&place, &[]).err.contains("readers that died"));
        let said = lockctl(["repair", &place.name, "3"]).with(1);
        assert!(said.contains("which is alive; nothing was changed"), "{said}");

        drop(living);
        let said = lockctl(["repair", &place.name, "3"]).with(0);
        assert_eq!(said, cleared.replace("2 marks", "1 mark"));
        assert_eq!(lockctl(["repair", &place.name, "3"]).with(0), "lock 3: nothing to repair: nobody holds it\n");
        assert_eq!(lockctl(["run", "-n", &place.name, "3", "--", "true"]).err, "");
    }
}

#[test]
fn a_writer_that_died_before_its_turn_is_told_of_and_keeps_nobody_out() {
    for place in places() {
        let reader = Puppet::reading(&place, &[3]);
        let mut writer = Puppet::of(&place);
        writer.begins("lock 3");
        once_a_writer_is_next(&place);
        writer.kill();
        let found = lock(&place);
        assert_eq!((&found["draining"], &found["stale"], &found["waiters"]), (&json!(false), &json!(1), &json!(0)));
        assert_eq!(found["owner_died"], false, "it held nothing");
        assert!(check(&place, &[]).err.contains("a writer that died before it had its turn"));
        assert!(lockctl(["repair", &place.name]).with(0).contains("lock 3: cleared 1 mark of dead readers"));
        assert_eq!((&lock(&place)["stale"], &lock(&place)["readers"]), (&json!(0), &json!(1)));
        assert_eq!(lockctl(["run", "-sn", &place.name, "3", "--", "echo", "in"]).with(0), "in\n");
        drop(reader);
        assert_eq!(lockctl(["run", &place.name, "3", "--", "true"]).err, "", "nobody died holding it");
    }
}

#[test]
fn looking_changes_no_byte_of_what_is_read() {
    let place = Place::native(&[3]);
    let readers: Vec<Puppet> = (0..6).map(|_| Puppet::reading(&place, &[3])).collect();
    Puppet::reading(&place, &[3]).kill();
    let before = place.bytes();
    for verb in [&["list"][..], &["list", "--json"], &["graph"], &["check"], &["watch", "-c", "1"]] {
        lockctl(verb.iter().copied().chain([place.name.as_str()])).with(0);
        assert!(place.bytes() == before, "{verb:?} changed the segment");
    }
    drop(readers);
}

#[test]
fn freeing_what_is_read_needs_force_and_names_the_readers() {
    for place in places() {
        let readers = [Puppet::reading(&place, &[3]), Puppet::reading(&place, &[3])];
        let said = lockctl(["free", &place.name, "3"]).failure(75);
        assert!(said.contains("lock 3 is held shared by 2: ") && said.contains("give --force"), "{said}");
        assert!(readers.iter().all(|reader| said.contains(&format!("{} (", reader.pid()))), "{said}");
        let said = lockctl(["free-all", &place.name]).failure(75);
        assert!(readers.iter().all(|reader| said.contains(&format!("{} (", reader.pid()))), "{said}");
        let list = place.beside("in-use");
        std::fs::write(&list, "").unwrap();
        let said = lockctl(["reconcile", &place.name, "--in-use", list.to_str().unwrap()]).with(0);
        assert!(said.contains("it is held shared by 2: "), "{said}");
    }
}
