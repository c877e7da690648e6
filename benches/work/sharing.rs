// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many readers or one writer: beside an exclusive lock, and beside the libc's read-write lock, which is not robust.

mod deaths;
mod mixed;

use std::ffi::c_void;
use std::ptr::NonNull;

use crate::contenders::{NATIVE, PairCall};
use crate::library::{Layout, Segment, library};
use crate::method::{Contended, Entry, Run, nanoseconds};
use crate::peers::{self, PEER_MEMORY};
use crate::processes::{shared_memory, unmap};
use crate::results::Quantity;

const PAIR: Quantity = Quantity::less("lock + unlock", "ns");
const CALLS: u32 = 20_000;
const LOCK: u32 = 7;

/// A lock that is taken for reading or for writing.
#[derive(Clone, Copy)]
struct ReadWrite {
    name: &'static str,
    handle: *mut c_void,
    shared: [PairCall; 2],
    exclusive: [PairCall; 2],
}

impl ReadWrite {
    fn read(&self, inside: impl FnOnce()) {
        self.between(self.shared, inside);
    }

    fn write(&self, inside: impl FnOnce()) {
        self.between(self.exclusive, inside);
    }

    #[inline(always)]
    fn between(&self, [lock, unlock]: [PairCall; 2], inside: impl FnOnce()) {
        // SAFETY: attached, and what it belongs to lives until all processes have ended.
        let code = unsafe { lock(self.handle, LOCK) };
        inside();
        // SAFETY: as above.
        assert_eq!(code | unsafe { unlock(self.handle, LOCK) }, 0, "a call of {}", self.name);
    }
}

pub fn run(run: &mut Run) {
    let segment = Segment::new(Layout::Native, 2048);
    let ours = ReadWrite {
        name: NATIVE,
        handle: segment.manager,
        shared: library().shared_pair(),
        exclusive: library().pair(),
    };
    let libc = Libc::new(peers::RWLOCK);
    let writers_first = Libc::new(peers::RWLOCK_WRITERS_FIRST);
    uncontended(run, ours, libc.lock);
    mixed::run(run, &[ours, libc.lock, writers_first.lock]);
    deaths::run(run, &segment);
}

/// A read-write lock of the libc, and the memory in which it is.
struct Libc {
    lock: ReadWrite,
    memory: NonNull<u8>,
}

impl Libc {
    fn new(name: &'static str) -> Self {
        let peer = peers::find(name).expect("the libc has it");
        let memory = shared_memory(PEER_MEMORY);
        // SAFETY: as peer.h says: zeroed shared memory; this peer wants no path.
        let handle = unsafe {
            (peer.make)(memory.as_ptr().cast(), c"".as_ptr());
            (peer.attach)(memory.as_ptr().cast(), c"".as_ptr())
        };
        let shared = peer.shared_pair.expect("a read-write lock has it");
        Self { lock: ReadWrite { name: peer.name, handle, shared, exclusive: peer.pair }, memory }
    }
}

impl Drop for Libc {
    fn drop(&mut self) {
        unmap(self.memory, PEER_MEMORY);
    }
}

fn uncontended(run: &mut Run, ours: ReadWrite, libc: ReadWrite) {
    let downgraded = move || {
        let library = library();
        // SAFETY: the manager is open.
        let failed = unsafe {
            (library.lock)(ours.handle, LOCK)
                | (library.downgrade_lock)(ours.handle, LOCK)
                | (library.unlock_shared)(ours.handle, LOCK)
        };
        assert_eq!(failed, 0);
    };
    let entries = vec![
        Entry::new("lock_manager shared", move || nanoseconds(CALLS, || ours.read(|| ()))),
        Entry::new(NATIVE, move || nanoseconds(CALLS, || ours.write(|| ()))),
        Entry::new("lock_manager then downgraded", move || nanoseconds(CALLS, downgraded)),
        Entry::new("pthread_rwlock for reading", move || nanoseconds(CALLS, || libc.read(|| ()))),
        Entry::new("pthread_rwlock for writing", move || nanoseconds(CALLS, || libc.write(|| ()))),
    ];
    let rounds = run.effort.pick(21, 201);
    run.rounds("sharing pair", "nobody waits", &[PAIR], rounds, Contended::No, entries);
}
