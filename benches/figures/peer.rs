// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the figures are compared with: the libc's own robust mutex, and allocation in the shape that libpod's has.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Shared anonymous memory, as other processes of the benchmark see it.
pub fn shared<T>(count: usize) -> *mut T {
    let bytes = (count * size_of::<T>()).max(4096);
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: an anonymous mapping of its own.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    assert!(address != libc::MAP_FAILED);
    address.cast()
}

/// A raw robust process-shared mutex in shared memory.
#[derive(Clone, Copy)]
pub struct RawMutex(*mut libc::pthread_mutex_t);

impl RawMutex {
    pub fn new() -> Self {
        let mutex = shared::<libc::pthread_mutex_t>(1);
        // SAFETY: fresh zeroed memory; the attributes are set up as POSIX says.
        unsafe {
            let mut attributes = std::mem::zeroed();
            libc::pthread_mutexattr_init(&mut attributes);
            libc::pthread_mutexattr_setpshared(&mut attributes, libc::PTHREAD_PROCESS_SHARED);
            libc::pthread_mutexattr_setrobust(&mut attributes, libc::PTHREAD_MUTEX_ROBUST);
            assert_eq!(libc::pthread_mutex_init(mutex, &attributes), 0);
        }
        Self(mutex)
    }

    #[inline(always)]
    pub fn lock(self) {
        // SAFETY: initialised, and never unmapped.
        unsafe { libc::pthread_mutex_lock(self.0) };
    }

    #[inline(always)]
    pub fn unlock(self) {
        // SAFETY: held by the caller.
        unsafe { libc::pthread_mutex_unlock(self.0) };
    }
}

/// Bitmaps of 32 ids, 1288 bytes apart, under one robust mutex, always searched from the first: libpod's shape.
#[derive(Clone, Copy)]
pub struct LinearPool {
    guard: RawMutex,
    base: *mut u8,
    groups: usize,
}

const GROUP_SIZE: usize = 1288;

impl LinearPool {
    pub fn new(num_locks: u32) -> Self {
        let groups = num_locks as usize / 32;
        Self { guard: RawMutex::new(), base: shared::<u8>(groups * GROUP_SIZE), groups }
    }

    fn bitmap(&self, group: usize) -> &AtomicU32 {
        // SAFETY: within the mapping, aligned, never unmapped.
        unsafe { AtomicU32::from_ptr(self.base.add(group * GROUP_SIZE).cast()) }
    }

    pub fn allocate(&self) -> Option<usize> {
        self.guard.lock();
        let free = (0..self.groups).find(|&group| self.bitmap(group).load(Ordering::Relaxed) != u32::MAX);
        let id = free.map(|group| {
            let bits = self.bitmap(group).load(Ordering::Relaxed);
            let bit = bits.trailing_ones();
            self.bitmap(group).store(bits | 1 << bit, Ordering::Relaxed);
            group * 32 + bit as usize
        });
        self.guard.unlock();
        id
    }

    pub fn free(&self, id: usize) {
        self.guard.lock();
        self.bitmap(id / 32).fetch_and(!(1 << (id % 32)), Ordering::Relaxed);
        self.guard.unlock();
    }
}

/// Runs `work` in a child and waits for it.
pub fn in_child(work: impl FnOnce()) {
    join(spawn(work));
}

/// Starts a child that runs `work`.
pub fn spawn(work: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the benchmark has one thread, so the child may do what it likes; it ends without running destructors.
    match unsafe { libc::fork() } {
        0 => {
            work();
            // SAFETY: as above.
            unsafe { libc::_exit(0) }
        }
        child => child,
    }
}

pub fn join(child: libc::pid_t) {
    let mut status = 0;
    // SAFETY: waits for a child of this process.
    unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(status, 0, "a child of the benchmark failed");
}

/// Until somebody has written the word.
pub fn until(word: &AtomicU64) {
    while word.load(Ordering::Acquire) == 0 {
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// CLOCK_MONOTONIC, the same for all processes.
pub fn now() -> u64 {
    // SAFETY: clock_gettime(2) fills the struct it is given.
    let time = unsafe {
        let mut time = std::mem::zeroed::<libc::timespec>();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time);
        time
    };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
