// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starting lockctl, and storages of a test's own, which go away with it.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lock_manager::{FileManager, Layout, Manager, SegmentOptions, ShmManager};

use crate::support::timing::scaled;

pub const LOCKCTL: &str = env!("CARGO_BIN_EXE_lockctl");

/// Longer than anything here takes on a machine that is busy with other things.
const PATIENCE: Duration = scaled(Duration::from_secs(30));

/// After this the tests of a process are hung, and end.
const LIMIT: Duration = scaled(Duration::from_secs(300));

/// Ends this process when it is hung, whatever waits in it: a call of lockctl, or a line of its output. And takes the signals
/// that nohup(1) and a shell's background ignore: no shell that a test starts could set a trap for them.
pub fn watch_over() {
    static WATCHING: Once = Once::new();
    WATCHING.call_once(|| {
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
            // SAFETY: the default action runs no code of this process.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        thread::spawn(|| {
            thread::sleep(LIMIT);
            let _ = writeln!(io::stderr(), "the tests hung for {LIMIT:?}");
            std::process::abort();
        });
    });
}

/// What a call of lockctl came to.
#[derive(Debug)]
pub struct Answer {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Answer {
    pub fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// What it said, given that it exited with that.
    #[track_caller]
    pub fn with(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        self.out
    }

    /// The sentence of a failure: one, on the standard error, besides those of what could not be seen.
    #[track_caller]
    pub fn failure(self, code: i32) -> String {
        assert_eq!((self.code, self.out.as_str()), (Some(code), ""), "{self:?}");
        // To a stranger, and in a container, whose PID namespace is an inner one.
        let unseen = ["could not be looked at", "outside of this PID namespace cannot be seen"];
        let is_of_the_failure = |line: &&str| !unseen.iter().any(|words| line.contains(words));
        let sentences: Vec<&str> = self.err.lines().filter(is_of_the_failure).collect();
        assert_eq!(sentences.len(), 1, "{self:?}");
        sentences[0].to_owned()
    }
}

/// Runs lockctl to its end.
pub fn lockctl<I: IntoIterator<Item: AsRef<OsStr>>>(arguments: I) -> Answer {
    Answer::of(command(arguments).output().unwrap())
}

/// A call of lockctl.
pub fn command<I: IntoIterator<Item: AsRef<OsStr>>>(arguments: I) -> Command {
    let mut command = Command::new(LOCKCTL);
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Waits until `holds` does, and fails if that takes too long to be still going on.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Says why a test does not run here.
pub fn skip(reason: &str) {
    // Not eprintln!, which the test harness keeps to itself where a test succeeds.
    let _ = writeln!(io::stderr(), "skipped: {reason}");
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether that program is there.
pub fn has(program: &str) -> bool {
    Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap().status.success()
}

/// Whether other processes' threads can be seen waiting; if not, says that the test is skipped.
pub fn sees_waiters_or_skips() -> bool {
    let yama = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let sees = is_root() || matches!(yama.trim(), "" | "0");
    if !sees {
        skip("kernel.yama.ptrace_scope lets only root see where threads wait");
    }
    sees
}

/// The state letter of a process; none if it is not there.
pub fn state_of(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The children of a process, whichever of its threads they are of.
pub fn children_of(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.collect::<String>().split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// A storage under /dev/shm that no other test has, removed when the value is dropped.
#[derive(Debug)]
pub struct Place {
    /// As lockctl takes it.
    pub name: String,
    pub path: PathBuf,
}

impl Place {
    /// A shm name with nothing behind it.
    pub fn unused() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        watch_over();
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("/lockctl-test-{}-{number}", std::process::id());
        let path = Path::new("/dev/shm").join(&name[1..]);
        Self { name, path }
    }

    /// A segment in the libpod layout, with these ids allocated.
    pub fn segment(num_locks: u32, allocated: &[u32]) -> Self {
        let place = Self::unused();
        let options = SegmentOptions::default().layout(Layout::Libpod);
        let manager = ShmManager::create(&place.name, num_locks, &options).unwrap();
        for &id in allocated {
            manager.allocate_and_retrieve_lock(id).unwrap();
        }
        place
    }

    /// A segment in the native layout, with these ids allocated.
    pub fn native(allocated: &[u32]) -> Self {
        let place = Self::unused();
        let options = SegmentOptions::default().layout(Layout::Native);
        let manager = ShmManager::create(&place.name, 64, &options).unwrap();
        for &id in allocated {
            manager.allocate_and_retrieve_lock(id).unwrap();
        }
        place
    }

    /// A directory of locks, with these ids allocated.
    pub fn directory(allocated: &[u32]) -> Self {
        let mut place = Self::unused();
        place.name = place.path.to_str().unwrap().to_owned();
        let manager = FileManager::create(&place.path).unwrap();
        for &id in allocated {
            manager.allocate_and_retrieve_lock(id).unwrap();
        }
        place
    }

    /// A path beside it that goes away with it.
    pub fn beside(&self, what: &str) -> PathBuf {
        PathBuf::from(format!("{}.{what}", self.path.display()))
    }

    pub fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let name = self.path.file_name().unwrap().to_str().unwrap().to_owned();
        for entry in fs::read_dir("/dev/shm").unwrap().flatten() {
            let found = entry.file_name();
            let found = found.to_string_lossy();
            if found == name || found.starts_with(&format!("{name}.")) {
                let _ = fs::remove_file(entry.path());
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}
