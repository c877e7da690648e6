// SPDX-License-Identifier: MIT OR Apache-2.0
//! The calling thread's own object, which thread.c defines: where its fields stand, and access to them.
//!
//! A signal handler of the same thread comes before an access or after it, never in between. On x86-64 with glibc each access
//! is one instruction relative to the thread pointer. Elsewhere it is an atomic one at the object's address.

#[cfg(not(all(target_arch = "x86_64", initial_exec)))]
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};

/// Where the fields stand.
pub(super) mod field {
    /// The epoch in which the thread entered for robust mutexes: the libc knows it as a thread of this process.
    pub(in super::super) const EPOCH: usize = 0;
    pub(in super::super) const LOCAL_ID: usize = 8;
    /// How many robust mutexes the thread holds through this library.
    pub(in super::super) const HELD: usize = 16;
    /// Whether the thread is inside an exported function.
    pub(in super::super) const INSIDE: usize = 24;
    /// The epoch in which the thread got its id and local id. Unlike EPOCH, it says nothing about the libc.
    pub(in super::super) const IDENTIFIED: usize = 32;
    pub(in super::super) const ID: usize = 40;
    /// The attachment to a native segment that the thread entered last.
    pub(in super::super) const LAST_ATTACHMENT: usize = 48;
    /// The thread's serial where it stands in a lock word, the same in every segment; 0: it has none yet.
    pub(in super::super) const SERIAL_BITS: usize = 56;
    /// How many locks of native segments the thread owns, or is about to: an exclusive lock counts 1, a shared one
    /// [`SHARED`](super::super::native::SHARED).
    pub(in super::super) const HELD_NATIVE: usize = 64;
    /// 0: the hook for the thread's end is not armed. Otherwise the round of destructors that comes next; see `on_exit`.
    pub(in super::super) const EXIT_ROUND: usize = 72;
    /// How many calls of the thread hold the mutex that guards the ids of a libpod segment: two, if one came in a handler.
    pub(in super::super) const INSIDE_POOL: usize = 80;
    /// The address of a cell that the thread is claiming; 0: none.
    pub(in super::super) const CLAIMING: usize = 88;
    /// The owner for whom it claims the cell.
    pub(in super::super) const CLAIMED_AS: usize = 96;
    /// How often the thread met other readers in a lock's cells.
    pub(in super::super) const MET: usize = 104;
    /// The undo records of `waits`.
    pub(in super::super) const WAITS: usize = 112;
    /// See [`Thread::last_error`](super::Thread::last_error).
    pub(in super::super) const LAST_ERROR: usize = 304;
    /// How the thread backs off from locks that others want all the time.
    pub(in super::super) const PACE: usize = 432;
}

/// How many words the undo records take.
pub(super) const WAIT_WORDS: usize = 24;
/// How many words the last error takes.
pub(crate) const LAST_ERROR_WORDS: usize = 16;

/// Keeps the code mapped for good. Otherwise a thread that ends would call into a plugin that was unloaded.
pub(in crate::sys) fn stay_loaded() {
    unsafe extern "C" {
        fn lock_manager_stay_loaded();
    }
    // SAFETY: thread.c's function of that name takes nothing and may be called at any time.
    unsafe { lock_manager_stay_loaded() };
}

/// The calling thread's own object. Not `Send`: only the calling thread finds it at this place.
#[derive(Clone, Copy)]
pub(crate) struct Thread {
    /// On x86-64 with glibc the object's distance from the thread pointer, elsewhere its address.
    place: *mut u64,
}

#[cfg(all(target_arch = "x86_64", initial_exec))]
impl Thread {
    /// The calling thread, as this library last knew it. That may have been before a fork.
    #[inline(always)]
    pub(crate) fn calling() -> Self {
        unsafe extern "C" {
            static lock_manager_this_thread: u64;
        }
        let place;
        // SAFETY: the initial-exec sequence of the x86-64 TLS ABI: the GOT entry holds the object's distance from the
        // thread pointer, the same for all threads and fixed once the library is loaded.
        unsafe {
            std::arch::asm!(
                "mov {place}, qword ptr [rip + {object}@GOTTPOFF]",
                place = out(reg) place,
                object = sym lock_manager_this_thread,
                options(nostack, preserves_flags),
            );
        }
        Self { place }
    }

    #[inline(always)]
    pub(super) fn load<const FIELD: usize>(self) -> u64 {
        let value;
        // SAFETY: %fs is the thread pointer, so this is a field of the calling thread's own object, which no other
        // thread touches.
        unsafe {
            std::arch::asm!(
                "mov {value}, qword ptr fs:[{place} + {field}]",
                value = lateout(reg) value,
                place = in(reg) self.place,
                field = const FIELD,
                options(nostack, preserves_flags, readonly),
            );
        }
        value
    }

    /// In one instruction, because it stands between two locked ones.
    #[inline(always)]
    pub(super) fn add<const FIELD: usize, const VALUE: i64>(self) {
        // SAFETY: as for load.
        unsafe {
            std::arch::asm!(
                "add qword ptr fs:[{place} + {field}], {value}",
                value = const VALUE,
                place = in(reg) self.place,
                field = const FIELD,
                options(nostack),
            );
        }
    }

    /// Subtracts `expected`, and returns whether the field was `expected` (and is 0 now). If not, the field keeps a value that
    /// is no address. It is one instruction, at half the price of an exchange.
    #[inline(always)]
    pub(super) fn subtract<const FIELD: usize>(self, expected: u64) -> bool {
        let is_zero: u8;
        // SAFETY: as for load.
        unsafe {
            std::arch::asm!(
                "sub qword ptr fs:[{place} + {field}], {expected}",
                "sete {is_zero}",
                place = in(reg) self.place,
                expected = in(reg) expected,
                is_zero = lateout(reg_byte) is_zero,
                field = const FIELD,
                options(nostack),
            );
        }
        is_zero != 0
    }

    #[inline(always)]
    pub(super) fn store<const FIELD: usize>(self, value: u64) {
        // SAFETY: as for load.
        unsafe {
            std::arch::asm!(
                "mov qword ptr fs:[{place} + {field}], {value}",
                value = in(reg) value,
                place = in(reg) self.place,
                field = const FIELD,
                options(nostack, preserves_flags),
            );
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", initial_exec)))]
impl Thread {
    /// The calling thread, as this library last knew it. That may have been before a fork.
    #[inline(always)]
    pub(crate) fn calling() -> Self {
        Self { place: Self::object() }
    }

    /// A field, as an atomic for a signal handler of the same thread: it comes between no two halves of it.
    ///
    /// The compiler must not move an access past others, since a handler may come between them. The fences of the callers
    /// see to that and cost no instruction: they are to the compiler what each assembly block is on x86-64.
    #[inline(always)]
    fn field<'t, const FIELD: usize>(self) -> &'t AtomicU64 {
        // SAFETY: a field of the calling thread's own object, which no other thread touches, and which lives as long as the
        // thread. thread.c aligns it to 8 bytes.
        unsafe { AtomicU64::from_ptr(self.place.byte_add(FIELD)) }
    }

    #[inline(always)]
    pub(super) fn load<const FIELD: usize>(self) -> u64 {
        compiler_fence(Ordering::SeqCst);
        let value = self.field::<FIELD>().load(Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        value
    }

    #[cfg(not(target_arch = "aarch64"))]
    #[inline(always)]
    pub(super) fn add<const FIELD: usize, const VALUE: i64>(self) {
        compiler_fence(Ordering::SeqCst);
        self.field::<FIELD>().fetch_add(VALUE.cast_unsigned(), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }

    /// In place, where Rust's atomic would be a call. If a signal handler comes in between, the store fails and the addition
    /// starts again: the processor gives the reservation up when it returns from the kernel.
    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    pub(super) fn add<const FIELD: usize, const VALUE: i64>(self) {
        // SAFETY: as for field.
        unsafe {
            std::arch::asm!(
                "2: ldxr {value}, [{field}]",
                "add {value}, {value}, {more}",
                "stxr {failed:w}, {value}, [{field}]",
                "cbnz {failed:w}, 2b",
                field = in(reg) self.place.byte_add(FIELD),
                more = in(reg) VALUE,
                value = out(reg) _,
                failed = out(reg) _,
                options(nostack, preserves_flags),
            );
        }
    }

    /// As on x86-64.
    #[inline(always)]
    pub(super) fn subtract<const FIELD: usize>(self, expected: u64) -> bool {
        compiler_fence(Ordering::SeqCst);
        let is_zero = self.field::<FIELD>().fetch_sub(expected, Ordering::Relaxed) == expected;
        compiler_fence(Ordering::SeqCst);
        is_zero
    }

    #[inline(always)]
    pub(super) fn store<const FIELD: usize>(self, value: u64) {
        compiler_fence(Ordering::SeqCst);
        self.field::<FIELD>().store(value, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }
}

impl Thread {
    /// Where the thread keeps the undo records of its waits.
    pub(super) fn waits(self) -> *mut u64 {
        Self::object().wrapping_byte_add(field::WAITS)
    }

    /// Where the thread keeps its last error: zeros at first, its own alone, and there before anything can fail.
    pub(crate) fn last_error(self) -> *mut u64 {
        Self::object().wrapping_byte_add(field::LAST_ERROR)
    }

    /// The address of the calling thread's own object.
    #[cfg(all(target_arch = "aarch64", initial_exec))]
    #[inline(always)]
    fn object() -> *mut u64 {
        unsafe extern "C" {
            static lock_manager_this_thread: u64;
        }
        let place;
        // SAFETY: the initial-exec sequence of the AArch64 TLS ABI: the GOT entry holds the object's distance from the thread
        // pointer, the same for all threads and fixed once the library is loaded.
        unsafe {
            std::arch::asm!(
                "mrs {thread}, tpidr_el0",
                "adrp {place}, :gottprel:{object}",
                "ldr {place}, [{place}, #:gottprel_lo12:{object}]",
                "add {place}, {place}, {thread}",
                thread = out(reg) _,
                place = out(reg) place,
                object = sym lock_manager_this_thread,
                options(nostack, preserves_flags),
            );
        }
        place
    }

    /// The address of the calling thread's own object.
    #[cfg(not(all(target_arch = "aarch64", initial_exec)))]
    fn object() -> *mut u64 {
        unsafe extern "C" {
            fn lock_manager_this_thread_address() -> *mut u64;
        }
        // SAFETY: the function of thread.c takes nothing and returns the address of the thread's own object.
        unsafe { lock_manager_this_thread_address() }
    }
}
