// SPDX-License-Identifier: MIT OR Apache-2.0
//! Man pages, completions, help and versions: made from the same definitions, and sound.

use std::fs;
use std::process::Command;

use crate::stage::{Place, has, lockctl, skip};

const VERBS: [&str; 13] = [
    "list",
    "graph",
    "watch",
    "check",
    "run",
    "repair",
    "create",
    "allocate",
    "free",
    "free-all",
    "grow",
    "remove",
    "reconcile",
];

fn generated(what: &str) -> Place {
    let place = Place::unused();
    lockctl(["generate", what, place.path.to_str().unwrap()]).with(0);
    place
}

/// Bold and underlined characters are written twice, with a step back between.
fn without_overstrikes(page: &str) -> String {
    let mut plain = String::new();
    for character in page.chars() {
        if character == '\u{8}' {
            plain.pop();
        } else {
            plain.push(character);
        }
    }
    plain
}

#[test]
fn there_is_a_sound_man_page_for_each_verb_and_one_for_all() {
    let place = generated("man");
    let mut names: Vec<String> =
        fs::read_dir(&place.path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let mut expected: Vec<String> = VERBS.iter().map(|verb| format!("lockctl-{verb}.1")).collect();
    expected.push("lockctl.1".to_owned());
    expected.sort();
    assert_eq!(names, expected);
    if !has("mandoc") {
        return skip("there is no mandoc to read the man pages");
    }
    for name in &names {
        let path = place.path.join(name);
        let lint = Command::new("mandoc").args(["-T", "lint", "-W", "error"]).arg(&path).output().unwrap();
        assert!(lint.status.success(), "{name}: {}", String::from_utf8_lossy(&lint.stdout));
    }
    let page = Command::new("mandoc").args(["-T", "utf8"]).arg(place.path.join("lockctl-run.1")).output().unwrap();
    let page = without_overstrikes(&String::from_utf8(page.stdout).unwrap());
    assert!(page.contains("LOCK_ID") && page.contains("SECONDS"), "{page}");
}

#[test]
fn each_shell_can_read_its_completions() {
    let place = generated("completions");
    for (shell, file) in [("bash", "lockctl.bash"), ("zsh", "_lockctl"), ("fish", "lockctl.fish")] {
        let path = place.path.join(file);
        let text = fs::read_to_string(&path).unwrap();
        for verb in VERBS {
            assert!(text.contains(verb), "{file} has no {verb}");
        }
        if !has(shell) {
            skip(&format!("there is no {shell} to read its completions"));
            continue;
        }
        let read = Command::new(shell).arg("-n").arg(&path).output().unwrap();
        assert!(read.status.success() && read.stderr.is_empty(), "{file}: {read:?}");
    }
}

#[test]
fn bash_completes_verbs_and_options() {
    if !has("bash") {
        return skip("there is no bash");
    }
    let place = generated("completions");
    let script = format!(
        "source {}/lockctl.bash; COMP_WORDS=(lockctl rec); COMP_CWORD=1; _lockctl lockctl rec lockctl; \
         echo \"${{COMPREPLY[@]}}\"",
        place.path.display()
    );
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "reconcile\n");
}

#[test]
fn help_of_each_verb_is_there_and_an_answer() {
    assert!(lockctl(["--help"]).with(0).contains("Exit status: 0"));
    for verb in VERBS {
        assert!(lockctl([verb, "--help"]).with(0).contains("Usage: lockctl"), "{verb}");
    }
    assert!(!lockctl(["--help"]).with(0).contains("generate"), "what is for make alone is shown to users");
}

#[test]
fn the_version_names_library_interface_and_formats() {
    let said = lockctl(["--version"]).with(0);
    let version = lock_manager::VERSION;
    for line in [
        format!("lockctl {}", env!("CARGO_PKG_VERSION")),
        format!("library: lock_manager {version}"),
        "ABI: liblock_manager.so.0".to_owned(),
        "libpod segment: magic 0x87d1".to_owned(),
        "native segment, lock directory: version 2".to_owned(),
        "list --json: schema 2".to_owned(),
    ] {
        assert!(said.lines().any(|said| said == line), "{line} is not in {said}");
    }
}
