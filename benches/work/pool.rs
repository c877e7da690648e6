// SPDX-License-Identifier: MIT OR Apache-2.0
//! Allocating, freeing, counting and listing in pools from 32 to 1,048,576 locks: empty, half full and nearly full.

mod linear;

use std::sync::atomic::Ordering;

use crate::contenders::NATIVE;
use crate::library::{Layout, Segment, check, library};
use crate::method::{Contended, Entry, ROUNDS, Run, median, microseconds, nanoseconds};
use crate::processes::{Words, in_child};
use crate::results::Quantity;
use linear::LinearPool;

const PAIR: Quantity = Quantity::less("allocate + free", "ns");
const FIRST: Quantity = Quantity::less("first allocation of a process", "µs");
const COUNT: Quantity = Quantity::less("count the free ones", "µs");
const LIST: Quantity = Quantity::less("list the held ones", "µs");
/// Allocation in the shape that libpod's has.
const LINEAR: &str = "search from the start";
/// A sample's length.
const SAMPLE_NS: f64 = 300_000.0;
const SIZES: [u32; 4] = [32, 2048, 65_536, 1_048_576];

/// How full a pool is.
#[derive(Clone, Copy)]
enum Full {
    Empty,
    Half,
    /// One is free.
    Nearly,
}

impl Full {
    const ALL: [Self; 3] = [Self::Empty, Self::Half, Self::Nearly];

    fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Half => "half full",
            Self::Nearly => "one free",
        }
    }

    fn allocated(self, locks: u32) -> u32 {
        match self {
            Self::Empty => 0,
            Self::Half => locks / 2,
            Self::Nearly => locks - 1,
        }
    }
}

pub fn run(run: &mut Run) {
    for locks in SIZES {
        for full in Full::ALL {
            allocation(run, locks, full);
        }
        listing(run, locks);
    }
}

fn allocation(run: &mut Run, locks: u32, full: Full) {
    let case = format!("{locks} locks {}", full.name());
    let segments = Layout::BOTH.map(|layout| (layout, Segment::new(layout, locks)));
    let linear = LinearPool::new(locks);
    for (_, segment) in &segments {
        let num = segment_size(segment);
        let spare = locks - full.allocated(locks);
        for _ in spare..num {
            library().allocate(segment.manager);
        }
    }
    linear.fill(full.allocated(locks));

    let rounds = run.effort.pick(ROUNDS, 21);
    let mut entries: Vec<Entry<'_>> = segments
        .iter()
        .map(|(layout, segment)| {
            sampled(layout.contender(), || library().free(segment.manager, library().allocate(segment.manager)))
        })
        .collect();
    entries.push(sampled(LINEAR, || linear.free(linear.allocate().expect("one is free"))));
    run.rounds("pool", &case, &[PAIR], rounds, Contended::No, entries);

    let mut entries: Vec<Entry<'_>> =
        segments.iter().map(|(layout, segment)| Entry::new(layout.contender(), || first_allocation(segment))).collect();
    entries
        .push(Entry::new(LINEAR, || in_a_process(|| linear.allocate().expect("one is free"), |&id| linear.free(id))));
    run.rounds("pool first", &case, &[FIRST], rounds, Contended::No, entries);

    let entries = segments.iter().map(|(layout, segment)| {
        let count = || {
            let mut count = 0;
            // SAFETY: as the header says: a place for the count.
            check(unsafe { (library().available_locks)(segment.manager, &mut count) });
        };
        Entry::new(layout.contender(), move || nanoseconds(20, count) / 1000.0)
    });
    run.rounds("pool count", &case, &[COUNT], rounds, Contended::No, entries.collect());
}

/// An entry whose samples are all about as long.
fn sampled<'a>(contender: &str, mut work: impl FnMut() + 'a) -> Entry<'a> {
    let once = median((0..3).map(|_| nanoseconds(3, &mut work)).collect());
    let calls = (SAMPLE_NS / once).clamp(3.0, 5000.0) as u32;
    Entry::new(contender, move || nanoseconds(calls, &mut work))
}

/// The locks of a segment that nobody has allocated yet: more than were asked for where they come in groups.
fn segment_size(segment: &Segment) -> u32 {
    let mut count = 0;
    // SAFETY: as the header says: a place for the count.
    check(unsafe { (library().available_locks)(segment.manager, &mut count) });
    count
}

/// Microseconds of the first allocation in a process that has just opened the segment.
fn first_allocation(segment: &Segment) -> f64 {
    let took = Words::new(1);
    in_child(|| {
        let manager = library().open(&segment.path);
        let (us, id) = microseconds(|| library().allocate(manager));
        took[0].store(us.to_bits(), Ordering::Release);
        library().free(manager, id);
    });
    f64::from_bits(took[0].load(Ordering::Acquire))
}

fn in_a_process<T>(work: impl FnOnce() -> T, undo: impl FnOnce(&T)) -> f64 {
    let took = Words::new(1);
    in_child(|| {
        let (us, result) = microseconds(work);
        took[0].store(us.to_bits(), Ordering::Release);
        undo(&result);
    });
    f64::from_bits(took[0].load(Ordering::Acquire))
}

fn listing(run: &mut Run, locks: u32) {
    let segments = Layout::BOTH.map(|layout| (layout, Segment::new(layout, locks)));
    let list = |segment: &Segment, ids: &mut Vec<u32>, held: u32| {
        let calls = if locks > 65_536 { 1 } else { 10 };
        let us = nanoseconds(calls, || assert_eq!(library().count_held(segment.manager, ids), held as usize)) / 1000.0;
        vec![us]
    };
    let entries = segments.iter().map(|(layout, segment)| {
        let mut ids = vec![0; locks as usize];
        Entry::of_several(layout.contender(), move |_| list(segment, &mut ids, 0))
    });
    run.rounds("pool list", &format!("{locks} locks none held"), &[LIST], ROUNDS, Contended::No, entries.collect());

    // A thread may hold 2000 in the libpod layout; in the native one all.
    let [(_, native), _] = &segments;
    (0..locks).for_each(|id| library().take(native.manager, id));
    let mut ids = vec![0; locks as usize];
    let entry = Entry::of_several(NATIVE, |_| list(native, &mut ids, locks));
    run.rounds("pool list", &format!("{locks} locks all held"), &[LIST], ROUNDS, Contended::No, vec![entry]);
    (0..locks).for_each(|id| library().give_back(native.manager, id));
}
