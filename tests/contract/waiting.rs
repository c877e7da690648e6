// SPDX-License-Identifier: MIT OR Apache-2.0
//! Waiting where the storage says who waits: all waiters are counted, everybody gets a turn, and a circle is told
//! to one of those in it.

use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lock_manager::{Acquired, Cancel};

use super::door::Opened;
use super::subject::Subject;
use super::support::process::{own_tid, until_thread_waits};
use super::support::{board, eventually, fork};

/// Where a lock that is lost would be waited for in vain.
const LONG_NS: u64 = 20_000_000_000;
/// Ten times what a circle is told in.
const SHORT_NS: u64 = 50_000_000;

pub fn who_waits_is_counted(subject: &Subject) {
    const WAITERS: u32 = 3;
    let manager = subject.make();
    let _ = manager.lock(2).unwrap();
    assert_eq!(manager.waiters_of(2), Ok((0, 0)));
    let wait = |manager: &dyn Opened| {
        assert_eq!(manager.timed_lock(2, LONG_NS), Ok(Acquired::Clean));
        manager.unlock(2).unwrap();
    };
    thread::scope(|scope| {
        for _ in 1..WAITERS {
            scope.spawn(|| wait(&*manager));
        }
        // From another process where there is one.
        let child = subject.is_shared().then(|| fork(|| wait(&*subject.open())));
        let expected = if child.is_some() { WAITERS } else { WAITERS - 1 };
        eventually("all are seen to wait", || manager.waiters_of(2).unwrap().0 == expected);
        assert!(manager.waiters_of(2).unwrap().1 > 0);
        assert_eq!(manager.waiters_of(3), Ok((0, 0)));
        manager.unlock(2).unwrap();
        if let Some(child) = child {
            child.succeeds();
        }
    });
    assert_eq!(manager.waiters_of(2), Ok((0, 0)));
}

pub fn waiters_are_not_counted(subject: &Subject) {
    let (manager, cancel, tid) = (subject.make(), Cancel::new(), AtomicI32::new(0));
    let _ = manager.lock(2).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            tid.store(own_tid(), Ordering::Release);
            manager.cancellable_lock(2, u64::MAX, &cancel)
        });
        eventually("the waiter is there", || tid.load(Ordering::Acquire) != 0);
        until_thread_waits(tid.load(Ordering::Acquire));
        assert_eq!(manager.waiters_of(2), Ok((0, 0)));
        cancel.trigger();
        assert_eq!(waiter.join().unwrap(), Err(libc::ECANCELED));
    });
    manager.unlock(2).unwrap();
}

pub fn a_circle_is_not_found(subject: &Subject) {
    let (manager, steps) = (subject.make(), &board(1)[0]);
    let wait = |own: u32| {
        let _ = manager.lock(own).unwrap();
        steps.fetch_add(1, Ordering::AcqRel);
        eventually("both hold theirs", || steps.load(Ordering::Acquire) == 2);
        let waited = manager.timed_lock(1 - own, SHORT_NS);
        // Only then, so that neither gets what it waits for.
        steps.fetch_add(1, Ordering::AcqRel);
        eventually("both have waited", || steps.load(Ordering::Acquire) == 4);
        manager.unlock(own).unwrap();
        waited
    };
    let waited = thread::scope(|scope| [0, 1].map(|own| scope.spawn(move || wait(own))).map(|it| it.join().unwrap()));
    assert_eq!(waited, [Err(libc::ETIMEDOUT); 2]);
}

/// Takes `own`, waits until all have theirs, and then for `other`. What came of it.
fn close_the_circle(manager: &dyn Opened, holding: &AtomicU32, all: u32, own: u32, other: u32) -> i32 {
    let _ = manager.lock(own).unwrap();
    holding.fetch_add(1, Ordering::AcqRel);
    eventually("all hold theirs", || holding.load(Ordering::Acquire) == all);
    // Without an end and with one, which is told before it.
    let acquired = if own.is_multiple_of(2) {
        manager.lock(other)
    } else {
        manager.cancellable_lock(other, LONG_NS, &Cancel::new())
    };
    if acquired.is_ok() {
        manager.unlock(other).unwrap();
    }
    manager.unlock(own).unwrap();
    acquired.err().unwrap_or(0)
}

/// The codes of those in a circle: one was told, and the rest went on.
fn one_was_told(mut codes: Vec<i32>) {
    codes.sort_unstable();
    let (told, rest) = codes.split_last().unwrap();
    assert!(*told == libc::EDEADLK && rest.iter().all(|&code| code == 0), "{codes:?}");
}

pub fn of_a_circle_of_threads_one_is_told(subject: &Subject) {
    const SIZE: u32 = 3;
    let (manager, holding) = (subject.make(), &board(1)[0]);
    let codes = thread::scope(|scope| {
        let threads = [0, 1, 2].map(|own| {
            let manager = &*manager;
            scope.spawn(move || close_the_circle(manager, holding, SIZE, own, (own + 1) % SIZE))
        });
        threads.map(|thread| thread.join().unwrap())
    });
    one_was_told(codes.to_vec());
    assert_eq!(manager.held(), Ok(vec![]));
}

pub fn of_a_circle_of_processes_one_is_told(subject: &Subject) {
    const SIZE: u32 = 3;
    const UNKNOWN: u32 = u32::MAX;
    let (manager, holding, codes) = (subject.make(), &board(1)[0], board(SIZE as usize));
    codes.iter().for_each(|code| code.store(UNKNOWN, Ordering::Relaxed));
    let children: Vec<_> = (0..SIZE)
        .map(|own| {
            // With a lock that has a file and with ones that have none.
            if own == 0 {
                manager.allocate_given(0).unwrap();
            }
            fork(|| {
                let code = close_the_circle(&*subject.open(), holding, SIZE, own, (own + 1) % SIZE);
                codes[own as usize].store(code as u32, Ordering::Release);
            })
        })
        .collect();
    children.into_iter().for_each(super::support::Child::succeeds);
    one_was_told(codes.iter().map(|code| code.load(Ordering::Acquire) as i32).collect());
    assert_eq!(manager.held(), Ok(vec![]));
}

/// Takes and gives back again and again, with no pause in which another could come, inside for a millisecond each time
/// without leaving the processor.
fn hog(manager: &dyn Opened, over: &AtomicU32, turns: &AtomicU32) {
    while over.load(Ordering::Acquire) == 0 {
        assert_eq!(manager.lock(4), Ok(Acquired::Clean));
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(1) {
            std::hint::spin_loop();
        }
        turns.fetch_add(1, Ordering::Relaxed);
        manager.unlock(4).unwrap();
    }
}

pub fn of_many_that_never_pause_everybody_gets_its_turns(subject: &Subject) {
    const THREADS: usize = 8;
    const TURNS: u32 = 25;
    let (manager, over, turns) = (subject.make(), &board(1)[0], board(THREADS));
    let counts = || turns.iter().map(|turns| turns.load(Ordering::Relaxed)).collect::<Vec<u32>>();
    let counts = thread::scope(|scope| {
        // Half of them in other processes where there are any.
        let children = (THREADS / 2..THREADS).filter(|_| subject.is_shared());
        let children: Vec<_> = children.map(|place| fork(move || hog(&*subject.open(), over, &turns[place]))).collect();
        let threads = if subject.is_shared() { THREADS / 2 } else { THREADS };
        for turns in &turns[..threads] {
            scope.spawn(|| hog(&*manager, over, turns));
        }
        eventually("all are there", || counts().iter().all(|&turns| turns > 0));
        // By turns and not by time, of which the machine's other work may take much.
        let before = counts();
        let since = || counts().iter().zip(&before).map(|(turns, before)| turns - before).collect::<Vec<u32>>();
        eventually("there were enough turns", || since().iter().sum::<u32>() > TURNS * THREADS as u32);
        over.store(1, Ordering::Release);
        let counts = since();
        children.into_iter().for_each(super::support::Child::succeeds);
        counts
    });
    let least = *counts.iter().min().unwrap();
    assert!(least > TURNS / 5, "{counts:?}");
}

pub fn what_a_process_owns_makes_no_circle(subject: &Subject) {
    let (manager, holding) = (subject.make(), &board(1)[0]);
    manager.own_by_process().unwrap();
    let wait = |own: u32| {
        let _ = manager.lock(own).unwrap();
        holding.fetch_add(1, Ordering::AcqRel);
        eventually("both hold theirs", || holding.load(Ordering::Acquire) == 2);
        manager.timed_lock(1 - own, SHORT_NS)
    };
    // Any other thread of the process may give the lock back, so that no wait is known to be in vain.
    let waited = thread::scope(|scope| [0, 1].map(|own| scope.spawn(move || wait(own))).map(|it| it.join().unwrap()));
    assert_eq!(waited, [Err(libc::ETIMEDOUT); 2]);
    assert!(manager.look(0).unwrap().by_process);
    [0, 1].into_iter().for_each(|id| manager.unlock(id).unwrap());
}
