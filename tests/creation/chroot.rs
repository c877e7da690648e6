// SPDX-License-Identifier: MIT OR Apache-2.0
//! In a plain chroot, as distributions build their packages in: its "/" is a directory and no mount point.

use std::fs;

use lock_manager::{Acquired, Manager, ShmManager};

use super::DEFAULT;
use super::support::alone::alone_as_root;
use super::support::{errno_of, fork, namespace, taken_once};

#[test]
fn in_a_plain_chroot_segments_are_made_used_and_refused_as_elsewhere() {
    alone_as_root!({
        fork(|| {
            namespace::private_shm("1m");
            let outer = ShmManager::create("/locks", 64, &DEFAULT()).unwrap();
            let _ = outer.lock(3).unwrap();
            namespace::enter_plain_chroot();
            // Another file system of the same process, seen in the chroot alone.
            namespace::private_shm("64k");
            assert_eq!(errno_of(ShmManager::create("/locks", 4096, &DEFAULT())), libc::ENOSPC);
            let inner = ShmManager::create("/locks", 64, &DEFAULT()).unwrap();
            assert_eq!(taken_once(&inner, 3), Acquired::Clean);
            assert_eq!(outer.locks_held().unwrap(), [3]);
            assert_eq!(fs::read_dir("/dev/shm").unwrap().count(), 1);
        })
        .succeeds();
    });
}
