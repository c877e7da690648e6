// SPDX-License-Identifier: MIT OR Apache-2.0
//! A wait ends within 10 ms of its cancel object's being triggered, from a signal handler too.

use std::sync::atomic::{AtomicPtr, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lock_manager::{Acquired, Cancel, Manager};

use super::LONG;
use super::support::alone::alone;
use super::support::made::leak;
use super::support::process::{own_tid, until_thread_waits};
use super::support::timing::mostly_within;
use super::support::{Segment, board, errno_of, eventually, fork, taken_once};

/// The promise is 10 ms; the rest is for the machine's other work.
const ENDED: Duration = Duration::from_millis(30);

static CANCEL: AtomicPtr<Cancel> = AtomicPtr::new(std::ptr::null_mut());

extern "C" fn trigger(_signal: i32) {
    // SAFETY: a leaked object.
    unsafe { &*CANCEL.load(Ordering::Acquire) }.trigger();
}

#[test]
fn waits_of_one_and_of_many_threads_end_within_milliseconds() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let _holder = segment.holder_of(&[3]);
        // SAFETY: signal(2) installs a handler that makes one store.
        unsafe { libc::signal(libc::SIGUSR1, trigger as *const () as libc::sighandler_t) };
        for threads in [1, 40] {
            mostly_within(ENDED, "waits end after the object was triggered", |round| {
                let cancel = leak(Cancel::new());
                CANCEL.store(std::ptr::from_ref(cancel).cast_mut(), Ordering::Release);
                thread::scope(|scope| {
                    let tids = board(threads);
                    let waits: Vec<_> = tids
                        .iter()
                        .map(|tid| {
                            let manager = &manager;
                            scope.spawn(move || {
                                tid.store(own_tid() as u32, Ordering::Release);
                                let timeout = [None, Some(LONG)][round as usize % 2];
                                let ended = manager.cancellable_lock(3, timeout, cancel);
                                assert_eq!(errno_of(ended), libc::ECANCELED);
                                Instant::now()
                            })
                        })
                        .collect();
                    for tid in tids {
                        eventually("the waiter is there", || tid.load(Ordering::Acquire) != 0);
                        until_thread_waits(tid.load(Ordering::Acquire) as i32);
                    }
                    let start = Instant::now();
                    // SAFETY: tgkill(2) touches no memory; the thread waits, so the number is its own.
                    let code = unsafe {
                        libc::syscall(libc::SYS_tgkill, libc::getpid(), tids[0].load(Ordering::Acquire), libc::SIGUSR1)
                    };
                    assert_eq!(code, 0);
                    waits.into_iter().map(|wait| wait.join().unwrap() - start).max().unwrap()
                })
            });
        }
    });
}

/// Signals move no deadline and take no lock.
#[test]
fn a_storm_of_signals_changes_nothing() {
    extern "C" fn nothing(_signal: i32) {}
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        // SAFETY: all-zero bytes are a valid sigaction, without SA_RESTART; the handler does nothing.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as *const () as libc::sighandler_t;
            assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
        }
        let waiter = own_tid();
        let _sender = fork(|| {
            loop {
                // SAFETY: kill(2) and usleep(3) touch no memory; this process ends with its parent.
                unsafe {
                    libc::kill(waiter, libc::SIGUSR1);
                    libc::usleep(500);
                }
            }
        });
        let holder = segment.holder_of(&[3]);
        let start = Instant::now();
        assert_eq!(errno_of(manager.timed_lock(3, Duration::from_millis(100))), libc::ETIMEDOUT);
        let waited = start.elapsed();
        assert!(waited >= Duration::from_millis(100) && waited < Duration::from_millis(500), "{waited:?}");
        mostly_within(super::support::timing::RECOVERED, "under signals a killed holder is found", |_| {
            let holder = segment.holder_of(&[4]);
            let start = Instant::now();
            holder.signal(libc::SIGKILL);
            assert_eq!(manager.timed_lock(4, LONG).unwrap(), Acquired::OwnerDied);
            manager.unlock(4).unwrap();
            start.elapsed()
        });
        holder.kill();
        assert_eq!(taken_once(&manager, 3), Acquired::OwnerDied);
    });
}
