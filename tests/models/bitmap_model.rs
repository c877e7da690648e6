// SPDX-License-Identifier: MIT OR Apache-2.0
//! Allocation: an id goes to one, none is lost whatever dies where, and "all are allocated" is said when it is so.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use loom::sync::Arc;
use loom::thread;

use super::atomic::{AtomicU32, AtomicU64, Broken, Ordering, break_machine, dying_after};
use super::bitmap::{Bitmap, Exhausted};
use super::{check, check_within, fails};

const BITS: u32 = u64::BITS;

/// What the processes share.
struct Pool {
    words: Vec<AtomicU64>,
    summary: Vec<AtomicU64>,
    frees: AtomicU64,
}

impl Pool {
    /// Words of the bitmap as given, and a summary that fits.
    fn of(words: &[u64]) -> Arc<Self> {
        let full = (0..).zip(words).filter(|&(_, &word)| word == u64::MAX).map(|(index, _)| 1u64 << index).sum();
        Self::with_summary(words, full)
    }

    fn with_summary(words: &[u64], summary: u64) -> Arc<Self> {
        Arc::new(Self {
            words: words.iter().map(|&word| AtomicU64::new(word)).collect(),
            summary: vec![AtomicU64::new(summary)],
            frees: AtomicU64::new(0),
        })
    }

    /// As a process sees it that looked into the word of that index last.
    fn seen_from<R>(&self, index: u32, look: impl FnOnce(&Bitmap<'_>) -> R) -> R {
        let hint = AtomicU32::new(index);
        look(&Bitmap { words: &self.words, summary: &self.summary, frees: &self.frees, hint: &hint })
    }

    fn free_ids(&self) -> Vec<u32> {
        let is_free = |&id: &u32| self.seen_from(0, |bitmap| !bitmap.is_allocated(id));
        (0..self.words.len() as u32 * BITS).filter(is_free).collect()
    }

    /// At rest: the summary hides no word that has something free.
    fn assert_summary_hides_nothing(&self) {
        let summary = self.summary[0].load(Ordering::Acquire);
        for (index, word) in self.words.iter().enumerate() {
            let is_full = word.load(Ordering::Acquire) == u64::MAX;
            assert!(is_full || summary & 1 << index == 0, "word {index} is hidden");
        }
    }

    /// At rest: everything that is free can be had, from wherever one looks first.
    fn assert_all_free_ids_can_be_had(&self) {
        let mut free = self.free_ids();
        self.seen_from(self.words.len() as u32 - 1, |bitmap| {
            let mut had: Vec<u32> = std::iter::from_fn(|| bitmap.allocate().ok()).collect();
            had.sort_unstable();
            free.sort_unstable();
            assert_eq!(had, free, "lost, or given twice");
        });
    }
}

/// All taken but these.
const fn all_but(ids: &[u32]) -> u64 {
    let (mut word, mut index) = (u64::MAX, 0);
    while index < ids.len() {
        word &= !(1 << ids[index]);
        index += 1;
    }
    word
}

fn each_gets_an_id_of_its_own() {
    check(|| {
        let pool = Pool::of(&[all_but(&[3, 60])]);
        let other = Arc::clone(&pool);
        let first = thread::spawn(move || other.seen_from(0, |bitmap| bitmap.allocate()));
        let second = pool.seen_from(0, |bitmap| bitmap.allocate());
        let mut ids = [first.join().unwrap().unwrap(), second.unwrap()];
        ids.sort_unstable();
        assert_eq!(ids, [3, 60]);
        pool.assert_summary_hides_nothing();
        assert_eq!(pool.seen_from(0, |bitmap| bitmap.allocate()), Err(Exhausted));
    });
}

#[test]
fn an_id_goes_to_one() {
    each_gets_an_id_of_its_own();
}

#[test]
fn without_an_atomic_swap_an_id_goes_to_two() {
    fails!("left == right", {
        break_machine(Broken::Swaps);
        each_gets_an_id_of_its_own();
    });
}

/// All ids are freed where the last bits stand for no lock, while somebody allocates.
fn only_locks_are_given(free_all: fn(&Bitmap<'_>, u32)) {
    check(move || {
        const LOCKS: u32 = BITS + 1;
        let pool = Pool::of(&[u64::MAX, u64::MAX]);
        let other = Arc::clone(&pool);
        let freer = thread::spawn(move || other.seen_from(0, |bitmap| free_all(bitmap, LOCKS)));
        // Looks first where the last lock is.
        for _ in 0..2 {
            let id = pool.seen_from(1, |bitmap| bitmap.allocate());
            assert!(id.is_err() || id.is_ok_and(|id| id < LOCKS), "{id:?} is no lock");
        }
        freer.join().unwrap();
    });
}

#[test]
fn who_allocates_while_all_are_freed_gets_a_lock() {
    only_locks_are_given(|bitmap, num_locks| bitmap.free_all(num_locks));
}

#[test]
fn where_what_is_no_lock_is_taken_again_after_all_are_freed_it_is_given() {
    fails!("is no lock", {
        only_locks_are_given(|bitmap, num_locks| {
            bitmap.free_all(num_locks.next_multiple_of(BITS));
            bitmap.keep_tail(num_locks);
        });
    });
}

#[test]
fn of_three_one_gets_the_last_id() {
    check_within(3, || {
        let pool = Pool::of(&[u64::MAX, all_but(&[0])]);
        let others = [0, 1].map(|hint| {
            let pool = Arc::clone(&pool);
            thread::spawn(move || pool.seen_from(hint, |bitmap| bitmap.allocate()))
        });
        let third = pool.seen_from(1, |bitmap| bitmap.allocate_given(BITS));
        let had = others.map(|other| other.join().unwrap()).iter().filter(|had| **had == Ok(BITS)).count();
        assert_eq!(had + usize::from(third), 1);
        pool.assert_summary_hides_nothing();
    });
}

/// Two processes, two ids: each always finds one, since the other has one at most.
fn who_gives_one_back_gets_one() {
    check_within(3, || {
        // The summary, wrong since a death, leaves it to the search of all.
        let pool = Pool::with_summary(&[u64::MAX, all_but(&[7])], 0b11);
        let other = Arc::clone(&pool);
        // Looks where the one that it gave back is not.
        let mover = thread::spawn(move || {
            other.seen_from(0, |bitmap| assert!(bitmap.free(9)));
            other.seen_from(1, |bitmap| bitmap.allocate())
        });
        let searcher = pool.seen_from(0, |bitmap| bitmap.allocate());
        let mut ids = [searcher.unwrap(), mover.join().unwrap().unwrap()];
        ids.sort_unstable();
        assert_eq!(ids, [9, BITS + 7]);
        pool.assert_summary_hides_nothing();
    });
}

#[test]
fn a_search_that_something_was_freed_behind_goes_on() {
    who_gives_one_back_gets_one();
}

#[test]
fn without_the_count_of_frees_a_search_ends_too_early() {
    fails!("Exhausted", {
        break_machine(Broken::Counters);
        who_gives_one_back_gets_one();
    });
}

#[test]
fn a_free_beside_an_allocation_leaves_the_summary_right() {
    check(|| {
        let pool = Pool::of(&[all_but(&[5])]);
        let other = Arc::clone(&pool);
        let freeing = thread::spawn(move || assert!(other.seen_from(0, |bitmap| bitmap.free(6))));
        let id = pool.seen_from(0, |bitmap| bitmap.allocate()).unwrap();
        freeing.join().unwrap();
        assert!([5, 6].contains(&id));
        assert_eq!(pool.free_ids(), [11 - id]);
        pool.assert_summary_hides_nothing();
        pool.assert_all_free_ids_can_be_had();
    });
}

#[test]
fn of_two_who_give_the_same_id_back_one_does() {
    check(|| {
        let pool = Pool::of(&[u64::MAX]);
        let other = Arc::clone(&pool);
        let first = thread::spawn(move || other.seen_from(0, |bitmap| bitmap.free(63)));
        let second = pool.seen_from(0, |bitmap| bitmap.free(63));
        assert_ne!(first.join().unwrap(), second);
        assert_eq!(pool.free_ids(), [63]);
        pool.assert_summary_hides_nothing();
    });
}

/// Runs a model with a death after each number of steps, until there are too many to die; it returns whether nobody died.
fn with_a_death_at_each_step(model: impl Fn(u32) -> bool + Send + Sync + Copy + 'static) {
    /// More than an allocation has, in a search and out of it.
    const MOST_STEPS: u32 = 20;
    let deaths: &'static AtomicUsize = Box::leak(Box::default());
    let deaths_after = |steps| {
        check_within(2, move || {
            deaths.fetch_add(usize::from(!model(steps)), Relaxed);
        });
        deaths.swap(0, Relaxed)
    };
    for steps in 0.. {
        assert!(steps < MOST_STEPS, "no end");
        if deaths_after(steps) == 0 {
            assert!(steps > 2, "the death of nobody shows nothing");
            return;
        }
    }
}

#[test]
fn a_death_in_an_allocation_loses_one_id_at_most_and_hides_none() {
    with_a_death_at_each_step(|steps| {
        let pool = Pool::of(&[all_but(&[1]), all_but(&[2])]);
        let other = Arc::clone(&pool);
        let dying = thread::spawn(move || {
            dying_after(steps, || {
                let _ = other.seen_from(0, |bitmap| bitmap.allocate());
            })
        });
        let id = pool.seen_from(0, |bitmap| bitmap.allocate()).unwrap();
        let ended = dying.join().unwrap();
        assert!(!pool.free_ids().contains(&id));
        assert!(pool.free_ids().len() <= 1);
        pool.assert_all_free_ids_can_be_had();
        ended
    });
}

#[test]
fn a_death_in_a_free_hides_no_id() {
    with_a_death_at_each_step(|steps| {
        let pool = Pool::of(&[u64::MAX, all_but(&[2])]);
        let other = Arc::clone(&pool);
        let dying = thread::spawn(move || {
            dying_after(steps, || {
                other.seen_from(0, |bitmap| bitmap.free(1));
            })
        });
        let id = pool.seen_from(0, |bitmap| bitmap.allocate()).unwrap();
        let ended = dying.join().unwrap();
        assert!(!pool.free_ids().contains(&id));
        pool.assert_all_free_ids_can_be_had();
        ended
    });
}

#[test]
fn a_summary_that_is_wrong_everywhere_hides_nothing_and_is_mended() {
    for summary in [0, 0b11, u64::MAX] {
        check(move || {
            let pool = Pool::with_summary(&[all_but(&[1]), all_but(&[2])], summary);
            let other = Arc::clone(&pool);
            let first = thread::spawn(move || other.seen_from(0, |bitmap| bitmap.allocate()));
            let second = pool.seen_from(7, |bitmap| bitmap.allocate());
            let mut ids = [first.join().unwrap().unwrap(), second.unwrap()];
            ids.sort_unstable();
            assert_eq!(ids, [1, BITS + 2]);
            pool.seen_from(0, |bitmap| assert!(bitmap.free(1)));
            pool.assert_summary_hides_nothing();
        });
    }
}

#[test]
fn a_search_mends_the_summary_where_it_hides_something() {
    check(|| {
        let pool = Pool::with_summary(&[u64::MAX, all_but(&[1, 5])], 0b11);
        assert_eq!(pool.seen_from(0, |bitmap| bitmap.allocate()), Ok(BITS + 1));
        pool.assert_summary_hides_nothing();
    });
}
