// SPDX-License-Identifier: MIT OR Apache-2.0
//! A world of a test's own: the test binary runs itself again in new namespaces with an empty /dev/shm, so that the
//! containers of whoever runs the tests are never touched, and nothing outlives the test. Who is not root has them in a
//! user namespace, if such can be made.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use lock_manager::{Acquired, Manager};

use crate::child;
use crate::generation::{Generation, PATH_IN_ROOT};
use crate::real::Podman;

/// The name of the segment of a Podman that runs as root.
pub const SEGMENT: &str = "/libpod_lock";

/// The ordinary user of [`within_as_user`], whom nothing on the machine knows.
const USER: u32 = 61_234;

/// How long one scenario may take, far beyond what it needs.
const SCENARIO_LIMIT: Duration = Duration::from_secs(60);

/// How long anything within a scenario may take to come about.
const STEP_LIMIT: Duration = Duration::from_secs(20);

/// Far longer than a wait here takes, so that one without end fails.
pub const LONG: Duration = Duration::from_secs(20);

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

/// Where a world has copies of the programs of ours that an ordinary user is to run.
pub const PROGRAMS: &str = "/dev/shm/programs";

/// Prepares a world in new namespaces and runs the command that follows. $1: the roots, one a line, in which Podmans
/// are to find this world's /dev, /proc and /sys. $2: the programs, one a line, that are to be in [`PROGRAMS`].
const PREPARE: &str = r#"
set -e
exec 2>&1
mount -t tmpfs -o mode=1777 lock-manager-test /dev/shm
# Podman makes a cgroup for each pod: not in the machine's.
[ ! -d /sys/fs/cgroup ] || mount -t tmpfs lock-manager-test /sys/fs/cgroup
printf '%s\n' "$1" | while read -r root; do
    [ -n "$root" ] || continue
    mount --bind "$root" "$root"
    for directory in dev proc sys; do mount --rbind "/$directory" "$root/$directory"; done
    for directory in run tmp; do mount -t tmpfs lock-manager-test "$root/$directory"; done
    mount -o remount,bind,ro "$root"
done
printf '%s\n' "$2" | while read -r program; do
    [ -n "$program" ] || continue
    mkdir -p -m 755 /dev/shm/programs
    install -m 755 "$program" /dev/shm/programs
done
shift 2
exec "$@"
"#;

/// After [`PREPARE`]: moves into the root $1, if that is not empty, where programs are in $2, by pivot_root(2): nobody may
/// make a user namespace from within a chroot. Goes on as user $3, and runs the command that follows if there can be
/// user namespaces.
const BECOME_USER: &str = r#"
set -e
if [ -n "$1" ]; then cd "$1"; pivot_root . .; umount -l .; export PATH="$2"; fi
cd /
user=$3
shift 3
become="setpriv --reuid=$user --regid=$user --clear-groups --"
# In a user namespace that maps nobody but its root, that root is the user in another.
$become true 2> /dev/null || become="unshare --user --map-user=$user --map-group=$user --"
exec $become sh -c 'unshare --user true && exec "$@"' sh "$@"
"#;

/// What a scenario finds itself in.
struct World {
    namespaces: Namespaces,
    /// Whose roots are there.
    generations: Vec<Generation>,
    caller: Caller,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Caller {
    Root,
    /// An ordinary user, in the root of the one generation.
    User,
}

/// Runs `scenario`, the body of the calling test, in a world of its own with a Podman that has nothing yet: of the
/// generation in whose module the test stands.
pub fn within<S: FnOnce(&Podman)>(scenario: S) {
    within_world(OWN_PIDS, Caller::Root, scenario);
}

/// The same with the PIDs of the host: only in the initial PID namespace can a holder be proven dead, because from an
/// inner one those outside cannot be seen.
pub fn within_host_pids<S: FnOnce(&Podman)>(scenario: S) {
    within_world(HOST_PIDS, Caller::Root, scenario);
}

/// As [`within`], as an ordinary user whose Podman is rootless.
pub fn within_as_user<S: FnOnce(&Podman)>(scenario: S) {
    within_world(OWN_PIDS, Caller::User, scenario);
}

fn within_world<S: FnOnce(&Podman)>(namespaces: Namespaces, caller: Caller, scenario: S) {
    let name = test_name::<S>();
    let world = || World { namespaces, generations: vec![Generation::of(name)], caller };
    run(name, world, || {
        let generation = match caller {
            Caller::Root => Generation::of(name),
            Caller::User => Generation::Host,
        };
        scenario(&Podman::without_anything("podman", generation));
    });
}

/// As [`within`], with a Podman of each of the generations that are there, two at least. Each has a home of its own.
pub fn within_all<S: FnOnce(&[Podman])>(names: &[&str], scenario: S) {
    let there = || names.iter().filter(|name| Generation::of(name).missing().is_none());
    if there().count() < 2 {
        return skip("several generations", "fewer than two are here");
    }
    let world = || {
        let generations = there().map(|name| Generation::of(name)).collect();
        World { namespaces: OWN_PIDS, generations, caller: Caller::Root }
    };
    run(test_name::<S>(), world, || {
        let podmans: Vec<Podman> = there().map(|name| Podman::without_anything(name, Generation::of(name))).collect();
        scenario(&podmans);
    });
}

fn run(name: &str, world: impl FnOnce() -> World, scenario: impl FnOnce()) {
    match env::var(ROLE).as_deref() {
        Err(_) => world().run(name),
        Ok(SCENARIO) => {
            scenario();
            println!("{FINISHED}");
        }
        Ok(role) => child::play(role),
    }
}

/// The name of the segment of the calling user's Podman.
pub fn segment() -> String {
    match effective_user() {
        0 => SEGMENT.to_owned(),
        user => format!("/libpod_rootless_lock_{user}"),
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
    let mut command = World { namespaces: OWN_PIDS, generations: vec![], caller: Caller::Root }.command();
    command.arg(env::current_exe().unwrap()).args(env::args_os().skip(1)).env(ROLE, role);
    command
}

/// The same within the root of a generation, on its libc.
pub fn again_in(generation: &Generation, role: &str) -> Command {
    let copy = Path::new("/dev/shm").join("again");
    fs::copy(env::current_exe().unwrap(), &copy).unwrap();
    let mut command = generation.command(copy);
    command.args(env::args_os().skip(1)).env(ROLE, role);
    command
}

/// Waits for a lock in a thread, and has its holder give it up when somebody waits. How the lock was got.
pub fn waited_for(manager: &dyn Manager, id: u32, give_up: impl FnOnce()) -> Acquired {
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let acquired = manager.timed_lock(id, LONG).unwrap();
            manager.unlock(id).unwrap();
            acquired
        });
        until("a thread waits", || manager.check_idle().is_err());
        give_up();
        waiter.join().unwrap()
    })
}

/// Waits until `condition` holds, and fails the test if it does not come to.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + STEP_LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(POLL);
    }
}

/// Says why tests do not run, once.
pub fn skip(tests: &str, reason: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let said = format!("skipped: tests beside the Podman of {tests}: {reason}");
    if SAID.lock().unwrap().insert(said.clone()) {
        // Not eprintln!, which the test harness keeps to itself where a test succeeds.
        let _ = writeln!(io::stderr(), "{said}");
    }
}

impl World {
    /// Runs the test again within this world.
    fn run(&self, name: &str) {
        if let Some(reason) = self.missing() {
            return skip(name.split("::").next().unwrap(), &reason);
        }
        let mut child = self
            .command()
            .arg(self.myself())
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

    /// Runs the command that its further arguments name.
    fn command(&self) -> Command {
        let roots: Vec<&str> = self.generations.iter().filter_map(Generation::root).map(as_str).collect();
        let programs = if self.caller == Caller::User { programs().join("\n") } else { String::new() };
        let mut command = Command::new("unshare");
        if effective_user() != 0 {
            // Its root may mount.
            command.args(["--user", "--map-root-user"]);
        }
        command.args(self.namespaces).args(["sh", "-c", PREPARE, "sh", &roots.join("\n"), &programs]);
        if self.caller == Caller::User {
            let root = roots.first().copied().unwrap_or_default();
            command.args(["sh", "-c", BECOME_USER, "sh", root, PATH_IN_ROOT, &USER.to_string()]);
        }
        command
    }

    /// This test binary, where the caller can run it.
    fn myself(&self) -> PathBuf {
        let here = env::current_exe().unwrap();
        if self.caller == Caller::User { Path::new(PROGRAMS).join(here.file_name().unwrap()) } else { here }
    }

    fn missing(&self) -> Option<String> {
        if let Some(reason) = self.generations.iter().find_map(Generation::missing) {
            return Some(reason);
        }
        if self.namespaces == HOST_PIDS && !sees_every_process() {
            return Some("a death is proven in the initial PID namespace only, and by root".to_owned());
        }
        let probe = self.command().arg(self.myself()).arg("--list").output();
        match probe {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned()),
            Err(error) => Some(format!("unshare: {error}")),
        }
    }
}

/// Those of ours that a scenario runs.
fn programs() -> Vec<String> {
    let lockctl = option_env!("CARGO_BIN_EXE_lockctl").map(str::to_owned);
    [env::current_exe().unwrap().to_str().unwrap().to_owned()].into_iter().chain(lockctl).collect()
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

/// Whether the library can look into whatever lives.
fn sees_every_process() -> bool {
    let users = fs::read_to_string("/proc/self/uid_map").unwrap();
    let is_whole = users.split_whitespace().eq(["0", "0", "4294967295"]);
    effective_user() == 0 && is_whole && fs::read_link("/proc/self/ns/pid").unwrap() == Path::new(INITIAL_PID_NAMESPACE)
}

fn effective_user() -> u32 {
    fs::metadata("/proc/self").unwrap().uid()
}

fn as_str(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The name of the test whose body the closure `S` is, as the test harness spells it: without the crate's name.
fn test_name<S>() -> &'static str {
    let name = std::any::type_name::<S>();
    let name = name.strip_suffix("::{{closure}}").unwrap_or(name);
    name.split_once("::").map_or(name, |(_, path)| path)
}
