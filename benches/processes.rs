// SPDX-License-Identifier: MIT OR Apache-2.0
//! Children of the benchmark, the memory that all of them share, and the processors that they run on.

use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A child that has not ended by then is killed, and the run stops: no work takes as long.
const CHILD_SECONDS: libc::c_uint = 120;
const LINE_WORDS: usize = 16;

/// Words that all processes share, each on two cache lines of its own, so that none is the other's cost.
pub struct Board {
    address: NonNull<AtomicU64>,
    words: usize,
}

impl Board {
    pub fn new(words: usize) -> Self {
        Self { address: shared_memory(words * LINE_WORDS * 8).cast(), words }
    }
}

// SAFETY: the memory is mapped for as long as the value lives, and atomics may be used by every thread.
unsafe impl Sync for Board {}

impl std::ops::Index<usize> for Board {
    type Output = AtomicU64;

    fn index(&self, word: usize) -> &AtomicU64 {
        assert!(word < self.words);
        // SAFETY: within the mapping, which was zeroed and lives as long as the value.
        unsafe { self.address.add(word * LINE_WORDS).as_ref() }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        unmap(self.address.cast(), self.words * LINE_WORDS * 8);
    }
}

/// Words side by side, for what is written once.
pub struct Words {
    address: NonNull<AtomicU64>,
    count: usize,
}

impl Words {
    pub fn new(count: usize) -> Self {
        Self { address: shared_memory(count * 8).cast(), count }
    }
}

// SAFETY: as for Board.
unsafe impl Sync for Words {}

impl Deref for Words {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: that many zeroed words are mapped for as long as the value lives.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.count) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        unmap(self.address.cast(), self.count * 8);
    }
}

/// Zeroed memory that children will share.
pub fn shared_memory(bytes: usize) -> NonNull<u8> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: an anonymous mapping of its own.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    assert_ne!(address, libc::MAP_FAILED, "{bytes} bytes of shared memory: {}", std::io::Error::last_os_error());
    NonNull::new(address.cast()).expect("a mapping is nowhere but at 0")
}

pub fn unmap(address: NonNull<u8>, bytes: usize) {
    // SAFETY: a mapping of this module that nothing uses any more.
    unsafe { libc::munmap(address.as_ptr().cast(), bytes) };
}

/// A child that runs a closure, and ends without running destructors.
pub struct Child(libc::pid_t);

pub fn spawn(work: impl FnOnce()) -> Child {
    // SAFETY: the benchmark has one thread when it forks, so the child may do what it likes.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: these concern this process alone.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::alarm(CHILD_SECONDS);
            }
            let status = i32::from(std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err());
            // SAFETY: ends this process.
            unsafe { libc::_exit(status) }
        }
        -1 => panic!("no child: {}", std::io::Error::last_os_error()),
        pid => Child(pid),
    }
}

impl Child {
    pub fn join(self) {
        assert_eq!(self.wait(), 0, "a child of the benchmark failed");
    }

    pub fn kill(&self) {
        self.signal(libc::SIGKILL);
    }

    pub fn kill_and_wait(self) {
        self.kill();
        self.wait();
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: a child that was not waited for yet.
        unsafe { libc::kill(self.0, signal) };
    }

    fn wait(&self) -> libc::c_int {
        let mut status = 0;
        // SAFETY: waits for a child of this process.
        unsafe { libc::waitpid(self.0, &mut status, 0) };
        status
    }

    /// Returns once the child sleeps in the kernel, as /proc tells it.
    pub fn until_it_sleeps(&self) {
        let stat = format!("/proc/{}/stat", self.0);
        loop {
            let text = std::fs::read_to_string(&stat).expect("the child is there");
            if text.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S')) {
                return;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

pub fn in_child(work: impl FnOnce()) {
    spawn(work).join();
}

/// What a word says that workers wait for, and then look at. A worker waits while it is [`WAIT`]: on a busy machine it may
/// wake up when the word says [`STOP`] already.
pub const WAIT: u64 = 0;
pub const GO: u64 = 1;
pub const STOP: u64 = 2;

/// Lets workers go that wait for `state`, and stops them. Returns what `turns` has gained within `slice`, and the nanoseconds
/// that it took.
pub fn turns_in(
    state: &AtomicU64,
    slice: Duration,
    turns: impl Fn() -> u64,
    workers: impl IntoIterator<Item = Child>,
) -> (f64, f64) {
    state.store(GO, Ordering::Release);
    // What the first processor does before the others have woken up is nobody's contention.
    std::thread::sleep(slice / 8);
    let (start, before) = (now(), turns());
    std::thread::sleep(slice);
    let (end, after) = (now(), turns());
    state.store(STOP, Ordering::Release);
    workers.into_iter().for_each(Child::join);
    ((after - before) as f64, (end - start) as f64)
}

/// Waits until the word has at least that value.
pub fn until(word: &AtomicU64, value: u64) {
    while word.load(Ordering::Acquire) < value {
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// CLOCK_MONOTONIC in nanoseconds, the same for all processes.
pub fn now() -> u64 {
    // SAFETY: clock_gettime(2) fills the struct it is given.
    let time = unsafe {
        let mut time = std::mem::zeroed::<libc::timespec>();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time);
        time
    };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The processors that the benchmark may use.
pub fn processors() -> &'static [usize] {
    static ALLOWED: OnceLock<Vec<usize>> = OnceLock::new();
    ALLOWED.get_or_init(|| {
        // SAFETY: zeros are a valid set, which sched_getaffinity(2) fills.
        let set = unsafe {
            let mut set = std::mem::zeroed::<libc::cpu_set_t>();
            libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set);
            set
        };
        // SAFETY: reads a bit of the set.
        (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
    })
}

/// Keeps the calling thread on one processor: the worker's, in turn.
pub fn pin(worker: usize) {
    let cpus = processors();
    // SAFETY: a set with one processor of those that are allowed.
    unsafe {
        let mut set = std::mem::zeroed::<libc::cpu_set_t>();
        libc::CPU_SET(cpus[worker % cpus.len()], &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}
