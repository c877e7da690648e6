// SPDX-License-Identifier: MIT OR Apache-2.0
//! However a thread ends, what it holds is a dead holder's; until the last of its destructors it may unlock.

use std::cell::RefCell;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::thread;

use lock_manager::{Acquired, Manager, ShmManager};

use super::LONG;
use super::support::alone::{alone, alone_as_root};
use super::support::made::{leak, pthread, raw_exit};
use super::support::process::{own_tid, sleep_until_killed, until_thread_waits};
use super::support::timing::{RECOVERED, mostly_within};
use super::support::{Segment, board, errno_of, eventually, fork, taken_once};

unsafe extern "C-unwind" {
    fn pthread_exit(value: *mut c_void) -> !;
    fn pause() -> i32;
}

/// A manager that no thread need give back.
fn opened(segment: &Segment) -> &'static ShmManager {
    leak(segment.open())
}

/// The lock is free, and its holder's death is told once: within the process and without.
fn assert_told_once(segment: &Segment, manager: &ShmManager) {
    assert_eq!(taken_once(manager, 3), Acquired::OwnerDied);
    fork(|| assert_eq!(taken_once(&segment.open(), 3), Acquired::Clean)).succeeds();
}

#[test]
fn by_return() {
    alone!({
        let segment = Segment::native(64);
        let manager = opened(&segment);
        pthread(move || assert_eq!(manager.lock(3).unwrap(), Acquired::Clean)).join();
        assert_told_once(&segment, manager);
    });
}

#[test]
fn by_pthread_exit() {
    alone!({
        let segment = Segment::native(64);
        let manager = opened(&segment);
        static MANAGER: AtomicPtr<ShmManager> = AtomicPtr::new(ptr::null_mut());
        MANAGER.store(ptr::from_ref(manager).cast_mut(), Ordering::Release);
        /// Has nothing to drop, since it is unwound by the libc.
        extern "C-unwind" fn start(_: *mut c_void) -> *mut c_void {
            // SAFETY: a leaked manager.
            let _ = unsafe { &*MANAGER.load(Ordering::Acquire) }.lock(3).map(drop);
            // SAFETY: pthread_exit(3) of a thread whose frames have nothing to drop.
            unsafe { pthread_exit(ptr::null_mut()) }
        }
        run_unwound(start);
        assert_told_once(&segment, manager);
    });
}

/// Runs a thread whose frames the libc may unwind, and waits for its end.
fn run_unwound(start: extern "C-unwind" fn(*mut c_void) -> *mut c_void) {
    wait_for(start_unwound(start));
}

fn start_unwound(start: extern "C-unwind" fn(*mut c_void) -> *mut c_void) -> libc::pthread_t {
    // SAFETY: the two types differ in whether they may unwind, which the libc expects.
    let start: extern "C" fn(*mut c_void) -> *mut c_void = unsafe { std::mem::transmute(start) };
    let mut thread = MaybeUninit::uninit();
    // SAFETY: pthread_create(3) writes the handle.
    assert_eq!(unsafe { libc::pthread_create(thread.as_mut_ptr(), ptr::null(), start, ptr::null_mut()) }, 0);
    // SAFETY: written, since it succeeded.
    unsafe { thread.assume_init() }
}

fn wait_for(thread: libc::pthread_t) {
    // SAFETY: pthread_join(3) of a thread that is joined once.
    assert_eq!(unsafe { libc::pthread_join(thread, ptr::null_mut()) }, 0);
}

#[test]
fn by_cancellation() {
    alone!({
        let segment = Segment::native(64);
        let manager = opened(&segment);
        static MANAGER: AtomicPtr<ShmManager> = AtomicPtr::new(ptr::null_mut());
        static HOLDS: AtomicU32 = AtomicU32::new(0);
        MANAGER.store(ptr::from_ref(manager).cast_mut(), Ordering::Release);
        extern "C-unwind" fn start(_: *mut c_void) -> *mut c_void {
            // SAFETY: a leaked manager.
            let _ = unsafe { &*MANAGER.load(Ordering::Acquire) }.lock(3).map(drop);
            HOLDS.store(1, Ordering::Release);
            loop {
                // SAFETY: pause(2) touches no memory; it is where the thread is cancelled.
                unsafe { pause() };
            }
        }
        let thread = start_unwound(start);
        eventually("the thread holds the lock", || HOLDS.load(Ordering::Acquire) == 1);
        assert_eq!(errno_of(manager.try_lock(3)), libc::EBUSY);
        // SAFETY: pthread_cancel(3) of a thread that has not been joined.
        assert_eq!(unsafe { libc::pthread_cancel(thread) }, 0);
        wait_for(thread);
        assert_told_once(&segment, manager);
    });
}

/// The main thread ends, others go on: what it held is free, and what they hold is not. musl has no contexts, and the libc
/// crate none for arm and riscv64.
#[test]
#[cfg(all(target_env = "gnu", not(any(target_arch = "arm", target_arch = "riscv64"))))]
fn by_pthread_exit_of_the_main_thread() {
    static MANAGER: AtomicPtr<ShmManager> = AtomicPtr::new(ptr::null_mut());
    extern "C-unwind" fn end_main_thread() {
        // SAFETY: pthread_exit(3) on a stack with no other frames; nothing below is to be dropped.
        unsafe { pthread_exit(ptr::null_mut()) }
    }
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let ready = &board(1)[0];
        let holder = fork(|| {
            let own = opened(&segment);
            MANAGER.store(ptr::from_ref(own).cast_mut(), Ordering::Release);
            pthread(move || {
                let _ = own.lock(4).unwrap();
                ready.store(1, Ordering::Release);
                sleep_until_killed();
            });
            eventually("the other thread has its lock", || ready.load(Ordering::Acquire) == 1);
            let _ = own.lock(3).unwrap();
            ready.store(2, Ordering::Release);
            // The libc unwinds the main thread's stack, and is given one on which there is nothing of Rust's.
            // SAFETY: all-zero bytes are a valid ucontext for getcontext(3) to fill.
            let mut context: libc::ucontext_t = unsafe { std::mem::zeroed() };
            // SAFETY: a context with a stack of its own, whose function does not return.
            unsafe {
                libc::getcontext(&raw mut context);
                let end = super::support::made::stack();
                context.uc_stack.ss_sp = end.byte_sub(1 << 20);
                context.uc_stack.ss_size = 1 << 20;
                context.uc_link = ptr::null_mut();
                let function: extern "C" fn() = std::mem::transmute(end_main_thread as extern "C-unwind" fn());
                libc::makecontext(&raw mut context, function, 0);
                libc::setcontext(&raw const context);
            }
            unreachable!("the main thread has ended");
        });
        eventually("the main thread has its lock", || ready.load(Ordering::Acquire) == 2);
        assert_eq!(manager.timed_lock(3, LONG).unwrap(), Acquired::OwnerDied);
        manager.unlock(3).unwrap();
        eventually("it is a zombie", || super::support::process::state_of(holder.pid()) == Some('Z'));
        assert_eq!(errno_of(manager.try_lock(4)), libc::EBUSY);
        assert_eq!(errno_of(manager.repair_lock(4)), libc::EBUSY);
        holder.kill();
        assert_eq!(taken_once(&manager, 4), Acquired::OwnerDied);
    });
}

#[test]
fn by_the_system_call_alone() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        mostly_within(RECOVERED, "a thread ends by the raw system call", |round| {
            let (ready, id) = (&board(2)[0], round + 3);
            let holder = fork(|| {
                let own = opened(&segment);
                pthread(move || {
                    let _ = own.lock(id).unwrap();
                    ready.store(1, Ordering::Release);
                    eventually("the waiter waits", || ready.load(Ordering::Acquire) == 2);
                    raw_exit();
                })
                .join();
                // In its own process, too: another thread on the same stack, with the libc's values of the first.
                pthread(move || {
                    let _ = own.lock(60).unwrap();
                    own.unlock(60).unwrap();
                })
                .join();
                sleep_until_killed();
            });
            eventually("the thread holds the lock", || ready.load(Ordering::Acquire) == 1);
            let times = thread::scope(|scope| {
                let tid = &board(1)[0];
                let (manager, segment) = (&manager, &segment);
                let waiter = scope.spawn(move || {
                    tid.store(own_tid() as u32, Ordering::Release);
                    assert_eq!(manager.timed_lock(id, LONG).unwrap(), Acquired::OwnerDied);
                    let end = std::time::Instant::now();
                    manager.unlock(id).unwrap();
                    fork(|| assert_eq!(taken_once(&segment.open(), id), Acquired::Clean)).succeeds();
                    end
                });
                eventually("the waiter is there", || tid.load(Ordering::Acquire) != 0);
                until_thread_waits(tid.load(Ordering::Acquire) as i32);
                let start = std::time::Instant::now();
                ready.store(2, Ordering::Release);
                waiter.join().unwrap() - start
            });
            drop(holder);
            times
        });
    });
}

/// The next thread gets the stack of one that ended by the raw system call, and with it the libc's values for its keys.
#[test]
fn a_thread_on_the_stack_of_one_that_ended_raw_is_told_of_its_own_end() {
    alone!({
        let segment = Segment::native(64);
        let manager = opened(&segment);
        for round in 0..20 {
            pthread(move || {
                let _ = manager.lock(5).unwrap();
                raw_exit();
            })
            .join();
            let late = if round % 2 == 0 { Acquired::OwnerDied } else { taken_once(manager, 5) };
            assert_eq!(late, Acquired::OwnerDied);
            pthread(move || assert_eq!(manager.lock(3).unwrap(), Acquired::Clean)).join();
            assert_eq!(taken_once(manager, 3), Acquired::OwnerDied);
            if round % 2 == 0 {
                assert_eq!(manager.timed_lock(5, LONG).unwrap(), Acquired::OwnerDied);
                manager.unlock(5).unwrap();
            }
        }
        assert_eq!(manager.locks_held().unwrap(), [0; 0]);
    });
}

/// A destructor of the program's own, made before and after the library's key.
#[test]
fn a_destructor_of_a_key_may_still_unlock() {
    static MANAGER: AtomicPtr<ShmManager> = AtomicPtr::new(ptr::null_mut());
    extern "C" fn unlock(_: *mut c_void) {
        // SAFETY: a leaked manager.
        let manager = unsafe { &*MANAGER.load(Ordering::Acquire) };
        manager.unlock(3).unwrap();
        // Even this is given back by nobody but the library.
        let _ = manager.lock(4).unwrap();
    }
    alone!({
        let segment = Segment::native(64);
        let manager = opened(&segment);
        MANAGER.store(ptr::from_ref(manager).cast_mut(), Ordering::Release);
        let mut keys = [0; 2];
        let make = |key: &mut libc::pthread_key_t| {
            // SAFETY: pthread_key_create(3) writes the key.
            assert_eq!(unsafe { libc::pthread_key_create(key, Some(unlock)) }, 0);
        };
        make(&mut keys[0]);
        assert_eq!(taken_once(manager, 1), Acquired::Clean);
        make(&mut keys[1]);
        for key in keys {
            pthread(move || {
                let _ = manager.lock(3).unwrap();
                // SAFETY: pthread_setspecific(3) with a live key; the value is never followed.
                assert_eq!(unsafe { libc::pthread_setspecific(key, ptr::without_provenance(1)) }, 0);
            })
            .join();
            assert_eq!(taken_once(manager, 3), Acquired::Clean);
            assert_eq!(taken_once(manager, 4), Acquired::OwnerDied);
        }
    });
}

#[test]
fn a_destructor_of_a_rust_thread_local_may_still_unlock() {
    struct Unlocks(&'static ShmManager);
    impl Drop for Unlocks {
        fn drop(&mut self) {
            self.0.unlock(3).unwrap();
        }
    }
    thread_local!(static LATE: RefCell<Option<Unlocks>> = const { RefCell::new(None) });
    alone!({
        let segment = Segment::native(64);
        let manager = opened(&segment);
        for is_first in [true, false] {
            let set = || LATE.with(|late| *late.borrow_mut() = Some(Unlocks(manager)));
            thread::spawn(move || {
                if is_first {
                    set();
                }
                let _ = manager.lock(3).unwrap();
                if !is_first {
                    set();
                }
            })
            .join()
            .unwrap();
            assert_eq!(taken_once(manager, 3), Acquired::Clean);
        }
    });
}

/// A daemon that opens the segment and then goes where there is no /proc.
#[test]
fn a_raw_ended_thread_of_ones_own_process_is_dead_where_there_is_no_proc() {
    alone_as_root!({
        let segment = Segment::native(64);
        fork(|| {
            let manager = leak(segment.open());
            // SAFETY: chroot(2) reads the path.
            assert_eq!(unsafe { libc::chroot(c"/dev/shm".as_ptr()) }, 0);
            pthread(|| {
                let _ = manager.lock(3).unwrap();
                raw_exit();
            })
            .join();
            assert_eq!(manager.timed_lock(3, std::time::Duration::from_secs(5)).unwrap(), Acquired::OwnerDied);
        })
        .succeeds();
    });
}
