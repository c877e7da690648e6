// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the multi-process tests share: segments that go away, processes that cannot outlive their test, memory to
//! talk through, and the bytes of a segment seen from outside of the library.

#![allow(dead_code, unused_imports, unused_macros, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing helper is a failing test")]

pub mod alone;
pub mod board;
pub mod damage;
pub mod descriptors;
pub mod disk;
pub mod etcd;
pub mod layout;
pub mod made;
pub mod namespace;
pub mod native_layout;
pub mod process;
pub mod random;
pub mod raw_mutex;
pub mod segment;
#[cfg(target_arch = "x86_64")]
pub mod step;
pub mod stranding;
pub mod timing;
pub mod wait;

pub use board::board;
pub use process::{Child, Exit, fork};
pub use random::Random;
pub use segment::Segment;
pub use wait::eventually;

use lock_manager::{Acquired, Manager, Result};

/// The errno of a call's failure; 0 if it succeeded.
pub fn errno_of<T>(result: Result<T>) -> i32 {
    result.err().map_or(0, |error| error.errno())
}

/// Takes a lock that must be free, tells how, and gives it back.
pub fn taken_once(manager: &dyn Manager, id: u32) -> Acquired {
    let acquired = manager.try_lock(id).unwrap_or_else(|error| panic!("lock {id} should be free: {error}"));
    manager.unlock(id).unwrap();
    acquired
}

/// Says why a test did not run. Straight to the file, so that the test harness cannot swallow it.
pub fn skip(reason: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}

/// Says what was seen: of a test that passes, whoever runs it alone reads it.
pub fn note(seen: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{seen}");
}

/// Whether the caller is root; if not, says that the test is skipped. For tests that become other users or give files
/// to them; for all else there is [`alone_as_root!`](alone::alone_as_root).
pub fn is_root_or_skip() -> bool {
    let root = is_root();
    if !root {
        skip("needs root, to be other users");
    }
    root
}

fn is_root() -> bool {
    // SAFETY: geteuid(2) takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}
