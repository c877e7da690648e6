// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! A lock that nobody else wants: lock and unlock.

use super::AGAIN;
use crate::contenders::{Contender, NATIVE};
use crate::method::{Contended, Entry, Run, nanoseconds};
use crate::results::Quantity;

const PAIR: Quantity = Quantity::less("lock + unlock", "ns");
/// A sample's length, for locks of nanoseconds and of a system call each.
const SAMPLE_NS: f64 = 400_000.0;

pub fn run(run: &mut Run) {
    let rounds = run.effort.pick(21, 201);
    let contenders = Contender::all();
    let fresh: Vec<_> = contenders.iter().map(Contender::fresh).collect();
    let mut entries: Vec<Entry<'_>> = Vec::new();
    for (contender, fresh) in contenders.iter().zip(&fresh) {
        let lock = fresh.attach();
        let names: &[&str] = if contender.name == NATIVE { &[NATIVE, AGAIN] } else { &[contender.name] };
        let mut pair = move || {
            let failed = lock.lock() | lock.unlock();
            assert_eq!(failed, 0);
        };
        // As many calls as make a sample of the same length.
        let calls = (SAMPLE_NS / nanoseconds(1000, &mut pair)).clamp(50.0, 100_000.0) as u32;
        entries.extend(names.iter().map(|name| Entry::new(name, move || nanoseconds(calls, pair))));
    }
    run.rounds("uncontended", "nobody waits", &[PAIR], rounds, Contended::No, entries);
}
