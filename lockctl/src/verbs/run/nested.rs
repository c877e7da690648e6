// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Runs within runs. One that waits for a lock which a run above it holds would wait for its own ancestor, and that one
//! for it. The environment tells which locks those are; whether they still are held, and by an ancestor, the storage and
//! /proc say, so that an environment that outlived its run refuses nothing.

use std::fmt;

use lock_manager::{LockInfo, Manager};

use crate::exit::Failure;
use crate::proc::process;
use crate::storage::{Identity, Storage};

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

    /// The process of the run above this one that holds the lock, if one does; 0 where it cannot be seen from here.
    pub fn holder_of(&self, storage: &Storage, id: u32, manager: &dyn Manager) -> Result<Option<i32>, Failure> {
        let Ok(identity) = storage.identity() else { return Ok(None) };
        // The same lock may stand there twice: of a run that has ended, and of one in its place.
        let mut told = self.0.iter().filter(|held| held.storage == identity && held.id == id).peekable();
        if told.peek().is_none() {
            return Ok(None);
        }
        let info = manager.lock_info(id)?;
        Ok((info.held && told.any(|held| held.is_still(&info))).then_some(info.pid))
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

    /// Whether who holds the lock now is the run that wrote this. From another PID namespace its process cannot be seen;
    /// that the lock was not acquired since says the same.
    fn is_still(&self, now: &LockInfo) -> bool {
        if now.pid == 0 { now.acquisitions != 0 && now.acquisitions == self.acquisitions } else { is_ancestor(now.pid) }
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

/// What is said to the user.
pub fn sentence(storage: &Storage, id: u32, holder: i32) -> String {
    let holder = if holder == 0 { "a process not seen from here".to_owned() } else { process::described(holder) };
    format!(
        "{}: lock {id} is held by {holder}, under which this very command runs, so waiting for it would never end; take \
         another lock, or run the command without lockctl, since it has the lock. One in the background that may wait: \
         unset {RUNS}",
        storage.shown()
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
