// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! What is remarkable about a lock.

use lock_manager::LockInfo;

use super::holding::Holding;
use crate::proc::process;
use crate::proc::users::Users;

/// What is remarkable about a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    OwnerDied,
    NotAllocated,
    /// So many hold it shared, more than one.
    Readers(usize),
    /// Later readers wait for it.
    WriterNext,
    HolderStopped,
    HolderTraced,
    OtherPidNamespace,
    ThreadGone,
    /// The holder is gone, or where it cannot be seen from here.
    HolderNotSeen,
    /// Readers died, or a writer that was next: nobody is told, and the next writer clears that.
    Stale,
}

impl Note {
    pub fn text(self) -> String {
        let text = match self {
            Self::OwnerDied => "owner died",
            Self::NotAllocated => "not allocated",
            Self::Readers(number) => return format!("{number} readers"),
            Self::WriterNext => "a writer is next",
            Self::HolderStopped => "holder is stopped",
            Self::HolderTraced => "holder is being traced",
            Self::OtherPidNamespace => "other PID namespace",
            Self::ThreadGone => "thread gone",
            Self::HolderNotSeen => "holder not seen from here",
            Self::Stale => "marks of the dead",
        };
        text.to_owned()
    }
}

/// Of the lock, and of those who hold it, each once.
pub fn of(lock: &LockInfo, holders: &[Holding]) -> Vec<Note> {
    let mut notes = Vec::new();
    if lock.owner_died {
        notes.push(Note::OwnerDied);
    }
    if !lock.allocated && (lock.held || lock.owner_died) {
        notes.push(Note::NotAllocated);
    }
    if holders.len() > 1 {
        notes.push(Note::Readers(holders.len()));
    }
    if lock.draining {
        notes.push(Note::WriterNext);
    }
    for note in holders.iter().filter_map(|holder| holder.note) {
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    if lock.stale > 0 {
        notes.push(Note::Stale);
    }
    notes
}

/// Of one who holds it.
pub fn of_holder(holder: &Holding, users: &Users) -> Option<Note> {
    if holder.pid == 0 { Some(why_unnamed(holder, users)) } else { of_named(holder) }
}

/// Why a holder has no number here.
fn why_unnamed(holder: &Holding, users: &Users) -> Note {
    let own = process::own_pid_namespace();
    if holder.pid_namespace != 0 && holder.pid_namespace != own {
        return Note::OtherPidNamespace;
    }
    // The storage's number is nobody's here. If everybody who has the storage open is seen, and is of here, it is gone.
    let is_all_seen = users.hidden.is_empty() && !process::are_some_outside() && !process::are_some_left_out();
    let are_all_here = users.pids.iter().all(|&pid| process::pid_namespace(pid) == own);
    match (is_all_seen, are_all_here) {
        (true, true) => Note::ThreadGone,
        (true, false) => Note::OtherPidNamespace,
        (false, _) => Note::HolderNotSeen,
    }
}

fn of_named(holder: &Holding) -> Option<Note> {
    let tid = if holder.tid == 0 { holder.pid } else { holder.tid };
    if holder.pid_namespace != 0 && holder.pid_namespace != process::own_pid_namespace() {
        return Some(Note::OtherPidNamespace);
    }
    match process::state(holder.pid, tid) {
        None | Some('Z' | 'X') => Some(Note::ThreadGone),
        Some('T') => Some(Note::HolderStopped),
        Some('t') => Some(Note::HolderTraced),
        Some(_) => None,
    }
}
