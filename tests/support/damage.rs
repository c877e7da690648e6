// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random damage to the bytes of a segment, aimed at what its readers rest on.

use super::Random;
use super::layout::{self, KIND, LOST, OWNER, OWNER_DIED, TID, WAITERS, WORD};

/// Damages a segment in one way, and says how.
pub fn damage(bytes: &mut Vec<u8>, random: &mut Random) -> String {
    let length = bytes.len() as u64;
    let locks = u64::from(layout::GROUP) * (length / layout::size(layout::GROUP)).max(1);
    let any = random.next() as u32;
    let put = |bytes: &mut Vec<u8>, at: u64, word: u32| {
        if let Some(place) = bytes.get_mut(at as usize..at as usize + 4) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
    };
    let mutex = match random.below(8) {
        0 => layout::AT_GUARD,
        _ => layout::mutex(random.below(locks) as u32),
    };
    match random.below(16) {
        0 => {
            bytes.truncate(random.below(length.max(1)) as usize);
            format!("truncated to {}", bytes.len())
        }
        1 => {
            bytes.resize((length + 1 + random.below(5000)) as usize, random.next() as u8);
            format!("extended to {}", bytes.len())
        }
        2 => {
            let start = random.below(length.max(1)) as usize;
            let end = (start + 1 + random.below(200) as usize).min(bytes.len());
            bytes[start.min(end)..end].fill(random.pick(&[0, 0xff]));
            format!("filled {start}..{end}")
        }
        3 | 4 => {
            let field = random.pick(&[layout::AT_MAGIC, layout::AT_NUM_BITMAPS, layout::AT_NUM_LOCKS]);
            let word = random.pick(&[0, 1, 2, 32, 64, 96, 1 << 27, 1 << 31, u32::MAX, any]);
            put(bytes, field, word);
            format!("header word {field} = {word:#x}")
        }
        5 | 6 => {
            for _ in 0..=random.below(8) {
                let bit = random.below((length * 8).max(1));
                if let Some(byte) = bytes.get_mut((bit / 8) as usize) {
                    *byte ^= 1 << (bit % 8);
                }
            }
            "bits flipped".to_owned()
        }
        // As a mutex has 40 bytes, one bit in twelve is a kind, which is found at opening; what follows is not.
        7..12 => {
            let tid = random.pick(&[0, 1, std::process::id(), any & TID]);
            let word = tid | random.pick(&[0, OWNER_DIED, WAITERS, OWNER_DIED | WAITERS]);
            put(bytes, mutex + WORD, word);
            format!("word of the mutex at {mutex} = {word:#x}")
        }
        12 => {
            put(bytes, mutex + OWNER, random.pick(&[LOST, LOST + 1, u32::MAX, any]));
            format!("owner of the mutex at {mutex}")
        }
        13 => {
            for part in (0..layout::MUTEX).step_by(4).filter(|&part| part != KIND) {
                put(bytes, mutex + part, random.next() as u32);
            }
            format!("all but the kind of the mutex at {mutex}")
        }
        14 => {
            put(bytes, mutex + KIND, random.next() as u32);
            format!("kind of the mutex at {mutex}")
        }
        _ => {
            put(bytes, layout::bitmap(random.below(2) as u32), random.next() as u32);
            "bitmap".to_owned()
        }
    }
}
