// SPDX-License-Identifier: MIT OR Apache-2.0
//! The calling thread: a local_id that names it in this process, and how many robust mutexes it holds.

pub(crate) mod caller_state;
pub(crate) mod on_exit;
pub(crate) mod waits;

use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::Errno;
use crate::sys::mutex;
use crate::sys::process::Process;

/// How many bits a local_id has, so that others may share a word with it.
pub(crate) const LOCAL_ID_BITS: u32 = 40;

/// A local_id in such a word.
pub(crate) const LOCAL_ID_MASK: u64 = (1 << LOCAL_ID_BITS) - 1;

/// Where the fields of thread.c's object stand.
mod field {
    pub(super) const EPOCH: usize = 0;
    pub(super) const LOCAL_ID: usize = 8;
    pub(super) const HELD: usize = 16;
    pub(super) const INSIDE: usize = 24;
    /// The epoch in which the thread got its local_id and id. Apart from EPOCH, which vouches for the libc as well.
    pub(super) const IDENTIFIED: usize = 32;
    pub(super) const ID: usize = 40;
    /// The attachment to a native segment that the thread entered last.
    pub(super) const LAST_ATTACHMENT: usize = 48;
    /// The thread's part of a lock word, the same in every segment; 0: it has none yet.
    pub(super) const SERIAL_BITS: usize = 56;
    /// How many locks of native segments the thread owns, or is about to: exclusive ones count 1, shared ones
    /// [`READING`](super::READING).
    pub(super) const HELD_NATIVE: usize = 64;
    /// Whether the thread's end is going to be noticed, and how far it has come; see `on_exit`.
    pub(super) const EXIT_ROUND: usize = 72;
    /// How many calls of the thread have what guards the ids of a libpod segment: two, if one came in a signal handler.
    pub(super) const INSIDE_POOL: usize = 80;
    /// The address of a cell that the thread is about to claim, or has claimed and not looked behind yet; 0: none.
    pub(super) const CLAIMING: usize = 88;
    /// As whose.
    pub(super) const CLAIMED_AS: usize = 96;
    /// How often the thread met other readers in a lock's cells.
    pub(super) const MET: usize = 104;
    /// See `waits`.
    pub(super) const WAITS: usize = 112;
    /// See [`Thread::last_error`](super::Thread::last_error).
    pub(super) const LAST_ERROR: usize = 288;
    /// How the thread backs off from locks that others want all the time.
    pub(super) const PACE: usize = 416;
}

/// Words that a thread has for its waits.
const WAIT_WORDS: usize = 22;
/// Words that a thread has for its last error.
pub(crate) const LAST_ERROR_WORDS: usize = 16;

/// What a shared hold counts among the locks that a thread owns. In one instruction's operand, and more than it can own
/// exclusively.
const READING: i64 = 1 << 30;

/// No attachment's number.
const NO_ATTACHMENT: u64 = 1;

/// Serials of threads. Inherited by children on purpose: a local_id is never that of a thread of an ancestor.
static NEXT_LOCAL_ID: AtomicU64 = AtomicU64::new(1);

/// Has the code stay where it is for good: in a plugin that is unloaded, the end of a thread would go nowhere.
pub(in crate::sys) fn stay_loaded() {
    unsafe extern "C" {
        fn lock_manager_stay_loaded();
    }
    // SAFETY: thread.c's function of that name takes nothing and may be called at any time.
    unsafe { lock_manager_stay_loaded() };
}

/// The calling thread's own object. Not `Send`: it is only where the calling thread finds it.
#[derive(Clone, Copy)]
pub(crate) struct Thread {
    /// On x86-64 the object's distance from the thread pointer, elsewhere its address.
    place: *mut u64,
}

/// The caller is a child made behind the libc's back, which must not lock in its parent's name.
pub(crate) struct ClonedChild;

/// Why a thread may not take robust mutexes.
pub(crate) enum NotEntered {
    /// See [`ClonedChild`].
    ClonedChild,
    /// A sandbox forbids to ask whether the kernel would hear of its death.
    Forbidden,
}

#[cfg(target_arch = "x86_64")]
impl Thread {
    /// The calling thread as this library last knew it, without asking whether that was before a fork.
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
    fn load<const FIELD: usize>(self) -> u64 {
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

    /// In one instruction: it stands between two locked ones.
    #[inline(always)]
    fn add<const FIELD: usize, const VALUE: i64>(self) {
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

    /// Makes the field 0 if it is `expected`, in one instruction, half as dear as an exchange: a signal handler of the same
    /// thread comes before it or after. Whether it was. Otherwise, and if the field was 0, it is what is no address.
    #[inline(always)]
    fn subtract<const FIELD: usize>(self, expected: u64) -> bool {
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
    fn store<const FIELD: usize>(self, value: u64) {
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

#[cfg(not(target_arch = "x86_64"))]
impl Thread {
    /// The calling thread as this library last knew it, without asking whether that was before a fork.
    #[inline(always)]
    pub(crate) fn calling() -> Self {
        Self { place: Self::object() }
    }

    #[inline(always)]
    fn load<const FIELD: usize>(self) -> u64 {
        // SAFETY: a field of the calling thread's own object, which no other thread touches.
        unsafe { self.place.byte_add(FIELD).read() }
    }

    /// In one step for a signal handler of the same thread, which may come in the midst of a load and a store.
    #[inline(always)]
    fn add<const FIELD: usize, const VALUE: i64>(self) {
        // SAFETY: as for load; the field has the alignment of its type.
        let field = unsafe { AtomicU64::from_ptr(self.place.byte_add(FIELD)) };
        field.fetch_add(VALUE.cast_unsigned(), Ordering::Relaxed);
    }

    /// As on x86-64.
    #[inline(always)]
    fn subtract<const FIELD: usize>(self, expected: u64) -> bool {
        // SAFETY: as for add.
        let field = unsafe { AtomicU64::from_ptr(self.place.byte_add(FIELD)) };
        field.fetch_sub(expected, Ordering::Relaxed) == expected
    }

    #[inline(always)]
    fn store<const FIELD: usize>(self, value: u64) {
        // SAFETY: as for load.
        unsafe { self.place.byte_add(FIELD).write(value) }
    }
}

impl Thread {
    /// The calling thread, known to belong to this process as the libc sees it.
    #[inline(always)]
    pub(crate) fn enter(process: &Process) -> Result<Self, NotEntered> {
        let thread = Self::calling();
        if thread.has_entered(process) { Ok(thread) } else { thread.enter_first(process) }
    }

    /// Whether the thread has entered since its process was made.
    #[inline(always)]
    pub(crate) fn has_entered(self, process: &Process) -> bool {
        self.load::<{ field::EPOCH }>() == process.epoch()
    }

    /// The first call of a thread, or of a thread after a fork.
    #[cold]
    fn enter_first(self, process: &Process) -> Result<Self, NotEntered> {
        self.identify(process).map_err(|ClonedChild| NotEntered::ClonedChild)?;
        // First: in a raw clone the libc's list of held mutexes is a copy of the parent's, and a robust mutex taken even
        // for a try would write into the parent's mutex at its head.
        match has_robust_list() {
            Ok(true) if u64::from(mutex::libc_thread_id()) == self.id() => {}
            Ok(_) => return Err(NotEntered::ClonedChild),
            Err(Errno(_)) => return Err(NotEntered::Forbidden),
        }
        self.store::<{ field::HELD }>(0);
        self.store::<{ field::EPOCH }>(process.epoch());
        Ok(self)
    }

    /// The calling thread with its local_id and id. For locks that are no mutexes of the libc's: a child cloned behind
    /// its back is as good as any, unless it shares its parent's memory.
    #[inline]
    pub(crate) fn identified(process: &Process) -> Result<Self, ClonedChild> {
        let thread = Self::calling();
        if thread.load::<{ field::IDENTIFIED }>() == process.epoch() { Ok(thread) } else { thread.identify(process) }
    }

    #[cold]
    fn identify(self, process: &Process) -> Result<Self, ClonedChild> {
        let epoch = process.begin_epoch();
        if !process.is_caller() {
            return Err(ClonedChild);
        }
        if self.load::<{ field::IDENTIFIED }>() != epoch {
            let local_id = NEXT_LOCAL_ID.fetch_add(1, Ordering::Relaxed) & LOCAL_ID_MASK;
            self.store::<{ field::LOCAL_ID }>(local_id);
            self.store::<{ field::ID }>(kernel_thread_id().into());
            self.forget_native();
            waits::forget(self);
            self.store::<{ field::IDENTIFIED }>(epoch);
        }
        Ok(self)
    }

    /// The thread's id in its PID namespace; of a thread that was named.
    #[inline]
    pub(crate) fn id(self) -> u64 {
        self.load::<{ field::ID }>()
    }

    /// Names the thread in this process; 0 before it first entered.
    #[inline(always)]
    pub(crate) fn local_id(self) -> u64 {
        self.load::<{ field::LOCAL_ID }>()
    }

    /// How many robust mutexes the thread holds through this library.
    #[inline(always)]
    pub(crate) fn held(self) -> u64 {
        self.load::<{ field::HELD }>()
    }

    #[inline(always)]
    pub(crate) fn count_acquired(self) {
        self.add::<{ field::HELD }, 1>();
    }

    /// What is released was acquired, so the count is not 0.
    #[inline(always)]
    pub(crate) fn count_released(self) {
        self.add::<{ field::HELD }, { -1 }>();
    }

    /// Whether what the thread knows of itself is of this process and not of a parent.
    pub(crate) fn is_identified_in(self, process: &Process) -> bool {
        self.load::<{ field::IDENTIFIED }>() == process.epoch()
    }

    /// Whether attachment `attachment` is the one that the thread entered last. Then it has a name.
    #[inline(always)]
    pub(crate) fn last_entered(self, attachment: u64) -> bool {
        self.load::<{ field::LAST_ATTACHMENT }>() == attachment
    }

    /// Notes that the thread, which has a name, has entered an attachment.
    pub(crate) fn note_entered(self, attachment: u64) {
        self.store::<{ field::LAST_ATTACHMENT }>(attachment);
    }

    /// How many locks of native segments the thread owns, or is about to.
    pub(crate) fn held_native(self) -> u64 {
        self.load::<{ field::HELD_NATIVE }>()
    }

    #[inline(always)]
    pub(crate) fn count_native_lock(self) {
        self.add::<{ field::HELD_NATIVE }, 1>();
    }

    #[inline(always)]
    pub(crate) fn count_native_unlock(self) {
        self.add::<{ field::HELD_NATIVE }, { -1 }>();
    }

    /// Whether the thread reads a lock that it owns itself, or is about to.
    #[inline(always)]
    pub(crate) fn is_reading(self) -> bool {
        self.held_native() >= READING as u64
    }

    /// Notes that the thread is about to claim that cell. What was noted before is over.
    ///
    /// It stands there until the thread has seen that it holds the lock: whatever call of the thread's comes before that
    /// finds a claim that was left by a jump out of a signal handler, or that its own handler interrupted, and gives the
    /// cell back. Who was interrupted finds that in [`end_claim`](Self::end_claim), and begins anew.
    #[inline(always)]
    pub(crate) fn begin_claim(self, cell: &AtomicU64, owner: u64) {
        // First: what is noted is counted, so that it can be taken back.
        self.add::<{ field::HELD_NATIVE }, READING>();
        self.store::<{ field::CLAIMED_AS }>(owner);
        self.store::<{ field::CLAIMING }>(ptr::from_ref(cell).addr() as u64);
    }

    /// The claim is one no more. `false`: it was given back meanwhile.
    #[inline(always)]
    pub(crate) fn end_claim(self, cell: &AtomicU64) -> bool {
        let is_its = self.subtract::<{ field::CLAIMING }>(ptr::from_ref(cell).addr() as u64);
        if !is_its {
            self.store::<{ field::CLAIMING }>(0);
        }
        is_its
    }

    /// The same of one that came to nothing.
    #[inline(always)]
    pub(crate) fn abandon_claim(self, cell: &AtomicU64) {
        if self.end_claim(cell) {
            self.count_shared_unlock();
        }
    }

    /// Whether the thread has begun to claim that cell, and nobody has ended that.
    pub(crate) fn claims(self, cell: &AtomicU64) -> bool {
        self.load::<{ field::CLAIMING }>() == ptr::from_ref(cell).addr() as u64
    }

    /// Whether the thread has begun to claim a cell.
    #[inline(always)]
    pub(crate) fn is_claiming(self) -> bool {
        self.load::<{ field::CLAIMING }>() != 0
    }

    /// The address of a cell that the thread has begun to claim, and as whose.
    pub(crate) fn claim(self) -> Option<(u64, u64)> {
        /// What is left of an address where [`end_claim`](Thread::end_claim) found that another call had ended the claim.
        const NO_ADDRESS: u64 = 1 << 63;
        match self.load::<{ field::CLAIMING }>() {
            0 => None,
            left if left & NO_ADDRESS != 0 => {
                self.store::<{ field::CLAIMING }>(0);
                None
            }
            address => Some((address, self.load::<{ field::CLAIMED_AS }>())),
        }
    }

    /// The same as [`abandon_claim`](Self::abandon_claim), of what [`claim`](Self::claim) said.
    pub(crate) fn forget_claim(self, address: u64) {
        if self.subtract::<{ field::CLAIMING }>(address) {
            self.count_shared_unlock();
        } else {
            self.store::<{ field::CLAIMING }>(0);
        }
    }

    /// Notes that the thread owns a shared hold, or is about to.
    #[inline(always)]
    pub(crate) fn count_shared_lock(self) {
        self.add::<{ field::HELD_NATIVE }, READING>();
    }

    #[inline(always)]
    pub(crate) fn count_shared_unlock(self) {
        self.add::<{ field::HELD_NATIVE }, { -READING }>();
    }

    /// What the native layout's waits keep of how the thread backs off; 0 at first.
    pub(crate) fn pace(self) -> u64 {
        self.load::<{ field::PACE }>()
    }

    pub(crate) fn set_pace(self, pace: u64) {
        self.store::<{ field::PACE }>(pace);
    }

    /// Counts that the thread met other readers. Whether that was one time in `often`, a power of two.
    #[inline(always)]
    pub(crate) fn meets_others(self, often: u64) -> bool {
        self.add::<{ field::MET }, 1>();
        self.load::<{ field::MET }>() & (often - 1) == 0
    }

    /// The thread's part of a lock word of a native segment; 0: it has none yet. Once given it stays until the thread ends
    /// or forks: a signal handler that comes between two reads finds and leaves the same.
    #[inline(always)]
    pub(crate) fn serial_bits(self) -> u64 {
        self.load::<{ field::SERIAL_BITS }>()
    }

    pub(crate) fn set_serial_bits(self, bits: u64) {
        self.store::<{ field::SERIAL_BITS }>(bits);
    }

    fn exit_round(self) -> u64 {
        self.load::<{ field::EXIT_ROUND }>()
    }

    fn set_exit_round(self, round: u64) {
        self.store::<{ field::EXIT_ROUND }>(round);
    }

    /// What the thread knows of native segments is of a parent, or over.
    pub(crate) fn forget_native(self) {
        self.store::<{ field::LAST_ATTACHMENT }>(NO_ATTACHMENT);
        self.store::<{ field::SERIAL_BITS }>(0);
        self.store::<{ field::HELD_NATIVE }>(0);
        self.store::<{ field::CLAIMING }>(0);
        self.store::<{ field::EXIT_ROUND }>(0);
    }

    /// Where the thread keeps what its waits have counted.
    fn waits(self) -> *mut u64 {
        Self::object().wrapping_byte_add(field::WAITS)
    }

    /// Where the thread keeps its last error: zeros at first, its own alone, and there before anything can fail.
    pub(crate) fn last_error(self) -> *mut u64 {
        Self::object().wrapping_byte_add(field::LAST_ERROR)
    }

    fn object() -> *mut u64 {
        unsafe extern "C" {
            fn lock_manager_this_thread_address() -> *mut u64;
        }
        // SAFETY: the function of thread.c takes nothing and returns the address of the thread's own object.
        unsafe { lock_manager_this_thread_address() }
    }

    /// Notes that the thread has, or is about to take, what guards the ids of a libpod segment.
    #[inline(always)]
    pub(crate) fn count_inside_pool(self) {
        self.add::<{ field::INSIDE_POOL }, 1>();
    }

    #[inline(always)]
    pub(crate) fn count_outside_pool(self) {
        self.add::<{ field::INSIDE_POOL }, { -1 }>();
    }

    pub(crate) fn is_inside_pool(self) -> bool {
        self.load::<{ field::INSIDE_POOL }>() != 0
    }

    /// Whether the thread is inside of an exported function.
    pub(crate) fn is_inside(self) -> bool {
        self.load::<{ field::INSIDE }>() != 0
    }

    pub(crate) fn set_inside(self, inside: bool) {
        self.store::<{ field::INSIDE }>(inside.into());
    }
}

/// Whether the kernel knows where the caller's list of robust mutexes is. The libc tells it at the start of each thread
/// and after fork(3); a child made behind its back has none, and nobody would hear of its death. `Err`: it does not say.
fn has_robust_list() -> Result<bool, Errno> {
    let (mut head, mut length) = (std::ptr::null_mut::<u8>(), 0usize);
    // SAFETY: get_robust_list(2) writes the two values, both alive; 0 is the caller.
    match unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut length) } {
        0 => Ok(!head.is_null()),
        _ => Err(Errno::last()),
    }
}

/// The caller's thread id, asked of the kernel.
fn kernel_thread_id() -> u32 {
    // SAFETY: gettid(2) takes nothing and cannot fail.
    unsafe { libc::gettid() as u32 }
}
