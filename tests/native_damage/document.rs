// SPDX-License-Identifier: MIT OR Apache-2.0
//! docs/segment-format.md says what the library does: its tables are read, and compared with what is written down here
//! and with the bytes of a segment.

use std::fs;
use std::path::Path;

use lock_manager::Manager;

use super::damage::MOST;
use super::format::{self, parts};
use super::options;
use super::support::Segment;

/// A row of a table of fields: offset, size, name, value or meaning.
type Row = (u64, u64, String, String);

/// The tables of fields beneath the document's heading of that name.
fn tables(heading: &str) -> Vec<Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/segment-format.md");
    let text = fs::read_to_string(path).unwrap();
    let section = text.split("\n# ").find(|section| section.starts_with(heading)).unwrap();
    section.lines().filter_map(row).collect()
}

fn row(line: &str) -> Option<Row> {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [offset, size, name, value] = cells.as_slice() else { return None };
    Some((offset.parse().ok()?, size.parse().ok()?, (*name).to_owned(), (*value).to_owned()))
}

fn fields(heading: &str) -> Vec<(u64, u64, String)> {
    tables(heading).into_iter().map(|(offset, size, name, _)| (offset, size, name)).collect()
}

fn number_at(bytes: &[u8], offset: u64, size: u64) -> u64 {
    // Of what is longer than a number, the first.
    let field = &bytes[offset as usize..][..size.min(8) as usize];
    match size {
        4 => u32::from_ne_bytes(field.try_into().unwrap()).into(),
        _ => u64::from_ne_bytes(field.try_into().unwrap()),
    }
}

#[test]
fn the_header_is_as_documented() {
    let segment = Segment::made(64, &options());
    let (bytes, parts) = (segment.bytes(), parts(MOST));
    let rows = tables("The header");
    assert_eq!(rows.len(), 31);
    let mut end = 0;
    for (offset, size, name, value) in &rows {
        assert!(*offset >= end && offset % size.min(&8) == 0, "{name} overlaps what is before it");
        end = offset + size;
        let expected = match name.as_str() {
            "magic" => format::MAGIC,
            "first locks" | "num locks" => 64,
            "max locks" => MOST,
            "summary" => parts.summary,
            "bitmap" => parts.bitmap,
            "entry table" => parts.entries,
            "record table" => parts.records,
            "cell table" => parts.cells,
            "slots" => parts.slots,
            "ready" => 1,
            "retired" | "detector" | "frees" | "rotor" => number_at(&bytes, *offset, *size),
            "device" | "inode" | "boot" | "identity" | "created" => {
                assert_ne!(number_at(&bytes, *offset, *size), 0, "{name}");
                continue;
            }
            _ => value.strip_prefix("0x").map_or_else(|| value.parse(), |hex| u64::from_str_radix(hex, 16)).unwrap(),
        };
        assert_eq!(number_at(&bytes, *offset, *size), expected, "{name}");
    }
    let at = |name: &str| rows.iter().find(|row| row.2 == name).unwrap().0;
    let documented =
        ["retired", "num locks", "rotor", "detector", "ready", "frees", "boot", "identity", "created"].map(at);
    let known = [
        format::AT_RETIRED,
        format::AT_NUM_LOCKS,
        format::AT_ROTOR,
        format::AT_DETECTOR,
        format::AT_READY,
        format::AT_FREES,
        format::AT_BOOT,
        format::AT_IDENTITY,
        format::AT_CREATED,
    ];
    assert_eq!(documented, known);
}

#[test]
fn slots_entries_and_records_are_as_documented() {
    let named = |rows: &[(u64, u64, &str)]| -> Vec<(u64, u64, String)> {
        rows.iter().map(|&(offset, size, name)| (offset, size, name.to_owned())).collect()
    };
    let slot = [(0, 8, "word"), (8, 8, "note"), (16, 8, "looked"), (24, 32, "cells"), (56, 8, "level")];
    assert_eq!(fields("A slot"), named(&slot));
    assert_eq!(fields("The cell table"), named(&[(0, 8, "cell"), (8, 8, "lock")]));
    let records = [(0, 8, "key"), (8, 8, "thread"), (16, 8, "wants"), (24, 8, "since")];
    assert_eq!(fields("A thread record"), named(&records));
    let entries = fields("An entry");
    assert_eq!(entries.iter().map(|entry| entry.1).sum::<u64>(), 56);
    let at = |name: &str| entries.iter().find(|entry| entry.2 == name).unwrap().0 as usize;

    let segment = Segment::made(64, &options());
    let manager = segment.open();
    for _ in 0..3 {
        let _ = manager.lock(2).unwrap();
        manager.unlock(2).unwrap();
    }
    let _ = manager.lock(2).unwrap();
    let (bytes, parts) = (segment.bytes(), parts(MOST));
    let slot = parts.slots + 2 * format::SLOT;
    let word = number_at(&bytes, slot, 8);
    assert_eq!(number_at(&bytes, slot + 8, 8) >> 16, 4, "how often it was taken");

    let entry = parts.entries + (word & 0x1fff) * format::ENTRY;
    let state = number_at(&bytes, entry + at("state") as u64, 8);
    let generation = (word >> 13 & 0x7fff) | (word >> 54) << 15;
    assert_eq!(state, generation << 1 | 1);
    assert_eq!(number_at(&bytes, entry + at("pid") as u64, 4), std::process::id().into());
    let command = &bytes[entry as usize + at("command")..][..16];
    let name = fs::read_to_string("/proc/self/comm").unwrap();
    assert!(command.starts_with(name.trim_end().as_bytes()));

    // The thread's record is at one of its places, and says which thread it is.
    let serial = word >> 32 & 0x3f_ffff;
    assert_eq!(word, format::owner(word & 0x1fff, generation, serial));
    let places = (0..16u32).map(|probe| {
        let home = (word as u32 & 0x1fff).wrapping_mul(0x9E37_79B1).wrapping_add(serial as u32);
        parts.records + u64::from(home.wrapping_add(509 * probe) % 8192) * format::RECORD
    });
    let own: Vec<u64> = places.filter(|&place| number_at(&bytes, place, 8) == word).collect();
    assert_eq!(own.len(), 1);
    // SAFETY: gettid(2) takes nothing and cannot fail.
    let tid = unsafe { libc::gettid() };
    assert_eq!(number_at(&bytes, own[0] + 8, 8) as u32, tid as u32);
    manager.unlock(2).unwrap();
}

#[test]
fn a_reader_stands_in_a_cell_as_documented() {
    const SHARED: u64 = 1 << 30;
    let segment = Segment::made(64, &options());
    let manager = segment.open();
    let _ = manager.lock(2).unwrap();
    let _ = manager.lock_shared(3).unwrap();
    let (bytes, parts) = (segment.bytes(), parts(MOST));
    let slot = |id: u64| parts.slots + id * format::SLOT;
    let (_, size, _, _) = tables("A slot").into_iter().find(|row| row.2 == "cells").unwrap();
    let stands: Vec<u64> =
        (0..size / 8).map(|cell| number_at(&bytes, slot(3) + 24 + 8 * cell, 8)).filter(|&cell| cell != 0).collect();
    assert_eq!(stands, [number_at(&bytes, slot(2), 8)], "the same owner");
    assert_eq!(number_at(&bytes, slot(3), 8), SHARED);
    assert_eq!(number_at(&bytes, slot(3) + 8, 8) >> 16, 0, "taken exclusively");
    assert_eq!(number_at(&bytes, slot(3) + 56, 8), 0, "places of the table");
    manager.unlock_shared(3).unwrap();
    let _ = manager.lock_shared(2).unwrap_err();
    manager.unlock(2).unwrap();
    assert_eq!([2, 3].map(|id| number_at(&segment.bytes(), slot(id), 8)), [0, SHARED]);
}

#[test]
fn the_bitmap_is_as_documented() {
    let segment = Segment::made(128, &options());
    let manager = segment.open();
    for id in [0, 5, 64, 127] {
        manager.allocate_and_retrieve_lock(id).unwrap();
    }
    let (bytes, parts) = (segment.bytes(), parts(MOST));
    assert_eq!([0, 8].map(|at| number_at(&bytes, parts.bitmap + at, 8)), [1 | 1 << 5, 1 | 1 << 63]);
    for id in 0..64 {
        let _ = manager.allocate_and_retrieve_lock(id);
    }
    assert_eq!(number_at(&segment.bytes(), parts.summary, 8), 1);
    manager.free_lock(9).unwrap();
    assert_eq!(number_at(&segment.bytes(), parts.summary, 8), 0);
    assert_eq!(number_at(&segment.bytes(), format::AT_FREES, 8), 1);
}
