// SPDX-License-Identifier: MIT OR Apache-2.0
//! A world of a test's own: the test binary runs itself again in new namespaces with an empty /dev/shm, so that the
//! containers of whoever runs the tests are never touched, and nothing outlives the test.

use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::child;
use crate::real::Podman;

/// The name of the segment of a Podman that runs as root.
pub const SEGMENT: &str = "/libpod_lock";

/// How long one scenario may take, far beyond what it needs.
const SCENARIO_LIMIT: Duration = Duration::from_secs(60);

/// How long anything within a scenario may take to come about.
const STEP_LIMIT: Duration = Duration::from_secs(20);

const POLL: Duration = Duration::from_millis(5);

/// What the binary, run again, is there for; unset in the run that the user started.
const ROLE: &str = "LOCK_MANAGER_TEST_ROLE";
const SCENARIO: &str = "scenario";

/// Printed at the end, because a run that matches no test would succeed as well.
const FINISHED: &str = "the scenario is finished";

/// What unshare(1) is asked for. Where there is a PID namespace, everything in it ends with its first process.
type Namespaces = &'static [&'static str];
const OWN_PIDS: Namespaces = &["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
const HOST_PIDS: Namespaces = &["--mount"];

/// What /proc/self/ns/pid names where the library can see every process: a number that the kernel fixes.
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

const OWN_SHM: &str = r#"mount -t tmpfs lock-manager-test /dev/shm && exec "$@" 2>&1"#;

/// Runs `scenario`, the body of the calling test, in a world of its own with a Podman that has nothing yet.
pub fn within<S: FnOnce(&Podman)>(scenario: S) {
    within_namespaces(OWN_PIDS, scenario);
}

/// The same with the PIDs of the host: only in the initial PID namespace can a holder be proven dead, because from an
/// inner one those outside cannot be seen.
pub fn within_host_pids<S: FnOnce(&Podman)>(scenario: S) {
    within_namespaces(HOST_PIDS, scenario);
}

fn within_namespaces<S: FnOnce(&Podman)>(namespaces: Namespaces, scenario: S) {
    match env::var(ROLE).as_deref() {
        Err(_) => run_isolated(test_name::<S>(), namespaces),
        Ok(SCENARIO) => {
            scenario(&Podman::without_anything());
            println!("{FINISHED}");
        }
        Ok(role) => child::play(role),
    }
}

/// This test binary again, within the same world, to be what `role` says.
pub fn again(role: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(env::args_os().skip(1)).env(ROLE, role);
    command
}

/// The same in a world within this one, with an empty /dev/shm and PIDs of its own.
pub fn again_in_a_container(role: &str) -> Command {
    let mut command = unshare_with_own_shm(OWN_PIDS);
    command.arg(env::current_exe().unwrap()).args(env::args_os().skip(1)).env(ROLE, role);
    command
}

/// Waits until `condition` holds, and fails the test if it does not come to.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + STEP_LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(POLL);
    }
}

fn run_isolated(name: &str, namespaces: Namespaces) {
    if let Some(reason) = missing(namespaces) {
        // Not eprintln!, which the test harness keeps to itself where a test succeeds.
        let _ = writeln!(io::stderr(), "skipped: {reason}");
        return;
    }
    let mut child = unshare_with_own_shm(namespaces)
        .arg(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(ROLE, SCENARIO)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    let reader = thread::spawn(move || {
        let mut said = Vec::new();
        let read = output.read_to_end(&mut said);
        (String::from_utf8_lossy(&said).into_owned(), read)
    });
    let ended = end_by(&mut child, Instant::now() + SCENARIO_LIMIT);
    let (said, read) = reader.join().unwrap();
    read.unwrap();
    assert!(ended && said.contains(FINISHED), "{name} failed or took beyond {SCENARIO_LIMIT:?}:\n{said}");
}

/// Whether the child ended well in time; if not, it is killed with all that it started.
fn end_by(child: &mut Child, deadline: Instant) -> bool {
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.success();
        }
        if Instant::now() >= deadline {
            let kill = format!("kill -s KILL -- -{}", child.id());
            let killed = Command::new("sh").args(["-c", &kill]).status().unwrap();
            assert!(killed.success(), "{kill}: {killed}");
            child.wait().unwrap();
            return false;
        }
        thread::sleep(POLL);
    }
}

/// Runs the command that its further arguments name.
fn unshare_with_own_shm(namespaces: Namespaces) -> Command {
    let mut command = Command::new("unshare");
    command.args(namespaces).args(["sh", "-c", OWN_SHM, "sh"]);
    command
}

fn missing(namespaces: Namespaces) -> Option<String> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return Some("a private /dev/shm needs root".to_owned());
    }
    if let Err(error) = said_by(Command::new("podman").arg("--version")) {
        return Some(format!("podman: {error}"));
    }
    if namespaces == HOST_PIDS && fs::read_link("/proc/self/ns/pid").unwrap() != Path::new(INITIAL_PID_NAMESPACE) {
        return Some("a death is proven in the initial PID namespace only, and this is another".to_owned());
    }
    let probe = said_by(unshare_with_own_shm(namespaces).arg("true"));
    probe.err().map(|error| format!("unshare: {error}"))
}

fn said_by(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// The name of the test whose body the closure `S` is, as the test harness spells it: without the crate's name.
fn test_name<S>() -> &'static str {
    let name = std::any::type_name::<S>();
    let name = name.strip_suffix("::{{closure}}").unwrap_or(name);
    name.split_once("::").map_or(name, |(_, path)| path)
}
