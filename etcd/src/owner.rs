// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! What this process says of itself to other hosts.

use std::fs;

use crate::keys::Party;

/// Who owns a lock that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ownership {
    ByThread,
    ByProcess,
}

/// The process, without the thread.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    party: Party,
}

impl Identity {
    /// `host`: what names the host, if the options say so.
    pub(crate) fn new(host: Option<&str>) -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let boot = read("/proc/sys/kernel/random/boot_id");
        let name = read("/proc/sys/kernel/hostname");
        let host_id = host.map_or(boot, str::to_owned);
        let host = host.map_or(name, str::to_owned);
        let party =
            Party { host, host_id, pid: 0, start: start_time(), command: read("/proc/self/comm"), ..Party::default() };
        Self { party: Party { pid: std::process::id() as i32, ..party } }
    }

    pub(crate) fn host_id(&self) -> &str {
        &self.party.host_id
    }

    pub(crate) fn party(&self, tid: i32, ownership: Ownership) -> Party {
        Party {
            tid,
            by_process: ownership == Ownership::ByProcess,
            since_ms: crate::sys::since_1970_ms(),
            ..self.party.clone()
        }
    }
}

/// The 22nd field of /proc/self/stat; the second is in parentheses, and may have anything in it.
fn start_time() -> u64 {
    const AFTER_COMMAND: usize = 19;
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_whitespace().nth(AFTER_COMMAND).and_then(|field| field.parse().ok()).unwrap_or(0)
}
