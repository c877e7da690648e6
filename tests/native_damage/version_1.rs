// SPDX-License-Identifier: MIT OR Apache-2.0
//! A segment of version 1, which knows no readers: it is used as it was, and shared locks are refused.

use lock_manager::{Acquired, Manager, Ownership};

use super::damage::MOST;
use super::format::{self, parts};
use super::options;
use super::support::{Segment, errno_of, fork};

/// The same segment as a program of version 1 would have made it: no features, no table, and what stands behind the table's
/// offset in the header stands 8 bytes before.
fn of_version_1() -> Segment {
    let segment = Segment::made(64, &options());
    let (mut bytes, parts) = (segment.bytes(), parts(MOST));
    let table = (format::CELLS * format::CELL) as usize;
    bytes.drain(parts.cells as usize..parts.cells as usize + table);
    let put =
        |bytes: &mut Vec<u8>, at: u64, number: &[u8]| bytes[at as usize..][..number.len()].copy_from_slice(number);
    for (at, offset) in
        [(format::AT_SUMMARY, parts.summary), (format::AT_BITMAP, parts.bitmap), (format::AT_SLOTS, parts.slots)]
    {
        put(&mut bytes, at, &(offset - table as u64).to_ne_bytes());
    }
    put(&mut bytes, format::AT_VERSION, &1u32.to_ne_bytes());
    put(&mut bytes, format::AT_FEATURES, &[0; 16]);
    bytes.copy_within(format::AT_DEVICE as usize..format::AT_CREATED as usize + 8, format::AT_CELL_TABLE as usize);
    put(&mut bytes, format::AT_CREATED, &[0; 8]);
    segment.write(&bytes);
    std::fs::File::options().write(true).open(segment.file()).unwrap().set_len(bytes.len() as u64).unwrap();
    segment
}

#[test]
fn it_is_locked_exclusively_and_refuses_readers() {
    let segment = of_version_1();
    let manager = segment.open();
    for id in [0, 63] {
        assert_eq!(manager.lock(id).unwrap(), Acquired::Clean);
        assert_eq!(errno_of(manager.try_lock(id)), libc::EBUSY);
        assert_eq!(errno_of(manager.downgrade_lock(id)), libc::EOPNOTSUPP);
        assert_eq!(manager.lock_holders(id).unwrap().len(), 1);
        manager.unlock(id).unwrap();
        assert_eq!(errno_of(manager.lock_shared(id)), libc::EOPNOTSUPP);
        assert_eq!(errno_of(manager.try_lock_shared(id)), libc::EOPNOTSUPP);
        assert_eq!(errno_of(manager.unlock_shared(id)), libc::EOPNOTSUPP);
    }
    assert_eq!(manager.allocate_lock().unwrap(), 0);
    // What says "shared" in later versions means nothing there: the lock is free.
    let word = parts(MOST).slots - format::CELLS * format::CELL + 7 * format::SLOT;
    segment.write_number_at(word, format::SHARED);
    assert_eq!(errno_of(manager.lock_shared(7)), libc::EOPNOTSUPP);
    assert_eq!(manager.lock(7).unwrap(), Acquired::Clean);
    manager.unlock(7).unwrap();
    // A holder's death is told as ever.
    fork(|| _ = segment.open().lock(5).unwrap()).succeeds();
    assert_eq!(manager.timed_lock(5, std::time::Duration::from_secs(20)).unwrap(), Acquired::OwnerDied);
    manager.unlock(5).unwrap();
    manager.grow(128).unwrap();
    assert_eq!(manager.lock(127).unwrap(), Acquired::Clean);
    manager.unlock(127).unwrap();
}

#[test]
fn a_process_owns_its_locks_as_before() {
    let segment = of_version_1();
    let manager = segment.open();
    manager.set_ownership(Ownership::Process).unwrap();
    assert_eq!(manager.lock(3).unwrap(), Acquired::Clean);
    std::thread::scope(|scope| _ = scope.spawn(|| manager.unlock(3).unwrap()));
    assert_eq!(errno_of(manager.unlock(3)), libc::EPERM);
}
