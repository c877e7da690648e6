// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory that every child of this process finds zeroed (see [`process`](super)). It is one mapping: a second one would
//! cost the first call of a process two system calls and a page. It is smaller than 2 MiB, so that the kernel does not clear
//! a huge page for a few words.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::sys::Errno;
use crate::sys::process::fork_probe;
use crate::sys::process::number_pool::{NumberPool, StaticNumberPool};
use crate::sys::process::once_box::OnceBox;
use crate::sys::syscall::mapping::WipedOnFork;
use crate::sys::thread;

/// Words on a cache line.
const LINE: usize = 64 / size_of::<u64>();

/// A part of the arena, in words.
struct Part {
    start: usize,
    words: usize,
}

// The parts that are used first are at the end. The kernel maps downwards, so the end of the arena lies beside memory that is
// in use already, and the first access there needs no new page table.

/// A bit for each serial of a thread.
const SERIALS: Part = Part { start: 0, words: 1 << (22 - 6) };
/// Counters of threads that wait for one lock.
const WAIT_COUNTERS: Part = Part { start: SERIALS.start + SERIALS.words, words: 256 };
/// Cache lines for one user each. They are given out from the end.
const LINES: Part = Part { start: WAIT_COUNTERS.start + WAIT_COUNTERS.words, words: LINE_COUNT * LINE };
/// The process itself.
const PROCESS: Part = Part { start: LINES.start + LINES.words, words: LINE };
const WORDS: usize = PROCESS.start + PROCESS.words;

const LINE_COUNT: usize = 8192;

const _: () = assert!(WORDS * size_of::<u64>() < 2 << 20);

fn words(part: &Part) -> Result<&'static [AtomicU64], Errno> {
    static WHOLE: OnceBox<WipedOnFork> = OnceBox::new();
    let whole = WHOLE.get_or_make(|| {
        let fresh = WipedOnFork::new(WORDS)?;
        fork_probe::check(&fresh)?;
        // Write before the first read: a read would map a page of zeros, which the first write would then replace.
        fresh.words()[PROCESS.start].store(0, Ordering::Relaxed);
        // Every manager passes here before any thread has something that its end must clean up.
        thread::stay_loaded();
        Ok::<_, Errno>(fresh)
    })?;
    Ok(&whole.words()[part.start..][..part.words])
}

/// The line about the process itself.
pub(super) fn process() -> Result<&'static [AtomicU64], Errno> {
    words(&PROCESS)
}

/// Serials for the threads of this process: short numbers that no two threads have at a time. A thread that ends by the raw
/// `exit` system call keeps its serial for good, so that what it held is never taken for another thread's.
pub(crate) fn serials() -> Result<NumberPool<'static>, Errno> {
    // Children inherit it on purpose: a thread that got its serial before the fork may still remember it.
    static NEXT: AtomicU32 = AtomicU32::new(1);
    Ok(NumberPool { in_use: words(&SERIALS)?, next: &NEXT })
}

/// Counters of waiting threads. The users agree among themselves which counter is for which lock.
pub(crate) fn wait_counters() -> Result<&'static [AtomicU64], Errno> {
    words(&WAIT_COUNTERS)
}

/// A cache line of words for one user. A child inherits the user and finds the words zeroed.
#[derive(Debug)]
pub(crate) struct CacheLine {
    words: &'static [AtomicU64; LINE],
    /// Which line of the arena; 0: a mapping of its own, because all lines were taken.
    number: u32,
    _own: Option<WipedOnFork>,
}

impl CacheLine {
    /// A line that nobody uses, of zeros.
    pub(crate) fn claim() -> Result<Self, Errno> {
        if let Some(number) = numbers().claim() {
            let start = (LINE_COUNT - number as usize) * LINE;
            let line = words(&LINES)?[start..].first_chunk().ok_or(Errno(libc::ENOMEM))?;
            return Ok(Self { words: line, number, _own: None });
        }
        let own = WipedOnFork::new(LINE)?;
        // SAFETY: the value keeps the mapping, and nobody has the slice for longer than the value.
        let words = unsafe { &*own.words().as_ptr().cast::<[AtomicU64; LINE]>() };
        Ok(Self { words, number: 0, _own: Some(own) })
    }

    #[inline(always)]
    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        &self.words[index]
    }
}

impl Drop for CacheLine {
    fn drop(&mut self) {
        if self.number != 0 {
            for word in self.words {
                word.store(0, Ordering::Relaxed);
            }
            numbers().release(self.number);
        }
    }
}

/// Which lines are taken. Children inherit it, with the users.
fn numbers() -> NumberPool<'static> {
    static TAKEN: StaticNumberPool<{ LINE_COUNT / u64::BITS as usize }> = StaticNumberPool::new();
    TAKEN.pool()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr;

    #[test]
    fn a_line_is_one_users_and_comes_back_as_zeros() {
        let (one, other) = (CacheLine::claim().unwrap(), CacheLine::claim().unwrap());
        one.word(7).store(5, Ordering::Relaxed);
        assert_eq!(other.word(0).load(Ordering::Relaxed), 0);
        assert_ne!(ptr::from_ref(one.word(0)), ptr::from_ref(other.word(0)));
        let was = one.number;
        drop(one);
        assert!(
            (0..LINE_COUNT).map(|_| CacheLine::claim().unwrap()).all(|line| line.word(7).load(Ordering::Relaxed) == 0)
        );
        assert_ne!(was, 0);
    }
}
