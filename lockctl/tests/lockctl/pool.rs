// SPDX-License-Identifier: MIT OR Apache-2.0
//! `lockctl create`, `allocate`, `free`, `free-all`, `grow` and `remove`, their bounds, and whom they would hit.

use std::os::unix::fs::PermissionsExt;

use crate::puppet::Puppet;
use crate::stage::{Place, eventually, lockctl, sees_waiters_or_skips};

fn ids(place: &Place) -> String {
    lockctl(["list", "-n", "-o", "id", &place.name]).with(0).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_life_of_a_segment() {
    let place = Place::unused();
    let said = lockctl(["create", &place.name, "40", "--layout", "libpod", "--mode", "0640"]).with(0);
    assert_eq!(said, format!("created segment {} in the libpod layout with 64 locks\n", place.name));
    assert_eq!(place.path.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    assert!(lockctl(["create", &place.name, "40"]).failure(73).contains("already exists"));
    assert_eq!(lockctl(["allocate", &place.name]).with(0), "0\n");
    assert_eq!(lockctl(["allocate", &place.name, "-c", "2"]).with(0), "1\n2\n");
    assert_eq!(lockctl(["allocate", &place.name, "63", "7"]).with(0), "63\n7\n");
    assert!(lockctl(["allocate", &place.name, "7"]).failure(73).contains("lock 7 is already allocated"));
    assert_eq!(ids(&place), "0 1 2 7 63");
    assert_eq!(lockctl(["free", &place.name, "1", "7"]).with(0), "");
    assert!(lockctl(["free", &place.name, "1"]).failure(66).contains("lock 1 is not allocated"));
    assert_eq!(ids(&place), "0 2 63");
    assert_eq!(lockctl(["free-all", &place.name]).with(0), "");
    assert_eq!(ids(&place), "");
    assert_eq!(lockctl(["remove", &place.name]).with(0), "");
    assert!(!place.path.exists());
    assert!(lockctl(["remove", &place.name]).failure(66).contains("does not exist"));
}

#[test]
fn the_life_of_a_directory() {
    let place = Place::unused();
    let path = place.path.to_str().unwrap();
    assert!(lockctl(["create", "--directory", path]).with(0).starts_with("created lock directory"));
    assert_eq!(lockctl(["allocate", path, "-c", "2"]).with(0), "0\n1\n");
    assert_eq!(lockctl(["free", path, "0"]).with(0), "");
    assert_eq!(lockctl(["list", "-n", "-o", "id", path]).with(0), "1\n");
    assert!(lockctl(["grow", path, "64"]).failure(69).contains("has no number of locks"));
    assert_eq!(lockctl(["remove", path]).with(0), "");
    assert!(!place.path.exists());
}

#[test]
fn numbers_out_of_bounds_are_refused_with_the_bounds() {
    let place = Place::unused();
    for locks in ["0", "16777217", "-1", "x"] {
        assert_eq!(lockctl(["create", &place.name, locks]).code, Some(64), "{locks}");
    }
    assert!(lockctl(["create", &place.name, "16777217"]).err.contains("1..=16777216"));
    assert_eq!(lockctl(["create", &place.name]).code, Some(64));
    assert_eq!(lockctl(["create", &place.name, "32", "--mode", "01000"]).code, Some(64));
    assert!(lockctl(["create", &place.name, "32", "--layout", "x"]).err.contains("libpod"));
    assert!(!place.path.exists());
    let place = Place::segment(32, &[]);
    assert!(lockctl(["allocate", &place.name, "32"]).failure(64).contains("ids from 0 to 31"));
    let said = lockctl(["allocate", &place.name, "-c", "33"]).failure(75);
    assert!(said.contains("33 locks were asked for, but only 32 of 32 are free"), "{said}");
    assert_eq!(ids(&place), "", "some were allocated, and their ids lost");
    assert!(lockctl(["free", &place.name, "99"]).failure(64).contains("ids from 0 to 31"));
    assert!(lockctl(["grow", &place.name, "64"]).failure(69).contains("fixed number of locks"));
}

#[test]
fn freeing_what_somebody_holds_or_waits_for_needs_force_and_names_them() {
    if !sees_waiters_or_skips() {
        return;
    }
    let place = Place::segment(32, &[0, 1]);
    let holder = Puppet::holding(&place, &[1]);
    let mut waiter = Puppet::of(&place);
    waiter.begins("lock 1");
    eventually("the waiter is seen", || lockctl(["graph", &place.name]).out.contains("waits for lock 1"));
    let said = lockctl(["free", &place.name, "0", "1"]).failure(75);
    assert!(said.contains(&format!("lock 1 is held by {} (", holder.pid())), "{said}");
    assert!(said.contains("give --force"), "{said}");
    assert_eq!(ids(&place), "0 1", "nothing was to be freed");
    // What nobody holds hits nobody, though the segment is in use.
    assert_eq!(lockctl(["free", &place.name, "0"]).with(0), "");
    assert_eq!(lockctl(["free", "--force", &place.name, "1"]).with(0), "");
    assert_eq!(lockctl(["list", "-n", "-o", "id,note", &place.name]).with(0), "1  not allocated\n");
}

#[test]
fn what_takes_the_storage_from_others_needs_force_and_names_them() {
    let place = Place::segment(32, &[0]);
    let user = Puppet::of(&place);
    for verb in ["free-all", "remove"] {
        let said = lockctl([verb, &place.name]).failure(75);
        assert!(said.contains(&format!("{} (", user.pid())) && said.contains("give --force"), "{said}");
    }
    assert_eq!(ids(&place), "0");
    assert_eq!(lockctl(["free-all", "--force", &place.name]).with(0), "");
    assert_eq!(ids(&place), "");
    assert_eq!(lockctl(["remove", "--force", &place.name]).with(0), "");
    assert!(!place.path.exists());
}

#[test]
fn what_is_none_of_ours_is_not_removed_and_what_is_damaged_is() {
    let place = Place::unused();
    std::fs::write(&place.path, b"somebody's file, long enough to be a header of some kind or other").unwrap();
    assert!(lockctl(["remove", &place.name]).failure(65).contains("does not hold locks"));
    assert!(place.path.exists());
    let damaged = Place::segment(32, &[]);
    let mut bytes = damaged.bytes();
    bytes.truncate(500);
    std::fs::write(&damaged.path, bytes).unwrap();
    assert!(lockctl(["list", &damaged.name]).failure(65).contains("is damaged"));
    assert_eq!(lockctl(["remove", &damaged.name]).with(0), "");
    assert!(!damaged.path.exists());
}
