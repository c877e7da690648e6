// SPDX-License-Identifier: MIT OR Apache-2.0
//! On overlayfs, as in containers, where what is mapped is not what was opened.

use std::fs::File;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use lock_manager::{Acquired, FileManager, Manager};

use super::support::alone::alone_as_root;
use super::support::process::sleep_until_killed;
use super::support::{board, errno_of, eventually, fork, namespace, taken_once};

const LONG: Duration = super::support::timing::scaled(Duration::from_secs(20));

#[test]
fn locks_exclude_and_deaths_are_told() {
    alone_as_root!({
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
            // A child that inherits the descriptor does not keep what its parent gives back.
            let idle = fork(|| sleep_until_killed());
            manager.unlock(id).unwrap();
            assert_eq!(taken_once(&manager, id), Acquired::Clean);
            idle.kill();
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

#[test]
fn a_child_that_inherited_a_lock_does_not_keep_it_once_it_is_unlocked() {
    alone_as_root!({
        fork(|| {
            namespace::private_shm("1m");
            let path = format!("{}/locks", namespace::overlay());
            let manager = FileManager::create(&path).unwrap();
            let id = manager.allocate_lock().unwrap();
            let _ = manager.lock(id).unwrap();
            let child = fork(|| sleep_until_killed());
            manager.unlock(id).unwrap();
            assert_eq!(taken_once(&manager, id), Acquired::Clean);
            fork(|| assert_eq!(taken_once(&FileManager::open(&path).unwrap(), id), Acquired::Clean)).succeeds();
            child.kill();
        })
        .succeeds();
    });
}

#[test]
fn a_descriptor_that_the_program_closed_and_used_again_is_left_to_it() {
    alone_as_root!({
        fork(|| {
            namespace::private_shm("1m");
            let path = format!("{}/locks", namespace::overlay());
            let manager = FileManager::create(&path).unwrap();
            let id = manager.allocate_lock().unwrap();
            let _ = manager.lock(id).unwrap();
            // SAFETY: close_range(2) touches no memory.
            assert_eq!(unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) }, 0);
            let files: Vec<File> = (0..16).map(|_| File::open("/dev/null").unwrap()).collect();
            manager.unlock(id).unwrap();
            drop(manager);
            assert!(files.iter().all(|file| file.metadata().is_ok()), "a file of the program's was closed");
        })
        .succeeds();
    });
}
