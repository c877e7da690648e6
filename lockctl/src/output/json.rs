// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! A look as JSON. Fields are only ever added under one schema version; what is unknown is null.
//!
//! Schema 1 knew one holder of a lock. Schema 2 knows readers: `holder` may be the first of several, which `holders` lists.
//! docs/diagnosing.md says so to those who read it.

use std::io::{self, Write};

use lock_manager::{Kind, UNLIMITED};
use serde::Serialize;

use super::table::owner;
use crate::storage::Storage;
use crate::survey::abroad::Abroad;
use crate::survey::holding::{Holding, Mode};
use crate::survey::notes::Note;
use crate::survey::{Row, Survey};

/// Raised when a field is taken away or comes to mean something else.
pub const SCHEMA: u32 = 2;

#[derive(Debug, Serialize)]
struct Document<'a> {
    schema: u32,
    storage: String,
    kind: &'static str,
    layout: Option<String>,
    num_locks: Option<u32>,
    max_locks: Option<u32>,
    allocated: u32,
    attached: Option<u32>,
    users: &'a [i32],
    removed: bool,
    locks: Vec<LockView>,
    remarks: Vec<String>,
    not_seen: NotSeen,
}

#[derive(Debug, Serialize)]
struct LockView {
    id: u32,
    allocated: bool,
    held: bool,
    owner_died: bool,
    holder: Option<HolderView>,
    holders: Vec<HolderView>,
    readers: usize,
    draining: bool,
    stale: u32,
    held_for_ns_at_least: Option<u64>,
    waiters: usize,
    waiting: Vec<WaitingView>,
    acquisitions: Option<u64>,
    notes: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
struct HolderView {
    /// Null: this one.
    host: Option<String>,
    pid: Option<i32>,
    tid: Option<i32>,
    pid_namespace: Option<u64>,
    command: Option<String>,
    owner: &'static str,
    shared: bool,
    note: Option<String>,
}

#[derive(Debug, Serialize)]
struct WaitingView {
    host: Option<String>,
    pid: Option<i32>,
    tid: Option<i32>,
    pid_namespace: Option<u64>,
    command: Option<String>,
    waited_ns: Option<u64>,
    seen: &'static str,
    draining: bool,
}

#[derive(Debug, Serialize)]
struct NotSeen {
    processes: usize,
    proc_hides: bool,
    outside_pid_namespace: bool,
}

/// Writes the look, with the rows that are to be shown of it.
pub fn write(out: &mut dyn Write, storage: &Storage, survey: &Survey, rows: &[&Row]) -> io::Result<()> {
    let info = &survey.info;
    let document = Document {
        schema: SCHEMA,
        storage: storage.name.to_string_lossy().into_owned(),
        kind: match info.kind {
            Kind::Shm => "shm",
            Kind::File => "file",
            Kind::Backend => "backend",
            _ => "other",
        },
        layout: info.layout.map(crate::layouts::name),
        num_locks: (info.num_locks != UNLIMITED).then_some(info.num_locks),
        max_locks: (info.max_locks != UNLIMITED).then_some(info.max_locks),
        allocated: survey.allocated,
        attached: (info.attached != 0).then_some(info.attached),
        users: &survey.users,
        removed: info.retired,
        locks: rows.iter().map(|row| LockView::of(row, &survey.abroad)).collect(),
        remarks: survey.remarks(),
        not_seen: NotSeen {
            processes: survey.blind.processes.len(),
            proc_hides: survey.blind.proc_hides,
            outside_pid_namespace: survey.blind.outside,
        },
    };
    serde_json::to_writer_pretty(&mut *out, &document)?;
    writeln!(out)
}

impl LockView {
    fn of(row: &Row, abroad: &Abroad) -> Self {
        let lock = &row.lock;
        let holders: Vec<HolderView> = row.holders.iter().map(HolderView::of).collect();
        Self {
            id: lock.id,
            allocated: lock.allocated,
            held: lock.held,
            owner_died: lock.owner_died,
            holder: holders.first().cloned(),
            holders,
            readers: row.readers(),
            draining: lock.draining,
            stale: lock.stale,
            held_for_ns_at_least: row.held_for_ns(),
            waiters: row.waiters(),
            waiting: row
                .waiting
                .iter()
                .map(|wait| WaitingView {
                    host: abroad.name(wait.host).map(str::to_owned),
                    pid: known(wait.pid),
                    tid: known(wait.tid),
                    pid_namespace: (wait.pid_namespace != 0).then_some(wait.pid_namespace),
                    command: abroad.command(wait.into()),
                    waited_ns: wait.waited_ns,
                    seen: wait.seen.text(),
                    draining: wait.draining,
                })
                .collect(),
            acquisitions: (lock.acquisitions != 0).then_some(lock.acquisitions),
            notes: row.notes.iter().map(|note| note.text()).collect(),
        }
    }
}

impl HolderView {
    fn of(holder: &Holding) -> Self {
        Self {
            host: holder.host_name.clone(),
            pid: known(holder.pid),
            tid: known(holder.tid),
            pid_namespace: (holder.pid_namespace != 0).then_some(holder.pid_namespace),
            command: holder.command.clone(),
            owner: owner(holder),
            shared: holder.mode == Mode::Shared,
            note: holder.note.map(Note::text),
        }
    }
}

fn known(number: i32) -> Option<i32> {
    (number != 0).then_some(number)
}
