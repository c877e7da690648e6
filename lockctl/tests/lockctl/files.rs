// SPDX-License-Identifier: MIT OR Apache-2.0
//! Directories of locks: ours, and those of a program that knows only fcntl(2), as libpod does.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::puppet::Puppet;
use crate::running::{Left, Running};
use crate::stage::{LOCKCTL, Place, eventually, lockctl, skip};

/// A program that takes POSIX record locks, one after the other, says so, and stays: perl, which every Debian has.
struct PosixLocker {
    process: Child,
}

impl PosixLocker {
    const SCRIPT: &'static str = r#"
        use Fcntl; $| = 1;
        for my $path (@ARGV) {
            open(my $file, "+<", $path) or die; push @open, $file;
            my $lock = pack("s s x4 q q i x4", F_WRLCK, 0, 0, 0, 0);
            fcntl($file, F_SETLKW, $lock) or die "fcntl: $!";
            print "holds\n";
        }
        sleep 1000"#;

    fn start(paths: &[&std::path::Path]) -> (Self, impl Iterator<Item = String> + use<>) {
        let mut command = Command::new("perl");
        let mut process =
            command.args(["-e", Self::SCRIPT]).args(paths).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        (Self { process }, said)
    }

    fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for PosixLocker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn has_perl() -> bool {
    let has = crate::stage::has("perl");
    if !has {
        skip("there is no perl to take POSIX locks with");
    }
    has
}

#[test]
fn a_directory_is_listed_with_holders_and_acquisitions() {
    let place = Place::directory(&[0, 3, 10]);
    assert_eq!(lockctl(["run", &place.name, "3", "--", "true"]).code, Some(0));
    let script = format!("{LOCKCTL} list -n -o id,state,acquisitions {}", place.name);
    let said = lockctl(["run", &place.name, "3", "--", "sh", "-c", &script]).with(0);
    assert_eq!(said, " 0  unlocked  -\n 3  held      2\n10  unlocked  -\n");
    assert_eq!(lockctl(["check", &place.name]).with(0), "fine: 3 allocated, 0 held, 0 threads wait\n");
    assert!(lockctl(["list", "--json", &place.name]).with(0).contains("\"kind\": \"file\""));
}

#[test]
fn looking_makes_no_file_where_libpod_alone_was() {
    let place = Place::unused();
    fs::create_dir(&place.path).unwrap();
    fs::write(place.path.join("7"), b"").unwrap();
    let path = place.path.to_str().unwrap();
    assert_eq!(lockctl(["list", "-n", "-o", "id,state", path]).with(0), "7  unlocked\n");
    assert_eq!(lockctl(["graph", path]).with(0), "nobody waits\n");
    let names: Vec<_> = fs::read_dir(&place.path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["7"]);
}

#[test]
fn a_program_that_waits_in_fcntl_is_seen_with_the_one_that_holds() {
    if !has_perl() {
        return;
    }
    let place = Place::directory(&[1]);
    let file = place.path.join("1");
    let (holder, mut said) = PosixLocker::start(&[&file]);
    assert_eq!(said.next().unwrap(), "holds");
    let (waiter, _said) = PosixLocker::start(&[&file]);
    let mut graph = String::new();
    eventually("the waiter is seen", || {
        graph = lockctl(["graph", &place.name]).with(0);
        graph.contains("waits for lock 1")
    });
    let lines: Vec<&str> = graph.lines().collect();
    assert!(lines[0].starts_with(&format!("{} (perl", holder.pid())), "{graph}");
    assert!(lines[1].starts_with(&format!("  {} (perl", waiter.pid())), "{graph}");
    let row = lockctl(["list", "-n", "-o", "pid,waiters,waiting-pids", &place.name]).with(0);
    assert_eq!(row, format!("{}  1  {}\n", holder.pid(), waiter.pid()));
}

#[test]
fn one_of_ours_that_holds_is_named_to_one_that_waits_in_fcntl() {
    if !has_perl() {
        return;
    }
    let place = Place::directory(&[1]);
    let (mut holding, _) = Running::start(&place, 1, "echo ready; exec sleep 1000");
    let (waiter, _said) = PosixLocker::start(&[&place.path.join("1")]);
    eventually("both are named", || {
        let graph = lockctl(["graph", &place.name]).with(0);
        graph.starts_with(&holding.pid().to_string()) && graph.contains(&format!("  {} (perl", waiter.pid()))
    });
    holding.send(Signal::TERM);
    assert_eq!(holding.end().code(), Some(128 + 15));
}

#[test]
fn a_program_that_waits_in_fcntl_waits_for_every_reader() {
    if !has_perl() {
        return;
    }
    let place = Place::directory(&[1]);
    let readers = [Puppet::reading(&place, &[1]), Puppet::reading(&place, &[1])];
    let (waiter, mut said) = PosixLocker::start(&[&place.path.join("1")]);
    let what = readers.each_ref().map(|reader| format!("waits for lock 1, held shared by {}, thread", reader.pid()));
    let mut graph = String::new();
    eventually("it is seen behind both", || {
        graph = lockctl(["graph", &place.name]).with(0);
        what.iter().all(|wait| graph.contains(wait))
    });
    assert_eq!(graph.matches(&format!("  {} (perl", waiter.pid())).count(), 2, "{graph}");
    let row = lockctl(["list", "-n", "-o", "state,readers,waiting-pids", &place.name]).with(0);
    assert_eq!(row, format!("shared  2  {}\n", waiter.pid()));
    // Nobody knows since when it waits: as long as one and the same reader stays.
    let said_by_check = lockctl(["check", "--max-wait", "0.2", &place.name]).with(1);
    assert!(said_by_check.contains(&format!("lock 1: {} (perl", waiter.pid())), "{said_by_check}");
    assert!(said_by_check.contains("it is held shared by 2: "), "{said_by_check}");
    drop(readers);
    assert_eq!(said.next().unwrap(), "holds");
}

#[test]
fn a_reader_waits_for_a_program_that_has_the_file_and_is_no_holder_meanwhile() {
    if !has_perl() {
        return;
    }
    let place = Place::directory(&[1]);
    let (holder, mut said) = PosixLocker::start(&[&place.path.join("1")]);
    assert_eq!(said.next().unwrap(), "holds");
    assert_eq!(lockctl(["run", "-sn", &place.name, "1", "--", "true"]).code, Some(1));
    let mut reader = Puppet::of(&place);
    reader.begins("read 1");
    let mut row = String::new();
    eventually("the reader waits", || {
        row = lockctl(["list", "-n", "-o", "state,pid,readers,holder-pids,waiters", &place.name]).with(0);
        row.ends_with("  1\n")
    });
    assert_eq!(row, format!("held  {0}  -  {0}  1\n", holder.pid()));
    drop(holder);
    reader.finishes();
    assert_eq!(lockctl(["list", "-n", "-o", "state,readers", &place.name]).with(0), "shared  1\n");
}

#[test]
fn a_dead_holder_of_a_file_is_marked_and_told() {
    let place = Place::directory(&[2]);
    let (holding, command) = Running::start(&place, 2, "echo $$; exec sleep 1000");
    let _command = Left::of(&command);
    holding.kill();
    assert_eq!(lockctl(["list", "-n", "-o", "state,note", &place.name]).with(0), "unlocked  owner died\n");
    assert!(lockctl(["run", &place.name, "2", "--", "true"]).err.contains("its last holder died"));
}

#[test]
fn a_directory_of_other_things_is_refused_and_left_as_it_was() {
    let place = Place::unused();
    let path = place.path.to_str().unwrap();
    fs::create_dir(path).unwrap();
    fs::write(place.path.join("letter"), "").unwrap();
    for verb in ["list", "check", "allocate"] {
        assert!(lockctl([verb, path]).failure(65).contains("is not a lock directory"), "{verb}");
    }
    assert_eq!(fs::read_dir(path).unwrap().count(), 1);
    // libpod marks its directories by nothing.
    fs::write(place.path.join("5"), "").unwrap();
    assert_eq!(lockctl(["list", "-n", "-o", "id", path]).with(0), "5\n");
}
