// SPDX-License-Identifier: MIT OR Apache-2.0
//! The calls of a backend's table, as safe functions.
//!
//! The contract that the unsafe blocks argue from is the one that `lock_manager_open_backend()` states: the table and the
//! state are a backend's, and the state lives until `close`, which is called once, when the [`Calls`] are dropped.

#![allow(unsafe_code, reason = "calls of functions of another library")]

use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::shm::Outcome;
use crate::{Errno, Reason};

use super::table::{
    LOCK_MANAGER_SLEEP, lock_manager_backend_lock_t, lock_manager_backend_t, lock_manager_request_t,
    lock_manager_sleep_t,
};
use crate::manager::Acquired;
use crate::sys::syscall::clock::Instant;

/// A backend's table and state.
pub(super) struct Calls {
    table: lock_manager_backend_t,
    state: *mut c_void,
    stays_open: AtomicBool,
}

// SAFETY: the contract: any thread may call the functions, and several at a time.
unsafe impl Send for Calls {}
// SAFETY: as above.
unsafe impl Sync for Calls {}

/// Calls one function of the table.
macro_rules! ask {
    ($self:ident.$function:ident($($argument:expr),*)) => {
        match $self.table.$function {
            // SAFETY: the contract; all pointers are to locals.
            Some(function) => $self.understood(unsafe { function($self.state, $($argument),*) }),
            None => Err(Reason::Unsupported("the backend's table has no function for this call")),
        }
    };
}

/// What a step of a backend's acquisition came to.
pub(super) enum Step {
    Acquired(Acquired),
    Sleep(BackendSleep),
}

/// How to sleep before the next step.
#[derive(Debug, Clone, Copy)]
pub(super) struct BackendSleep {
    word: *const u32,
    pub(super) value: u32,
    pub(super) until: Instant,
}

impl BackendSleep {
    /// The word to sleep on. The contract: it stays until `leave` was called, which its acquisition calls at its end.
    pub(super) fn word(&self) -> &AtomicU32 {
        // SAFETY: the contract; the word is one that several threads use, so as an atomic.
        unsafe { &*self.word.cast::<AtomicU32>() }
    }
}

/// An acquisition that a backend has begun.
pub(super) struct Begun(*mut c_void);

impl Calls {
    /// # Safety
    /// `table` points to a table of as many bytes as its `size` says, and `state` is what its functions want.
    pub(super) unsafe fn new(table: *const lock_manager_backend_t, state: *mut c_void) -> Outcome<Self> {
        const REFUSED: Reason =
            Reason::BadArgument("the backend's table has another size than in any version; set it to its sizeof");
        if table.is_null() {
            return Err(Reason::BadArgument("the backend's table is NULL; give one with its size field set"));
        }
        // SAFETY: this function's own contract; the size is the first field. Functions that a later version has appended
        // are not called.
        let table = unsafe {
            if (*table).size < size_of::<lock_manager_backend_t>() {
                return Err(REFUSED);
            }
            table.read()
        };
        Ok(Self { table, state, stays_open: AtomicBool::new(false) })
    }

    pub(super) fn state_if_of(&self, close: *const c_void) -> Option<*mut c_void> {
        let own = self.table.close.map(|function| function as *const c_void);
        (own == Some(close)).then_some(self.state)
    }

    /// Has the backend keep what is held: it is not closed when its manager is dropped.
    pub(super) fn stay_open(&self) {
        self.stays_open.store(true, Ordering::Relaxed);
    }

    fn understood(&self, code: i32) -> Outcome<i32> {
        if code >= 0 {
            return Ok(code);
        }
        // SAFETY: the contract: NULL, or a string that is valid until the thread's next failing call.
        let text = self.table.last_error.map(|function| unsafe { function(self.state) }).filter(|text| !text.is_null());
        // SAFETY: as above.
        let text = text.map(|text| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned());
        let errno = Errno(code.saturating_neg());
        Err(Reason::OfBackend { errno, text: text.unwrap_or_else(|| "the backend gave no reason".to_owned()) })
    }

    fn count(&self, function: Option<unsafe extern "C" fn(*mut c_void, *mut u32) -> i32>) -> Outcome<u32> {
        let mut count = 0;
        match function {
            // SAFETY: the contract; the count is a local.
            Some(function) => self.understood(unsafe { function(self.state, &raw mut count) })?,
            None => return Err(Reason::Unsupported("the backend's table has no function for this call")),
        };
        Ok(count)
    }

    pub(super) fn num_locks(&self) -> Outcome<u32> {
        self.count(self.table.num_locks)
    }

    pub(super) fn available_locks(&self) -> Outcome<u32> {
        self.count(self.table.available_locks)
    }

    pub(super) fn allocate_lock(&self) -> Outcome<u32> {
        self.count(self.table.allocate_lock)
    }

    pub(super) fn allocate_given(&self, id: u32) -> Outcome<()> {
        ask!(self.allocate_given(id)).map(|_| ())
    }

    pub(super) fn free_lock(&self, id: u32) -> Outcome<()> {
        ask!(self.free_lock(id)).map(|_| ())
    }

    pub(super) fn free_all_locks(&self) -> Outcome<()> {
        ask!(self.free_all_locks()).map(|_| ())
    }

    pub(super) fn begin(&self, request: &lock_manager_request_t) -> Outcome<Begun> {
        let mut wait = ptr::null_mut();
        ask!(self.begin(ptr::from_ref(request), &raw mut wait))?;
        Ok(Begun(wait))
    }

    pub(super) fn step(&self, begun: &Begun) -> Outcome<Step> {
        let size = size_of::<lock_manager_sleep_t>();
        let mut sleep = lock_manager_sleep_t { size, word: ptr::null(), value: 0, until_ns: 0 };
        Ok(match ask!(self.step(begun.0, &raw mut sleep))? {
            LOCK_MANAGER_SLEEP if !sleep.word.is_null() => {
                let until = Instant::from_nanoseconds(sleep.until_ns);
                Step::Sleep(BackendSleep { word: sleep.word, value: sleep.value, until })
            }
            LOCK_MANAGER_SLEEP => return Err(Reason::BadArgument("the backend says to sleep on no word")),
            0 => Step::Acquired(Acquired::Clean),
            _ => Step::Acquired(Acquired::OwnerDied),
        })
    }

    pub(super) fn leave(&self, begun: Begun) {
        if let Some(function) = self.table.leave {
            // SAFETY: the contract; what was begun is left once.
            unsafe { function(self.state, begun.0) }
        }
    }

    pub(super) fn release(&self, id: u32, is_wanted_here: u32) -> Outcome<()> {
        ask!(self.release(id, is_wanted_here)).map(|_| ())
    }

    /// Whether the host may keep locks.
    #[inline]
    pub(super) fn keeps(&self) -> bool {
        self.table.take_kept.is_some() && self.table.keep.is_some()
    }

    /// Whether the caller, which has the native lock, has the lock now.
    #[inline]
    pub(super) fn take_kept(&self, id: u32) -> bool {
        // SAFETY: the contract.
        self.table.take_kept.is_some_and(|function| unsafe { function(self.state, id) } != 0)
    }

    /// Whether the host keeps the lock now, of which the caller has the native one.
    #[inline]
    pub(super) fn keep(&self, id: u32, is_wanted_here: u32) -> bool {
        // SAFETY: the contract.
        self.table.keep.is_some_and(|function| unsafe { function(self.state, id, is_wanted_here) } != 0)
    }

    pub(super) fn lock_info(&self, id: u32) -> Outcome<lock_manager_backend_lock_t> {
        let size = size_of::<lock_manager_backend_lock_t>();
        let mut info = lock_manager_backend_lock_t { size, ..Default::default() };
        ask!(self.lock_info(id, &raw mut info))?;
        Ok(info)
    }

    pub(super) fn locks_held(&self) -> Outcome<Vec<u32>> {
        let (mut ids, mut count) = (Vec::new(), 0);
        loop {
            ask!(self.locks_held(ids.as_mut_ptr(), ids.len(), &raw mut count))?;
            if count <= ids.len() {
                ids.truncate(count);
                return Ok(ids);
            }
            ids.resize(count, 0);
        }
    }

    pub(super) fn fencing_token(&self, id: u32) -> Outcome<u64> {
        let mut token = 0;
        ask!(self.fencing_token(id, &raw mut token))?;
        Ok(token)
    }

    pub(super) fn lost_fd(&self) -> Outcome<i32> {
        let mut descriptor = -1;
        ask!(self.lost_fd(&raw mut descriptor))?;
        Ok(descriptor)
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        if let (Some(function), false) = (self.table.close, self.stays_open.load(Ordering::Relaxed)) {
            // SAFETY: the contract: the last call.
            unsafe { function(self.state) }
        }
    }
}
