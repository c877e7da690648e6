// SPDX-License-Identifier: MIT OR Apache-2.0
//! `lockctl repair`: marks locks of the dead, leaves those of the living.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

use crate::puppet::Puppet;
use crate::stage::{Place, is_root, lockctl, skip};
use crate::support::layout;

/// Writes into the mutex of a lock the number of a thread that is gone, as where the kernel has missed its death.
fn forget_holder(place: &Place, id: u32) {
    let mut process = Command::new("true").spawn().unwrap();
    let gone = process.id();
    process.wait().unwrap();
    let segment = File::options().write(true).open(&place.path).unwrap();
    segment.write_all_at(&gone.to_ne_bytes(), layout::word(id)).unwrap();
}

/// A holder can be proven dead only where every process is seen.
fn can_judge() -> bool {
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap();
    let is_initial = namespace.to_str() == Some("pid:[4026531836]");
    if !is_initial || !is_root() {
        skip("a death is proven by root in the initial PID namespace only");
    }
    is_initial && is_root()
}

#[test]
fn a_lock_that_the_kernel_forgot_is_marked_and_the_next_holder_told() {
    if !can_judge() {
        return;
    }
    let place = Place::segment(32, &[5]);
    forget_holder(&place, 5);
    let row = lockctl(["list", "-n", "-o", "state,pid,note", &place.name]).with(0);
    assert!(row == "held  -  thread gone\n" || row == "held  -  holder not seen from here\n", "{row}");
    let _living = Puppet::holding(&place, &[6]);
    let said = lockctl(["repair", &place.name]).with(0);
    assert_eq!(
        said,
        "lock 5: its holder is dead; marked, so that the next holder is told\n\
         1 marked, 1 held by living holders, 0 could not be judged\n"
    );
    let answer = lockctl(["run", &place.name, "5", "--", "true"]);
    assert!(answer.err.contains("lock 5: its last holder died"), "{answer:?}");
    answer.with(0);
}

#[test]
fn the_living_are_left_alone() {
    let place = Place::segment(32, &[2]);
    let holder = Puppet::holding(&place, &[2]);
    holder.stop();
    assert_eq!(lockctl(["repair", &place.name]).with(0), "0 marked, 1 held by living holders, 0 could not be judged\n");
    let said = lockctl(["repair", &place.name, "2"]).with(1);
    assert!(said.contains("held by thread ") && said.contains("which is alive; nothing was changed"), "{said}");
    assert!(lockctl(["list", "-n", "-o", "id,state", &place.name]).with(0).contains("held"));
    holder.go_on();
}

#[test]
fn an_id_is_checked_and_nothing_to_do_is_said() {
    let place = Place::segment(32, &[]);
    assert_eq!(lockctl(["repair", &place.name, "3"]).with(0), "lock 3: nothing to repair: nobody holds it\n");
    assert!(lockctl(["repair", &place.name, "32"]).failure(64).contains("ids from 0 to 31"));
}
