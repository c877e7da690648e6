// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many readers or one writer, any of whom may die.

use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::thread;

use lock_manager::{Acquired, Cancel};

use super::door::{Held, Opened};
use super::subject::Subject;
use super::support::process::{own_tid, sleep_until_killed, until_thread_waits};
use super::support::{Child, board, eventually, fork};

const LONG_NS: u64 = 20_000_000_000;
const SHORT_NS: u64 = 30_000_000;

pub fn every_call_of_readers_is_refused(subject: &Subject) {
    let (manager, cancel) = (subject.make(), Cancel::new());
    let refused = || {
        let acquiring = [
            manager.lock_shared(1).err(),
            manager.try_lock_shared(1).err(),
            manager.timed_lock_shared(1, SHORT_NS).err(),
            manager.cancellable_lock_shared(1, SHORT_NS, &cancel).err(),
        ];
        assert_eq!(acquiring, [Some(libc::EOPNOTSUPP); 4]);
        let others = [manager.unlock_shared(1).err(), manager.downgrade(1).err(), manager.holders(1).err()];
        assert_eq!(others, [Some(libc::EOPNOTSUPP); 3]);
        assert_eq!(manager.readers(1), Ok((0, false)));
    };
    refused();
    assert_eq!(manager.lock(1), Ok(Acquired::Clean));
    refused();
    assert_eq!(manager.unlock(1), Ok(()), "what was refused changed nothing");
}

/// Runs `body` in another thread, to its end.
fn elsewhere<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(body).join().unwrap())
}

/// Runs `waiter` in a thread, and `meanwhile` once that sleeps.
fn while_waiting(waiter: impl FnOnce() + Send, meanwhile: impl FnOnce()) {
    let tid = &AtomicI32::new(0);
    thread::scope(|scope| {
        scope.spawn(move || {
            tid.store(own_tid(), Ordering::Release);
            waiter();
        });
        eventually("the waiter is there", || tid.load(Ordering::Acquire) != 0);
        until_thread_waits(tid.load(Ordering::Acquire));
        meanwhile();
    });
}

pub fn readers_share_a_lock_and_a_writer_has_it_alone(subject: &Subject) {
    let manager = subject.make();
    assert_eq!(manager.lock_shared(1), Ok(Acquired::Clean));
    elsewhere(|| {
        assert_eq!(manager.try_lock_shared(1), Ok(Acquired::Clean));
        assert_eq!(manager.unlock_shared(1), Ok(()));
        assert_eq!(manager.timed_lock_shared(1, 0), Ok(Acquired::Clean));
        assert_eq!(manager.unlock_shared(1), Ok(()));
        assert_eq!(manager.try_lock(1), Err(libc::EBUSY));
        assert_eq!(manager.timed_lock(1, 0), Err(libc::ETIMEDOUT));
        assert_eq!(manager.timed_lock(1, SHORT_NS), Err(libc::ETIMEDOUT));
        // Whoever gave up waiting keeps no reader out, and lets no writer in.
        assert_eq!(manager.try_lock(1), Err(libc::EBUSY));
        assert_eq!(manager.try_lock_shared(1), Ok(Acquired::Clean));
        assert_eq!(manager.unlock_shared(1), Ok(()));
    });
    assert_eq!(manager.held(), Ok(vec![1]));
    assert_eq!(manager.unlock_shared(1), Ok(()));
    assert_eq!(manager.held(), Ok(vec![]));
    assert_eq!(manager.lock(1), Ok(Acquired::Clean));
    elsewhere(|| {
        assert_eq!(manager.try_lock_shared(1), Err(libc::EBUSY));
        assert_eq!(manager.timed_lock_shared(1, 0), Err(libc::ETIMEDOUT));
        assert_eq!(manager.timed_lock_shared(1, SHORT_NS), Err(libc::ETIMEDOUT));
    });
    assert_eq!(manager.unlock(1), Ok(()));
    assert_eq!(manager.try_lock(1), Ok(Acquired::Clean));
    assert_eq!(manager.unlock(1), Ok(()));
}

/// Reads two words that a writer changes one after the other.
fn take_turns(manager: &dyn Opened, words: &[AtomicU32], rounds: u32) {
    for round in 0..rounds {
        if round % 4 == 0 {
            assert_eq!(manager.lock(1), Ok(Acquired::Clean));
            let before = words[0].load(Ordering::Relaxed);
            words[0].store(before + 1, Ordering::Relaxed);
            assert_eq!(words[1].load(Ordering::Relaxed), before);
            words[1].store(before + 1, Ordering::Relaxed);
            if round % 8 == 0 {
                assert_eq!(manager.downgrade(1), Ok(()));
                assert_eq!(words[0].load(Ordering::Relaxed), before + 1, "a writer came into a downgrade");
                assert_eq!(manager.unlock_shared(1), Ok(()));
            } else {
                assert_eq!(manager.unlock(1), Ok(()));
            }
        } else {
            assert_eq!(manager.timed_lock_shared(1, LONG_NS), Ok(Acquired::Clean));
            let one = words[0].load(Ordering::Relaxed);
            assert_eq!(words[1].load(Ordering::Relaxed), one, "a writer beside a reader");
            assert_eq!(manager.unlock_shared(1), Ok(()));
        }
    }
}

pub fn writers_exclude_readers_in_threads_managers_and_processes(subject: &Subject) {
    const ROUNDS: u32 = 400;
    let (manager, words) = (subject.make(), board(2));
    let children: Vec<Child> = match subject.is_shared() {
        true => (0..2).map(|_| fork(|| take_turns(&*subject.open(), words, ROUNDS))).collect(),
        false => Vec::new(),
    };
    let turns = (3 + children.len() as u32) * ROUNDS / 4;
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| take_turns(&*manager, words, ROUNDS));
        }
    });
    children.into_iter().for_each(Child::succeeds);
    assert_eq!(words[0].load(Ordering::Relaxed), turns);
    assert_eq!(manager.held(), Ok(vec![]));
}

pub fn whoever_reads_a_lock_is_refused_a_second_hold(subject: &Subject) {
    let manager = subject.make();
    assert_eq!(manager.lock_shared(1), Ok(Acquired::Clean));
    assert_eq!(manager.lock_shared(2), Ok(Acquired::Clean), "another lock is no second hold");
    assert_eq!(manager.lock_shared(1), Err(libc::EDEADLK));
    assert_eq!(manager.timed_lock_shared(1, LONG_NS), Err(libc::EDEADLK));
    assert_eq!(manager.try_lock_shared(1), Err(libc::EBUSY));
    assert_eq!(manager.lock(1), Err(libc::EDEADLK));
    assert_eq!(manager.timed_lock(1, LONG_NS), Err(libc::EDEADLK));
    assert_eq!(manager.try_lock(1), Err(libc::EBUSY));
    assert_eq!(manager.unlock_shared(2), Ok(()));
    assert_eq!(manager.unlock_shared(1), Ok(()));
    assert_eq!(manager.lock(1), Ok(Acquired::Clean));
    assert_eq!(manager.lock_shared(1), Err(libc::EDEADLK));
    assert_eq!(manager.try_lock_shared(1), Err(libc::EBUSY));
    assert_eq!(manager.unlock(1), Ok(()));
}

pub fn a_hold_is_given_back_as_what_it_is(subject: &Subject) {
    let manager = subject.make();
    assert_eq!(manager.unlock_shared(1), Err(libc::EPERM));
    assert_eq!(manager.downgrade(1), Err(libc::EPERM));
    assert_eq!(manager.lock_shared(1), Ok(Acquired::Clean));
    assert_eq!(manager.unlock(1), Err(libc::EPERM));
    assert_eq!(manager.downgrade(1), Err(libc::EPERM));
    elsewhere(|| assert_eq!(manager.unlock_shared(1), Err(libc::EPERM)));
    assert_eq!(manager.unlock_shared(1), Ok(()));
    assert_eq!(manager.unlock_shared(1), Err(libc::EPERM));
    assert_eq!(manager.lock(1), Ok(Acquired::Clean));
    assert_eq!(manager.unlock_shared(1), Err(libc::EPERM));
    assert_eq!(manager.unlock(1), Ok(()));
    if subject.is_numbered() {
        assert_eq!(manager.lock_shared(1 << 23), Err(libc::EINVAL));
    }
}

pub fn a_writer_that_waits_keeps_later_readers_out_and_is_next(subject: &Subject) {
    let manager = subject.make();
    assert_eq!(manager.lock_shared(1), Ok(Acquired::Clean));
    let has_it = AtomicU32::new(0);
    let writer = || {
        assert_eq!(manager.timed_lock(1, LONG_NS), Ok(Acquired::Clean));
        has_it.store(1, Ordering::Release);
        assert_eq!(manager.unlock(1), Ok(()));
    };
    while_waiting(writer, || {
        eventually("it drains", || manager.readers(1) == Ok((1, true)));
        elsewhere(|| {
            assert_eq!(manager.try_lock_shared(1), Err(libc::EBUSY));
            assert_eq!(manager.timed_lock_shared(1, SHORT_NS), Err(libc::ETIMEDOUT));
        });
        let seen = manager.look(1).unwrap();
        assert!(seen.held && !seen.owner_died && seen.tid == own_tid(), "{seen:?}");
        assert_eq!(has_it.load(Ordering::Acquire), 0);
        assert_eq!(manager.unlock_shared(1), Ok(()));
    });
    assert_eq!(manager.readers(1), Ok((0, false)));
}

pub fn a_downgrade_lets_readers_in_and_no_writer(subject: &Subject) {
    let manager = subject.make();
    assert_eq!(manager.lock(1), Ok(Acquired::Clean));
    let is_in = AtomicU32::new(0);
    let reader = || {
        assert_eq!(manager.timed_lock_shared(1, LONG_NS), Ok(Acquired::Clean));
        is_in.store(1, Ordering::Release);
        eventually("it is to leave", || is_in.load(Ordering::Acquire) == 2);
        assert_eq!(manager.unlock_shared(1), Ok(()));
    };
    while_waiting(reader, || {
        assert_eq!(manager.downgrade(1), Ok(()));
        eventually("the reader is in", || is_in.load(Ordering::Acquire) == 1);
        assert_eq!(manager.readers(1), Ok((2, false)));
        elsewhere(|| assert_eq!(manager.try_lock(1), Err(libc::EBUSY)));
        is_in.store(2, Ordering::Release);
    });
    assert_eq!(manager.unlock(1), Err(libc::EPERM));
    assert_eq!(manager.unlock_shared(1), Ok(()));
    assert_eq!(manager.try_lock(1), Ok(Acquired::Clean));
    assert_eq!(manager.unlock(1), Ok(()));
}

pub fn a_writers_death_is_told_to_each_reader_until_a_writer_was_told(subject: &Subject) {
    let manager = subject.make();
    elsewhere(|| assert_eq!(manager.lock(1), Ok(Acquired::Clean)));
    for _ in 0..2 {
        assert_eq!(manager.timed_lock_shared(1, LONG_NS), Ok(Acquired::OwnerDied));
        elsewhere(|| {
            assert_eq!(manager.try_lock_shared(1), Ok(Acquired::OwnerDied));
            assert_eq!(manager.unlock_shared(1), Ok(()));
        });
        assert!(manager.look(1).unwrap().owner_died);
        assert_eq!(manager.unlock_shared(1), Ok(()));
    }
    assert_eq!(manager.timed_lock(1, LONG_NS), Ok(Acquired::OwnerDied));
    assert_eq!(manager.unlock(1), Ok(()));
    assert_eq!(manager.lock_shared(1), Ok(Acquired::Clean));
    assert_eq!(manager.unlock_shared(1), Ok(()));
    assert_eq!(manager.lock(1), Ok(Acquired::Clean));
    assert_eq!(manager.unlock(1), Ok(()));
}

pub fn a_readers_death_is_told_to_nobody_and_frees_the_lock(subject: &Subject) {
    let manager = subject.make();
    elsewhere(|| assert_eq!(manager.lock_shared(1), Ok(Acquired::Clean)));
    assert_eq!(manager.try_lock(1), Ok(Acquired::Clean));
    assert_eq!(manager.unlock(1), Ok(()));
}

pub fn a_killed_reader_is_told_to_nobody_and_frees_the_lock(subject: &Subject) {
    let manager = subject.make();
    let ready = &board(1)[0];
    let reader = || {
        let child = fork(|| {
            let manager = subject.open();
            assert_eq!(manager.lock_shared(1), Ok(Acquired::Clean));
            ready.store(1, Ordering::Release);
            sleep_until_killed();
        });
        eventually("the child reads", || ready.swap(0, Ordering::AcqRel) == 1);
        child
    };
    reader().kill();
    assert_eq!(manager.timed_lock(1, LONG_NS), Ok(Acquired::Clean));
    assert_eq!(manager.unlock(1), Ok(()));
    // While a writer waits for it.
    let child = reader();
    while_waiting(
        || {
            assert_eq!(manager.timed_lock(1, LONG_NS), Ok(Acquired::Clean));
            assert_eq!(manager.unlock(1), Ok(()));
        },
        || child.kill(),
    );
    let child = reader();
    child.kill();
    assert_eq!(manager.held(), Ok(vec![]));
    assert_eq!(manager.repair(1), Ok(()));
    assert_eq!(manager.try_lock(1), Ok(Acquired::Clean));
    assert_eq!(manager.unlock(1), Ok(()));
}

pub fn a_forked_child_reads_nothing_of_its_parents(subject: &Subject) {
    let manager = subject.make();
    assert_eq!(manager.lock_shared(1), Ok(Acquired::Clean));
    fork(|| {
        assert_eq!(manager.unlock_shared(1), Err(libc::EPERM));
        assert_eq!(manager.lock_shared(1), Ok(Acquired::Clean));
        assert_eq!(manager.lock_shared(1), Err(libc::EDEADLK));
        assert_eq!(manager.unlock_shared(1), Ok(()));
        assert_eq!(manager.try_lock(1), Err(libc::EBUSY));
    })
    .succeeds();
    assert_eq!(manager.unlock_shared(1), Ok(()));
    assert_eq!(manager.try_lock(1), Ok(Acquired::Clean));
    assert_eq!(manager.unlock(1), Ok(()));
}

pub fn a_readers_wait_is_cancelled(subject: &Subject) {
    let manager = subject.make();
    let cancel = Cancel::new();
    assert_eq!(manager.lock(1), Ok(Acquired::Clean));
    while_waiting(
        || assert_eq!(manager.cancellable_lock_shared(1, u64::MAX, &cancel), Err(libc::ECANCELED)),
        || cancel.trigger(),
    );
    assert_eq!(manager.unlock(1), Ok(()));
    assert_eq!(manager.cancellable_lock_shared(1, LONG_NS, &cancel), Err(libc::ECANCELED));
    let cancel = Cancel::new();
    assert_eq!(manager.cancellable_lock_shared(1, LONG_NS, &cancel), Ok(Acquired::Clean));
    // A drain is as good a wait.
    while_waiting(
        || assert_eq!(manager.cancellable_lock(1, u64::MAX, &cancel), Err(libc::ECANCELED)),
        || cancel.trigger(),
    );
    elsewhere(|| {
        assert_eq!(manager.try_lock(1), Err(libc::EBUSY));
        assert_eq!(manager.try_lock_shared(1), Ok(Acquired::Clean));
        assert_eq!(manager.unlock_shared(1), Ok(()));
    });
    assert_eq!(manager.unlock_shared(1), Ok(()));
}

pub fn what_a_process_reads_any_thread_gives_back(subject: &Subject) {
    let manager = subject.make();
    assert_eq!(manager.own_by_process(), Ok(()));
    assert_eq!(manager.lock_shared(1), Ok(Acquired::Clean));
    elsewhere(|| assert_eq!(manager.lock_shared(1), Ok(Acquired::Clean)));
    let by_process = |held: &Held| held.by_process && held.shared && held.tid == 0;
    let holders = manager.holders(1).unwrap();
    assert!(holders.len() == 2 && holders.iter().all(by_process), "{holders:?}");
    assert_eq!(manager.timed_lock(1, SHORT_NS), Err(libc::ETIMEDOUT), "what the process holds is waited for");
    elsewhere(|| {
        assert_eq!(manager.unlock_shared(1), Ok(()));
        assert_eq!(manager.unlock_shared(1), Ok(()));
        assert_eq!(manager.unlock_shared(1), Err(libc::EPERM));
    });
    assert_eq!(manager.lock(1), Ok(Acquired::Clean));
    elsewhere(|| {
        assert_eq!(manager.downgrade(1), Ok(()));
        assert_eq!(manager.lock_shared(1), Ok(Acquired::Clean));
    });
    assert_eq!(manager.unlock_shared(1), Ok(()));
    assert_eq!(manager.unlock_shared(1), Ok(()));
    assert_eq!(manager.lock(1), Ok(Acquired::Clean));
    assert_eq!(manager.unlock(1), Ok(()));
}

pub fn all_holders_are_listed(subject: &Subject) {
    const READERS: u32 = 9;
    let manager = subject.make();
    let pid = std::process::id() as i32;
    assert_eq!(manager.holders(1), Ok(vec![]));
    assert_eq!(manager.lock(1), Ok(Acquired::Clean));
    let own = Held { pid, tid: own_tid(), shared: false, by_process: false };
    assert_eq!(manager.holders(1), Ok(vec![own]));
    assert_eq!(manager.unlock(1), Ok(()));
    let (tids, go): (Vec<AtomicI32>, _) = ((0..READERS).map(|_| AtomicI32::new(0)).collect(), AtomicU32::new(0));
    thread::scope(|scope| {
        for tid in &tids {
            let (manager, go) = (&manager, &go);
            scope.spawn(move || {
                assert_eq!(manager.lock_shared(1), Ok(Acquired::Clean));
                tid.store(own_tid(), Ordering::Release);
                eventually("all go", || go.load(Ordering::Acquire) == 1);
                assert_eq!(manager.unlock_shared(1), Ok(()));
            });
        }
        eventually("all read", || tids.iter().all(|tid| tid.load(Ordering::Acquire) != 0));
        let mut expected: Vec<Held> = tids
            .iter()
            .map(|tid| Held { pid, tid: tid.load(Ordering::Acquire), shared: true, by_process: false })
            .collect();
        let mut holders = manager.holders(1).unwrap();
        expected.sort_unstable();
        holders.sort_unstable();
        assert_eq!(holders, expected);
        assert_eq!(manager.readers(1), Ok((READERS, false)));
        assert_eq!(manager.held(), Ok(vec![1]));
        assert_eq!(manager.repair(1), Err(libc::EBUSY));
        go.store(1, Ordering::Release);
    });
    assert_eq!(manager.holders(1), Ok(vec![]));
}

pub fn a_manager_through_which_is_read_is_not_closed(subject: &Subject) {
    let manager = subject.make();
    assert_eq!(manager.lock_shared(1), Ok(Acquired::Clean));
    assert_eq!(manager.close(), Err(libc::EBUSY));
    assert_eq!(manager.unlock_shared(1), Ok(()));
    assert_eq!(manager.close(), Ok(()));
}

/// Two readers of one lock each that want the other's exclusively.
pub fn of_a_circle_of_readers_one_is_told(subject: &Subject) {
    let manager = subject.make();
    let (reading, told) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        for (own, other) in [(1, 2), (2, 1)] {
            let (manager, reading, told) = (&manager, &reading, &told);
            scope.spawn(move || {
                assert_eq!(manager.lock_shared(own), Ok(Acquired::Clean));
                reading.fetch_add(1, Ordering::AcqRel);
                eventually("both read", || reading.load(Ordering::Acquire) == 2);
                match manager.timed_lock(other, LONG_NS) {
                    Ok(_) => assert_eq!(manager.unlock(other), Ok(())),
                    Err(errno) => {
                        assert_eq!(errno, libc::EDEADLK);
                        told.fetch_add(1, Ordering::AcqRel);
                    }
                }
                assert_eq!(manager.unlock_shared(own), Ok(()));
            });
        }
    });
    assert_eq!(told.load(Ordering::Acquire), 1);
}

/// Nobody pauses, and everybody gets turns.
pub fn neither_readers_nor_writers_starve(subject: &Subject) {
    const TURNS: u32 = 20;
    const EACH: usize = 4;
    let manager = subject.make();
    let (turns, stop) = (board(2 * EACH), AtomicU32::new(0));
    thread::scope(|scope| {
        for (place, own) in turns.iter().enumerate() {
            let (manager, stop) = (&manager, &stop);
            scope.spawn(move || {
                while stop.load(Ordering::Acquire) == 0 {
                    if place < EACH {
                        assert_eq!(manager.timed_lock_shared(1, LONG_NS), Ok(Acquired::Clean));
                        thread::sleep(std::time::Duration::from_micros(300));
                        assert_eq!(manager.unlock_shared(1), Ok(()));
                    } else {
                        assert_eq!(manager.timed_lock(1, LONG_NS), Ok(Acquired::Clean));
                        thread::sleep(std::time::Duration::from_micros(300));
                        assert_eq!(manager.unlock(1), Ok(()));
                    }
                    own.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        eventually("everybody had turns", || turns.iter().all(|turns| turns.load(Ordering::Relaxed) >= TURNS));
        stop.store(1, Ordering::Release);
    });
}
