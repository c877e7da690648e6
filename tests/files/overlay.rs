// SPDX-License-Identifier: MIT OR Apache-2.0
//! On overlayfs, as in containers, where what is mapped is not what was opened.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use lock_manager::{Acquired, FileManager, Manager};

use super::support::alone::alone;
use super::support::process::sleep_until_killed;
use super::support::{board, errno_of, eventually, fork, is_root_or_skip, namespace, taken_once};

const LONG: Duration = Duration::from_secs(20);

#[test]
fn locks_exclude_and_deaths_are_told() {
    if !is_root_or_skip() {
        return;
    }
    alone!({
        fork(|| {
            namespace::private_shm("1m");
            let path = format!("{}/locks", namespace::overlay());
            let manager = FileManager::create(&path).unwrap();
            let id = manager.allocate_lock().unwrap();
            let _ = manager.lock(id).unwrap();
            fork(|| assert_eq!(errno_of(FileManager::open(&path).unwrap().try_lock(id)), libc::EBUSY)).succeeds();
            thread::scope(|scope| {
                assert_eq!(scope.spawn(|| errno_of(manager.try_lock(id))).join().unwrap(), libc::EBUSY);
            });
            manager.unlock(id).unwrap();
            let ready = &board(1)[0];
            let holder = fork(|| {
                let manager = FileManager::open(&path).unwrap();
                let _ = manager.lock(id).unwrap();
                ready.store(1, Ordering::Release);
                sleep_until_killed();
            });
            eventually("the child holds the lock", || ready.load(Ordering::Acquire) == 1);
            assert_eq!(manager.lock_info(id).unwrap().pid, holder.pid());
            holder.kill();
            assert_eq!(manager.timed_lock(id, LONG).unwrap(), Acquired::OwnerDied);
            manager.unlock(id).unwrap();
            assert_eq!(taken_once(&manager, id), Acquired::Clean);
        })
        .succeeds();
    });
}
