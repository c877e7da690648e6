// SPDX-License-Identifier: MIT OR Apache-2.0
//! CLOCK_MONOTONIC, the clock of every deadline: a change of the wall clock must not end a wait.

use std::mem::MaybeUninit;

/// The type of a timespec's seconds. By this name, since the libc crate deprecates its own on musl.
type Seconds = libc::c_long;

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

/// The wall clock.
pub(crate) fn nanoseconds_since_1970() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// The time since boot in the clock ticks of /proc, 100 a second on every architecture, as the time namespace counts it.
/// Every thread that runs now has started by then.
pub(crate) fn ticks_since_boot() -> u64 {
    const TICK_NS: u64 = 10_000_000;
    Instant::read(libc::CLOCK_BOOTTIME).0 / TICK_NS
}

/// An instant of CLOCK_MONOTONIC in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(u64);

impl Instant {
    /// Never reached: it is 584 years after boot.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    /// The boot: it is always past.
    pub(crate) const BOOT: Self = Self(0);

    pub(crate) fn now() -> Self {
        Self::read(libc::CLOCK_MONOTONIC)
    }

    /// The time of the last timer tick: some milliseconds old, at a tenth of the price.
    pub(crate) fn now_coarse() -> Self {
        Self::read(libc::CLOCK_MONOTONIC_COARSE)
    }

    fn read(clock: libc::clockid_t) -> Self {
        let mut time = MaybeUninit::<libc::timespec>::uninit();
        // SAFETY: clock_gettime(2) fills the timespec it is given; with a clock that exists and a valid address it
        // cannot fail.
        let time = unsafe {
            libc::clock_gettime(clock, time.as_mut_ptr());
            time.assume_init()
        };
        Self((time.tv_sec as u64).wrapping_mul(NANOSECONDS_PER_SECOND).wrapping_add(time.tv_nsec as u64))
    }

    /// Sleeps until that instant, or until a signal comes.
    pub(crate) fn sleep_until(self) {
        let until = self.timespec();
        // SAFETY: clock_nanosleep(2) reads the timespec, which lives past the call.
        unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &until, std::ptr::null_mut()) };
    }

    pub(crate) fn after(self, nanoseconds: u64) -> Self {
        Self(self.0.saturating_add(nanoseconds))
    }

    /// Nanoseconds from `earlier` to this instant; 0 if `earlier` is later.
    pub(crate) fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    pub(crate) fn nanoseconds(self) -> u64 {
        self.0
    }

    pub(crate) fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    pub(crate) fn timespec(self) -> libc::timespec {
        libc::timespec {
            tv_sec: Seconds::try_from(self.0 / NANOSECONDS_PER_SECOND).unwrap_or(Seconds::MAX),
            tv_nsec: (self.0 % NANOSECONDS_PER_SECOND) as libc::c_long,
        }
    }
}
