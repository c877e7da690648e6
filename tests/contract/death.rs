// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holders that die, by whatever means, and who is told.

use std::ffi::c_void;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::thread;

use lock_manager::Acquired;

use super::door::{Opened, Outcome};
use super::subject::Subject;
use super::support::process::{own_tid, sleep_until_killed, until_thread_waits};
use super::support::{Child, Exit, board, eventually, fork};

const LONG_NS: u64 = 20_000_000_000;
const SHORT_NS: u64 = 30_000_000;

/// A child that holds lock 1 of a storage that was made, and then does something more.
fn holder(subject: &Subject, then: impl FnOnce()) -> Child {
    let ready = &board(1)[0];
    let child = fork(|| {
        let manager = subject.open();
        assert_eq!(manager.lock(1), Ok(Acquired::Clean));
        then();
        ready.store(1, Ordering::Release);
        sleep_until_killed();
    });
    eventually("the child holds the lock", || ready.load(Ordering::Acquire) == 1);
    child
}

pub fn a_thread_that_ends_holding_is_told_once(subject: &Subject) {
    let manager = subject.make();
    thread::scope(|scope| {
        scope.spawn(|| manager.lock(1).unwrap()).join().map(|acquired| assert_eq!(acquired, Acquired::Clean)).unwrap();
    });
    assert_eq!(manager.timed_lock(1, LONG_NS), Ok(Acquired::OwnerDied));
    manager.unlock(1).unwrap();
    assert_eq!(manager.try_lock(1), Ok(Acquired::Clean));
    // A waiter is told as well.
    thread::scope(|scope| {
        let [has_it, waiting] = [&board(1)[0], &board(1)[0]];
        let manager = &manager;
        manager.unlock(1).unwrap();
        scope.spawn(move || {
            let _ = manager.lock(1).unwrap();
            has_it.store(1, Ordering::Release);
            eventually("somebody is about to wait", || waiting.load(Ordering::Acquire) == 1);
        });
        // Not by the list, of which the C door asks several times and which must not change meanwhile.
        eventually("the thread has the lock", || has_it.load(Ordering::Acquire) == 1);
        waiting.store(1, Ordering::Release);
        assert_eq!(manager.timed_lock(1, LONG_NS), Ok(Acquired::OwnerDied));
    });
    manager.unlock(1).unwrap();
}

/// What a destructor unlocks, and what came of it.
struct Unlocks<'m> {
    manager: &'m dyn Opened,
    outcome: Mutex<Option<Outcome<()>>>,
}

extern "C" fn unlock(value: *mut c_void) {
    // SAFETY: what the test sets, which outlives the thread.
    let unlocks = unsafe { &*value.cast_const().cast::<Unlocks<'_>>() };
    *unlocks.outcome.lock().unwrap() = Some(unlocks.manager.unlock(1));
}

/// The library's hook for a thread's end runs after the program's destructors, whatever their key: one is made before the
/// library can have its own, one after.
pub fn a_destructor_of_the_programs_may_unlock(subject: &Subject) {
    let make_key = || {
        let mut key: libc::pthread_key_t = 0;
        // SAFETY: pthread_key_create(3) writes the key.
        assert_eq!(unsafe { libc::pthread_key_create(&raw mut key, Some(unlock)) }, 0);
        key
    };
    let before = make_key();
    let manager = subject.make();
    assert_eq!(manager.lock(1), Ok(Acquired::Clean));
    manager.unlock(1).unwrap();
    for key in [before, make_key()] {
        let unlocks = Unlocks { manager: &*manager, outcome: Mutex::new(None) };
        thread::scope(|scope| {
            let unlocks = &unlocks;
            scope.spawn(move || {
                assert_eq!(unlocks.manager.lock(1), Ok(Acquired::Clean));
                // SAFETY: pthread_setspecific(3) with a live key; the value outlives the destructor, which is waited for.
                assert_eq!(unsafe { libc::pthread_setspecific(key, ptr::from_ref(unlocks).cast()) }, 0);
            });
        });
        // A scope may end before its threads' destructors do.
        eventually("the destructor has run", || unlocks.outcome.lock().unwrap().is_some());
        assert_eq!(unlocks.outcome.into_inner().unwrap(), Some(Ok(())));
        assert_eq!(manager.try_lock(1), Ok(Acquired::Clean));
        manager.unlock(1).unwrap();
        // SAFETY: pthread_key_delete(3) of a key that was made above and that no thread has a value for.
        assert_eq!(unsafe { libc::pthread_key_delete(key) }, 0);
    }
}

pub fn a_killed_process_is_told_once_to_the_waiter(subject: &Subject) {
    let manager = subject.make();
    let child = holder(subject, || {});
    let (manager, tids) = (&manager, board(3));
    thread::scope(|scope| {
        let waiters = [0, 1, 2].map(|waiter| {
            scope.spawn(move || {
                tids[waiter].store(own_tid() as u32, Ordering::Release);
                let acquired = manager.timed_lock(1, LONG_NS).unwrap();
                manager.unlock(1).unwrap();
                acquired
            })
        });
        for tid in tids {
            eventually("the waiter is there", || tid.load(Ordering::Acquire) != 0);
            until_thread_waits(tid.load(Ordering::Acquire) as i32);
        }
        child.kill();
        let told = waiters.map(|waiter| waiter.join().unwrap());
        assert_eq!(told.iter().filter(|&&acquired| acquired == Acquired::OwnerDied).count(), 1, "{told:?}");
    });
}

pub fn a_killed_process_is_told_to_who_comes_later(subject: &Subject) {
    let manager = subject.make();
    holder(subject, || {}).kill();
    assert_eq!(manager.try_lock(1), Ok(Acquired::OwnerDied));
    manager.unlock(1).unwrap();
    assert_eq!(subject.open().try_lock(1), Ok(Acquired::Clean));
}

pub fn an_exec_frees_and_is_told(subject: &Subject) {
    let manager = subject.make();
    let child = fork(|| {
        let manager = subject.open();
        let _ = manager.lock(1).unwrap();
        let program = c"/bin/true";
        // SAFETY: execv(3) with a program and a list of arguments that ends with NULL.
        unsafe { libc::execv(program.as_ptr(), [program.as_ptr(), std::ptr::null()].as_ptr()) };
        panic!("{}", std::io::Error::last_os_error());
    });
    assert_eq!(child.wait(), Exit::Code(0));
    assert_eq!(manager.timed_lock(1, LONG_NS), Ok(Acquired::OwnerDied));
    manager.unlock(1).unwrap();
}

pub fn a_holder_that_closes_every_descriptor_is_not_robbed(subject: &Subject) {
    let manager = subject.make();
    let child = holder(subject, || {
        // SAFETY: close_range(2) closes what the child does not use any more.
        assert_eq!(unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) }, 0);
    });
    assert_eq!(manager.timed_lock(1, SHORT_NS), Err(libc::ETIMEDOUT));
    child.kill();
    assert_eq!(manager.timed_lock(1, LONG_NS), Ok(Acquired::OwnerDied));
    manager.unlock(1).unwrap();
}

pub fn closing_every_descriptor_frees_nothing(subject: &Subject) {
    let manager = subject.make();
    let (go, done) = (&board(1)[0], &board(1)[0]);
    let child = fork(|| {
        let manager = subject.open();
        let _ = manager.lock(1).unwrap();
        // SAFETY: close_range(2) closes what the child does not use any more.
        assert_eq!(unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) }, 0);
        // Numbers that were the library's are the program's now; it must not mistake them for its own.
        let files = [(); 8].map(|()| std::fs::File::open("/dev/null").unwrap());
        go.store(1, Ordering::Release);
        eventually("the parent has looked", || go.load(Ordering::Acquire) == 2);
        manager.unlock(1).unwrap();
        assert_eq!(manager.lock(2), Ok(Acquired::Clean));
        manager.unlock(2).unwrap();
        manager.allocate().unwrap();
        manager.close().unwrap();
        drop(manager);
        for file in &files {
            file.metadata().expect("a file of the program's was closed");
        }
        done.store(1, Ordering::Release);
    });
    eventually("the child has closed everything", || go.load(Ordering::Acquire) == 1);
    assert_eq!(manager.timed_lock(1, SHORT_NS), Err(libc::ETIMEDOUT));
    go.store(2, Ordering::Release);
    child.succeeds();
    assert_eq!(done.load(Ordering::Acquire), 1);
    // Given back, not left behind.
    assert_eq!(manager.try_lock(1), Ok(Acquired::Clean));
    manager.unlock(1).unwrap();
}

pub fn a_child_that_outlives_the_holder_keeps_nothing(subject: &Subject) {
    let manager = subject.make();
    let grandchild = &board(1)[0];
    let child = holder(subject, || {
        // SAFETY: fork(2); the child does nothing but sleep, and outlives its parent.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            sleep_until_killed();
        }
        grandchild.store(pid as u32, Ordering::Release);
    });
    child.kill();
    let told = manager.timed_lock(1, LONG_NS);
    // SAFETY: kill(2) touches no memory; the grandchild sleeps until it is killed, so the number is its own.
    assert_eq!(unsafe { libc::kill(grandchild.load(Ordering::Acquire) as i32, libc::SIGKILL) }, 0);
    assert_eq!(told, Ok(Acquired::OwnerDied));
    manager.unlock(1).unwrap();
}
