// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Runs within runs. One that waits for a lock which a run above it holds would wait for its own ancestor, and that one
//! for it. Where both only read, too: as soon as a writer waits, which the one above keeps out, and which keeps the one below
//! out. The environment tells which locks those are; whether they still are held, and by an ancestor, the storage and
//! /proc say, so that an environment that outlived its run refuses nothing.

use std::fmt;

use lock_manager::{LockInfo, Manager};

use crate::exit::Failure;
use crate::proc::process;
use crate::storage::{Identity, Storage};
use crate::survey::holding::{self, Holding, Mode};

/// The environment variable that lists the runs that a command is under, the outermost first:
/// `DEVICE:INODE:ID:ACQUISITIONS`, with blanks between them.
pub const RUNS: &str = "LOCKCTL_RUNS";

/// The lock of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    storage: Identity,
    id: u32,
    /// How often it had been acquired when the run had it, where the storage counts.
    acquisitions: u64,
}

/// The runs that this process is under.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Runs(Vec<Held>);

impl Runs {
    pub fn above() -> Self {
        std::env::var(RUNS).map_or_else(|_| Self::default(), |text| Self::parse(&text))
    }

    /// These and one more. What cannot be identified is left out, and not recognised by those below.
    pub fn with(&self, storage: &Storage, id: u32, manager: &dyn Manager) -> Self {
        let mut runs = self.clone();
        if let (Ok(storage), Ok(info)) = (storage.identity(), manager.lock_info(id)) {
            runs.0.push(Held { storage, id, acquisitions: info.acquisitions });
        }
        runs
    }

    /// The run above this one that holds the lock, if one does.
    pub fn holder_of(&self, storage: &Storage, id: u32, manager: &dyn Manager) -> Result<Option<Holding>, Failure> {
        let Ok(identity) = storage.identity() else { return Ok(None) };
        // The same lock may stand there twice: of a run that has ended, and of one in its place.
        let mut told = self.0.iter().filter(|held| held.storage == identity && held.id == id).peekable();
        if told.peek().is_none() {
            return Ok(None);
        }
        let now = manager.lock_info(id)?;
        let holders = Holding::all_of(manager, &now)?;
        let told: Vec<&Held> = told.collect();
        Ok(holders.into_iter().find(|holder| told.iter().any(|held| held.is_still(holder, &now))))
    }

    fn parse(text: &str) -> Self {
        Self(text.split_ascii_whitespace().filter_map(Held::parse).collect())
    }
}

impl Held {
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split(':');
        let held = Self {
            storage: Identity { device: fields.next()?.parse().ok()?, inode: fields.next()?.parse().ok()? },
            id: fields.next()?.parse().ok()?,
            acquisitions: fields.next()?.parse().ok()?,
        };
        fields.next().is_none().then_some(held)
    }

    /// Whether who holds the lock now, either way, is the run that wrote this. From another PID namespace its
    /// process cannot be seen; that nobody has taken the lock exclusively since says the same. Where there are readers the storage
    /// counts, also if nobody ever did.
    fn is_still(&self, holder: &Holding, now: &LockInfo) -> bool {
        let is_counted = holder.mode == Mode::Shared || now.acquisitions != 0;
        match holder.pid {
            0 => is_counted && now.acquisitions == self.acquisitions,
            pid => is_ancestor(pid),
        }
    }
}

impl fmt::Display for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Held { storage, id, acquisitions }) in self.0.iter().enumerate() {
            let gap = if index == 0 { "" } else { " " };
            write!(f, "{gap}{}:{}:{id}:{acquisitions}", storage.device, storage.inode)?;
        }
        Ok(())
    }
}

fn is_ancestor(pid: i32) -> bool {
    let mut above = std::iter::successors(process::parent(process::own()), |&pid| process::parent(pid));
    above.any(|ancestor| ancestor == pid)
}

/// What is said to the user who wants a lock that a run above holds.
pub fn sentence(storage: &Storage, id: u32, holder: Holding, wanted: Mode) -> String {
    let why = match (holder.mode, wanted) {
        (Mode::Exclusive, _) => {
            "so waiting for it would never end; take another lock, or run the command without lockctl, since it has the lock"
        }
        (Mode::Shared, Mode::Exclusive) => {
            "so waiting to hold it exclusively would never end; take another lock, or leave --shared out above"
        }
        (Mode::Shared, Mode::Shared) => {
            "so waiting for it would never end once a writer waits as well; take another lock, or run the command without \
             lockctl, since it has the lock shared"
        }
    };
    format!(
        "{}: lock {id} is {}, under which this very command runs, {why}. If this one runs in the background and may wait, unset {RUNS}",
        storage.shown(),
        holding::sentence(&[holder]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_read_as_they_were_written_and_nothing_else_is() {
        let held = |id| Held { storage: Identity { device: 27, inode: 4 }, id, acquisitions: 9 };
        let runs = Runs(vec![held(0), held(u32::MAX)]);
        assert_eq!(Runs::parse(&runs.to_string()), runs);
        assert_eq!(runs.to_string(), "27:4:0:9 27:4:4294967295:9");
        for bad in ["", "1:2:3", "1:2:3:4:5", "a:b:c:d", ":::", "1:2:-3:4"] {
            assert_eq!(Runs::parse(bad), Runs::default(), "{bad}");
        }
    }
}
