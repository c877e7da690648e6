// SPDX-License-Identifier: MIT OR Apache-2.0
//! Creating, opening, growing and removing segments, and how much memory a lock takes.

use std::os::unix::fs::MetadataExt as _;

use crate::contenders::NATIVE;
use crate::library::{Layout, Segment, check, library};
use crate::method::{Contended, Entry, ROUNDS, Run, microseconds};
use crate::results::Quantity;

const LIFE: [Quantity; 3] =
    [Quantity::less("create", "µs"), Quantity::less("open and close", "µs"), Quantity::less("remove", "µs")];
const GROW: Quantity = Quantity::less("grow to twice as many", "µs");
const MEMORY: [Quantity; 2] =
    [Quantity::less("memory a lock when made", "bytes"), Quantity::less("memory a lock when used", "bytes")];
const SIZES: [u32; 3] = [2048, 65_536, 1_048_576];
/// What `st_blocks` counts by.
const BLOCK: u64 = 512;

pub fn run(run: &mut Run) {
    for locks in SIZES {
        let case = format!("{locks} locks");
        let rounds = if locks == SIZES[0] { run.effort.pick(ROUNDS, 41) } else { ROUNDS };
        let entries = Layout::BOTH.map(|layout| Entry::of_several(layout.contender(), move |_| life(layout, locks)));
        run.rounds("storage", &case, &LIFE, rounds, Contended::No, entries.into());
        let entry = Entry::new(NATIVE, || grow(locks));
        run.rounds("storage grow", &case, &[GROW], ROUNDS, Contended::No, vec![entry]);
        for layout in Layout::BOTH {
            for (quantity, bytes) in MEMORY.iter().zip(memory(layout, locks)) {
                run.fixed("storage memory", &case, quantity, layout.contender(), bytes);
            }
        }
    }
}

fn life(layout: Layout, locks: u32) -> Vec<f64> {
    let (create, segment) = microseconds(|| Segment::new(layout, locks));
    let (open, ()) = microseconds(|| library().close(library().open(&segment.path)));
    let (remove, code) = microseconds(|| segment.remove());
    check(code);
    vec![create, open, remove]
}

/// Of half as many.
fn grow(locks: u32) -> f64 {
    let segment = Segment::new(Layout::Native, locks / 2);
    // SAFETY: the manager is open.
    let (took, code) = microseconds(|| unsafe { (library().grow)(segment.manager, locks) });
    check(code);
    took
}

/// Bytes a lock when the segment was made, and when each of its locks was allocated and held.
fn memory(layout: Layout, locks: u32) -> [f64; 2] {
    let segment = Segment::new(layout, locks);
    let a_lock = || {
        let blocks = std::fs::metadata(segment.file()).expect("the segment's file").blocks();
        (blocks * BLOCK) as f64 / f64::from(locks)
    };
    let made = a_lock();
    for id in 0..locks {
        library().allocate(segment.manager);
        library().take(segment.manager, id);
        library().give_back(segment.manager, id);
    }
    [made, a_lock()]
}
