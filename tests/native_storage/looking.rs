// SPDX-License-Identifier: MIT OR Apache-2.0
//! A reader of another user sees holders and deaths, attaches nothing, and changes nothing.

use std::time::Duration;

use lock_manager::{Acquired, Manager, ShmManager};

use super::options;
use super::support::alone::{alone, alone_as_root};
use super::support::process::{become_user, sleep_until_killed};
use super::support::{Segment, board, errno_of, eventually, fork, is_root_or_skip, namespace, taken_once};

const NOBODY: u32 = 65_534;

#[test]
fn another_user_sees_holders_and_deaths_and_changes_nothing() {
    if !is_root_or_skip() {
        return;
    }
    alone!({
        let segment = Segment::made(64, &options().mode(0o644));
        let holder = segment.holder_of(&[7, 9]);
        let pid = holder.pid();
        let look = |held: &[u32], died: bool, attached: u32| {
            fork(|| {
                become_user(NOBODY);
                assert_eq!(errno_of(ShmManager::open(&segment.name, 0)), libc::EACCES);
                let before = segment.bytes();
                let reader = ShmManager::open_read_only(&segment.name).unwrap();
                assert_eq!(reader.locks_held().unwrap(), held);
                let info = reader.lock_info(7).unwrap();
                assert_eq!((info.held, info.owner_died, info.pid), (!died, died, if died { 0 } else { pid }));
                assert_eq!(reader.info().unwrap().attached, attached);
                for (call, code) in [
                    ("allocate", errno_of(reader.allocate_lock())),
                    ("allocate given", errno_of(reader.allocate_and_retrieve_lock(3))),
                    ("free", errno_of(reader.free_lock(0))),
                    ("free all", errno_of(reader.free_all_locks())),
                    ("lock", errno_of(reader.lock(1))),
                    ("try", errno_of(reader.try_lock(1))),
                    ("timed", errno_of(reader.timed_lock(7, Duration::from_secs(1)))),
                    ("unlock", errno_of(reader.unlock(7))),
                    ("repair", errno_of(reader.repair_lock(7))),
                    ("grow", errno_of(reader.grow(128))),
                ] {
                    assert_eq!(code, libc::EACCES, "{call}");
                }
                assert_eq!(segment.bytes(), before);
            })
            .succeeds();
        };
        look(&[7, 9], false, 1);
        holder.kill();
        look(&[], true, 0);
        let manager = segment.open();
        assert_eq!(taken_once(&manager, 7), Acquired::OwnerDied);
    });
}

#[test]
fn on_an_overlay_locks_exclude_and_deaths_are_told() {
    alone_as_root!({
        fork(|| {
            namespace::private_shm("4m");
            let path = format!("{}/locks", namespace::overlay());
            let manager = ShmManager::create(&path, 64, &options()).unwrap();
            let _ = manager.lock(3).unwrap();
            let ready = &board(1)[0];
            let holder = fork(|| {
                let manager = ShmManager::open(&path, 0).unwrap();
                assert_eq!(errno_of(manager.try_lock(3)), libc::EBUSY);
                let _ = manager.lock(5).unwrap();
                ready.store(1, std::sync::atomic::Ordering::Release);
                sleep_until_killed();
            });
            eventually("the child has the lock", || ready.load(std::sync::atomic::Ordering::Acquire) == 1);
            assert_eq!(errno_of(manager.timed_lock(5, Duration::from_millis(20))), libc::ETIMEDOUT);
            assert_eq!(manager.lock_info(5).unwrap().pid, holder.pid());
            holder.kill();
            assert_eq!(manager.timed_lock(5, Duration::from_secs(20)).unwrap(), Acquired::OwnerDied);
            manager.unlock(5).unwrap();
            manager.unlock(3).unwrap();
            manager.grow(1000).unwrap();
            assert_eq!(taken_once(&ShmManager::open(&path, 1000).unwrap(), 999), Acquired::Clean);
            ShmManager::remove(&path).unwrap();
            assert_eq!(errno_of(manager.try_lock(3)), libc::ESTALE);
        })
        .succeeds();
    });
}

#[test]
fn whoever_may_change_the_segment_changes_nothing_by_looking_at_a_death() {
    alone!({
        let segment = Segment::made(64, &options());
        let manager = segment.open();
        segment.holder_of(&[7, 9]).kill();
        let before = segment.bytes();
        assert!(manager.lock_info(7).unwrap().owner_died);
        assert_eq!(manager.locks_held().unwrap(), [0; 0]);
        assert_eq!(manager.lock_infos(&[7, 9]).unwrap().len(), 2);
        assert_eq!((manager.waiters().unwrap().len(), manager.info().unwrap().attached), (0, 1));
        assert!(segment.bytes() == before, "looking has written something");
        assert_eq!(manager.try_lock(7).unwrap(), Acquired::OwnerDied);
        manager.unlock(7).unwrap();
    });
}
