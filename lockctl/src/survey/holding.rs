// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Who holds a lock: one exclusively, or any number shared.

use lock_manager::{Holder, LockInfo, Manager, Ownership};

use super::abroad::Host;
use super::notes::Note;
use crate::exit::Failure;
use crate::proc::process;

/// One who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    pub host: Host,
    /// `None`: it is this one.
    pub host_name: Option<String>,
    /// 0: it is not seen from here.
    pub pid: i32,
    /// 0: it is not seen from here, or its process owns the hold.
    pub tid: i32,
    pub pid_namespace: u64,
    pub mode: Mode,
    pub ownership: Ownership,
    /// How it was called.
    pub command: Option<String>,
    /// What is remarkable about it, where that was looked at.
    pub note: Option<Note>,
}

/// How a lock is held, or asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    Exclusive,
    Shared,
}

impl Holding {
    /// Everybody who holds the lock of which the storage says `lock`. The storage is asked for more than that only where
    /// it says that the lock is read: who else holds one is in there, and some storages know no more.
    pub fn all_of(manager: &dyn Manager, lock: &LockInfo) -> Result<Vec<Self>, Failure> {
        if !lock.held {
            return Ok(Vec::new());
        }
        if lock.readers == 0 {
            return Ok(vec![Self::told_of(lock, Mode::Exclusive)]);
        }
        let holders = manager.lock_holders(lock.id)?;
        let mut readers: Vec<Self> = holders.iter().filter(|holder| holder.shared).map(Self::reading).collect();
        if readers.is_empty() {
            // They have left since.
            readers.push(Self::told_of(lock, Mode::Shared));
        }
        Ok(readers)
    }

    fn told_of(lock: &LockInfo, mode: Mode) -> Self {
        let &LockInfo { pid, tid, pid_namespace, ownership, .. } = lock;
        let (host, host_name, command) = (Host::HERE, None, named(pid));
        Self { host, host_name, pid, tid, pid_namespace, mode, ownership, command, note: None }
    }

    fn reading(holder: &Holder) -> Self {
        let &Holder { pid, tid, pid_namespace, ownership, .. } = holder;
        let (host, host_name, mode, command) = (Host::HERE, None, Mode::Shared, named(pid));
        Self { host, host_name, pid, tid, pid_namespace, mode, ownership, command, note: None }
    }

    /// Its process with its name and, if it is another, its host, as in a sentence.
    pub fn described(&self) -> String {
        let host = self.host_name.as_ref().map_or_else(String::new, |host| format!(" on {host}"));
        match (self.pid, &self.command) {
            (0, _) => "a holder that is not seen from here".to_owned(),
            (pid, Some(command)) => format!("{pid} ({command}){host}"),
            (pid, None) => format!("{pid}{host}"),
        }
    }
}

fn named(pid: i32) -> Option<String> {
    if pid == 0 { None } else { process::command(pid) }
}

/// How many readers a sentence names.
const MOST_NAMED: usize = 8;

/// By whom a lock is held, as in a sentence: "held by 4711 (backup)", "held shared by 2: 4711 (ps), 4712 (ls)". Of several
/// also what is remarkable about each.
pub fn sentence(holders: &[Holding]) -> String {
    let name = |holder: &Holding| match holder.note.filter(|_| holders.len() > 1) {
        Some(note) => format!("{} [{}]", holder.described(), note.text()),
        None => holder.described(),
    };
    let names = holders.iter().take(MOST_NAMED).map(name).collect::<Vec<_>>().join(", ");
    match holders {
        [Holding { mode: Mode::Exclusive, .. }] => format!("held by {names}"),
        [_] => format!("held shared by {names}"),
        _ => {
            let more = match holders.len().saturating_sub(MOST_NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!("held shared by {}: {names}{more}", holders.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readers(number: i32) -> Vec<Holding> {
        let reader = |pid| Holding {
            host: Host::HERE,
            host_name: None,
            pid,
            tid: pid,
            pid_namespace: 0,
            mode: Mode::Shared,
            ownership: Ownership::Thread,
            command: Some("ps".to_owned()),
            note: (pid == 2).then_some(Note::HolderStopped),
        };
        (1..=number).map(reader).collect()
    }

    #[test]
    fn a_sentence_names_readers_up_to_a_number_and_counts_the_rest() {
        assert_eq!(sentence(&readers(1)), "held shared by 1 (ps)");
        assert_eq!(sentence(&readers(2)), "held shared by 2: 1 (ps), 2 (ps) [holder is stopped]");
        let many = sentence(&readers(10));
        assert!(many.starts_with("held shared by 10: 1 (ps), ") && many.ends_with(", 8 (ps) and 2 more"), "{many}");
        let alone = Holding { mode: Mode::Exclusive, pid: 0, ..readers(1).remove(0) };
        assert_eq!(sentence(&[alone]), "held by a holder that is not seen from here");
    }
}
