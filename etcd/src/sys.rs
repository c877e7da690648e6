// SPDX-License-Identifier: MIT OR Apache-2.0
//! The system calls that the standard library has no safe function for.

#![allow(unsafe_code, reason = "system calls")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

fn clock(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime(2) fills the timespec; with a clock that exists it cannot fail.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    (time.tv_sec as u64).wrapping_mul(NANOSECONDS_PER_SECOND).wrapping_add(time.tv_nsec as u64)
}

/// The clock of waits: as the core's deadlines.
pub(crate) fn monotonic() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// The clock of leases. It goes on while the machine is suspended, as the server's does. All processes of a host see the
/// same.
pub(crate) fn boot_time() -> u64 {
    clock(libc::CLOCK_BOOTTIME)
}

/// Wakes all that sleep on a word.
pub(crate) fn wake_all(word: &AtomicU32) {
    // SAFETY: FUTEX_WAKE looks at the address only, which is that of a live word.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, libc::c_int::MAX) };
}

fn owned(descriptor: RawFd) -> io::Result<OwnedFd> {
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that a system call has just made, and nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// A bell that one thread waits for with poll(2).
pub(crate) struct Bell(File);

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: eventfd(2) takes numbers only.
        owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }).map(|bell| Self(bell.into()))
    }

    pub(crate) fn ring(&self) {
        // A full counter rings already.
        let _rings_already = io::Write::write(&mut &self.0, &1u64.to_ne_bytes());
    }

    pub(crate) fn silence(&self) {
        let _was_silent = io::Read::read(&mut &self.0, &mut [0; 8]);
    }
}

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A descriptor that becomes readable at an instant of the clock of leases, whatever the threads of the process do.
pub(crate) struct Alarm(OwnedFd);

impl Alarm {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: timerfd_create(2) takes numbers only.
        owned(unsafe { libc::timerfd_create(libc::CLOCK_BOOTTIME, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) }).map(Self)
    }

    /// Sets it; `None`: never.
    pub(crate) fn set(&self, at: Option<u64>) {
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // An instant of 0 would turn it off.
        let it_value = at.map_or(zero, |at| libc::timespec {
            tv_sec: (at / NANOSECONDS_PER_SECOND) as _,
            tv_nsec: (at % NANOSECONDS_PER_SECOND).max(1) as libc::c_long,
        });
        let setting = libc::itimerspec { it_interval: zero, it_value };
        // SAFETY: timerfd_settime(2) reads the setting, which is alive.
        unsafe {
            libc::timerfd_settime(self.0.as_raw_fd(), libc::TFD_TIMER_ABSTIME, &raw const setting, ptr::null_mut())
        };
    }
}

impl AsRawFd for Alarm {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Waits until one of the descriptors is readable, or the time is over.
pub(crate) fn wait_readable(descriptors: &[RawFd], timeout: Duration) {
    let poll = |&fd: &RawFd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut polled: Vec<_> = descriptors.iter().map(poll).collect();
    // Rounded up: a wait that ends too early would be begun again and again.
    let milliseconds = timeout.as_nanos().div_ceil(1_000_000).min(libc::c_int::MAX as u128) as libc::c_int;
    // SAFETY: poll(2) reads and writes the array, which is alive and as long as it is told.
    unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, milliseconds) };
}

/// Runs something with all signals blocked, and has threads that it starts begin so.
pub(crate) fn with_signals_blocked<T>(run: impl FnOnce() -> T) -> T {
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset(3) fills the one set, pthread_sigmask(3) the other.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    let outcome = run();
    // SAFETY: the set that was filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    outcome
}

/// Words of memory that several threads or processes use, as atomics only.
pub(crate) struct Words {
    base: *const AtomicU64,
    count: usize,
}

// SAFETY: the words are atomics, mapped until the last reference is gone.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// Words of a file, whose space is reserved first, so that no use of them can be a SIGBUS.
    pub(crate) fn of_file(file: &File, count: usize) -> io::Result<Self> {
        // SAFETY: posix_fallocate(3) takes numbers only.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, size_of_words(count) as libc::off_t) } {
            0 => Self::mapped(count, libc::MAP_SHARED, file.as_raw_fd()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Words of this process, zeros at first. A forked child finds zeros again.
    pub(crate) fn private(count: usize) -> io::Result<Self> {
        let words = Self::mapped(count, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, -1)?;
        // SAFETY: the mapping was made just now, for this alone.
        let wiped = unsafe { libc::madvise(words.base.cast_mut().cast(), size_of_words(count), libc::MADV_WIPEONFORK) };
        if wiped == 0 { Ok(words) } else { Err(io::Error::last_os_error()) }
    }

    fn mapped(count: usize, flags: libc::c_int, file: RawFd) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping where the kernel likes, which no reference points into.
        let base = unsafe { libc::mmap(ptr::null_mut(), size_of_words(count), protection, flags, file, 0) };
        if base == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self { base: base.cast(), count }) }
    }

    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<&AtomicU64> {
        // SAFETY: within the mapping, which lives as long as self; a page's start is aligned for any word.
        (index < self.count).then(|| unsafe { &*self.base.add(index) })
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, which no reference outlives.
        unsafe { libc::munmap(self.base.cast_mut().cast(), size_of_words(self.count)) };
    }
}

fn size_of_words(count: usize) -> usize {
    count.saturating_mul(size_of::<AtomicU64>())
}

pub(crate) fn effective_user() -> u32 {
    // SAFETY: geteuid(2) takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// The wall clock, which hosts share as well as they can.
pub(crate) fn since_1970_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
