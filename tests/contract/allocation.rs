// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ids: given once, given back, counted.

use std::collections::BTreeSet;
use std::thread;

use lock_manager::Acquired;

use super::door::Opened;
use super::subject::{NUM_LOCKS, Subject};

/// The highest id that there can be.
const LAST_ID: u32 = 16_777_215;

pub fn a_lone_allocator_gets_0_1_2(subject: &Subject) {
    let manager = subject.make();
    let ids = || -> Vec<u32> { (0..5).map(|_| manager.allocate().unwrap()).collect() };
    assert_eq!(ids(), [0, 1, 2, 3, 4]);
    manager.free_all().unwrap();
    assert_eq!(ids(), [0, 1, 2, 3, 4]);
}

pub fn an_id_is_given_once_until_it_is_freed(subject: &Subject) {
    let manager = subject.make();
    let mut ids: BTreeSet<u32> = (0..20).map(|_| manager.allocate().unwrap()).collect();
    assert_eq!(ids.len(), 20);
    for id in [3, 7, 19] {
        manager.free(id).unwrap();
        assert!(!manager.look(id).unwrap().allocated);
        ids.remove(&id);
    }
    // Freed ids may come back, and no other does.
    for _ in 0..20 {
        assert!(ids.insert(manager.allocate().unwrap()));
    }
}

pub fn there_is_no_number_of_locks(subject: &Subject) {
    let manager = subject.make();
    assert_eq!((manager.num_locks(), manager.available()), (Ok(u32::MAX), Ok(u32::MAX)));
    manager.allocate_given(LAST_ID).unwrap();
    assert_eq!((manager.num_locks(), manager.available()), (Ok(u32::MAX), Ok(u32::MAX)));
    assert_eq!(manager.retrieve(LAST_ID + 1), Err(libc::EINVAL));
    manager.free(LAST_ID).unwrap();
}

pub fn when_all_are_allocated_the_next_is_refused(subject: &Subject) {
    let manager = subject.make();
    assert_eq!((manager.num_locks(), manager.available()), (Ok(NUM_LOCKS), Ok(NUM_LOCKS)));
    let ids: BTreeSet<u32> = (0..NUM_LOCKS).map(|_| manager.allocate().unwrap()).collect();
    assert_eq!(ids, (0..NUM_LOCKS).collect());
    assert_eq!((manager.available(), manager.allocate()), (Ok(0), Err(libc::ENOLCK)));
    manager.free(17).unwrap();
    assert_eq!((manager.available(), manager.allocate()), (Ok(1), Ok(17)));
}

pub fn a_given_id_is_allocated_once(subject: &Subject) {
    let manager = subject.make();
    manager.allocate_given(2).unwrap();
    assert_eq!(manager.allocate_given(2), Err(libc::EEXIST));
    let ids: Vec<u32> = (0..4).map(|_| manager.allocate().unwrap()).collect();
    assert_eq!(ids, [0, 1, 3, 4]);
    manager.free(2).unwrap();
    manager.allocate_given(2).unwrap();
}

pub fn freeing_what_is_not_allocated_is_refused(subject: &Subject) {
    let manager = subject.make();
    assert_eq!(manager.free(5), Err(libc::ENOENT));
    let id = manager.allocate().unwrap();
    manager.free(id).unwrap();
    assert_eq!(manager.free(id), Err(libc::ENOENT));
}

pub fn an_id_out_of_range_is_refused_everywhere(subject: &Subject) {
    let manager = subject.make();
    manager.retrieve(0).unwrap();
    let last = if subject.is_numbered() { NUM_LOCKS - 1 } else { LAST_ID };
    manager.retrieve(last).unwrap();
    assert!(!manager.look(last).unwrap().held);
    for id in [last + 1, u32::MAX] {
        let refused = Err(libc::EINVAL);
        assert_eq!([manager.retrieve(id), manager.allocate_given(id), manager.free(id)], [refused; 3]);
        assert_eq!([manager.unlock(id), manager.repair(id)], [refused; 2]);
        let refused = Err(libc::EINVAL);
        assert_eq!([manager.lock(id), manager.try_lock(id), manager.timed_lock(id, 1)], [refused; 3]);
        assert_eq!(manager.look(id), Err(libc::EINVAL));
    }
}

pub fn two_managers_share_one_pool(subject: &Subject) {
    let one = subject.make();
    let other = subject.open();
    let id = one.allocate().unwrap();
    assert_eq!(other.allocate_given(id), Err(libc::EEXIST));
    assert_ne!(other.allocate().unwrap(), id);
    other.free(id).unwrap();
    assert_eq!(one.free(id), Err(libc::ENOENT));
    let _ = one.lock(9).unwrap();
    assert_eq!(other.try_lock(9), Err(libc::EBUSY));
    assert_eq!(other.held(), Ok(vec![9]));
    one.unlock(9).unwrap();
}

pub fn two_managers_are_two_pools(subject: &Subject) {
    let (one, other) = (subject.make(), subject.make());
    assert_eq!((one.allocate(), other.allocate()), (Ok(0), Ok(0)));
    assert_eq!((one.lock(9), other.lock(9)), (Ok(Acquired::Clean), Ok(Acquired::Clean)));
    other.unlock(9).unwrap();
    assert_eq!((one.held(), other.held()), (Ok(vec![9]), Ok(vec![])));
    one.unlock(9).unwrap();
}

pub fn growing_is_not_supported(subject: &Subject) {
    let manager = subject.make();
    let before = manager.num_locks();
    assert_eq!([manager.grow(NUM_LOCKS * 2), manager.grow(NUM_LOCKS)], [Err(libc::EOPNOTSUPP); 2]);
    assert_eq!(manager.num_locks(), before);
}

pub fn growing_makes_room(subject: &Subject) {
    let manager = subject.make();
    for _ in 0..NUM_LOCKS {
        manager.allocate().unwrap();
    }
    let _ = manager.lock(NUM_LOCKS - 1).unwrap();
    assert_eq!(manager.grow(NUM_LOCKS - 1), Err(libc::EINVAL));
    assert_eq!(manager.grow(16_777_217), Err(libc::EINVAL));
    let other = subject.is_shared().then(|| subject.open());
    manager.grow(NUM_LOCKS).unwrap();
    manager.grow(NUM_LOCKS + 3).unwrap();
    let now = subject.rounded(NUM_LOCKS + 3);
    assert_eq!((manager.num_locks(), manager.available()), (Ok(now), Ok(now - NUM_LOCKS)));
    assert_eq!(manager.allocate(), Ok(NUM_LOCKS));
    assert_eq!(manager.held(), Ok(vec![NUM_LOCKS - 1]));
    if let Some(other) = other {
        // Opened before, and never told.
        assert_eq!(other.retrieve(now - 1), Ok(()));
        assert_eq!(other.lock(now - 1), Ok(Acquired::Clean));
        assert_eq!(manager.try_lock(now - 1), Err(libc::EBUSY));
        assert_eq!((other.num_locks(), other.retrieve(now)), (Ok(now), Err(libc::EINVAL)));
        other.unlock(now - 1).unwrap();
        assert_eq!(subject.open().num_locks(), Ok(now));
    }
    manager.unlock(NUM_LOCKS - 1).unwrap();
}

pub fn many_threads_and_managers_never_get_the_same_id(subject: &Subject) {
    const THREADS: u32 = 4;
    let first = subject.make();
    let others: Vec<Box<dyn Opened>> = (1..THREADS).filter(|_| subject.is_shared()).map(|_| subject.open()).collect();
    let managers: Vec<&dyn Opened> = std::iter::once(&*first).chain(others.iter().map(|other| &**other)).collect();
    let ids: Vec<u32> = thread::scope(|scope| {
        let allocating: Vec<_> = (0..THREADS as usize)
            .map(|thread| {
                let manager = managers[thread % managers.len()];
                scope.spawn(move || -> Vec<u32> {
                    (0..NUM_LOCKS / THREADS).map(|_| manager.allocate().unwrap()).collect()
                })
            })
            .collect();
        allocating.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), NUM_LOCKS as usize, "{ids:?}");
}

pub fn what_was_removed_says_so(subject: &Subject) {
    let manager = subject.make();
    let _ = manager.lock(3).unwrap();
    subject.remove();
    assert_eq!(subject.try_open().err(), Some(libc::ENOENT));
    assert_eq!(manager.describe().unwrap().2, 1);
    // Noticed within 100 ms.
    super::support::eventually("allocation says ESTALE", || manager.allocate() == Err(libc::ESTALE));
    thread::scope(|scope| {
        let elsewhere = scope.spawn(|| manager.timed_lock(3, 20_000_000_000));
        assert_eq!(elsewhere.join().unwrap(), Err(libc::ESTALE));
    });
    manager.unlock(3).unwrap();
    manager.close().unwrap();
}
