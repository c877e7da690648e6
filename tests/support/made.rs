// SPDX-License-Identifier: MIT OR Apache-2.0
//! Children and threads that the libc does not make in its usual way, or that end in an unusual one.

mod end;

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use lock_manager::Manager;

use end::End;

use super::process::{self, Child, sleep_until_killed};
use super::{errno_of, eventually};

/// A child made by the system call itself, of which the libc knows nothing.
pub fn raw_clone(body: impl FnOnce()) -> Child {
    // SAFETY: the libc's heap is idle in other threads.
    match unsafe { raw_fork() } {
        0 => process::run(body),
        pid => Child::adopt(pid),
    }
}

/// fork(2) by the system call itself: 0 in the child, whose libc may be in any state.
///
/// # Safety
///
/// What the child uses of the libc is not in use by another thread of the parent.
pub unsafe fn raw_fork() -> i32 {
    // s390x takes the stack before the flags.
    let [first, second] = if cfg!(target_arch = "s390x") { [0, libc::SIGCHLD] } else { [libc::SIGCHLD, 0] };
    // SAFETY: clone(2) without flags is fork(2), on a copy of this stack.
    unsafe { libc::syscall(libc::SYS_clone, first, second, 0, 0, 0) as i32 }
}

/// A stack for a child or context that shares the caller's memory, for the life of the process: its upper end.
pub fn stack() -> *mut c_void {
    const BYTES: usize = 1 << 20;
    let stack: &'static mut [u128] = vec![0; BYTES / size_of::<u128>()].leak();
    stack.as_mut_ptr_range().end.cast()
}

/// What a child that shares its parent's memory is given, and what it leaves.
pub struct InSharedMemory<M> {
    pub manager: M,
    pub codes: [AtomicI32; 4],
}

impl<M: Manager> InSharedMemory<M> {
    /// It lives as long as the process.
    pub fn leak(manager: M) -> &'static Self {
        Box::leak(Box::new(Self { manager, codes: Default::default() }))
    }

    /// Checks that a child is refused that takes lock 4 in every way, and releases lock 3, which its parent holds. Its `tls` is
    /// that of a thread that sleeps; the kernel notes the child's id at `own_id`.
    pub fn refuses_child_with(&self, tls: usize, own_id: Option<*mut i32>) {
        let set_id = if own_id.is_some() { libc::CLONE_CHILD_SETTID } else { 0 };
        // SAFETY: the thread that lends the TLS sleeps, and the kernel writes to no more than that.
        unsafe { self.run(Self::try_all, libc::CLONE_SETTLS | set_id, tls, own_id.unwrap_or(ptr::null_mut())) };
        let codes = self.codes.each_ref().map(|code| code.swap(0, Ordering::AcqRel));
        assert_eq!(codes, [libc::EOPNOTSUPP, libc::EOPNOTSUPP, libc::EOPNOTSUPP, libc::EPERM]);
    }

    /// Has a child of vfork(2) take lock 4.
    pub fn has_vforked_child_lock(&self) {
        // SAFETY: the parent stands still until the child, which uses its TLS, ends.
        unsafe { self.run(Self::try_one, libc::CLONE_VFORK, 0, ptr::null_mut()) };
        assert_eq!(self.codes[0].load(Ordering::Acquire), 0);
    }

    /// Runs a child that shares this memory, to its end.
    ///
    /// # Safety
    ///
    /// Nobody else uses the child's TLS meanwhile, and the kernel may write to `own_id` if the flags say so.
    unsafe fn run(&self, body: extern "C" fn(*mut c_void) -> c_int, flags: c_int, tls: usize, own_id: *mut i32) {
        let given = ptr::from_ref(self).cast_mut().cast();
        let flags = libc::CLONE_VM | libc::SIGCHLD | flags;
        // SAFETY: a stack that nobody else uses, and a value that outlives the child; the rest is the caller's promise.
        let pid = unsafe { libc::clone(body, stack(), flags, given, ptr::null_mut::<i32>(), tls, own_id) };
        Child::adopt(pid).succeeds();
    }

    extern "C" fn try_all(shared: *mut c_void) -> c_int {
        // SAFETY: the address that run() gives.
        let Self { manager, codes } = unsafe { &*shared.cast::<Self>() };
        let found = [
            errno_of(manager.lock(4)),
            errno_of(manager.try_lock(4)),
            errno_of(manager.timed_lock(4, Duration::from_secs(20))),
            errno_of(manager.unlock(3)),
        ];
        codes.iter().zip(found).for_each(|(code, found)| code.store(found, Ordering::Release));
        0
    }

    extern "C" fn try_one(shared: *mut c_void) -> c_int {
        // SAFETY: as above.
        let Self { manager, codes } = unsafe { &*shared.cast::<Self>() };
        codes[0].store(errno_of(manager.try_lock(4)), Ordering::Release);
        0
    }
}

/// The TLS that a child may be lent: that of a thread which sleeps. On x86-64 the libc's handle of a thread is its thread
/// pointer. Returns the thread's id and that handle.
pub fn lent_tls() -> (i32, usize) {
    let lent: &'static (AtomicI32, AtomicUsize) = leak(Default::default());
    thread::spawn(|| {
        lent.0.store(process::own_tid(), Ordering::Release);
        // SAFETY: pthread_self(3) takes nothing.
        lent.1.store(unsafe { libc::pthread_self() } as usize, Ordering::Release);
        sleep_until_killed();
    });
    eventually("the lender sleeps", || lent.1.load(Ordering::Acquire) != 0);
    (lent.0.load(Ordering::Acquire), lent.1.load(Ordering::Acquire))
}

/// A thread of the libc's, which may end in ways that Rust's threads must not.
#[derive(Debug)]
pub struct Pthread {
    handle: libc::pthread_t,
    end: Arc<End>,
}

type Body = Box<dyn FnOnce()>;

/// Starts a thread that runs `body`, which must be sound to run there: what it borrows outlives the thread.
pub fn pthread(body: impl FnOnce() + 'static) -> Pthread {
    extern "C" fn start(body: *mut c_void) -> *mut c_void {
        // SAFETY: made by Box::into_raw below, for this thread alone.
        let body = unsafe { Box::from_raw(body.cast::<Body>()) };
        body();
        ptr::null_mut()
    }
    let end: Arc<End> = Arc::default();
    let threads_own = Arc::clone(&end);
    let body: *mut Body = Box::into_raw(Box::new(Box::new(move || threads_own.told_of(body))));
    let mut thread = MaybeUninit::uninit();
    // SAFETY: pthread_create(3) writes the handle; the body is given to the new thread.
    let code = unsafe { libc::pthread_create(thread.as_mut_ptr(), ptr::null(), start, body.cast()) };
    assert_eq!(code, 0);
    // SAFETY: written, since it succeeded.
    Pthread { handle: unsafe { thread.assume_init() }, end }
}

impl Pthread {
    /// Waits for the thread's end, by whatever means.
    pub fn join(self) {
        if self.end.is_heard_of_by_the_libc() {
            // SAFETY: pthread_join(3) of a thread that was made above and is joined once.
            assert_eq!(unsafe { libc::pthread_join(self.handle, ptr::null_mut()) }, 0);
        }
    }

    /// Lets it go on without anybody to wait for its end.
    pub fn detach(self) {
        // SAFETY: pthread_detach(3) of a thread that was made above and is not joined.
        assert_eq!(unsafe { libc::pthread_detach(self.handle) }, 0);
    }
}

/// Ends the calling thread by the system call, of which the libc hears nothing.
pub fn raw_exit() -> ! {
    end::before_raw_exit();
    loop {
        // SAFETY: exit(2), of the system: ends this thread alone, without a look at its stack.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
}

/// A library's handle of itself in which nothing is borrowed, for threads that outlive every scope.
pub fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}
