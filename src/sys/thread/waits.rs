// SPDX-License-Identifier: MIT OR Apache-2.0
//! Undoing what a wait has counted, when the wait is left without returning.
//!
//! A signal handler may leave a wait by siglongjmp(3) or pthread_exit(3). The wait's frames then run nothing, and must not:
//! Rust lets only a panic unwind a frame that has something to clean up. So each wait writes an undo record into the
//! thread's own memory. A wait that returns undoes itself; the thread's next call, or its end, undoes an abandoned one.
//!
//! A thread can be in two waits at once, if a handler that came in the first waits, too. There is no room for the record of
//! a third: it counts nothing.

use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::object::WAIT_WORDS;
use crate::sys::probe;
use crate::sys::process;
use crate::sys::syscall::futex;
use crate::sys::thread::Thread;

/// What a wait changes elsewhere.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WaitEffects<'w> {
    /// The number of threads that wait through a manager.
    pub(crate) waiting: &'w AtomicU64,
    /// The number of waits that a cancel object may end.
    pub(crate) cancel: Option<&'w AtomicU32>,
    /// The number of threads of the process that wait for the lock, and the key of the lock in that counter.
    pub(crate) local_waiters: Option<(&'w AtomicU64, u32)>,
    /// Where the thread publishes the lock that it waits for: in the low 32 bits, which alone are cleared.
    pub(crate) published_wait: Option<&'w AtomicU64>,
    /// What it sleeps on. A wake-up that the abandoned wait has consumed is passed on to another waiter.
    pub(crate) futex: &'w AtomicU32,
    /// A lock's word that it holds while it waits for something else.
    pub(crate) held_word: Option<HeldWord<'w>>,
}

/// A word that is released if the wait is abandoned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeldWord<'w> {
    pub(crate) word: &'w AtomicU64,
    /// The owner that the word must name to be released. If it names another by then, it stays.
    pub(crate) owner: u64,
    pub(crate) release: ReleaseWord,
}

/// Releases the word. It is called with the word and its owner, by the thread whose wait it was.
pub(crate) type ReleaseWord = fn(&AtomicU64, u64);

/// [`WaitEffects`] as they stand in the thread's own memory; all zeros: no wait.
#[repr(C)]
#[derive(Clone, Copy)]
struct UndoRecord {
    /// Where the canary stands in the waiting frame; null: no wait.
    frame: *const u64,
    canary: u64,
    waiting: *const AtomicU64,
    cancel: *const AtomicU32,
    /// Where the cancel object counts the wait as a sleeper; null: it does not.
    place: *const AtomicU64,
    local_waiters: *const AtomicU64,
    key: u64,
    published_wait: *const AtomicU64,
    futex: *const AtomicU32,
    held_word: *const AtomicU64,
    owner: u64,
    release: Option<ReleaseWord>,
}

/// A handler's frames lie at least this far below those of the wait that it interrupts: the kernel puts all registers on the
/// stack between them.
const SIGNAL_FRAME: usize = 768;

const MOST_RECORDS: usize = WAIT_WORDS * size_of::<u64>() / size_of::<UndoRecord>();

/// The low half of a counter of local waiters, and of a published wait.
const LOW: u64 = u32::MAX as u64;

/// A wait with an undo record. It lives in the frame that waits, and does not move while it has one.
#[derive(Debug, Default)]
pub(crate) struct RecordedWait {
    /// The same as in the record; 0: there is none.
    canary: u64,
}

/// The stack that the caller runs on. Only from the thread's own stack can a call tell that a wait is abandoned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stack {
    /// The thread's own, with the address of a frame of the caller's.
    Usual(usize),
    /// A signal handler's (sigaltstack(2)). Its addresses do not compare with those of the waiting frames.
    Alternate,
}

fn records(thread: Thread) -> [*mut UndoRecord; MOST_RECORDS] {
    let first = thread.waits().cast::<UndoRecord>();
    std::array::from_fn(|index| first.wrapping_add(index))
}

impl RecordedWait {
    /// Writes the record and counts the wait everywhere but among the local waiters, which the caller has joined. `false`: there
    /// was no room for a record, and the wait is counted nowhere.
    pub(crate) fn begin(&mut self, thread: Thread, effects: &WaitEffects<'_>) -> bool {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // SAFETY: the thread's own memory, in which zeros are a valid UndoRecord; signals are held back meanwhile.
        let Some(free) = records(thread).into_iter().find(|&record| unsafe { (*record).frame.is_null() }) else {
            if let Some((local_waiters, key)) = effects.local_waiters {
                leave(local_waiters, key.into());
            }
            return false;
        };
        effects.waiting.fetch_add(1, Ordering::Relaxed);
        if let Some(cancel) = effects.cancel {
            cancel.fetch_add(1, Ordering::AcqRel);
        }
        // A number that a stack is not likely to hold otherwise.
        self.canary = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let (local_waiters, key) =
            effects.local_waiters.map_or((ptr::null(), 0), |(counter, key)| (ptr::from_ref(counter), key));
        let record = UndoRecord {
            frame: ptr::from_ref(&self.canary),
            canary: self.canary,
            waiting: effects.waiting,
            cancel: effects.cancel.map_or(ptr::null(), ptr::from_ref),
            place: ptr::null(),
            local_waiters,
            key: key.into(),
            published_wait: effects.published_wait.map_or(ptr::null(), ptr::from_ref),
            futex: effects.futex,
            held_word: effects.held_word.map_or(ptr::null(), |held_word| held_word.word),
            owner: effects.held_word.map_or(0, |held_word| held_word.owner),
            release: effects.held_word.map(|held_word| held_word.release),
        };
        // SAFETY: as above.
        unsafe { free.write(record) };
        true
    }

    /// Records the word that the wait holds from here on.
    pub(crate) fn set_held_word(&self, thread: Thread, held_word: Option<HeldWord<'_>>) {
        if let Some(record) = self.record(thread) {
            // SAFETY: as in begin().
            unsafe {
                (*record).held_word = held_word.map_or(ptr::null(), |held_word| held_word.word);
                (*record).owner = held_word.map_or(0, |held_word| held_word.owner);
                (*record).release = held_word.map(|held_word| held_word.release);
            }
        }
    }

    /// Lets the cancel object count the wait as a sleeper in the place that `enter` returns, and in no other. Whether there is
    /// one.
    pub(crate) fn set_place<'w>(&self, thread: Thread, enter: impl FnOnce() -> Option<&'w AtomicU64>) -> bool {
        let Some(record) = self.record(thread) else { return false };
        // SAFETY: as in begin(); a place stays as long as the wait is counted in its cancel object.
        unsafe {
            leave_place(record);
            (*record).place = enter().map_or(ptr::null(), ptr::from_ref);
            !(*record).place.is_null()
        }
    }

    fn record(&self, thread: Thread) -> Option<*mut UndoRecord> {
        // SAFETY: as in begin().
        let is_its =
            |record: &*mut UndoRecord| unsafe { !(**record).frame.is_null() && (**record).canary == self.canary };
        records(thread).into_iter().find(is_its).filter(|_| self.canary != 0)
    }

    /// Undoes everything but the held word, which stays with the caller.
    pub(crate) fn end(&mut self, thread: Thread) {
        let canary = std::mem::take(&mut self.canary);
        if canary == 0 {
            return;
        }
        for record in records(thread) {
            // SAFETY: as in begin().
            unsafe {
                if !(*record).frame.is_null() && (*record).canary == canary {
                    (*record).release = None;
                    undo(record);
                }
            }
        }
    }
}

/// How many waits of the calling thread a cancel object with that number of waits counts as sleepers.
pub(crate) fn own_sleepers(thread: Thread, cancel: &AtomicU32) -> u64 {
    // SAFETY: as in begin().
    let is_one = |record: &*mut UndoRecord| unsafe {
        !(**record).frame.is_null() && ptr::eq((**record).cancel, cancel) && !(**record).place.is_null()
    };
    records(thread).iter().filter(|record| is_one(record)).count() as u64
}

/// Undoes the calling thread's abandoned waits.
#[inline]
pub(crate) fn undo_abandoned(thread: Thread) {
    if any_recorded(thread) {
        undo_where(thread, is_abandoned);
    }
}

/// Whether the calling thread has a record, of an abandoned wait or another.
#[inline]
pub(crate) fn any_recorded(thread: Thread) -> bool {
    // SAFETY: as in begin().
    records(thread).into_iter().any(|record| unsafe { !(*record).frame.is_null() })
}

/// Undoes all waits of a thread that ends.
pub(crate) fn undo_all(thread: Thread) {
    undo_where(thread, |_, _| true);
}

/// Forgets the records in a forked child: the waits were the parent's.
pub(super) fn forget(thread: Thread) {
    // SAFETY: as in begin().
    unsafe { ptr::write_bytes(thread.waits(), 0, WAIT_WORDS) };
}

fn undo_where(thread: Thread, is_over: impl Fn(&UndoRecord, Stack) -> bool) {
    let stack = stack();
    for record in records(thread) {
        // SAFETY: as in begin(); what a record points to stays as long as the wait is counted there.
        unsafe {
            if !(*record).frame.is_null() && is_over(&*record, stack) {
                let sleeper = (*record).futex;
                probe::wait_undone(sleeper.addr() as u64, (*record).held_word.addr() as u64, (*record).owner);
                undo(record);
                futex::wake_one(&*sleeper);
            }
        }
    }
}

/// Whether the frame of a wait is gone. As long as it is there, it holds the canary and lies at least [`SIGNAL_FRAME`] above
/// everything that a handler calls.
fn is_abandoned(record: &UndoRecord, stack: Stack) -> bool {
    match stack {
        Stack::Alternate => false,
        Stack::Usual(here) => {
            record.frame.addr() <= here.saturating_add(SIGNAL_FRAME)
                || read_own_memory(record.frame).is_some_and(|now| now != record.canary)
        }
    }
}

/// Reads a word of this process through the kernel, because its address may be unmapped by now, such as another stack of the
/// program's. `Some(0)`: it is unmapped. `None`: the kernel refuses to read.
pub(crate) fn read_own_memory(address: *const u64) -> Option<u64> {
    let mut value = 0u64;
    let size = size_of::<u64>();
    let local = libc::iovec { iov_base: (&raw mut value).cast(), iov_len: size };
    let remote = libc::iovec { iov_base: address.cast_mut().cast(), iov_len: size };
    // SAFETY: process_vm_readv(2) writes into the value alone; what it reads need not be mapped.
    let count = unsafe { libc::process_vm_readv(process::pid(), &local, 1, &remote, 1, 0) };
    // SAFETY: the calling thread's own errno. Not by Errno, to have nothing to drop: the fast path comes here.
    let errno = || unsafe { *libc::__errno_location() };
    match usize::try_from(count) {
        Ok(count) if count == size => Some(value),
        // Unmapped: the stack is gone, and the wait with it. No canary is 0.
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

/// Undoes one wait, and clears its record.
///
/// # Safety
/// A record of the calling thread's.
unsafe fn undo(record: *mut UndoRecord) {
    // SAFETY: the caller's; what a record points to stays as long as the wait is counted there.
    unsafe {
        let mut record = ptr::replace(record, std::mem::zeroed());
        if let (Some(word), Some(release)) = (record.held_word.as_ref(), record.release) {
            release(word, record.owner);
        }
        // The manager's count goes last: it keeps the segment mapped.
        if let Some(published_wait) = record.published_wait.as_ref() {
            published_wait.fetch_and(!LOW, Ordering::Release);
        }
        if let Some(local_waiters) = record.local_waiters.as_ref() {
            leave(local_waiters, record.key);
        }
        leave_place(&mut record);
        // After its place: the cancel object may be freed now.
        if let Some(cancel) = record.cancel.as_ref() {
            cancel.fetch_sub(1, Ordering::AcqRel);
        }
        (*record.waiting).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes a wait out of the place in which its cancel object counts it.
///
/// # Safety
/// As for [`undo`].
unsafe fn leave_place(record: *mut UndoRecord) {
    // SAFETY: the caller's.
    unsafe {
        if let Some(place) = ptr::replace(&raw mut (*record).place, ptr::null()).as_ref() {
            place.fetch_sub(1, Ordering::Release);
        }
    }
}

/// Takes one thread off a counter of local waiters: the key is in the high half, the number of threads in the low half, and
/// the whole is 0 where none waits.
fn leave(local_waiters: &AtomicU64, key: u64) {
    let one_less = |now: u64| match now & LOW {
        // A forked child that returns from its parent's wait finds the counter empty, or in use by its own threads.
        0 => None,
        _ if now >> u32::BITS != key => None,
        1 => Some(0),
        _ => Some(now - 1),
    };
    let _not_counted = local_waiters.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        waiting: AtomicU64,
        cancel: AtomicU32,
        local_waiters: AtomicU64,
        published_wait: AtomicU64,
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
                local_waiters: AtomicU64::new(7 << 32 | 3),
                published_wait: AtomicU64::new(9 << 32 | 5),
                futex,
                word,
            }
        }

        fn effects(&self) -> WaitEffects<'_> {
            let (cancel, local_waiters, published_wait) =
                (Some(&self.cancel), Some((&self.local_waiters, 7)), Some(&self.published_wait));
            let release: ReleaseWord = |word, owner| _ = word.compare_exchange(owner, 0, ORDER, ORDER);
            let held_word = Some(HeldWord { word: &self.word, owner: OWNER, release });
            WaitEffects { waiting: &self.waiting, cancel, local_waiters, published_wait, futex: &self.futex, held_word }
        }

        fn counted(&self) -> (u64, u32, u64, u64) {
            let local_waiters = self.local_waiters.load(Ordering::Relaxed) & LOW;
            let published_wait = self.published_wait.load(Ordering::Relaxed);
            (self.waiting.load(Ordering::Relaxed), self.cancel.load(Ordering::Relaxed), local_waiters, published_wait)
        }
    }

    const WAITING: (u64, u32, u64, u64) = (1, 1, 3, 9 << 32 | 5);
    const TAKEN_BACK: (u64, u32, u64, u64) = (0, 0, 2, 9 << 32);

    #[test]
    fn a_wait_takes_back_what_it_counted() {
        let (world, thread, mut wait) = (World::new(), Thread::calling(), RecordedWait::default());
        assert!(wait.begin(thread, &world.effects()));
        assert_eq!(world.counted(), WAITING);
        wait.end(thread);
        assert_eq!(world.counted(), TAKEN_BACK);
        assert_eq!(world.word.load(ORDER), OWNER, "who ends its wait has the word");
        wait.end(thread);
        assert_eq!(world.counted(), TAKEN_BACK);
    }

    #[test]
    fn a_cancel_object_counts_a_wait_in_one_place_at_a_time() {
        let (world, thread, mut wait) = (World::new(), Thread::calling(), RecordedWait::default());
        let places = [const { AtomicU64::new(0) }; 2];
        let counted = || places.each_ref().map(|place| place.load(ORDER));
        let enter = |wait: &RecordedWait, index: usize| {
            wait.set_place(thread, || {
                places[index].fetch_add(1, ORDER);
                Some(&places[index])
            })
        };
        assert!(!enter(&wait, 0), "a wait without a record would leave its count behind");
        assert!(wait.begin(thread, &world.effects()));
        assert!(enter(&wait, 0) && enter(&wait, 1));
        assert_eq!((counted(), own_sleepers(thread, &world.cancel)), ([0, 1], 1));
        assert!(!wait.set_place(thread, || None));
        assert_eq!((counted(), own_sleepers(thread, &world.cancel)), ([0, 0], 0));
        assert!(enter(&wait, 0));
        undo_all(thread);
        assert_eq!(counted(), [0, 0]);
        wait.end(thread);
        assert_eq!(counted(), [0, 0]);
    }

    /// Leaves a wait as siglongjmp(3) does: without a word.
    #[inline(never)]
    fn leave_a_wait(world: &World) {
        let mut wait = std::hint::black_box(RecordedWait::default());
        assert!(wait.begin(Thread::calling(), &world.effects()));
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
        undo_abandoned(Thread::calling());
        assert_eq!((world.counted(), world.word.load(ORDER)), (TAKEN_BACK, 0));
        let world = World::new();
        leave_a_wait(&world);
        // Another's by now.
        world.word.store(OWNER + 1, ORDER);
        deeper(|| undo_abandoned(Thread::calling()));
        assert_eq!((world.counted(), world.word.load(ORDER)), (TAKEN_BACK, OWNER + 1));
    }

    #[test]
    fn a_wait_that_is_nearer_than_a_handler_could_be_was_left_though_its_canary_stands() {
        let (world, mut wait) = (World::new(), RecordedWait::default());
        assert!(wait.begin(Thread::calling(), &world.effects()));
        undo_abandoned(Thread::calling());
        assert_eq!((world.counted(), wait.canary == 0), (TAKEN_BACK, false));
    }

    #[test]
    fn a_wait_that_goes_on_is_left_alone_by_a_call_in_its_midst_and_ends_with_its_thread() {
        let (world, thread, mut wait) = (World::new(), Thread::calling(), RecordedWait::default());
        assert!(wait.begin(thread, &world.effects()));
        deeper(|| {
            undo_abandoned(thread);
            let (inner, mut within) = (World::new(), RecordedWait::default());
            assert!(within.begin(thread, &inner.effects()));
            let third = World::new();
            assert!(!RecordedWait::default().begin(thread, &third.effects()));
            assert_eq!(third.counted(), (0, 0, 2, 9 << 32 | 5));
            within.end(thread);
            assert_eq!(inner.counted(), TAKEN_BACK);
        });
        assert_eq!(world.counted(), WAITING);
        undo_all(thread);
        assert_eq!(world.counted(), TAKEN_BACK);
    }
}
