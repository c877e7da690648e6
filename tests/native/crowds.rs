// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many who wait: the looking is shared, nobody is forgotten, nobody starves.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use lock_manager::{Acquired, Manager, ShmManager};

use super::LONG;
use super::support::alone::alone;
use super::support::process::{own_tid, until_thread_waits};
use super::support::timing::{RECOVERED, median, mostly_within};
use super::support::{Child, Segment, board, eventually, fork, native_layout as layout};

/// Starts threads that all at once begin to wait for lock 0, and waits until they do. Each tells whether it was told of
/// a death.
fn crowd<'scope>(
    scope: &'scope Scope<'scope, '_>,
    manager: &'scope ShmManager,
    size: u32,
) -> Vec<ScopedJoinHandle<'scope, bool>> {
    let tids = board(size as usize);
    let together = Arc::new(Barrier::new(size as usize));
    let threads = tids
        .iter()
        .map(|tid| {
            let together = Arc::clone(&together);
            let wait = move || {
                together.wait();
                tid.store(own_tid() as u32, Ordering::Release);
                let acquired = manager.lock(0).unwrap();
                manager.unlock(0).unwrap();
                acquired == Acquired::OwnerDied
            };
            thread::Builder::new().stack_size(128 * 1024).spawn_scoped(scope, wait).unwrap()
        })
        .collect();
    for tid in tids {
        eventually("the thread is there", || tid.load(Ordering::Acquire) != 0);
        until_thread_waits(tid.load(Ordering::Acquire) as i32);
    }
    threads
}

/// How often the process's threads have gone to sleep.
fn sleeps() -> libc::c_long {
    // SAFETY: all-zero bytes are a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: getrusage(2) fills the struct, a local.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) }, 0);
    usage.ru_nvcsw
}

#[test]
fn a_thousand_blocked_threads_share_the_looking_and_then_all_get_the_lock() {
    const THREADS: u32 = 1000;
    const MOST_A_SECOND: f64 = 50_000.0;
    alone!({
        let segment = Segment::native(64);
        let holder = segment.holder_of(&[0]);
        let manager = segment.open();
        thread::scope(|scope| {
            let threads = crowd(scope, &manager, THREADS);
            let (before, start) = (sleeps(), Instant::now());
            // What is measured is how often they sleep meanwhile.
            thread::sleep(Duration::from_millis(1500));
            let rate = (sleeps() - before) as f64 / start.elapsed().as_secs_f64();
            super::support::note(format_args!("{rate:.0} sleeps a second of {THREADS} threads"));
            assert!(rate < MOST_A_SECOND, "{rate}");
            assert_eq!(manager.lock_info(0).unwrap().waiters, THREADS);
            let start = Instant::now();
            holder.kill();
            let told: Vec<bool> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            super::support::note(format_args!("all had it after {:?}", start.elapsed()));
            assert_eq!(told.into_iter().filter(|&told| told).count(), 1);
        });
        assert_eq!(manager.lock_info(0).unwrap().waiters, 0);
        manager.check_idle().unwrap();
    });
}

#[test]
fn a_crowd_finds_a_dead_holder_as_soon_as_one_does() {
    const THREADS: u32 = 60;
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        mostly_within(RECOVERED, "60 threads of a process wait for a holder that is killed", |_| {
            let holder = segment.holder_of(&[0]);
            thread::scope(|scope| {
                let threads = crowd(scope, &manager, THREADS);
                // Past the first, short slices of each.
                thread::sleep(Duration::from_millis(120));
                let holder_now = || layout::entry_of(segment.number_at(layout::word(0)));
                let (dead, start) = (holder_now(), Instant::now());
                holder.signal(libc::SIGKILL);
                eventually("one of them has it", || holder_now() != dead);
                let recovered = start.elapsed();
                let told = threads.into_iter().map(|thread| thread.join().unwrap());
                assert_eq!(told.filter(|&told| told).count(), 1);
                recovered
            })
        });
    });
}

/// Each lock has one waiter, and nobody but that one looks after it, whatever its id.
#[test]
fn waiters_for_many_locks_are_no_crowd() {
    const THREADS: u32 = 60;
    const APART: u32 = 256;
    const EACH: Duration = Duration::from_millis(20);
    alone!({
        let segment = Segment::native(THREADS * APART);
        let manager = segment.open();
        let ids: Vec<u32> = (0..THREADS).map(|index| index * APART).collect();
        mostly_within(EACH, "60 threads wait for 60 locks of a process that is killed", |_| {
            let holder = segment.holder_of(&ids);
            thread::scope(|scope| {
                let waiters: Vec<_> = ids
                    .iter()
                    .map(|&id| {
                        let (manager, tid) = (&manager, &board(1)[0]);
                        let wait = move || {
                            tid.store(own_tid() as u32, Ordering::Release);
                            assert_eq!(manager.lock(id).unwrap(), Acquired::OwnerDied);
                            let had = Instant::now();
                            manager.unlock(id).unwrap();
                            had
                        };
                        (tid, thread::Builder::new().stack_size(128 * 1024).spawn_scoped(scope, wait).unwrap())
                    })
                    .collect();
                for (tid, _) in &waiters {
                    eventually("the thread is there", || tid.load(Ordering::Acquire) != 0);
                    until_thread_waits(tid.load(Ordering::Acquire) as i32);
                }
                // Past the first, short slices of each.
                thread::sleep(Duration::from_millis(120));
                let killed = Instant::now();
                holder.signal(libc::SIGKILL);
                median(waiters.into_iter().map(|(_, waiter)| waiter.join().unwrap().duration_since(killed)).collect())
            })
        });
    });
}

#[test]
fn of_fifty_processes_everybody_gets_its_turn() {
    const PROCESSES: usize = 50;
    alone!({
        let segment = Segment::native(64);
        let (turns, go, over) = (board(PROCESSES), &board(1)[0], &board(1)[0]);
        let children: Vec<Child> = turns
            .iter()
            .map(|turns| {
                fork(|| {
                    let manager = segment.open();
                    go.fetch_add(1, Ordering::AcqRel);
                    while over.load(Ordering::Acquire) == 0 {
                        let _ = manager.lock(0).unwrap();
                        // Inside for a millisecond, without leaving the processor.
                        let start = Instant::now();
                        while start.elapsed() < Duration::from_millis(1) {
                            std::hint::spin_loop();
                        }
                        turns.fetch_add(1, Ordering::Relaxed);
                        manager.unlock(0).unwrap();
                    }
                })
            })
            .collect();
        eventually("all are there", || go.load(Ordering::Acquire) == PROCESSES as u32);
        let counts = || turns.iter().map(|turns: &AtomicU32| turns.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let before = counts();
        let had = || counts().iter().zip(&before).map(|(now, then)| now - then).collect::<Vec<u32>>();
        // By turns and not by time, of which the machine's other work may take much.
        let start = Instant::now();
        eventually("there were enough turns", || had().iter().sum::<u32>() > 20 * PROCESSES as u32);
        let (had, lasted) = (had(), start.elapsed());
        over.store(1, Ordering::Release);
        children.into_iter().for_each(Child::succeeds);
        let (least, most) = (had.iter().min().unwrap(), had.iter().max().unwrap());
        let sum: f64 = had.iter().map(|&turns| f64::from(turns)).sum();
        let squares: f64 = had.iter().map(|&turns| f64::from(turns) * f64::from(turns)).sum();
        let jain = sum * sum / (PROCESSES as f64 * squares);
        super::support::note(format_args!(
            "turns of {PROCESSES} processes: {least} to {most} within {lasted:?}, Jain's index {jain:.3}"
        ));
        assert!(*least > 2 && jain > 0.8, "{had:?}");
    });
}

#[test]
fn a_waiter_that_is_stopped_holds_up_nobody() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        for _ in 0..5 {
            let _ = manager.lock(0).unwrap();
            let wait = || {
                fork(|| {
                    let manager = segment.open();
                    let _ = manager.timed_lock(0, LONG).unwrap();
                    manager.unlock(0).unwrap();
                })
            };
            // The one who is woken, and for whom the lock may be reserved, cannot take it.
            let stopped = wait();
            super::rings::until_waited_for(&manager, 0, 1);
            let other = wait();
            super::rings::until_waited_for(&manager, 0, 2);
            stopped.signal(libc::SIGSTOP);
            stopped.until_it_is_stopped();
            manager.unlock(0).unwrap();
            other.succeeds();
            assert_eq!(manager.timed_lock(0, LONG).unwrap(), Acquired::Clean);
            manager.unlock(0).unwrap();
            stopped.signal(libc::SIGCONT);
            stopped.succeeds();
        }
    });
}
