// SPDX-License-Identifier: MIT OR Apache-2.0
//! Backends in other libraries: the core calls a table, beneath the native locks. The table here is one of a few lines, which
//! plays what a cluster may do.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing helper is a failing test")]

use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use lock_manager::{Acquired, Cancel, InMemoryManager, Kind, Manager, Ownership, PluggedManager};

/// What the library declares in `lock_manager.h`.
#[path = "../src/plugged/table.rs"]
#[allow(dead_code, missing_docs, reason = "the core's own file; not all of it is used here")]
mod table;

use table::{
    LOCK_MANAGER_REQUEST_OWNER_DIED, LOCK_MANAGER_REQUEST_TRY, LOCK_MANAGER_SLEEP, lock_manager_backend_lock_t,
    lock_manager_backend_t, lock_manager_request_t, lock_manager_sleep_t,
};

const NUM_LOCKS: u32 = 10;
const SLEEPS: i32 = i32::MIN;

/// A backend that says what the test has written into it.
#[derive(Default)]
struct Fake {
    /// What a step returns; [`SLEEPS`]: that the caller is to sleep.
    outcome: AtomicI32,
    released: AtomicI32,
    word: AtomicU32,
    begun: AtomicI32,
    left: AtomicI32,
    closed: AtomicI32,
    /// Whether the host keeps the lock, and whether it may.
    kept: AtomicU32,
    may_keep: AtomicU32,
    /// How often a kept lock was taken.
    taken: AtomicI32,
    requests: Mutex<Vec<lock_manager_request_t>>,
    releases: Mutex<Vec<(u32, u32)>>,
}

unsafe fn fake<'f>(state: *mut c_void) -> &'f Fake {
    // SAFETY: each state of these tests is a Fake that is never freed.
    unsafe { &*state.cast::<Fake>() }
}

unsafe extern "C" fn close(state: *mut c_void) {
    // SAFETY: as above.
    unsafe { fake(state) }.closed.fetch_add(1, Ordering::SeqCst);
}
unsafe extern "C" fn last_error(_: *mut c_void) -> *const c_char {
    c"the fake cluster is asleep; wake it".as_ptr()
}
unsafe extern "C" fn num_locks(_: *mut c_void, count: *mut u32) -> i32 {
    // SAFETY: the core's own pointer.
    unsafe { count.write(NUM_LOCKS) };
    0
}
unsafe extern "C" fn count(_: *mut c_void, count: *mut u32) -> i32 {
    // SAFETY: as above.
    unsafe { count.write(7) };
    0
}
unsafe extern "C" fn on_id(_: *mut c_void, _: u32) -> i32 {
    -libc::EHOSTUNREACH
}
unsafe extern "C" fn on_all(_: *mut c_void) -> i32 {
    0
}
unsafe extern "C" fn begin(state: *mut c_void, request: *const lock_manager_request_t, wait: *mut *mut c_void) -> i32 {
    // SAFETY: the core's own pointers.
    unsafe {
        fake(state).requests.lock().unwrap().push(*request);
        fake(state).begun.fetch_add(1, Ordering::SeqCst);
        wait.write(state);
    }
    0
}
unsafe extern "C" fn step(state: *mut c_void, wait: *mut c_void, sleep: *mut lock_manager_sleep_t) -> i32 {
    assert_eq!(state, wait);
    // SAFETY: as above.
    let fake = unsafe { fake(state) };
    match fake.outcome.load(Ordering::SeqCst) {
        SLEEPS => {
            let size = size_of::<lock_manager_sleep_t>();
            // SAFETY: as above.
            unsafe {
                sleep.write(lock_manager_sleep_t { size, word: fake.word.as_ptr(), value: 0, until_ns: u64::MAX })
            };
            LOCK_MANAGER_SLEEP
        }
        code => code,
    }
}
unsafe extern "C" fn leave(state: *mut c_void, _: *mut c_void) {
    // SAFETY: as above.
    unsafe { fake(state) }.left.fetch_add(1, Ordering::SeqCst);
}
unsafe extern "C" fn release(state: *mut c_void, id: u32, is_wanted_here: u32) -> i32 {
    // SAFETY: as above.
    let fake = unsafe { fake(state) };
    fake.releases.lock().unwrap().push((id, is_wanted_here));
    fake.released.load(Ordering::SeqCst)
}
unsafe extern "C" fn lock_info(_: *mut c_void, id: u32, info: *mut lock_manager_backend_lock_t) -> i32 {
    // SAFETY: as above.
    unsafe { ((*info).held, (*info).here, (*info).waiters) = (1, u32::from(id == 1), 3) };
    0
}
unsafe extern "C" fn locks_held(_: *mut c_void, ids: *mut u32, capacity: usize, count: *mut usize) -> i32 {
    // SAFETY: as above.
    unsafe {
        (0..capacity.min(2)).for_each(|index| ids.add(index).write(1 + index as u32));
        count.write(2);
    }
    0
}
unsafe extern "C" fn fencing_token(_: *mut c_void, id: u32, token: *mut u64) -> i32 {
    // SAFETY: as above.
    unsafe { token.write(100 + u64::from(id)) };
    0
}
unsafe extern "C" fn lost_fd(_: *mut c_void, descriptor: *mut i32) -> i32 {
    // SAFETY: as above.
    unsafe { descriptor.write(5) };
    0
}

unsafe extern "C" fn take_kept(state: *mut c_void, _: u32) -> i32 {
    // SAFETY: as above.
    let fake = unsafe { fake(state) };
    let is_kept = fake.kept.swap(0, Ordering::SeqCst) as i32;
    fake.taken.fetch_add(is_kept, Ordering::SeqCst);
    is_kept
}
unsafe extern "C" fn keep(state: *mut c_void, _: u32, is_wanted_here: u32) -> i32 {
    // SAFETY: as above.
    let fake = unsafe { fake(state) };
    let may_keep = fake.may_keep.load(Ordering::SeqCst) & is_wanted_here;
    fake.kept.store(may_keep, Ordering::SeqCst);
    may_keep as i32
}

const TABLE: lock_manager_backend_t = lock_manager_backend_t {
    size: size_of::<lock_manager_backend_t>(),
    close: Some(close),
    last_error: Some(last_error),
    num_locks: Some(num_locks),
    available_locks: Some(count),
    allocate_lock: Some(count),
    allocate_given: Some(on_id),
    free_lock: Some(on_id),
    free_all_locks: Some(on_all),
    begin: Some(begin),
    step: Some(step),
    leave: Some(leave),
    release: Some(release),
    lock_info: Some(lock_info),
    locks_held: Some(locks_held),
    fencing_token: Some(fencing_token),
    lost_fd: Some(lost_fd),
    take_kept: None,
    keep: None,
};

fn open(table: &lock_manager_backend_t) -> (&'static Fake, lock_manager::Result<PluggedManager>) {
    let fake: &'static Fake = Box::leak(Box::default());
    // SAFETY: the table is one, and the state is what its functions want.
    let manager = unsafe {
        PluggedManager::open(ptr::from_ref(table).cast(), ptr::from_ref(fake).cast_mut().cast(), "fake:1", None)
    };
    (fake, manager)
}

fn opened() -> (&'static Fake, PluggedManager) {
    let (fake, manager) = open(&TABLE);
    (fake, manager.unwrap())
}

#[test]
fn a_lock_call_is_begun_stepped_and_left_and_the_native_lock_goes_with_it() {
    let (fake, manager) = opened();
    assert_eq!(manager.lock(1).unwrap(), Acquired::Clean);
    assert_eq!((fake.begun.load(Ordering::SeqCst), fake.left.load(Ordering::SeqCst)), (1, 1));
    // Held natively: the backend is not asked.
    assert_eq!(manager.try_lock(1).unwrap_err().errno(), libc::EBUSY);
    assert_eq!(manager.lock(1).unwrap_err().errno(), libc::EDEADLK);
    thread::scope(|scope| {
        let other = scope.spawn(|| manager.unlock(1).unwrap_err().errno());
        assert_eq!(other.join().unwrap(), libc::EPERM);
    });
    assert_eq!(manager.check_idle().unwrap_err().errno(), libc::EBUSY);
    manager.unlock(1).unwrap();
    assert_eq!(fake.releases.lock().unwrap()[..], [(1, 0)]);
    assert_eq!(manager.unlock(1).unwrap_err().errno(), libc::EPERM);
    manager.check_idle().unwrap();
    drop(manager);
    assert_eq!(fake.closed.load(Ordering::SeqCst), 1);
}

#[test]
fn a_failure_is_passed_on_in_the_backends_words_and_nothing_is_held() {
    let (fake, manager) = opened();
    fake.outcome.store(-libc::EHOSTUNREACH, Ordering::SeqCst);
    let error = manager.lock(1).unwrap_err();
    assert_eq!(error.errno(), libc::EHOSTUNREACH);
    assert_eq!(error.to_string(), "fake:1: the fake cluster is asleep; wake it");
    assert_eq!(fake.left.load(Ordering::SeqCst), 1);
    manager.check_idle().unwrap();
    assert_eq!(manager.free_lock(1).unwrap_err().errno(), libc::EHOSTUNREACH);
    assert_eq!(manager.unlock(1).unwrap_err().errno(), libc::EPERM);
}

#[test]
fn a_lock_that_was_lost_says_so_at_the_unlock_and_is_not_held_after_it() {
    let (fake, manager) = opened();
    let _clean = manager.lock(1).unwrap();
    fake.released.store(table::LOCK_MANAGER_LOST, Ordering::SeqCst);
    assert_eq!(manager.unlock(1).unwrap_err().errno(), libc::EKEYEXPIRED);
    manager.check_idle().unwrap();
}

#[test]
fn the_request_says_how_the_caller_waits_and_whether_a_holder_died_on_this_host() {
    let (fake, manager) = opened();
    let flags = || fake.requests.lock().unwrap().last().unwrap().flags;
    let _clean = manager.try_lock(1).unwrap();
    assert_eq!(flags(), LOCK_MANAGER_REQUEST_TRY);
    manager.unlock(1).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| manager.lock(1).unwrap()).join().map(|acquired| assert_eq!(acquired, Acquired::Clean)).unwrap();
    });
    // The death is the backend's to tell: it may have been told on another host.
    assert_eq!(manager.timed_lock(1, Duration::from_secs(20)).unwrap(), Acquired::Clean);
    assert_eq!(flags(), LOCK_MANAGER_REQUEST_OWNER_DIED);
    manager.unlock(1).unwrap();
    fake.outcome.store(1, Ordering::SeqCst);
    assert_eq!(manager.lock(1).unwrap(), Acquired::OwnerDied);
    assert_eq!(flags(), 0);
    manager.unlock(1).unwrap();
}

#[test]
fn a_death_that_a_failed_call_found_is_still_due() {
    let (fake, manager) = opened();
    thread::scope(|scope| {
        scope.spawn(|| manager.lock(1).unwrap()).join().map(|acquired| assert_eq!(acquired, Acquired::Clean)).unwrap();
    });
    fake.outcome.store(-libc::EHOSTUNREACH, Ordering::SeqCst);
    for _ in 0..2 {
        assert_eq!(manager.timed_lock(1, Duration::from_secs(20)).unwrap_err().errno(), libc::EHOSTUNREACH);
        assert_eq!(fake.requests.lock().unwrap().last().unwrap().flags, LOCK_MANAGER_REQUEST_OWNER_DIED);
    }
}

#[test]
fn a_wait_for_the_backend_is_cancelled_and_counted() {
    let (fake, manager) = opened();
    fake.outcome.store(SLEEPS, Ordering::SeqCst);
    let cancel = Cancel::new();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| manager.cancellable_lock(1, None, &cancel).unwrap_err().errno());
        while manager.check_idle().is_ok() {
            thread::yield_now();
        }
        cancel.trigger();
        assert_eq!(waiter.join().unwrap(), libc::ECANCELED);
    });
    assert_eq!((fake.begun.load(Ordering::SeqCst), fake.left.load(Ordering::SeqCst)), (1, 1));
    manager.check_idle().unwrap();
}

#[test]
fn an_unlock_says_whether_somebody_of_this_host_waits() {
    let (fake, manager) = opened();
    let _clean = manager.lock(1).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| manager.lock(1).map(|_| manager.unlock(1)));
        while manager.lock_info(1).unwrap().waiters != 4 {
            thread::yield_now();
        }
        // A waiter sleeps some time after it is counted.
        thread::sleep(Duration::from_millis(50));
        manager.unlock(1).unwrap();
        waiter.join().unwrap().unwrap().unwrap();
    });
    // A thread that slept cannot know that it was the last.
    let _clean = manager.lock(1).unwrap();
    manager.unlock(1).unwrap();
    assert_eq!(fake.releases.lock().unwrap()[..], [(1, 1), (1, 1), (1, 0)]);
}

#[test]
fn a_lock_that_the_host_keeps_is_taken_and_given_back_without_a_question() {
    let (fake, manager) = open(&lock_manager_backend_t { take_kept: Some(take_kept), keep: Some(keep), ..TABLE });
    let manager = manager.unwrap();
    let counts = || (fake.begun.load(Ordering::SeqCst), fake.taken.load(Ordering::SeqCst));
    // Nothing is kept: the native lock that was taken for it is the one of the acquisition.
    assert_eq!(manager.lock(1).unwrap(), Acquired::Clean);
    assert_eq!(counts(), (1, 0));
    assert_eq!(manager.try_lock(1).unwrap_err().errno(), libc::EBUSY);
    fake.may_keep.store(1, Ordering::SeqCst);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| manager.lock(1).map(|acquired| (acquired, manager.unlock(1))));
        while manager.lock_info(1).unwrap().waiters != 4 {
            thread::yield_now();
        }
        // A waiter sleeps some time after it is counted.
        thread::sleep(Duration::from_millis(50));
        manager.unlock(1).unwrap();
        let (acquired, unlocked) = waiter.join().unwrap().unwrap();
        assert_eq!((acquired, unlocked.is_ok()), (Acquired::Clean, true));
    });
    assert_eq!(fake.kept.load(Ordering::SeqCst), 1, "a thread that slept cannot know that it was the last");
    assert!(fake.releases.lock().unwrap().is_empty());
    // By this thread, which never asked.
    let before = counts();
    assert_eq!(manager.lock(1).unwrap(), Acquired::Clean);
    assert_eq!(counts(), (before.0, before.1 + 1));
    // Nobody waits: the backend gets it back.
    manager.unlock(1).unwrap();
    assert_eq!(fake.releases.lock().unwrap()[..], [(1, 0)]);
    // A lock that is kept and was left by a thread that ended is the backend's to judge.
    fake.kept.store(1, Ordering::SeqCst);
    thread::scope(|scope| scope.spawn(|| manager.lock(1).map(|_| ())).join().unwrap()).unwrap();
    fake.kept.store(1, Ordering::SeqCst);
    assert_eq!(manager.timed_lock(1, Duration::from_secs(20)).unwrap(), Acquired::Clean);
    assert_eq!(fake.requests.lock().unwrap().last().unwrap().flags, LOCK_MANAGER_REQUEST_OWNER_DIED);
    manager.unlock(1).unwrap();
    manager.check_idle().unwrap();
}

#[test]
fn what_has_to_do_with_one_host_is_the_native_locks() {
    let (_, manager) = opened();
    assert_eq!(manager.num_locks().unwrap(), NUM_LOCKS);
    assert_eq!((manager.available_locks().unwrap(), manager.allocate_lock().unwrap()), (7, 7));
    assert_eq!(manager.lock(NUM_LOCKS).unwrap_err().errno(), libc::EINVAL);
    assert_eq!(manager.lock_shared(1).unwrap_err().errno(), libc::EOPNOTSUPP);
    assert_eq!(manager.grow(20).unwrap_err().errno(), libc::EOPNOTSUPP);
    assert_eq!(manager.info().unwrap().kind, Kind::Backend);
    // This host keeps lock 1, and nobody on it holds it.
    assert_eq!(manager.locks_held().unwrap(), [2]);
    assert!(!manager.lock_info(1).unwrap().held);
    manager.set_ownership(Ownership::Process).unwrap();
    let _clean = manager.lock(1).unwrap();
    assert_eq!(manager.locks_held().unwrap(), [1, 2]);
    thread::scope(|scope| scope.spawn(|| manager.unlock(1)).join().unwrap()).unwrap();
    // Of another host's holder no number is known.
    assert_eq!((manager.lock_info(2).unwrap().held, manager.lock_info(2).unwrap().pid), (true, 0));
}

#[test]
fn a_token_is_for_the_holder() {
    let (_, manager) = opened();
    assert_eq!(manager.fencing_token(1).unwrap_err().errno(), libc::EPERM);
    let _clean = manager.lock(1).unwrap();
    assert_eq!((manager.fencing_token(1).unwrap(), manager.lost_fd().unwrap()), (101, 5));
    manager.unlock(1).unwrap();
    let in_memory = InMemoryManager::new(1).unwrap();
    assert_eq!(in_memory.fencing_token(0).unwrap_err().errno(), libc::EOPNOTSUPP);
    assert_eq!(in_memory.lost_fd().unwrap_err().errno(), libc::EOPNOTSUPP);
}

#[test]
fn a_table_of_another_size_is_refused_and_its_state_stays_the_callers() {
    let small = lock_manager_backend_t { size: size_of::<lock_manager_backend_t>() - 8, ..TABLE };
    let (fake, refused) = open(&small);
    assert_eq!(refused.unwrap_err().errno(), libc::EINVAL);
    let none = lock_manager_backend_t { num_locks: None, ..TABLE };
    assert_eq!(open(&none).1.unwrap_err().errno(), libc::EOPNOTSUPP);
    assert_eq!(fake.closed.load(Ordering::SeqCst), 0);
    // SAFETY: the sentence is a constant.
    assert!(!unsafe { CStr::from_ptr(last_error(ptr::null_mut())) }.is_empty());
}
