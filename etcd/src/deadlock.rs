// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Deadlocks across hosts. One read of all queues is a snapshot at one revision, so a cycle in it was one at that revision.
//! All that look at it choose the same victim: the key that came last.

use std::fmt::Write;

use crate::keys::{Held, Keys, Party};
use crate::wire::KeyValue;

/// A cycle of threads that wait for each other's locks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cycle {
    /// The key of the wait that is to end.
    pub(crate) victim: String,
    /// All keys of the cycle, each with its create revision: of the waits, and of what they wait for.
    pub(crate) keys: Vec<(String, i64)>,
    /// Who holds what, for people.
    pub(crate) text: String,
}

struct Entry {
    id: u32,
    key: String,
    revision: i64,
    party: Party,
    holds: bool,
}

/// The cycle through the wait of that key, if there is one.
pub(crate) fn cycle_from(keys: &Keys, key: &str, queues: &[KeyValue], held: &[KeyValue]) -> Option<Cycle> {
    let holding: Vec<Held> = held.iter().filter_map(|kv| serde_json::from_str(&kv.value).ok()).collect();
    let entry = |kv: &KeyValue| {
        Some(Entry {
            id: Keys::id_in(&kv.key, &keys.queues())?,
            key: kv.key.clone(),
            revision: kv.create_revision,
            party: serde_json::from_str(&kv.value).ok()?,
            holds: holding.iter().any(|held| held.key == kv.key),
        })
    };
    let entries: Vec<Entry> = queues.iter().filter_map(entry).collect();
    let start = entries.iter().find(|entry| entry.key == key && !entry.holds)?;
    let (mut wait, mut waits, mut keys) = (start, Vec::new(), Vec::new());
    let mut text = String::new();
    loop {
        let holder = entries.iter().find(|entry| entry.id == wait.id && entry.holds)?;
        // Any thread of the process may give the lock back. Of a key that goes from hand to hand no thread is known, and none
        // waits by that number: the walk ends by itself.
        if holder.party.by_process {
            return None;
        }
        waits.push(wait);
        keys.push((wait.key.clone(), wait.revision));
        keys.push((holder.key.clone(), holder.revision));
        let _never_fails = write!(text, "lock {} is held by {}, which ", wait.id, holder.party);
        if holder.party.is_same_thread(&start.party) {
            text.push_str("is the caller; unlock what the caller holds and start again, and take locks everywhere in the order of their ids");
            break;
        }
        wait = entries.iter().find(|entry| !entry.holds && entry.party.is_same_thread(&holder.party))?;
        if waits.iter().any(|seen| seen.key == wait.key) {
            // A cycle that this wait only leads to.
            return None;
        }
        let _never_fails = write!(text, "waits for lock {}; ", wait.id);
    }
    let victim = waits.iter().max_by_key(|entry| entry.revision)?.key.clone();
    Some(Cycle { victim, keys, text })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::keys::{NO_THREAD, json_of};

    /// Of threads 0 to n − 1, thread i holds lock i and waits for lock i + 1; the last waits for `last`. Their parties are as
    /// `like`.
    fn ring(size: u32, last: u32, like: &Party) -> (Keys, Vec<KeyValue>, Vec<KeyValue>) {
        let keys = Keys::new("p");
        let (mut queues, mut held) = (Vec::new(), Vec::new());
        for thread in 0..size {
            let party = Party { tid: thread as i32 + 1, ..like.clone() };
            let wanted = if thread + 1 == size { last } else { thread + 1 };
            for (id, name, revision) in [(thread, "h", 10), (wanted, "w", 100)] {
                let key = keys.queued(id, &format!("{name}{thread}"));
                let create_revision = revision + i64::from(thread);
                queues.push(KeyValue { key: key.clone(), value: json_of(&party), create_revision });
                if name == "h" {
                    let value = json_of(&Held { key, died: false });
                    held.push(KeyValue { key: keys.held(id), value, create_revision });
                }
            }
        }
        (keys, queues, held)
    }

    #[test]
    fn all_of_a_ring_choose_the_same_victim() {
        for size in 2..=8 {
            let (keys, queues, held) = ring(size, 0, &Party::default());
            for thread in 0..size {
                let own = keys.queued((thread + 1) % size, &format!("w{thread}"));
                let cycle = cycle_from(&keys, &own, &queues, &held).unwrap();
                assert_eq!(cycle.victim, keys.queued(0, &format!("w{}", size - 1)));
                assert_eq!(cycle.keys.len() as u32, 2 * size);
            }
        }
    }

    #[test]
    fn what_leads_to_a_ring_or_ends_is_none() {
        let (keys, queues, held) = ring(4, 1, &Party::default());
        assert_eq!(cycle_from(&keys, &keys.queued(1, "w0"), &queues, &held), None);
        let (keys, queues, held) = ring(3, 9, &Party::default());
        assert_eq!(cycle_from(&keys, &keys.queued(1, "w0"), &queues, &held), None);
        let (keys, queues, held) = ring(3, 0, &Party { by_process: true, ..Party::default() });
        assert_eq!(cycle_from(&keys, &keys.queued(1, "w0"), &queues, &held), None);
        let (keys, mut queues, held) = ring(3, 0, &Party::default());
        let handed_on = queues.iter_mut().find(|kv| kv.key == keys.queued(2, "h2")).unwrap();
        let party = Party { tid: NO_THREAD, handed_on: true, ..Party::default() };
        handed_on.value = json_of(&party);
        assert_eq!(cycle_from(&keys, &keys.queued(1, "w0"), &queues, &held), None);
    }
}
