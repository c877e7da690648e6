// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Locks that several hosts share: who holds them and who waits, on this host and on others, of which /proc says nothing.

use std::collections::BTreeMap;

use lock_manager::{LockInfo, Ownership};
use lock_manager_etcd::{EtcdManager, Known, Party};

use super::edges::Thread;
use super::holding::{Holding, Mode};
use super::waiting::{Seen, Waiting};
use super::{Row, Which, notes};
use crate::exit::Failure;
use crate::proc::process;
use crate::proc::users::Users;

/// A host, by its place in the list of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Host(usize);

impl Host {
    /// This one.
    pub const HERE: Self = Self(0);
}

/// What is known of other hosts.
#[derive(Debug, Clone, Default)]
pub struct Abroad {
    hosts: Vec<String>,
    commands: BTreeMap<Thread, String>,
}

impl Abroad {
    /// The name of a host, unless it is this one.
    pub fn name(&self, host: Host) -> Option<&str> {
        self.hosts.get(host.0.checked_sub(1)?).map(String::as_str)
    }

    /// How a thread's process was called.
    pub fn command(&self, thread: Thread) -> Option<String> {
        match thread.host {
            Host::HERE => process::command(thread.pid),
            _ => self.commands.get(&thread).cloned(),
        }
    }

    /// A process with its name and, if it is another, its host, as in a sentence.
    pub fn described(&self, thread: Thread) -> String {
        match (self.name(thread.host), self.command(thread)) {
            (None, _) => process::described(thread.pid),
            (Some(host), Some(command)) => format!("{} ({command}) on {host}", thread.pid),
            (Some(host), None) => format!("{} on {host}", thread.pid),
        }
    }

    fn host_of(&mut self, party: &Party) -> Host {
        let found = self.hosts.iter().position(|host| *host == party.host);
        let index = found.unwrap_or_else(|| {
            self.hosts.push(party.host.clone());
            self.hosts.len() - 1
        });
        Host(index + 1)
    }

    /// A party as a thread.
    fn thread_of(&mut self, manager: &EtcdManager, party: &Party) -> Thread {
        let host = if manager.is_here(party) { Host::HERE } else { self.host_of(party) };
        let thread = Thread { host, pid: party.pid, tid: party.tid };
        if host != Host::HERE {
            self.commands.insert(thread, party.command.clone());
        }
        thread
    }
}

/// All that one look at etcd tells, joined with who waits on this host for its own first locks.
pub fn look(manager: &EtcdManager, users: &Users, which: Which) -> Result<(Vec<Row>, Abroad), Failure> {
    let mut known = manager.look_at_all()?;
    let mut here: BTreeMap<u32, Vec<Waiting>> = BTreeMap::new();
    for waiter in manager.manager().waiters()? {
        here.entry(waiter.id).or_default().push(super::waiting::from_storage(waiter));
    }
    for &id in here.keys() {
        known.entry(id).or_default();
    }
    if which == Which::All {
        (0..manager.manager().num_locks()?).for_each(|id| _ = known.entry(id).or_default());
    }
    let (mut rows, mut abroad) = (Vec::new(), Abroad::default());
    for (id, known) in known {
        let waiting = here.remove(&id).unwrap_or_default();
        rows.push(row(manager, users, &mut abroad, id, &known, waiting)?);
    }
    Ok((rows, abroad))
}

fn row(
    manager: &EtcdManager,
    users: &Users,
    abroad: &mut Abroad,
    id: u32,
    known: &Known,
    here: Vec<Waiting>,
) -> Result<Row, Failure> {
    let waiters = known.waiters.iter().map(|party| {
        let Thread { host, pid, tid } = abroad.thread_of(manager, party);
        let waited_ns = Some(party.since_ns());
        Waiting { id, host, pid, tid, pid_namespace: 0, waited_ns, seen: Seen::Storage, draining: false }
    });
    let mut waiting: Vec<Waiting> = waiters.collect();
    waiting.extend(here);
    let mut lock = LockInfo::default();
    let mut holders = Vec::new();
    (lock.id, lock.allocated, lock.owner_died) = (id, known.allocated, known.owner_died);
    match &known.holder {
        // The host knows more: the key may have gone from hand to hand, or be kept though nobody holds the lock.
        Some((party, _)) if manager.is_here(party) => {
            lock = manager.manager().lock_info(id)?;
            holders = Holding::all_of(manager.manager(), &lock)?;
            holders.iter_mut().for_each(|holder| holder.note = notes::of_holder(holder, users));
        }
        Some((party, _)) => {
            let Thread { host, pid, tid } = abroad.thread_of(manager, party);
            let ownership = if party.by_process { Ownership::Process } else { Ownership::Thread };
            let command = Some(party.command.clone());
            lock.held = true;
            holders.push(Holding {
                host,
                host_name: Some(party.host.clone()),
                pid,
                tid,
                pid_namespace: 0,
                mode: Mode::Exclusive,
                ownership,
                command,
                note: None,
            });
        }
        None => {}
    }
    lock.waiters = u32::try_from(waiting.len()).unwrap_or(u32::MAX);
    Ok(Row { notes: notes::of(&lock, &holders), lock, holders, waiting })
}
