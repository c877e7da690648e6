// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looking: who holds what, without disturbing anybody.

use std::sync::atomic::Ordering;

use lock_manager::Acquired;

use super::door::Seen;
use super::subject::{Storage, Subject};
use super::support::process::{own_tid, sleep_until_killed};
use super::support::{board, eventually, fork};

const FREE: Seen = Seen { allocated: false, held: false, owner_died: false, pid: 0, tid: 0, by_process: false };

pub fn held_locks_are_listed_with_their_holders(subject: &Subject) {
    let manager = subject.make();
    assert_eq!((manager.held(), manager.look(3)), (Ok(vec![]), Ok(FREE)));
    for id in [9, 3, 33] {
        let _ = manager.lock(id).unwrap();
    }
    manager.allocate_given(9).unwrap();
    let (pid, tid) = (std::process::id() as i32, own_tid());
    assert_eq!(manager.held(), Ok(vec![3, 9, 33]));
    assert_eq!(manager.look(3), Ok(Seen { held: true, pid, tid, ..FREE }));
    assert_eq!(manager.look(9), Ok(Seen { held: true, pid, tid, allocated: true, ..FREE }));
    if subject.is_shared() {
        fork(|| {
            let other = subject.open();
            assert_eq!(other.held(), Ok(vec![3, 9, 33]));
            assert_eq!(other.look(33), Ok(Seen { held: true, pid, tid, ..FREE }));
        })
        .succeeds();
    }
    for id in [9, 3, 33] {
        manager.unlock(id).unwrap();
    }
    assert_eq!((manager.held(), manager.look(3)), (Ok(vec![]), Ok(FREE)));
}

pub fn a_death_can_be_looked_at_without_being_told(subject: &Subject) {
    let manager = subject.make();
    if subject.is_shared() {
        let ready = &board(1)[0];
        let child = fork(|| {
            let _ = subject.open().lock(1).unwrap();
            ready.store(1, Ordering::Release);
            sleep_until_killed();
        });
        eventually("the child holds the lock", || ready.load(Ordering::Acquire) == 1);
        assert_eq!(manager.look(1), Ok(Seen { held: true, pid: child.pid(), tid: child.pid(), ..FREE }));
        child.kill();
    } else {
        std::thread::scope(|scope| {
            let _ = scope.spawn(|| manager.lock(1).unwrap()).join().unwrap();
        });
    }
    for _ in 0..2 {
        assert_eq!(manager.look(1), Ok(Seen { owner_died: true, ..FREE }));
        assert_eq!(manager.held(), Ok(vec![]));
    }
    assert_eq!(manager.try_lock(1), Ok(Acquired::OwnerDied));
    let (pid, tid) = (std::process::id() as i32, own_tid());
    assert_eq!(manager.look(1), Ok(Seen { held: true, pid, tid, ..FREE }));
    manager.unlock(1).unwrap();
    assert_eq!(manager.look(1), Ok(FREE));
}

pub fn the_storage_says_what_it_is(subject: &Subject) {
    let kind_and_layout = match subject.storage {
        Storage::LibpodLayout => (0, 1),
        Storage::NativeLayout => (0, 2),
        Storage::Files => (1, 0),
        Storage::InMemory => (2, 0),
        Storage::Etcd => (3, 0),
    };
    let (kind, layout, retired) = subject.make().describe().unwrap();
    assert_eq!(((kind, layout), retired), (kind_and_layout, 0));
}

pub fn a_living_holder_is_not_repaired(subject: &Subject) {
    let manager = subject.make();
    assert_eq!(manager.repair(2), Ok(()));
    let _ = manager.lock(2).unwrap();
    assert_eq!(manager.repair(2), Err(libc::EBUSY));
    assert_eq!(manager.held(), Ok(vec![2]));
    manager.unlock(2).unwrap();
    assert_eq!(manager.try_lock(2), Ok(Acquired::Clean));
    manager.unlock(2).unwrap();
}
