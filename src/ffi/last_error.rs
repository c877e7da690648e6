// SPDX-License-Identifier: MIT OR Apache-2.0
//! This thread's last failure. It is put into words only when it is asked for. It is in the thread's own object: a failed
//! try or unlock is recorded without an allocation, because the caller may be a signal handler that has interrupted
//! malloc(3).

use std::ffi::{CString, c_char};
use std::mem::{self, MaybeUninit};
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, Reason};
use crate::sys::thread::caller_state::BlockedSignals;
use crate::sys::thread::on_exit::{self, Destructors, ExitHook};
use crate::sys::thread::{LAST_ERROR_WORDS, Thread};

/// How many names of storages can wait to be freed. One for each handler that interrupts another is enough.
const SPARE: usize = 3;

/// All zeros: there was no failure yet.
#[repr(C)]
struct LastError {
    /// The last failure that needed an allocation.
    boxed: Option<Error>,
    /// The last failure that needed none, and its storage.
    storage: Option<Arc<PathBuf>>,
    reason: MaybeUninit<Reason>,
    /// The last refused try on `storage`: the lock and its holder, in one word, so that a handler never leaves half of it.
    held: u64,
    /// Which of the three failures is the latest.
    latest: Latest,
    /// The sentence that C asked for last.
    text: Option<CString>,
    spare: [Option<Arc<PathBuf>>; SPARE],
}

#[repr(u64)]
#[derive(Clone, Copy, PartialEq, Eq)]
enum Latest {
    None = 0,
    Boxed,
    Plain,
    Held,
}

const _: () = assert!(size_of::<LastError>() <= LAST_ERROR_WORDS * size_of::<u64>());
const _: () = {
    // SAFETY: zeros are None where the value begins with a pointer that is never null, as is checked here.
    let zeros: LastError = unsafe { mem::zeroed() };
    let [one, two, three] = &zeros.spare;
    let no_name = zeros.storage.is_none() && one.is_none() && two.is_none() && three.is_none();
    assert!(no_name && zeros.boxed.is_none() && zeros.text.is_none());
    mem::forget(zeros);
};

fn own() -> *mut LastError {
    Thread::calling().last_error().cast()
}

/// Records a failure. The caller holds signals back.
pub(super) fn set(error: Error) {
    let _forgotten_with_the_process = on_exit::arm(Thread::calling(), ExitHook::LastError, forget);
    // SAFETY: the calling thread's own memory, in which no handler comes meanwhile.
    unsafe {
        let own = &mut *own();
        own.let_go();
        own.boxed = Some(error);
        own.latest = Latest::Boxed;
    }
}

/// Records a failure of `storage`, without an allocation unless it has text of its own. The caller holds signals back.
pub(super) fn set_at(storage: &Arc<PathBuf>, reason: Reason) {
    if !reason.is_plain() {
        return set(Error::new(storage, reason));
    }
    // SAFETY: as in set().
    unsafe {
        let own = &mut *own();
        if !own.storage.as_ref().is_some_and(|known| Arc::ptr_eq(known, storage))
            && let Some(before) = own.storage.replace(Arc::clone(storage))
        {
            own.put_aside(before);
        }
        // A plain reason needs no drop.
        own.reason.write(reason);
        own.latest = Latest::Plain;
    }
    on_exit::arm_without_allocation(Thread::calling(), ExitHook::LastError, forget);
}

/// Remembers that a lock of `storage` is held, without holding signals back. `false`: the thread's last failures were of
/// another storage; nothing was done.
///
/// A handler that comes in between notes its own failure, or swaps the storage. Then the sentence may name what the handler
/// met; no part of it is ever torn.
pub(super) fn set_held(storage: &Arc<PathBuf>, id: u32, holder: u32) -> bool {
    let own = own();
    // SAFETY: the calling thread's own memory. A handler of the same thread may change it between these accesses, each of
    // which is of one word.
    unsafe {
        if !(*own).storage.as_ref().is_some_and(|known| Arc::ptr_eq(known, storage)) {
            return false;
        }
        (&raw mut (*own).held).write_volatile(u64::from(holder) << u32::BITS | u64::from(id));
        (&raw mut (*own).latest).write_volatile(Latest::Held);
    }
    true
}

impl LastError {
    /// Drops a storage's name, unless that would call free(3).
    fn put_aside(&mut self, name: Arc<PathBuf>) {
        if Arc::strong_count(&name) == 1
            && let Some(spare) = self.spare.iter_mut().find(|spare| spare.is_none())
        {
            *spare = Some(name);
        }
    }

    /// Frees everything.
    fn let_go(&mut self) {
        self.latest = Latest::None;
        drop((self.boxed.take(), self.storage.take(), mem::take(&mut self.spare)));
    }

    /// The sentence of the last failure.
    fn sentence(&self) -> Option<String> {
        match self.latest {
            Latest::None => None,
            Latest::Boxed => self.boxed.as_ref().map(Error::to_string),
            Latest::Held => {
                let (id, holder) = (self.held as u32, (self.held >> u32::BITS) as u32);
                self.storage.as_ref().map(|storage| Error::new(storage, Reason::Held { id, holder }).to_string())
            }
            Latest::Plain => {
                // SAFETY: set_at() writes the reason before it stores Latest::Plain.
                let reason = unsafe { self.reason.assume_init_ref() };
                self.storage.as_ref().map(|storage| Error::new(storage, reason.clone()).to_string())
            }
        }
    }
}

/// The last failure's sentence, or an empty one. Valid until the thread's next failure.
pub(super) fn text() -> *const c_char {
    // Here and not in set_at(): this may allocate.
    let _forgotten_with_the_process = on_exit::arm(Thread::calling(), ExitHook::LastError, forget);
    let signals = BlockedSignals::block();
    // SAFETY: as in set().
    let own = unsafe { &mut *own() };
    if let Some(sentence) = own.sentence() {
        // A sentence has no NUL, since paths are escaped. If it has one, it becomes a space.
        let fresh = CString::new(sentence.replace('\0', " ")).unwrap_or_default();
        // Keep an equal sentence in its place: the caller may have its address.
        if own.text.as_ref() != Some(&fresh) {
            own.text = Some(fresh);
        }
    }
    let text = own.text.as_ref().map_or(c"".as_ptr(), |text| text.as_ptr());
    signals.restore();
    text
}

/// Frees the thread's last failure when the thread ends.
fn forget(_thread: Thread, _destructors: Destructors) {
    // SAFETY: as in set().
    let own = unsafe { &mut *own() };
    own.let_go();
    own.text = None;
}
