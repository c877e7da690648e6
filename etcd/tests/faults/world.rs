// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the clients of a test share with it, as memory: two registers, and what each client was told.

use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

pub const CLIENTS: usize = 4;
const MOST_HOLDS: usize = 1 << 20;
/// Half of a register's word.
const HALF: u32 = 32;

/// What a client does.
pub const IDLE: u64 = 0;
pub const HOLDING: u64 = 1;

/// A register that checks tokens: the highest that it has seen in the high half, its value in the low half. One word, so that
/// a client that is killed leaves no half of a change.
#[derive(Default)]
pub struct Register(AtomicU64);

impl Register {
    /// Each request brings its token, reads as well: what was read under a lower token may not be written after it.
    fn request(&self, token: u64, change: impl Fn(u64) -> u64) -> Option<u64> {
        let low = u64::from(u32::MAX);
        let step = |word: u64| (token >= word >> HALF).then(|| token << HALF | (change(word & low) & low));
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, step).ok().map(|word| word & low)
    }

    pub fn read(&self, token: u64) -> Option<u64> {
        self.request(token, |value| value)
    }

    pub fn write(&self, token: u64, value: u64) -> bool {
        self.request(token, |_| value).is_some()
    }

    pub fn value(&self) -> u64 {
        self.0.load(Ordering::SeqCst) & u64::from(u32::MAX)
    }
}

/// A time in which a client held the lock by the library's own word.
#[derive(Default)]
pub struct Hold {
    pub start: AtomicU64,
    pub end: AtomicU64,
    pub token: AtomicU64,
}

/// The same, when it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    pub start: u64,
    pub end: u64,
    /// 0: it was lost before it could be asked for.
    pub token: u64,
}

impl Hold {
    fn read(&self) -> Held {
        let read = |word: &AtomicU64| word.load(Ordering::SeqCst);
        Held { start: read(&self.start), end: read(&self.end), token: read(&self.token) }
    }
}

/// Of one client.
#[derive(Default)]
pub struct Client {
    pub phase: AtomicU64,
    pub hold: Hold,
    pub turns: AtomicU64,
}

#[derive(Default)]
pub struct World {
    pub stop: AtomicU64,
    /// The register that checks the token, and what was acknowledged to it.
    pub guarded: Register,
    pub acknowledged: AtomicU64,
    /// The one that does not.
    pub plain: AtomicU64,
    pub plain_writes: AtomicU64,
    pub told_of_death: AtomicU64,
    pub lost: AtomicU64,
    /// Of these, unlocks that were not answered in time. They may have been carried out, and then nobody is told.
    pub unanswered: AtomicU64,
    pub failures: AtomicU64,
    pub clients: [Client; CLIENTS],
    pub num_holds: AtomicU64,
}

/// The world, and the holds that are over.
pub struct Shared {
    pub world: &'static World,
    holds: &'static [Hold],
}

fn mapped(bytes: usize) -> *mut libc::c_void {
    // SAFETY: a fresh anonymous mapping, which no reference points into yet.
    let address = unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0)
    };
    assert_ne!(address, libc::MAP_FAILED);
    address
}

impl Shared {
    pub fn new() -> Self {
        // SAFETY: mapped for ever and zeroed, and both types are atomics, for which zeros are valid.
        unsafe {
            let world = &*mapped(size_of::<World>()).cast::<World>();
            let holds = mapped(MOST_HOLDS * size_of::<Hold>()).cast::<Hold>();
            Self { world, holds: std::slice::from_raw_parts(holds, MOST_HOLDS) }
        }
    }

    /// Notes a hold that is over.
    pub fn note(&self, hold: &Hold) {
        let hold = hold.read();
        let index = self.world.num_holds.fetch_add(1, Ordering::SeqCst) as usize;
        self.holds[index].start.store(hold.start, Ordering::SeqCst);
        self.holds[index].end.store(hold.end, Ordering::SeqCst);
        self.holds[index].token.store(hold.token, Ordering::SeqCst);
    }

    /// How many holds there were.
    pub fn num_holds(&self) -> usize {
        self.world.num_holds.load(Ordering::SeqCst) as usize
    }

    /// Holds of two clients at one instant.
    pub fn held_at_once(&self) -> Vec<[Held; 2]> {
        let mut holds: Vec<_> = self.holds[..self.num_holds()].iter().map(Hold::read).collect();
        holds.sort_unstable();
        holds.array_windows().copied().filter(|[first, second]| first.end > second.start).collect()
    }
}

/// The clock of leases.
pub fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime(2) fills the timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
