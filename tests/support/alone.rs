// SPDX-License-Identifier: MIT OR Apache-2.0
//! A test that runs in a process of its own: it may fork, change its umask, take signals, and die.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::timing::FACTOR;

/// Names the test that this process was started for.
const TEST: &str = "LOCK_MANAGER_TEST_ALONE";
/// How the names of that test's segments begin.
const PREFIX: &str = "LOCK_MANAGER_TEST_PREFIX";
/// How unshare(1) makes its caller root where it was not.
const USER_NAMESPACE: [&str; 2] = ["--user", "--map-root-user"];

/// After this many seconds a test is hung, and ends by SIGALRM, unless it has [allowed](allow) itself more.
const LIMIT_SECONDS: u32 = 150;

/// Runs the rest of a test in a process of its own, which is this binary started again for that test alone. No thread
/// but the test's does anything there, so that it may fork without exec.
macro_rules! alone {
    ($body:block) => {{
        fn here() {}
        $crate::support::alone::run(std::any::type_name_of_val(&here), || $body);
    }};
}
pub(crate) use alone;

/// As [`alone!`], for tests that need what root may do to namespaces, mounts and processes of its own. An ordinary user
/// is root in a user namespace there; it maps that user alone, so tests that become somebody else need the real root.
macro_rules! alone_as_root {
    ($body:block) => {{
        fn here() {}
        $crate::support::alone::run_as_root(std::any::type_name_of_val(&here), || $body);
    }};
}
pub(crate) use alone_as_root;

/// See [`alone!`]; `place` is the path of an item within the test.
pub fn run(place: &str, body: impl FnOnce()) {
    run_through(Vec::new(), place, Vec::new(), body);
}

/// See [`alone_as_root!`].
pub fn run_as_root(place: &str, body: impl FnOnce()) {
    match way_to_root() {
        Ok(way) => run_through(way, place, Vec::new(), body),
        Err(reason) => super::skip(&reason),
    }
}

/// Whether the tests' user is root and may unshare; if not, says that the test is skipped. For tests that need other
/// users as well as namespaces.
pub fn is_root_that_unshares_or_skip() -> bool {
    super::is_root_or_skip() && unshares(&[]).map_err(|reason| super::skip(&reason)).is_ok()
}

/// The words before a command that make it root in a place where it may unshare; none for one that is and may.
fn way_to_root() -> Result<Vec<&'static str>, String> {
    static WAY: OnceLock<Result<Vec<&'static str>, String>> = OnceLock::new();
    WAY.get_or_init(|| {
        // Root of a container may lack the right; in a user namespace it has it.
        if super::is_root() && unshares(&[]).is_ok() {
            return Ok(Vec::new());
        }
        unshares(&USER_NAMESPACE).map(|()| [&["unshare"], &USER_NAMESPACE[..]].concat())
    })
    .clone()
}

/// Whether unshare(1) so called makes namespaces of those kinds that tests make.
fn unshares(first: &[&str]) -> Result<(), String> {
    let namespaces = ["--mount", "--propagation", "unchanged", "--pid", "true"];
    let output = Command::new("unshare").args(first).args(namespaces).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("needs root or unshare(1): {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("needs root or a user namespace: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// As [`alone!`], with the endpoints of a cluster that this process keeps; skipped where there is no etcd.
pub fn run_with_etcd(place: &str, body: impl FnOnce()) {
    if let Some(endpoints) = super::etcd::shared_endpoints() {
        run_through(Vec::new(), place, vec![(super::etcd::ENDPOINTS, endpoints)], body);
    }
}

fn run_through(way: Vec<&str>, place: &str, env: Vec<(&str, String)>, body: impl FnOnce()) {
    let test = place.split_once("::").unwrap().1.trim_end_matches("::here");
    if std::env::var(TEST).is_ok_and(|name| name == test) {
        allow(LIMIT_SECONDS);
        // SAFETY: prctl(2) with these arguments touches no memory.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        body();
        return;
    }
    let prefix = own_prefix();
    // Not "/proc/self/exe": that is unshare(1), once it is run.
    let program = std::env::current_exe().unwrap();
    let mut words = way.into_iter().map(OsStr::new).chain([program.as_os_str()]);
    let output = Command::new(words.next().unwrap())
        .args(words)
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(TEST, test)
        .envs(env)
        .env(PREFIX, &prefix)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    // A test that was killed could not do it.
    remove_leftovers(&prefix);
    let status = output.status;
    assert_ne!(status.signal(), Some(libc::SIGALRM), "the test hung");
    // A name that matches no test would be a success, too.
    let passed = String::from_utf8_lossy(&output.stdout).contains("1 passed");
    assert!(status.success() && passed, "the test failed in its own process: {status}");
}

/// Gives the test that many seconds from here on, more on a slow machine.
pub fn allow(seconds: u32) {
    // SAFETY: alarm(2) touches no memory.
    unsafe { libc::alarm(seconds.saturating_mul(FACTOR)) };
}

/// How the names of this process's segments begin.
pub fn prefix() -> String {
    std::env::var(PREFIX).unwrap_or_else(|_| own_prefix())
}

fn own_prefix() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    format!("lm-test-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

fn remove_leftovers(prefix: &str) {
    for entry in fs::read_dir("/dev/shm").unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&format!("{prefix}-")) {
            let _ = fs::remove_file(entry.path());
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
