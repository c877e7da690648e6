// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a wait of the calling thread has counted elsewhere. It is taken back by the wait itself, or, where a signal
//! handler left it by siglongjmp(3) or pthread_exit(3), by the thread's next call or its end: no frame of a wait has
//! anything to do when it is unwound, so that whatever unwinds it passes.
//!
//! Two waits of a thread can be one within the other: a handler came in the midst of the first. More than that are not
//! noted, and counted nowhere.

use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::sys::process;
use crate::sys::syscall::futex;
use crate::sys::thread::{Thread, WAIT_WORDS};

/// What a wait has counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Marks<'w> {
    /// Threads that wait through a manager.
    pub(crate) waiting: &'w AtomicU64,
    /// Waits that a cancel object may end.
    pub(crate) cancel: Option<&'w AtomicU32>,
    /// Threads of the process that wait for a lock, and how the counter knows the lock.
    pub(crate) crowd: Option<(&'w AtomicU64, u32)>,
    /// What the thread says that it wants; the half above 32 bits stays.
    pub(crate) wants: Option<&'w AtomicU64>,
    /// What it sleeps on. A wake-up that came may be for it, and is another's then.
    pub(crate) futex: &'w AtomicU32,
    /// A lock's word that it has in hand while it waits for something else.
    pub(crate) in_hand: Option<InHand<'w>>,
}

/// A word that is given back if the wait is left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InHand<'w> {
    pub(crate) word: &'w AtomicU64,
    /// As whose it is given back: if it is another's by then, it stays.
    pub(crate) owner: u64,
    pub(crate) give_back: GiveBack,
}

/// Called by the thread whose wait it was.
pub(crate) type GiveBack = fn(&AtomicU64, u64);

/// The same as it stands in the thread's own memory; all zeros: no wait.
#[repr(C)]
#[derive(Clone, Copy)]
struct Noted {
    /// Where in the waiting frame its number stands; null: no wait.
    frame: *const u64,
    number: u64,
    waiting: *const AtomicU64,
    cancel: *const AtomicU32,
    crowd: *const AtomicU64,
    key: u64,
    wants: *const AtomicU64,
    futex: *const AtomicU32,
    in_hand: *const AtomicU64,
    owner: u64,
    give_back: Option<GiveBack>,
}

/// A handler's frames lie at least this far below those of the wait in whose midst it came: between them is what the kernel
/// has put on the stack for it, with all registers.
const SIGNAL_FRAME: usize = 768;

const MOST: usize = WAIT_WORDS * size_of::<u64>() / size_of::<Noted>();

/// The low half of a counter of a crowd, and of what a thread wants.
const LOW: u64 = u32::MAX as u64;

/// A wait that is noted, in the frame that waits: it stays in its place while it is.
#[derive(Debug, Default)]
pub(crate) struct Wait {
    /// The same as in the note, 0 while there is none.
    number: u64,
}

/// Whether a wait may be one that was left.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stack {
    /// This one, with the address of a frame of the caller's.
    Usual(usize),
    /// A signal handler's own, whose addresses say nothing of the others.
    Alternate,
}

fn notes(thread: Thread) -> [*mut Noted; MOST] {
    let first = thread.waits().cast::<Noted>();
    std::array::from_fn(|index| first.wrapping_add(index))
}

impl Wait {
    /// Counts the calling thread's wait everywhere, but for the crowd, which it has joined. `false`: there was no room to
    /// note it, and it is counted nowhere.
    pub(crate) fn begin(&mut self, thread: Thread, marks: &Marks<'_>) -> bool {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // SAFETY: the thread's own memory, in which zeros are a Noted; no handler comes in the midst of this.
        let Some(free) = notes(thread).into_iter().find(|&note| unsafe { (*note).frame.is_null() }) else {
            if let Some((crowd, key)) = marks.crowd {
                leave(crowd, key.into());
            }
            return false;
        };
        marks.waiting.fetch_add(1, Ordering::Relaxed);
        if let Some(cancel) = marks.cancel {
            cancel.fetch_add(1, Ordering::AcqRel);
        }
        // Not a number that a stack is likely to hold otherwise.
        self.number = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let (crowd, key) = marks.crowd.map_or((ptr::null(), 0), |(counter, key)| (ptr::from_ref(counter), key));
        let noted = Noted {
            frame: ptr::from_ref(&self.number),
            number: self.number,
            waiting: marks.waiting,
            cancel: marks.cancel.map_or(ptr::null(), ptr::from_ref),
            crowd,
            key: key.into(),
            wants: marks.wants.map_or(ptr::null(), ptr::from_ref),
            futex: marks.futex,
            in_hand: marks.in_hand.map_or(ptr::null(), |in_hand| in_hand.word),
            owner: marks.in_hand.map_or(0, |in_hand| in_hand.owner),
            give_back: marks.in_hand.map(|in_hand| in_hand.give_back),
        };
        // SAFETY: as above.
        unsafe { free.write(noted) };
        true
    }

    /// Notes what the wait has in hand from here on.
    pub(crate) fn hold(&self, thread: Thread, in_hand: Option<InHand<'_>>) {
        for note in notes(thread) {
            // SAFETY: as in begin().
            unsafe {
                if self.number != 0 && !(*note).frame.is_null() && (*note).number == self.number {
                    (*note).in_hand = in_hand.map_or(ptr::null(), |in_hand| in_hand.word);
                    (*note).owner = in_hand.map_or(0, |in_hand| in_hand.owner);
                    (*note).give_back = in_hand.map(|in_hand| in_hand.give_back);
                }
            }
        }
    }

    /// Takes it all back, but for what it has in hand: the caller has that.
    pub(crate) fn end(&mut self, thread: Thread) {
        let number = std::mem::take(&mut self.number);
        if number == 0 {
            return;
        }
        for note in notes(thread) {
            // SAFETY: as in begin().
            unsafe {
                if !(*note).frame.is_null() && (*note).number == number {
                    (*note).give_back = None;
                    take_back(note);
                }
            }
        }
    }
}

/// Takes back what waits have counted that the calling thread is not in any more.
#[inline]
pub(crate) fn sweep(thread: Thread) {
    if are_noted(thread) {
        sweep_where(thread, is_left);
    }
}

/// Whether the calling thread has noted a wait, be it left or not.
#[inline]
pub(crate) fn are_noted(thread: Thread) -> bool {
    // SAFETY: as in begin().
    notes(thread).into_iter().any(|note| unsafe { !(*note).frame.is_null() })
}

/// Takes back what all waits of a thread have counted, which ends.
pub(crate) fn end_all(thread: Thread) {
    sweep_where(thread, |_, _| true);
}

/// The waits were a parent's.
pub(super) fn forget(thread: Thread) {
    // SAFETY: as in begin().
    unsafe { ptr::write_bytes(thread.waits(), 0, WAIT_WORDS) };
}

fn sweep_where(thread: Thread, is_over: impl Fn(&Noted, Stack) -> bool) {
    let stack = stack();
    for note in notes(thread) {
        // SAFETY: as in begin(); what it points to is there as long as it is counted there.
        unsafe {
            if !(*note).frame.is_null() && is_over(&*note, stack) {
                let sleeper = (*note).futex;
                take_back(note);
                futex::wake_one(&*sleeper);
            }
        }
    }
}

/// Whether the frame of a wait is gone. It lies far above all that was called in its midst, by a handler, and has the number
/// of the note.
fn is_left(noted: &Noted, stack: Stack) -> bool {
    match stack {
        Stack::Alternate => false,
        Stack::Usual(here) => {
            noted.frame.addr() <= here.saturating_add(SIGNAL_FRAME)
                || number_at(noted.frame).is_some_and(|now| now != noted.number)
        }
    }
}

/// What stands at that address. Asked of the kernel: it may be on another stack of the program's, which is gone. `None`: it
/// does not say.
pub(crate) fn number_at(address: *const u64) -> Option<u64> {
    let mut number = 0u64;
    let size = size_of::<u64>();
    let local = libc::iovec { iov_base: (&raw mut number).cast(), iov_len: size };
    let remote = libc::iovec { iov_base: address.cast_mut().cast(), iov_len: size };
    // SAFETY: process_vm_readv(2) writes into the number alone; what it reads need not be there.
    let count = unsafe { libc::process_vm_readv(process::pid(), &local, 1, &remote, 1, 0) };
    // SAFETY: the calling thread's own errno, without a value that would have to be dropped: the short ways come here.
    let errno = || unsafe { *libc::__errno_location() };
    match usize::try_from(count) {
        Ok(count) if count == size => Some(number),
        // The stack is gone, and the wait with it: no number is 0.
        _ if errno() == libc::EFAULT => Some(0),
        _ => None,
    }
}

fn stack() -> Stack {
    let mut alternate = std::mem::MaybeUninit::<libc::stack_t>::uninit();
    // SAFETY: sigaltstack(2) fills the struct it is given.
    let on_alternate = unsafe {
        libc::sigaltstack(ptr::null(), alternate.as_mut_ptr()) != 0
            || alternate.assume_init().ss_flags & libc::SS_ONSTACK != 0
    };
    let here = 0u8;
    if on_alternate { Stack::Alternate } else { Stack::Usual(ptr::from_ref(&here).addr()) }
}

/// # Safety
/// A note of the calling thread's.
unsafe fn take_back(note: *mut Noted) {
    // SAFETY: the caller's; what it points to is there as long as it is counted there.
    unsafe {
        let noted = ptr::replace(note, std::mem::zeroed());
        if let (Some(word), Some(give_back)) = (noted.in_hand.as_ref(), noted.give_back) {
            give_back(word, noted.owner);
        }
        // What is counted by the manager last: it keeps the segment mapped.
        if let Some(wants) = noted.wants.as_ref() {
            wants.fetch_and(!LOW, Ordering::Release);
        }
        if let Some(crowd) = noted.crowd.as_ref() {
            leave(crowd, noted.key);
        }
        if let Some(cancel) = noted.cancel.as_ref() {
            cancel.fetch_sub(1, Ordering::AcqRel);
        }
        (*noted.waiting).fetch_sub(1, Ordering::Relaxed);
    }
}

/// One less in a crowd: the key in the high half, the number of threads in the low one, all 0 where there are none.
fn leave(crowd: &AtomicU64, key: u64) {
    let one_less = |now: u64| match now & LOW {
        // A child that returns from its parent's wait finds no crowd, or one of its own.
        0 => None,
        _ if now >> u32::BITS != key => None,
        1 => Some(0),
        _ => Some(now - 1),
    };
    let _not_counted = crowd.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        waiting: AtomicU64,
        cancel: AtomicU32,
        crowd: AtomicU64,
        wants: AtomicU64,
        futex: AtomicU32,
        word: AtomicU64,
    }

    const OWNER: u64 = 77;
    const ORDER: Ordering = Ordering::Relaxed;

    impl World {
        fn new() -> Self {
            let (waiting, cancel, futex) = (AtomicU64::new(0), AtomicU32::new(0), AtomicU32::new(0));
            let word = AtomicU64::new(OWNER);
            Self {
                waiting,
                cancel,
                crowd: AtomicU64::new(7 << 32 | 3),
                wants: AtomicU64::new(9 << 32 | 5),
                futex,
                word,
            }
        }

        fn marks(&self) -> Marks<'_> {
            let (cancel, crowd, wants) = (Some(&self.cancel), Some((&self.crowd, 7)), Some(&self.wants));
            let give_back: GiveBack = |word, owner| _ = word.compare_exchange(owner, 0, ORDER, ORDER);
            let in_hand = Some(InHand { word: &self.word, owner: OWNER, give_back });
            Marks { waiting: &self.waiting, cancel, crowd, wants, futex: &self.futex, in_hand }
        }

        fn counted(&self) -> (u64, u32, u64, u64) {
            let crowd = self.crowd.load(Ordering::Relaxed) & LOW;
            let wants = self.wants.load(Ordering::Relaxed);
            (self.waiting.load(Ordering::Relaxed), self.cancel.load(Ordering::Relaxed), crowd, wants)
        }
    }

    const WAITING: (u64, u32, u64, u64) = (1, 1, 3, 9 << 32 | 5);
    const TAKEN_BACK: (u64, u32, u64, u64) = (0, 0, 2, 9 << 32);

    #[test]
    fn a_wait_takes_back_what_it_counted() {
        let (world, thread, mut wait) = (World::new(), Thread::calling(), Wait::default());
        assert!(wait.begin(thread, &world.marks()));
        assert_eq!(world.counted(), WAITING);
        wait.end(thread);
        assert_eq!(world.counted(), TAKEN_BACK);
        assert_eq!(world.word.load(ORDER), OWNER, "who ends its wait has the word");
        wait.end(thread);
        assert_eq!(world.counted(), TAKEN_BACK);
    }

    /// Leaves a wait as siglongjmp(3) does: without a word.
    #[inline(never)]
    fn leave_a_wait(world: &World) {
        let mut wait = std::hint::black_box(Wait::default());
        assert!(wait.begin(Thread::calling(), &world.marks()));
        std::hint::black_box(&mut wait);
    }

    #[inline(never)]
    fn deeper(then: impl Fn()) {
        let room = std::hint::black_box([0u8; 4096]);
        then();
        std::hint::black_box(&room);
    }

    #[test]
    fn a_wait_that_was_left_is_found_from_below_and_from_above() {
        let world = World::new();
        leave_a_wait(&world);
        sweep(Thread::calling());
        assert_eq!((world.counted(), world.word.load(ORDER)), (TAKEN_BACK, 0));
        let world = World::new();
        leave_a_wait(&world);
        // Another's by now.
        world.word.store(OWNER + 1, ORDER);
        deeper(|| sweep(Thread::calling()));
        assert_eq!((world.counted(), world.word.load(ORDER)), (TAKEN_BACK, OWNER + 1));
    }

    #[test]
    fn a_wait_that_is_nearer_than_a_handler_could_be_was_left_though_its_number_stands() {
        let (world, mut wait) = (World::new(), Wait::default());
        assert!(wait.begin(Thread::calling(), &world.marks()));
        sweep(Thread::calling());
        assert_eq!((world.counted(), wait.number == 0), (TAKEN_BACK, false));
    }

    #[test]
    fn a_wait_that_goes_on_is_left_alone_by_a_call_in_its_midst_and_ends_with_its_thread() {
        let (world, thread, mut wait) = (World::new(), Thread::calling(), Wait::default());
        assert!(wait.begin(thread, &world.marks()));
        deeper(|| {
            sweep(thread);
            let (inner, mut within) = (World::new(), Wait::default());
            assert!(within.begin(thread, &inner.marks()));
            let third = World::new();
            assert!(!Wait::default().begin(thread, &third.marks()));
            assert_eq!(third.counted(), (0, 0, 2, 9 << 32 | 5));
            within.end(thread);
            assert_eq!(inner.counted(), TAKEN_BACK);
        });
        assert_eq!(world.counted(), WAITING);
        end_all(thread);
        assert_eq!(world.counted(), TAKEN_BACK);
    }
}
