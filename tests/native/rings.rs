// SPDX-License-Identifier: MIT OR Apache-2.0
//! Processes that wait for each other in circles: one of each circle is told, nobody else is.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lock_manager::{Manager, Reason, ShmManager, Wait};

use super::LONG;
use super::support::alone::alone;
use super::support::timing::mostly_within;
use super::support::{Child, Segment, board, eventually, fork};

/// Three slices, and what the machine is busy with otherwise.
const FOUND: Duration = Duration::from_millis(500);

/// Processes that each hold one lock and wait for another.
pub struct Waiters<'s> {
    pub segment: &'s Segment,
    /// How many hold what they are to hold.
    holding: &'static AtomicU32,
    go: &'static AtomicU32,
    /// For each lock that was held, 1: its holder was told of a deadlock, 2: it got the lock it wanted.
    outcomes: &'static [AtomicU32],
    children: Vec<Child>,
}

pub const TOLD: u32 = 1;
pub const GOT_IT: u32 = 2;

impl<'s> Waiters<'s> {
    pub fn on(segment: &'s Segment) -> Self {
        let [holding, go] = [&board(1)[0], &board(1)[0]];
        Self { segment, holding, go, outcomes: board(64), children: Vec::new() }
    }

    /// A process that holds `held` and, when all go, waits for `wanted`. Gives its place among the children.
    pub fn add(&mut self, held: u32, wanted: u32, wait: Wait) -> usize {
        let (segment, holding, go, outcome) = (self.segment, self.holding, self.go, &self.outcomes[held as usize]);
        let before = self.holding.load(Ordering::Acquire);
        self.children.push(fork(|| {
            let manager = segment.open();
            let _ = manager.lock(held).unwrap();
            holding.fetch_add(1, Ordering::Release);
            eventually("all go", || go.load(Ordering::Acquire) == 1);
            match manager.acquire(wanted, wait, None) {
                Ok(_) => {
                    outcome.store(GOT_IT, Ordering::Release);
                    manager.unlock(wanted).unwrap();
                }
                Err(error) => {
                    assert_eq!(error.errno(), libc::EDEADLK, "{error}");
                    assert!(matches!(error.reason(), Reason::Deadlock { id, .. } if *id == wanted), "{error}");
                    outcome.store(TOLD, Ordering::Release);
                }
            }
            manager.unlock(held).unwrap();
        }));
        eventually("it holds its lock", || self.holding.load(Ordering::Acquire) > before);
        self.children.len() - 1
    }

    pub fn go(&self) {
        self.go.store(1, Ordering::Release);
    }

    pub fn child(&self, place: usize) -> &Child {
        &self.children[place]
    }

    /// Waits until all have ended; tells which holders were told of a deadlock, by the lock that they held.
    pub fn end(self) -> Vec<u32> {
        self.children.into_iter().for_each(Child::succeeds);
        (0..64).filter(|&held| self.outcomes[held as usize].load(Ordering::Acquire) == TOLD).collect()
    }

    pub fn outcome(&self, held: u32) -> u32 {
        self.outcomes[held as usize].load(Ordering::Acquire)
    }
}

/// How long it took until all had ended.
fn ring(size: u32, wait: Wait) -> Duration {
    let segment = Segment::native(64);
    let mut waiters = Waiters::on(&segment);
    for place in 0..size {
        waiters.add(place, (place + 1) % size, wait);
    }
    let start = Instant::now();
    waiters.go();
    let told = waiters.end();
    let took = start.elapsed();
    assert_eq!(told.len(), 1, "of a ring of {size}: {told:?}");
    assert_eq!(segment.open().locks_held().unwrap(), [0; 0]);
    took
}

#[test]
fn of_a_ring_of_2_to_16_processes_exactly_one_is_told() {
    alone!({
        (2..=16).for_each(|size| _ = ring(size, Wait::Forever));
        mostly_within(FOUND, "one of a ring of two is told", |_| ring(2, Wait::Forever));
    });
}

#[test]
fn a_wait_with_a_timeout_is_told_before_it_is_over() {
    alone!({ [2, 3, 5].into_iter().for_each(|size| _ = ring(size, Wait::at_most(LONG))) });
}

#[test]
fn who_waits_for_a_ring_and_is_not_in_it_is_not_told() {
    alone!({
        for _ in 0..5 {
            let segment = Segment::native(64);
            let mut waiters = Waiters::on(&segment);
            for place in 0..3 {
                waiters.add(place, (place + 1) % 3, Wait::Forever);
            }
            // A tail, two behind each other, and another that waits for the same lock as a member.
            waiters.add(10, 0, Wait::Forever);
            waiters.add(11, 10, Wait::Forever);
            waiters.add(12, 1, Wait::Forever);
            waiters.go();
            let told = waiters.end();
            assert!(told.len() == 1 && told[0] < 3, "{told:?}");
        }
    });
}

#[test]
fn two_rings_at_a_time_are_each_told_once() {
    alone!({
        let segment = Segment::native(64);
        let mut waiters = Waiters::on(&segment);
        for place in 0..3 {
            waiters.add(place, (place + 1) % 3, Wait::Forever);
            waiters.add(20 + place, 20 + (place + 1) % 3, Wait::Forever);
        }
        waiters.go();
        let told = waiters.end();
        assert!(told.len() == 2 && told[0] < 3 && told[1] >= 20, "{told:?}");
    });
}

#[test]
fn ways_that_meet_are_no_ring() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let _ = manager.lock(0).unwrap();
        let mut waiters = Waiters::on(&segment);
        // Two wait for what one holds who waits for this process, which waits for nobody.
        waiters.add(1, 0, Wait::Forever);
        waiters.add(2, 1, Wait::Forever);
        waiters.add(3, 1, Wait::Forever);
        waiters.add(4, 0, Wait::Forever);
        waiters.go();
        until_waited_for(&manager, 0, 2);
        until_waited_for(&manager, 1, 2);
        // Many slices, in which each has looked.
        let _ = manager.timed_lock(0, Duration::ZERO).unwrap_err();
        let start = Instant::now();
        eventually("they have looked often", || start.elapsed() > Duration::from_millis(100));
        manager.unlock(0).unwrap();
        assert_eq!(waiters.end(), [0; 0]);
    });
}

/// Waits until as many have said that they wait for a lock.
pub fn until_waited_for(manager: &ShmManager, id: u32, waiters: u32) {
    eventually("it is waited for", || manager.lock_info(id).unwrap().waiters == waiters);
}

#[test]
fn a_ring_is_found_though_a_member_is_stopped() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let mut waiters = Waiters::on(&segment);
        let stopped = waiters.add(2, 0, Wait::Forever);
        // Holds the lock that the one waits for until all are there.
        let _ = manager.lock(0).unwrap();
        waiters.go();
        until_waited_for(&manager, 0, 1);
        waiters.child(stopped).signal(libc::SIGSTOP);
        waiters.child(stopped).until_it_is_stopped();
        manager.unlock(0).unwrap();
        // Now its edge is there, and it can do nothing.
        let mut others = Waiters::on(&segment);
        others.add(0, 1, Wait::Forever);
        others.add(1, 2, Wait::Forever);
        others.go();
        eventually("one is told", || others.outcome(0) == TOLD || others.outcome(1) == TOLD);
        waiters.child(stopped).signal(libc::SIGCONT);
        assert_eq!(waiters.end(), [0; 0]);
        let told = others.end();
        assert!(told == [0] || told == [1], "{told:?}");
    });
}
