// SPDX-License-Identifier: MIT OR Apache-2.0
//! `lockctl reconcile`: frees what was left behind, and nothing that anybody may still use.

use std::fs;

use crate::puppet::Puppet;
use crate::stage::{Answer, Place, lockctl};

fn reconcile(place: &Place, options: &[&str]) -> Answer {
    lockctl(["reconcile", &place.name].iter().chain(options))
}

fn ids(place: &Place) -> String {
    lockctl(["list", "-n", "-o", "id", &place.name]).with(0).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A list of ids in a file, and the path of a record.
fn files(place: &Place, list: &str) -> (String, String) {
    let in_use = place.beside("list");
    fs::write(&in_use, list).unwrap();
    (in_use.to_str().unwrap().to_owned(), place.beside("record").to_str().unwrap().to_owned())
}

#[test]
fn only_what_was_there_before_and_is_on_no_list_is_freed() {
    let place = Place::segment(64, &[0, 1, 2, 3, 4]);
    let (list, record) = files(&place, "0 # in use\n\n 3\n");
    let said = reconcile(&place, &["--record", &record]).with(0);
    assert!(said.starts_with("recorded 5 allocated locks"), "{said}");
    // Allocated while the list is made: on no list, and in use all the same.
    assert_eq!(lockctl(["allocate", &place.name, "9"]).with(0), "9\n");
    let holder = Puppet::holding(&place, &[4]);
    let options = ["--before", &record, "--in-use", &list];
    let dry = reconcile(&place, &options).with(0);
    let kept = format!("lock 4: on no list, but kept: it is held by {} (", holder.pid());
    assert!(dry.contains("lock 1: would be freed\nlock 2: would be freed\n"), "{dry}");
    assert!(dry.contains(&kept), "{dry}");
    assert!(dry.contains("lock 9: on no list, but kept: it was not allocated before the list was made"), "{dry}");
    assert!(dry.ends_with("2 locks would be freed; give --free to do it\n"), "{dry}");
    assert_eq!(reconcile(&place, &[&options[..], &["--dry-run"]].concat()).with(0), dry);
    assert_eq!(ids(&place), "0 1 2 3 4 9", "a dry run freed something");
    let done = reconcile(&place, &[&options[..], &["--free"]].concat()).with(0);
    assert!(done.contains("lock 1: freed\nlock 2: freed\n") && done.ends_with("2 locks freed\n"), "{done}");
    assert_eq!(ids(&place), "0 3 4 9");
}

#[test]
fn nothing_is_freed_without_a_look_from_before() {
    let place = Place::segment(32, &[0, 1]);
    let (list, _) = files(&place, "0");
    assert_eq!(reconcile(&place, &["--in-use", &list, "--free"]).code, Some(64));
    let said = reconcile(&place, &["--in-use", &list]).with(0);
    assert!(said.contains("1 lock on no list; to free them, first --record"), "{said}");
    assert_eq!(reconcile(&place, &[]).code, Some(64));
    assert_eq!(ids(&place), "0 1");
}

#[test]
fn a_record_of_another_storage_or_a_list_of_no_ids_frees_nothing() {
    let place = Place::segment(32, &[0, 1]);
    let other = Place::segment(32, &[0, 1]);
    let (list, record) = files(&place, "0");
    reconcile(&other, &["--record", &record]).with(0);
    let options = ["--before", &record, "--in-use", &list, "--free"];
    assert!(reconcile(&place, &options).failure(65).contains("belongs to another storage"));
    reconcile(&place, &["--record", &record]).with(0);
    fs::write(&list, "0\nall of them\n").unwrap();
    let said = reconcile(&place, &options).failure(65);
    assert!(said.contains("line 2: \"all\" is not an id; nothing was freed"), "{said}");
    fs::write(&record, "nonsense").unwrap();
    assert!(reconcile(&place, &options).failure(65).contains("is not a record"));
    assert!(reconcile(&place, &["--in-use", "/no/such/file"]).failure(66).contains("/no/such/file"));
    assert_eq!(ids(&place), "0 1");
}

#[test]
fn several_lists_count_together_and_ids_that_are_not_allocated_are_told() {
    let place = Place::segment(32, &[0, 1, 2]);
    let (list, record) = files(&place, "0 20");
    let second = place.beside("second");
    fs::write(&second, "1").unwrap();
    reconcile(&place, &["--record", &record]).with(0);
    let options = ["--before", &record, "--in-use", &list, "--in-use", second.to_str().unwrap(), "--free"];
    let said = reconcile(&place, &options).with(0);
    assert!(said.contains("on a list, but not allocated: 20; others may be given these ids"), "{said}");
    assert_eq!(ids(&place), "0 1");
}

#[test]
fn a_lock_that_was_acquired_since_is_in_use_where_that_is_counted() {
    let place = Place::directory(&[0, 1]);
    let (list, record) = files(&place, "");
    reconcile(&place, &["--record", &record]).with(0);
    assert_eq!(lockctl(["run", &place.name, "1", "--", "true"]).code, Some(0));
    let said = reconcile(&place, &["--before", &record, "--in-use", &list, "--free"]).with(0);
    assert!(said.contains("lock 1: on no list, but kept: it was acquired since"), "{said}");
    assert_eq!(ids(&place), "1");
}
