// SPDX-License-Identifier: MIT OR Apache-2.0
//! A wait ends within 10 ms of its cancel object's being triggered, from a signal handler too.

use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lock_manager::{Acquired, Cancel, Manager, ShmManager};

use super::LONG;
use super::support::alone::alone;
use super::support::made::leak;
use super::support::process::{own_tid, until_thread_waits};
use super::support::timing::{median, mostly_within};
use super::support::{Segment, board, errno_of, eventually, fork, taken_once};

/// The promise is 10 ms; the rest is for the machine's other work.
const ENDED: Duration = Duration::from_millis(30);

static CANCEL: AtomicPtr<Cancel> = AtomicPtr::new(std::ptr::null_mut());

extern "C" fn trigger(_signal: i32) {
    // SAFETY: a leaked object.
    unsafe { &*CANCEL.load(Ordering::Acquire) }.trigger();
}

/// Says in `tid` who waits, and waits for a lock until it is cancelled. When that was.
fn cancelled_at(manager: &ShmManager, id: u32, timeout: Option<Duration>, cancel: &Cancel, tid: &AtomicU32) -> Instant {
    tid.store(own_tid() as u32, Ordering::Release);
    assert_eq!(errno_of(manager.cancellable_lock(id, timeout, cancel)), libc::ECANCELED);
    Instant::now()
}

fn until_all_wait(tids: &[AtomicU32]) {
    for tid in tids {
        eventually("the waiter is there", || tid.load(Ordering::Acquire) != 0);
        until_thread_waits(tid.load(Ordering::Acquire) as i32);
    }
}

#[test]
fn waits_of_one_and_of_many_threads_end_within_milliseconds() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let _holder = segment.holder_of(&[3]);
        // SAFETY: signal(2) installs a handler that may come at any instruction: a trigger may be called there.
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
                            let timeout = [None, Some(LONG)][round as usize % 2];
                            scope.spawn(move || cancelled_at(manager, 3, timeout, cancel, tid))
                        })
                        .collect();
                    until_all_wait(tids);
                    let start = Instant::now();
                    // SAFETY: tgkill(2) touches no memory; the thread waits, so the number is its own.
                    let code = unsafe {
                        libc::syscall(libc::SYS_tgkill, libc::getpid(), tids[0].load(Ordering::Acquire), libc::SIGUSR1)
                    };
                    assert_eq!(code, 0);
                    median(waits.into_iter().map(|wait| wait.join().unwrap() - start).collect())
                })
            });
        }
    });
}

/// More than an object has room for.
#[test]
fn one_object_ends_waits_for_a_hundred_locks() {
    const LOCKS: u32 = 100;
    alone!({
        let segment = Segment::native(128);
        let manager = segment.open();
        let _holder = segment.holder_of(&(0..LOCKS).collect::<Vec<_>>());
        mostly_within(ENDED, "waits for many locks end after the object was triggered", |_| {
            let (cancel, tids) = (Cancel::new(), board(LOCKS as usize));
            thread::scope(|scope| {
                let waits: Vec<_> = (0..LOCKS)
                    .map(|id| {
                        let (manager, cancel) = (&manager, &cancel);
                        scope.spawn(move || cancelled_at(manager, id, None, cancel, &tids[id as usize]))
                    })
                    .collect();
                until_all_wait(tids);
                let start = Instant::now();
                cancel.trigger();
                median(waits.into_iter().map(|wait| wait.join().unwrap() - start).collect())
            })
        });
    });
}

/// What a wait of the storm below does.
#[derive(Clone, Copy)]
enum Part {
    Writer,
    Reader,
    PlainWriter,
}

/// Triggers come while holders die, waits begin and locks change hands. Each wait ends, and a triggered one soon.
#[test]
fn a_storm_of_cancels_and_deaths_loses_nobody_and_ends_every_wait() {
    const ROUNDS: u32 = 60;
    const PARTS: [Part; 9] = [
        Part::Writer,
        Part::Reader,
        Part::PlainWriter,
        Part::Writer,
        Part::Reader,
        Part::PlainWriter,
        Part::Writer,
        Part::Reader,
        Part::Writer,
    ];
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        for round in 0..ROUNDS {
            let holder = segment.holder_of(&[3]);
            // The first object is of several waits, the last is never triggered.
            let cancels: Vec<Cancel> = (0..4).map(|_| Cancel::new()).collect();
            let (inside, told) = (AtomicU32::new(0), AtomicU32::new(0));
            thread::scope(|scope| {
                let waits: Vec<_> = PARTS
                    .into_iter()
                    .enumerate()
                    .map(|(index, part)| {
                        let (manager, inside, told) = (&manager, &inside, &told);
                        let object = (index % 6).saturating_sub(2);
                        let cancel = &cancels[object];
                        scope.spawn(move || {
                            let acquired = match part {
                                Part::PlainWriter => manager.lock(3),
                                Part::Writer => manager.cancellable_lock(3, None, cancel),
                                Part::Reader => manager.cancellable_lock_shared(3, None, cancel),
                            };
                            let Ok(acquired) = acquired else {
                                assert!(object < 3 && !matches!(part, Part::PlainWriter), "not triggered");
                                assert_eq!(errno_of(acquired), libc::ECANCELED);
                                return;
                            };
                            if acquired == Acquired::OwnerDied {
                                told.fetch_add(1, Ordering::Relaxed);
                            }
                            if matches!(part, Part::Reader) {
                                assert_eq!(inside.load(Ordering::Relaxed), 0);
                                manager.unlock_shared(3).unwrap();
                            } else {
                                assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0);
                                inside.fetch_sub(1, Ordering::Relaxed);
                                manager.unlock(3).unwrap();
                            }
                        })
                    })
                    .collect();
                // In turn: while waits begin, when they sleep, and while the death is found.
                let pause = Duration::from_micros(u64::from(round % 3) * 1500);
                thread::sleep(pause);
                let [first, second, third, _never] = &cancels[..] else { unreachable!() };
                first.trigger();
                holder.signal(libc::SIGKILL);
                second.trigger();
                thread::sleep(pause);
                third.trigger();
                drop(waits);
            });
            assert!(told.load(Ordering::Relaxed) >= 1, "a writer is told of the death");
            assert_eq!(taken_once(&manager, 3), Acquired::Clean);
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
        assert!(waited >= Duration::from_millis(100), "{waited:?}");
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
