// SPDX-License-Identifier: MIT OR Apache-2.0
//! Readers and a writer of one lock: claims, second looks and drains are the library's own. No reader is in beside a writer,
//! and what one writes the other sees.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::atomic::{AtomicU64, Ordering, Sequence, set_sequence};
use super::cells::{self, Cells, Place, Seen, Surroundings, Table};
use super::format::{CELLS, PLACES};
use super::word::{self, Step, WaitState};
use super::{check_as_loaded_within, fails};

/// How readers and writers keep to the rules.
#[derive(Debug, Clone, Copy)]
struct Rules {
    sequence: Sequence,
    /// Behind its claim a reader looks at the word again.
    looks_again: bool,
    /// A reader that finds the word shared claims a cell, and then looks.
    claims_first: bool,
    /// A drain that ends without the lock leaves SHARED.
    leaves_shared: bool,
    /// A reader's cell goes by a release.
    gives_back: bool,
}

const RULES: Rules =
    Rules { sequence: Sequence::Kept, looks_again: true, claims_first: true, leaves_shared: true, gives_back: true };

struct Lock {
    rules: Rules,
    word: AtomicU64,
    own: [AtomicU64; CELLS],
    level: AtomicU64,
    places: [Place; PLACES],
    usable: AtomicU64,
    ready: AtomicU64,
    protected: UnsafeCell<u32>,
}

/// Nobody dies, and all of the table can be touched.
struct Quiet;

impl Surroundings for Quiet {
    fn make_usable(&self, _page: u32) -> bool {
        true
    }

    fn is_past(&self, _cell: u64) -> bool {
        false
    }

    fn wake(&self, _cell: &AtomicU64) {}
}

fn name(thread: u32) -> u64 {
    word::of_thread(word::of_process(thread, 1), 1)
}

impl Lock {
    fn new(rules: Rules, level: u64) -> Arc<Self> {
        let zero = || AtomicU64::new(0);
        Arc::new(Self {
            rules,
            word: zero(),
            own: std::array::from_fn(|_| zero()),
            level: AtomicU64::new(level),
            places: std::array::from_fn(|_| [zero(), zero()]),
            usable: AtomicU64::new(1),
            ready: AtomicU64::new(1),
            protected: UnsafeCell::new(0),
        })
    }

    fn cells(&self) -> Cells<'_> {
        let table = Table { places: &self.places, usable: &self.usable, ready: &self.ready };
        Cells { word: &self.word, own: &self.own, level: &self.level, table, id: 1 }
    }

    /// One try to read.
    fn read(&self, thread: u32) {
        let (cells, owner) = (self.cells(), name(thread));
        let may_enter = || word::may_enter(self.word.load(Ordering::Acquire), WaitState::default());
        if !may_enter() {
            return;
        }
        let claimed = if self.rules.claims_first { cells.claim(owner, &Quiet) } else { None };
        let is_in = match self.rules.looks_again {
            true => cells.look_again(WaitState::default()).is_some(),
            false => word::is_shared(self.word.load(Ordering::Acquire)),
        };
        let cell = claimed.or_else(|| if self.rules.claims_first { None } else { cells.claim(owner, &Quiet) });
        let Some(cell) = cell else { return };
        if is_in || !self.rules.looks_again {
            // SAFETY: of a reader that is in; loom fails the model if a writer is, too.
            self.protected.with(|protected| unsafe { std::ptr::read_volatile(protected) });
        }
        if self.rules.gives_back {
            cells::release_cell(cell, owner);
        } else {
            let _its = cell.compare_exchange(owner, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// One try to write.
    fn write(&self, thread: u32) {
        let (cells, me) = (self.cells(), name(thread));
        let seen = self.word.load(Ordering::Acquire);
        let Step::Take(next) = word::step(seen, me, WaitState::default()) else { return };
        if self.word.compare_exchange(seen, next, Ordering::SeqCst, Ordering::Relaxed).is_err() {
            return;
        }
        if word::is_draining(next) && !self.drain(&cells, me) {
            return;
        }
        // SAFETY: of the lock's holder; loom fails the model if that is not so.
        self.protected.with_mut(|protected| unsafe { *protected += 1 });
        let held = self.word.load(Ordering::Relaxed);
        let released = self.word.compare_exchange(held, word::released(held), Ordering::Release, Ordering::Relaxed);
        assert!(released.is_ok() && held & word::OWNER == me, "who unlocks holds it");
    }

    /// Whether every cell was empty, and the lock is held.
    fn drain(&self, cells: &Cells<'_>, me: u64) -> bool {
        let (extent, mut index) = (cells.extent(), 0);
        loop {
            match cells.at(&extent, index) {
                Seen::Cell(_, seen) if word::is_reader(seen) => {
                    let seen = self.word.load(Ordering::Relaxed);
                    let next = if self.rules.leaves_shared { word::undrained(seen) } else { 0 };
                    let given_up = self.word.compare_exchange(seen, next, Ordering::Release, Ordering::Relaxed);
                    assert!(given_up.is_ok(), "who drains has the word");
                    return false;
                }
                Seen::Cell(..) => index += 1,
                Seen::Nothing(next) => index = next,
                Seen::Unusable(_) => panic!("all can be touched"),
                Seen::End => break,
            }
        }
        let seen = self.word.load(Ordering::Relaxed);
        let held = word::drained(seen, me);
        self.word.compare_exchange(seen, held, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}

/// Readers and writers, each of whom tries so often.
fn together(rules: Rules, level: u64, preemptions: usize, readers: &'static [usize], writers: &'static [usize]) {
    check_as_loaded_within(preemptions, move || {
        set_sequence(rules.sequence);
        let lock = Lock::new(rules, level);
        let mut bodies: Vec<Box<dyn FnOnce()>> = Vec::new();
        for (place, &times) in readers.iter().chain(writers).enumerate() {
            let (lock, thread, reads) = (Arc::clone(&lock), place as u32 + 1, place < readers.len());
            bodies.push(Box::new(move || {
                (0..times).for_each(|_| if reads { lock.read(thread) } else { lock.write(thread) });
            }));
        }
        let mine = bodies.pop().unwrap();
        let threads: Vec<_> = bodies.into_iter().map(thread::spawn).collect();
        mine();
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

fn a_reader_and_a_writer(rules: Rules) {
    together(rules, 0, 3, &[2], &[2]);
}

fn a_reader_and_two_writers(rules: Rules) {
    together(rules, 0, 2, &[2], &[1, 1]);
}

#[test]
fn a_reader_is_in_beside_no_writer() {
    a_reader_and_a_writer(RULES);
}

#[test]
fn nor_is_one_of_several() {
    a_reader_and_two_writers(RULES);
    together(RULES, 0, 2, &[1, 1], &[1]);
}

#[test]
fn nor_one_in_the_table() {
    together(RULES, 1, 3, &[2], &[1]);
}

#[test]
fn without_the_second_look_a_reader_is_in_beside_a_writer() {
    fails!("Causality violation", a_reader_and_a_writer(Rules { looks_again: false, ..RULES }));
}

#[test]
fn a_reader_that_looks_before_its_claim_is_in_beside_a_writer() {
    fails!("Causality violation", a_reader_and_a_writer(Rules { claims_first: false, ..RULES }));
}

#[test]
fn a_claim_that_only_acquires_and_releases_is_not_seen() {
    fails!("Causality violation", a_reader_and_a_writer(Rules { sequence: Sequence::Broken, ..RULES }));
}

#[test]
fn a_drain_that_leaves_the_lock_as_free_lets_a_writer_in_beside_a_reader() {
    fails!("Causality violation", a_reader_and_two_writers(Rules { leaves_shared: false, ..RULES }));
}

#[test]
fn a_cell_given_back_without_a_release_lets_a_writer_see_what_was_before() {
    fails!("Causality violation", a_reader_and_a_writer(Rules { gives_back: false, ..RULES }));
}
