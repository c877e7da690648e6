// SPDX-License-Identifier: MIT OR Apache-2.0
//! Processes that lock, unlock, allocate and free at random and are killed at random: no lock has two holders or is
//! lost, no id is given out twice.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing helper is a failing test")]

mod support;

use std::hint;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lock_manager::{Acquired, Manager, ShmManager, Wait};
use support::alone::{self, alone};
use support::{Child, Exit, Random, Segment, board, eventually, fork, layout};

/// How many workers are killed, if not as many as by default.
const KILLS: &str = "LOCK_MANAGER_CHAOS_KILLS";
const DEFAULT_KILLS: u32 = 2000;

const WORKERS: u32 = 5;
/// Few, so that they are fought for.
const CONTESTED: u32 = 6;
/// As many ids as a worker has at most. A death may cost one more, which nobody knows of.
const IDS_EACH: usize = 3;

/// What all share. A worker's life has a number of its own, from 1.
struct Arena {
    segment: Segment,
    num_locks: u32,
    /// For each contested lock, the life that is inside.
    inside: &'static [AtomicU32],
    /// For each id, the life that it was given to.
    given: &'static [AtomicU32],
    /// For each life, the ids that it has, one more than each; 0: none.
    kept: &'static [AtomicU32],
    /// For each life, whether it is about to be killed, or was.
    doomed: &'static [AtomicU32],
    counts: &'static [AtomicU32],
}

/// What is counted; see [`Arena::count`].
#[derive(Clone, Copy)]
enum Count {
    Acquired,
    OwnerDied,
    Allocated,
    Stop,
}

impl Arena {
    fn new(kills: u32) -> Self {
        // Room for all that deaths can cost, so that there are always some left to allocate.
        let num_locks = (kills + WORKERS * (IDS_EACH as u32 + 1)).next_multiple_of(layout::GROUP).max(64);
        Self {
            segment: Segment::of(num_locks),
            num_locks,
            inside: board(CONTESTED as usize),
            given: board(num_locks as usize),
            kept: board((kills + WORKERS + 1) as usize * IDS_EACH),
            doomed: board((kills + WORKERS + 1) as usize),
            counts: board(4),
        }
    }

    fn count(&self, what: Count) -> &'static AtomicU32 {
        &self.counts[what as usize]
    }

    fn is_stopped(&self) -> bool {
        self.count(Count::Stop).load(Ordering::Acquire) != 0
    }
}

/// One life of a worker.
struct Worker<'a> {
    arena: &'a Arena,
    manager: &'a dyn Manager,
    life: u32,
    random: Random,
}

impl Worker<'_> {
    fn run(mut self) {
        while !self.arena.is_stopped() {
            match self.random.below(8) {
                0 | 1 => self.allocate_or_free(),
                2 => self.look(),
                _ => self.lock(),
            }
        }
        self.arena.take_back(self.manager, self.life);
    }

    fn lock(&mut self) {
        let id = self.random.below(u64::from(CONTESTED)) as u32;
        let wait = self.random.pick(&[Wait::Forever, Wait::Forever, Wait::Try, Wait::Nanoseconds(300_000)]);
        match self.manager.acquire(id, wait, None) {
            Ok(acquired) => self.stay_inside(id, acquired),
            Err(error) => assert!([libc::EBUSY, libc::ETIMEDOUT].contains(&error.errno()), "{error}"),
        }
    }

    fn stay_inside(&mut self, id: u32, acquired: Acquired) {
        let arena = self.arena;
        let inside = &arena.inside[id as usize];
        let before = inside.swap(self.life, Ordering::AcqRel);
        match acquired {
            Acquired::Clean => assert_eq!(before, 0, "life {before} is inside of lock {id}, and so is {}", self.life),
            Acquired::OwnerDied => {
                arena.count(Count::OwnerDied).fetch_add(1, Ordering::Relaxed);
                let dead = before == 0 || arena.doomed[before as usize].load(Ordering::Acquire) != 0;
                assert!(dead, "life {before} was said to have died in lock {id}, and lives");
            }
        }
        arena.count(Count::Acquired).fetch_add(1, Ordering::Relaxed);
        for _ in 0..self.random.below(200) {
            assert_eq!(inside.load(Ordering::Relaxed), self.life, "somebody else is inside of lock {id}, too");
            hint::spin_loop();
        }
        // Two at once now and then, always in the same order.
        if id + 1 < CONTESTED
            && self.random.below(4) == 0
            && let Ok(acquired) = self.manager.acquire(id + 1, self.random.pick(&[Wait::Try, Wait::Forever]), None)
        {
            self.stay_inside(id + 1, acquired);
        }
        let after = inside.swap(0, Ordering::AcqRel);
        assert_eq!(after, self.life, "somebody else was inside of lock {id}, too");
        self.manager.unlock(id).unwrap();
    }

    fn allocate_or_free(&mut self) {
        let arena = self.arena;
        let place = &arena.kept_by(self.life)[self.random.below(IDS_EACH as u64) as usize];
        if place.load(Ordering::Relaxed) != 0 {
            arena.free(self.manager, place);
            return;
        }
        let id = self.manager.allocate_lock().unwrap();
        let before = arena.given[id as usize].swap(self.life, Ordering::AcqRel);
        assert_eq!(before, 0, "id {id} was given to life {before}, and to {}", self.life);
        place.store(id + 1, Ordering::Release);
        arena.count(Count::Allocated).fetch_add(1, Ordering::Relaxed);
    }

    fn look(&mut self) {
        let id = self.random.below(u64::from(CONTESTED)) as u32;
        self.manager.lock_info(id).unwrap();
        assert!(self.manager.locks_held().unwrap().iter().all(|&id| id < CONTESTED));
        assert!(self.manager.available_locks().unwrap() <= self.arena.num_locks);
    }
}

impl Arena {
    fn kept_by(&self, life: u32) -> &'static [AtomicU32] {
        &self.kept[life as usize * IDS_EACH..][..IDS_EACH]
    }

    /// Frees the id in that place. Whoever dies in here loses it: nobody gets it back, and nobody gets it twice.
    fn free(&self, manager: &dyn Manager, place: &AtomicU32) {
        let id = place.swap(0, Ordering::AcqRel) - 1;
        // After free_lock it may be another's.
        self.given[id as usize].store(0, Ordering::Release);
        manager.free_lock(id).unwrap();
    }

    /// Frees what a life has at its end.
    fn take_back(&self, manager: &dyn Manager, life: u32) {
        let places = self.kept_by(life).iter();
        places.filter(|place| place.load(Ordering::Acquire) != 0).for_each(|place| self.free(manager, place));
    }

    /// Starts a worker, every second one on the manager that it inherits.
    fn start(&self, inherited: &ShmManager, life: u32, seed: u64) -> Child {
        fork(|| {
            let own = life.is_multiple_of(2).then(|| self.segment.open());
            let manager = own.as_ref().unwrap_or(inherited);
            let random = Random::from_seed(seed);
            Worker { arena: self, manager, life, random }.run();
            manager.check_idle().unwrap();
        })
    }
}

#[test]
fn killed_at_random_no_lock_is_lost_or_held_by_two_and_no_id_is_given_twice() {
    alone!({
        let kills = std::env::var(KILLS).ok().and_then(|kills| kills.parse().ok()).unwrap_or(DEFAULT_KILLS);
        alone::allow(100 + kills / 20);
        let mut random = Random::seeded();
        let recipe = random.recipe();
        let arena = Arena::new(kills);
        let manager = arena.segment.open();
        let mut workers: Vec<(u32, Child)> =
            (1..=WORKERS).map(|life| (life, arena.start(&manager, life, random.next()))).collect();
        for life in WORKERS + 1..=WORKERS + kills {
            let acquired = arena.count(Count::Acquired).load(Ordering::Relaxed);
            // Somebody gets on between two deaths, or all hang.
            eventually("a lock is taken", || arena.count(Count::Acquired).load(Ordering::Relaxed) != acquired);
            for _ in 0..random.below(20_000) {
                hint::spin_loop();
            }
            let (victim, child) = workers.swap_remove(random.below(u64::from(WORKERS)) as usize);
            arena.doomed[victim as usize].store(1, Ordering::Release);
            child.signal(libc::SIGKILL);
            assert_eq!(child.wait(), Exit::Signal(libc::SIGKILL), "life {victim} had failed; {recipe}");
            arena.take_back(&manager, victim);
            workers.push((life, arena.start(&manager, life, random.next())));
        }
        arena.count(Count::Stop).store(1, Ordering::Release);
        for (life, worker) in workers {
            assert_eq!(worker.wait(), Exit::Code(0), "life {life}; {recipe}");
        }

        // Nobody is there any more. What deaths have left is told once, and then all is as it was.
        for id in 0..arena.num_locks {
            for _ in 0..2 {
                let _ = manager.timed_lock(id, Duration::from_secs(20)).unwrap();
                manager.unlock(id).unwrap();
            }
            assert!(!manager.lock_info(id).unwrap().owner_died, "{id}");
        }
        assert_eq!(manager.locks_held().unwrap(), [0; 0]);
        // Claims that are left are those of the dead.
        let claims = arena.given.iter().map(|given| given.load(Ordering::Acquire));
        assert!(claims.into_iter().all(|life| life == 0 || arena.doomed[life as usize].load(Ordering::Acquire) != 0));
        let lost = arena.num_locks - manager.available_locks().unwrap();
        assert!(lost <= kills, "{lost} ids lost by {kills} deaths; {recipe}");
        let [acquired, died, allocated] =
            [Count::Acquired, Count::OwnerDied, Count::Allocated].map(|what| arena.count(what).load(Ordering::Relaxed));
        assert!(acquired > kills && allocated > 0, "{acquired} locks, {allocated} ids");
        assert!(kills < 500 || died > kills / 100, "{died} of {kills} deaths befell a holder: the rest shows little");
    });
}
