// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a thread that was made here ends, as far as its libc must be told.
//!
//! glibc's pthread_join(3) waits for a word that the kernel clears at the end of a thread, by whatever means it ends. musl's waits
//! for what musl itself notes at an end in its own way, and would wait for ever. And the word that the kernel clears there is
//! the lock of musl's list of threads, which another thread may hold just then.

#[cfg(not(target_env = "musl"))]
pub use usual::{End, before_raw_exit};

#[cfg(target_env = "musl")]
pub use musl::{End, before_raw_exit};

#[cfg(not(target_env = "musl"))]
mod usual {
    #[derive(Debug, Default)]
    pub struct End;

    impl End {
        /// Runs the thread's body.
        pub fn told_of(&self, body: impl FnOnce()) {
            body();
        }

        /// Whether pthread_join(3) returns at the thread's end.
        pub fn is_heard_of_by_the_libc(&self) -> bool {
            true
        }
    }

    pub fn before_raw_exit() {}
}

#[cfg(target_env = "musl")]
mod musl {
    use std::cell::Cell;
    use std::ptr;
    use std::sync::atomic::{AtomicU32, Ordering};

    use crate::support::eventually;

    /// What the kernel makes of the word of a thread that ends by the system call.
    const RAW: u32 = 0;
    const RUNS: u32 = 1;
    const RETURNS: u32 = 2;

    #[derive(Debug)]
    pub struct End(AtomicU32);

    impl Default for End {
        fn default() -> Self {
            Self(AtomicU32::new(RUNS))
        }
    }

    thread_local! {
        /// The word of the calling thread: null in one that was not made here.
        static OWN: Cell<*const AtomicU32> = const { Cell::new(ptr::null()) };
    }

    impl End {
        /// Runs the thread's body. The thread shares this value, and so it stays where it is until the thread has ended.
        pub fn told_of(&self, body: impl FnOnce()) {
            OWN.set(&raw const self.0);
            body();
            self.0.store(RETURNS, Ordering::Release);
        }

        /// Waits until it is known whether pthread_join(3) returns at the thread's end.
        pub fn is_heard_of_by_the_libc(&self) -> bool {
            eventually("the thread ends", || self.0.load(Ordering::Acquire) != RUNS);
            self.0.load(Ordering::Acquire) == RETURNS
        }
    }

    /// The kernel clears the thread's own word, and no longer the lock of musl's list.
    pub fn before_raw_exit() {
        // SAFETY: set_tid_address(2) notes the address. The share of the value that keeps the word is in a frame of the thread,
        // which is never left.
        unsafe { libc::syscall(libc::SYS_set_tid_address, OWN.get()) };
    }
}
