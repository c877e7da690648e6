// SPDX-License-Identifier: MIT OR Apache-2.0
//! Processes that lock, allocate and die at random. What a lock protects shows whether two were inside, and whether
//! the next holder was told.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use lock_manager::{Acquired, FileManager, Manager};

use super::place::Place;
use super::support::alone::alone;
use super::support::{Child, Random, board, fork};

const PROCESSES: usize = 4;
const LOCKS: u32 = 3;
const KILLS: u32 = 1000;
const LONG: Duration = super::support::timing::scaled(Duration::from_secs(30));

/// Of each lock: two numbers that are equal while nobody is inside.
fn numbers(words: &[AtomicU32], id: u32) -> [&AtomicU32; 2] {
    [&words[2 * id as usize], &words[2 * id as usize + 1]]
}

/// Enters and leaves until it is killed.
fn live(place: &Place, words: &[AtomicU32], mut random: Random) {
    let manager = place.open();
    loop {
        let id = random.below(LOCKS.into()) as u32;
        enter(&manager, id, words);
        if random.below(8) == 0 {
            allocate_and_free(&manager, words);
        }
    }
}

/// Whoever dies in here loses an id to nobody.
fn allocate_and_free(manager: &FileManager, words: &[AtomicU32]) {
    let id = manager.allocate_lock().unwrap();
    let given = &words[(2 * LOCKS + id) as usize];
    assert!(id >= LOCKS && given.swap(1, Ordering::AcqRel) == 0, "{id} was given twice");
    (0..50).for_each(|_| std::hint::spin_loop());
    // Once it is freed it may be another's.
    given.store(0, Ordering::Release);
    manager.free_lock(id).unwrap();
}

fn enter(manager: &FileManager, id: u32, words: &[AtomicU32]) {
    let acquired = manager.timed_lock(id, LONG).unwrap();
    let [first, second] = numbers(words, id);
    let before = first.load(Ordering::Relaxed);
    // The last word counts how often a death was told.
    if acquired == Acquired::OwnerDied {
        words[words.len() - 1].fetch_add(1, Ordering::Relaxed);
    }
    let is_whole = second.load(Ordering::Relaxed) == before;
    assert!(is_whole || acquired == Acquired::OwnerDied, "lock {id} was clean, and what it protects was not");
    first.store(before.wrapping_add(1), Ordering::Relaxed);
    // Long enough that many die in here.
    (0..2000).for_each(|_| std::hint::spin_loop());
    assert_eq!(first.load(Ordering::Relaxed), before.wrapping_add(1), "somebody else is inside of lock {id}");
    second.store(before.wrapping_add(1), Ordering::Relaxed);
    manager.unlock(id).unwrap();
}

#[test]
fn deaths_at_random_lose_no_lock_and_let_no_two_in() {
    alone!({
        let place = Place::fresh();
        let manager = place.open();
        (0..LOCKS).for_each(|id| assert_eq!(manager.allocate_lock().unwrap(), id));
        // The pairs; whether an id is given, for as many as deaths can cost; and how often a death was told.
        let words = board((2 * LOCKS + 2 * KILLS) as usize);
        let mut random = Random::seeded();
        let mut start = || {
            let seed = Random::from_seed(random.next());
            fork(|| live(&place, words, seed))
        };
        let mut living: Vec<Child> = (0..PROCESSES).map(|_| start()).collect();
        for kill in 0..KILLS {
            thread::sleep(Duration::from_micros(u64::from(kill * 37 % 5000)));
            let fresh = start();
            let victim = std::mem::replace(&mut living[kill as usize % PROCESSES], fresh);
            assert!(super::support::process::state_of(victim.pid()) != Some('Z'), "a process failed by itself");
            victim.kill();
        }
        living.into_iter().for_each(Child::kill);
        for id in 0..LOCKS {
            enter(&manager, id, words);
            assert_eq!(manager.try_lock(id).unwrap(), Acquired::Clean);
            manager.unlock(id).unwrap();
        }
        assert_eq!(manager.locks_held().unwrap(), []);
        let told = words[words.len() - 1].load(Ordering::Relaxed);
        assert!(told > KILLS / 100, "{told} of {KILLS} deaths befell a holder: the rest shows little");
        // What is left allocated are ids of the dead.
        let lost = place.names().len() as u32 - 1 - LOCKS;
        assert!(lost <= KILLS, "{lost} ids were lost by {KILLS} deaths");
    });
}
