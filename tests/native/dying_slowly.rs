// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel takes a large memory down, or writes it to a core, before it lets go of record locks. A waiter need not
//! wait for that.

use std::fs;
use std::path::PathBuf;
use std::ptr;
use std::sync::atomic::Ordering;
use std::time::Instant;

use lock_manager::{Acquired, Manager, Ownership};

use super::LONG;
use super::support::alone::alone;
use super::support::process::sleep_until_killed;
use super::support::timing::{RECOVERED, mostly_within};
use super::support::{Child, Segment, board, eventually, fork, skip};

const MEBIBYTE: usize = 1 << 20;

/// Maps memory and touches each page of it, in small pages, which take the longest to give back.
fn touch(bytes: usize) {
    // SAFETY: a fresh mapping of our own, written within its bounds and never unmapped.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let memory = libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        assert_ne!(memory, libc::MAP_FAILED);
        libc::madvise(memory, bytes, libc::MADV_NOHUGEPAGE);
        (0..bytes).step_by(4096).for_each(|offset| memory.byte_add(offset).cast::<u8>().write_volatile(1));
    }
}

/// Whether as much memory is free.
fn has_memory(bytes: usize) -> bool {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes: usize = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
    kibibytes / 1024 > bytes / MEBIBYTE * 3 / 2
}

/// Whether a child has ended altogether, so that it could be reaped.
fn has_ended(child: &Child) -> bool {
    super::support::process::state_of(child.pid()).is_none_or(|state| state == 'Z')
}

/// A child that holds lock 3 and much memory.
fn holder(segment: &Segment, bytes: usize, ownership: Ownership, then: impl FnOnce()) -> Child {
    let ready = &board(1)[0];
    let holder = fork(|| {
        touch(bytes);
        let manager = segment.open();
        manager.set_ownership(ownership).unwrap();
        let _ = manager.lock(3).unwrap();
        ready.store(1, Ordering::Release);
        then();
        sleep_until_killed();
    });
    eventually("it holds the lock", || ready.load(Ordering::Acquire) == 1);
    holder
}

#[test]
fn a_waiter_has_the_lock_of_a_killed_holder_long_before_its_memory_is_gone() {
    const BYTES: usize = 512 * MEBIBYTE;
    alone!({
        if !has_memory(BYTES) {
            return skip("needs a GiB of free memory");
        }
        let segment = Segment::native(64);
        let manager = segment.open();
        for ownership in [Ownership::Thread, Ownership::Process] {
            let mut early = 0;
            mostly_within(RECOVERED, "a holder with half a GiB is killed", |_| {
                let holder = holder(&segment, BYTES, ownership, || ());
                let start = Instant::now();
                holder.signal(libc::SIGKILL);
                assert_eq!(manager.timed_lock(3, LONG).unwrap(), Acquired::OwnerDied);
                let recovered = start.elapsed();
                early += u32::from(!has_ended(&holder));
                manager.unlock(3).unwrap();
                recovered
            });
            super::support::note(format_args!("{early} of 5 had it while the holder's end was going on"));
            assert!(early > 0, "its end was always over before the waiter looked: the test shows nothing");
        }
    });
}

/// Where a core is written to: a directory of the test's own.
fn directory_for_cores() -> PathBuf {
    let directory = std::env::temp_dir().join(super::support::alone::prefix());
    fs::create_dir_all(&directory).unwrap();
    directory
}

#[test]
fn a_waiter_has_the_lock_of_a_holder_that_dumps_core_before_the_core_is_written() {
    const BYTES: usize = 512 * MEBIBYTE;
    alone!({
        let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
        if pattern.is_empty() || pattern.starts_with(['|', '/', '@']) || !has_memory(BYTES) {
            return skip("needs cores that are written to the working directory, and some memory");
        }
        let segment = Segment::native(64);
        let manager = segment.open();
        let directory = directory_for_cores();
        let go = &board(1)[0];
        let holder = holder(&segment, BYTES, Ownership::Thread, || {
            std::env::set_current_dir(&directory).unwrap();
            let most = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
            eventually("the waiter is about to wait", || go.load(Ordering::Acquire) == 1);
            // SAFETY: setrlimit(2) reads the limits; Rust's own handler, for a stack that is full, goes.
            unsafe {
                libc::setrlimit(libc::RLIMIT_CORE, &raw const most);
                libc::signal(libc::SIGSEGV, libc::SIG_DFL);
                libc::raise(libc::SIGSEGV);
            }
        });
        let start = Instant::now();
        go.store(1, Ordering::Release);
        let acquired = manager.timed_lock(3, LONG);
        let recovered = start.elapsed();
        let _ended = holder.wait();
        let ended = start.elapsed();
        let _ = fs::remove_dir_all(&directory);
        super::support::note(format_args!("had it after {recovered:?}, the core was written after {ended:?}"));
        assert_eq!(acquired.unwrap(), Acquired::OwnerDied);
        assert!(recovered < RECOVERED || recovered < ended / 2, "{recovered:?} of {ended:?}");
    });
}
