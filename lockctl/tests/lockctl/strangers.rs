// SPDX-License-Identifier: MIT OR Apache-2.0
//! Another user's eyes: what permissions allow is seen, and what was not seen is said.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Command, Stdio};

use crate::puppet::Puppet;
use crate::stage::{Answer, LOCKCTL, Place, is_root, lockctl, skip};

/// Nobody, on Debian and elsewhere.
const STRANGER: u32 = 65_534;

/// lockctl as nobody runs it; `None`: it cannot be run so here.
fn as_stranger(place: &Place, arguments: &[&str]) -> Option<Answer> {
    // busybox's, for one, cannot.
    let can = stranger("true").stdin(Stdio::null()).stderr(Stdio::null()).status();
    if !can.is_ok_and(|status| status.success()) {
        skip("to become another user takes root and a setpriv(1) that can");
        return None;
    }
    // The build directory may be private.
    let program = place.beside("lockctl");
    // By a program of its own: children of other tests would have our descriptor until they execute theirs, and what is
    // open for writing cannot be executed.
    let copied = Command::new("install").args(["-m", "755", LOCKCTL]).arg(&program).status();
    assert!(copied.unwrap().success());
    Some(Answer::of(stranger(program).args(arguments).output().unwrap()))
}

/// A program as nobody runs it.
fn stranger(program: impl AsRef<OsStr>) -> Command {
    let id = STRANGER.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(program);
    command
}

#[test]
fn a_stranger_sees_what_permissions_allow_and_is_told_what_not() {
    let place = Place::segment(32, &[0, 3]);
    fs::set_permissions(&place.path, fs::Permissions::from_mode(0o644)).unwrap();
    let holder = Puppet::holding(&place, &[3]);
    let Some(answer) = as_stranger(&place, &["list", "-n", "-o", "id,state,pid", &place.name]) else { return };
    assert!(
        answer.err.contains("could not be looked at, so waiters and users may be missing: run as root"),
        "{answer:?}"
    );
    let width = holder.pid().to_string().len();
    let expected = format!("0  unlocked  {:>width$}\n3  held      {}\n", "-", holder.pid());
    assert_eq!(answer.with(0), expected);
    let json = as_stranger(&place, &["list", "--json", &place.name]).unwrap().with(0);
    let look: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(look["not_seen"]["processes"].as_u64().unwrap() > 0, "{json}");
}

#[test]
fn a_stranger_changes_nothing_and_is_told_whose_it_is() {
    let place = Place::segment(32, &[0]);
    let Some(answer) = as_stranger(&place, &["list", &place.name]) else { return };
    let said = answer.failure(77);
    assert!(said.contains("permission denied; run as its owner or as root"), "{said}");
    fs::set_permissions(&place.path, fs::Permissions::from_mode(0o666)).unwrap();
    chown(&place.path, Some(1234), None).unwrap();
    for verb in [&["allocate", &place.name][..], &["run", &place.name, "0", "--", "true"], &["repair", &place.name]] {
        let said = as_stranger(&place, verb).unwrap().failure(77);
        assert!(said.contains("belongs to user 1234") && said.contains("run as user 1234"), "{said}");
    }
}

#[test]
fn root_looks_at_the_locks_of_others_but_does_not_use_them() {
    if !is_root() {
        return skip("needs root");
    }
    for place in [Place::segment(32, &[4]), Place::directory(&[4])] {
        chown(&place.path, Some(1234), None).unwrap();
        assert_eq!(lockctl(["list", "-n", "-o", "id", &place.name]).with(0), "4\n");
        assert!(lockctl(["allocate", &place.name]).failure(77).contains("belongs to user 1234"));
    }
}
