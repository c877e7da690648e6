// SPDX-License-Identifier: MIT OR Apache-2.0
//! Podmans of all generations on one segment, of whosesoever making: each works on it, waits for ours, and is seen.

use std::collections::BTreeSet;

use lock_manager::{Acquired, Layout, Manager, SegmentOptions, ShmManager};

use crate::GENERATIONS;
use crate::real::{DEFAULT_LOCKS, Podman, allocated, mutex_offset};
use crate::sandbox::{SEGMENT, until, within_all};

/// Has each Podman take locks beside all others, wait for ours, and hold its own against us.
fn share(manager: &ShmManager, podmans: &[Podman]) {
    let versions: BTreeSet<(u32, u32)> = podmans.iter().map(Podman::version).collect();
    assert_eq!(versions.len(), podmans.len(), "generations differ: {versions:?}");
    // The first start of each counts as a boot, at which it frees everybody's locks.
    for podman in podmans {
        podman.run(&["volume", "ls"]);
    }
    let ours = manager.allocate_lock().unwrap();
    let volumes: Vec<u32> = podmans.iter().map(|podman| podman.create_mountable_volume(manager, "data")).collect();
    let all: BTreeSet<u32> = volumes.iter().copied().chain([ours]).collect();
    assert_eq!(all.len(), podmans.len() + 1, "no id has two owners");
    assert_eq!(allocated(manager), all);

    for (podman, &id) in podmans.iter().zip(&volumes) {
        let mut mounting = podman.hold_mounting("data");
        until("podman holds the lock of its volume", || {
            assert!(!mounting.has_ended(), "podman was to hold the lock, and ended");
            manager.lock_info(id).unwrap().pid == mounting.pid()
        });
        assert_eq!(manager.try_lock(id).unwrap_err().errno(), libc::EBUSY);
        mounting.kill();
        assert_eq!(manager.lock(id).unwrap(), Acquired::OwnerDied);
        let mut removal = podman.start(&["volume", "rm", "data"]);
        removal.until_it_waits_at(mutex_offset(id));
        manager.unlock(id).unwrap();
        removal.succeed();
    }
    assert_eq!(allocated(manager), BTreeSet::from([ours]));
}

#[test]
fn the_segment_that_was_made_here_serves_all() {
    within_all(GENERATIONS, |podmans| {
        let manager =
            ShmManager::create(SEGMENT, DEFAULT_LOCKS, &SegmentOptions::default().layout(Layout::Libpod)).unwrap();
        share(&manager, podmans);
    });
}

#[test]
fn the_segment_that_any_podman_made_serves_all() {
    within_all(GENERATIONS, |podmans| {
        for maker in podmans {
            maker.run(&["volume", "ls"]);
            share(&ShmManager::open(SEGMENT, DEFAULT_LOCKS).unwrap(), podmans);
            ShmManager::remove(SEGMENT).unwrap();
            podmans.iter().for_each(Podman::forget_boot);
        }
    });
}
