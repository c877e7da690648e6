// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Reading the state of locks without changing anything: a diagnosis must not clear an owner-died mark or make a thread
//! wait.

use crate::manager::LockInfo;
use crate::sys::liveness;
use crate::sys::mutex::State;
use crate::sys::process::namespaces;

use super::Libpod;

impl Libpod {
    pub(super) fn is_held(&self, id: u32) -> bool {
        matches!(self.pool.mutex(id).state(), State::Held(1..))
    }

    pub(super) fn inspect(&self, id: u32) -> LockInfo {
        let state = self.pool.mutex(id).state();
        let mut info = LockInfo {
            id,
            allocated: self.pool.is_allocated(id),
            held: matches!(state, State::Held(1..)),
            owner_died: state == State::OwnerDied,
            ..LockInfo::default()
        };
        if let State::Held(tid @ 1..) = state {
            let pid = namespaces::process_of(tid);
            let process = pid.to_string();
            // A thread with that id that does not map the segment is another one: the id was used again, or is of another
            // PID namespace.
            let is_stranger = || {
                let file = self.pool.segment.as_mapped();
                file.is_some_and(|file| file.is_mapped_by(&process) == Some(false))
            };
            if pid != 0 && liveness::thread_lives(tid) && !is_stranger() {
                info.pid = pid;
                info.tid = tid as i32;
                info.pid_namespace = namespaces::pid_namespace(&process);
            }
        }
        info
    }
}
