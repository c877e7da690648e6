// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random damage to a native segment, aimed at what its users rest on: where, and which bytes.

use super::format::{self, OWNER_DIED, RESERVED, STARVING, WAITERS, parts};
use super::support::Random;

/// How far the damaged segments may grow.
pub const MOST: u64 = 256;

/// Bytes to be written.
#[derive(Debug, Clone)]
pub struct Damage {
    pub at: u64,
    pub bytes: Vec<u8>,
}

fn number(at: u64, number: u64) -> Damage {
    Damage { at, bytes: number.to_ne_bytes().to_vec() }
}

/// A number that somebody might stumble over.
fn odd(random: &mut Random) -> u64 {
    let any = random.next();
    let shift = random.below(64);
    random.pick(&[0, 1, 2, 63, 64, 65, 4095, 8191, 8192, 1 << 31, 1 << 32, u64::MAX, u64::MAX >> 1, any, 1 << shift])
}

/// A lock word: each combination of flags with holders that are, were, and cannot be.
pub fn word(random: &mut Random) -> u64 {
    let any = random.next();
    let entry = random.pick(&[0, 1, 2, 3, 4, 5, 8191, any & 8191]);
    let generation = random.pick(&[0, 1, 2, 3, (1 << 25) - 1, any >> 20 & ((1 << 25) - 1)]);
    let serial = random.pick(&[0, 1, 2, 3, 4, (1 << 22) - 1, any >> 40 & ((1 << 22) - 1)]);
    let flags = [OWNER_DIED, RESERVED, STARVING, WAITERS]
        .into_iter()
        .filter(|_| random.below(3) == 0)
        .fold(0, |flags, flag| flags | flag);
    random.pick(&[format::owner(entry, generation, serial) | flags, flags, any])
}

/// A thread record: its thread waits for a lock, which makes rings now and then.
fn record(random: &mut Random, locks: u64) -> [u64; 4] {
    let pid = u64::from(std::process::id());
    // Plus one each: nothing, one of the first, the last, and one that there is not.
    let wish = random.below(4) << 32 | random.pick(&[0, 1, 2, 3, locks, locks + 1, u64::from(u32::MAX)]);
    [word(random), pid | odd(random) << 32, wish, odd(random)]
}

/// One damage to what changes while a segment is in use.
pub fn of_what_changes(random: &mut Random, locks: u64) -> Damage {
    let parts = parts(MOST);
    let any = random.next();
    match random.below(14) {
        0 => {
            let at = random.pick(&[
                format::AT_NUM_LOCKS,
                format::AT_ROTOR,
                format::AT_READY,
                format::AT_READY + 8,
                format::AT_READY + 16,
                format::AT_READY + 24,
                format::AT_FREES,
            ]);
            number(at, odd(random))
        }
        1 => number(format::AT_DETECTOR, word(random)),
        // The slots of few locks, so that the others meet them.
        2..=5 => number(parts.slots + random.below(locks.min(8)) * format::SLOT, word(random)),
        6 => number(parts.slots + random.below(locks.min(8)) * format::SLOT + 8 * random.below(8), any),
        7 => {
            let at = parts.entries + random.below(8) * format::ENTRY;
            let state = random.pick(&[0, 1, 2, 3, 4, 5, any]);
            let odd = odd(random);
            number(at + random.pick(&[0, 0, 8, 16, 24, 32, 40]), random.pick(&[state, odd]))
        }
        8 => {
            let at = parts.records + random.below(format::RECORDS) * format::RECORD;
            Damage { at, bytes: record(random, locks).iter().flat_map(|part| part.to_ne_bytes()).collect() }
        }
        9 => number(random.pick(&[parts.summary, parts.bitmap, parts.bitmap + 8]), random.pick(&[0, u64::MAX, any])),
        10 => {
            let start = random.pick(&[parts.entries, parts.records, parts.records - 4096, parts.summary - 4096]);
            let length = 8 * (1 + random.below(64));
            Damage { at: start, bytes: (0..length).map(|_| random.next() as u8).collect() }
        }
        11 => number(format::AT_RETIRED + 8, any),
        // A reader, in one of the slot's four cells or in a place of the table that the lock has, and how many it has.
        12 => {
            let slot = parts.slots + random.below(locks.min(8)) * format::SLOT;
            let cell = (24 + 8 * random.below(4), word(random));
            let level = (56, random.pick(&[0, 1, 2, 10, 11, any]));
            let (at, reader) = random.pick(&[cell, level]);
            number(slot + at, reader)
        }
        _ => {
            let id = random.below(locks.min(8));
            let place = (u64::from((id as u32).wrapping_mul(0x9E37_79B1)) + random.below(32)) % format::CELLS;
            let bytes = [word(random), random.pick(&[id, id, id + 1, any])];
            Damage { at: parts.cells + place * format::CELL, bytes: bytes.map(u64::to_ne_bytes).concat() }
        }
    }
}

/// One damage to anything, what never changes included.
pub fn of_anything(random: &mut Random, locks: u64) -> Damage {
    match random.below(4) {
        0 => {
            let offset =
                random.pick(&[0, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 64, 72, 80, 88, 96, 104, 112, 120, 136]);
            Damage { at: offset, bytes: (odd(random) as u32).to_ne_bytes().to_vec() }
        }
        1 => {
            let at = random.below(format::size(MOST, locks) - 64);
            let length = 1 + random.below(64);
            Damage { at, bytes: (0..length).map(|_| random.next() as u8).collect() }
        }
        _ => of_what_changes(random, locks),
    }
}
