// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Reading the state of locks without changing anything: a diagnosis must not clear an owner-died mark or make a thread
//! wait.

use std::sync::atomic::Ordering;

use crate::manager::LockInfo;
use crate::sys::liveness;
use crate::sys::mutex::word;
use crate::sys::process::namespaces;

use super::Libpod;

impl Libpod {
    pub(super) fn is_held(&self, id: u32) -> bool {
        is_held(self.word(id))
    }

    pub(super) fn inspect(&self, id: u32) -> LockInfo {
        let word = self.word(id);
        let mut info = LockInfo {
            id,
            allocated: self.pool.is_allocated(id),
            held: is_held(word),
            owner_died: word & word::OWNER_DIED != 0,
            ..LockInfo::default()
        };
        if info.held {
            let tid = word & word::TID;
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

    fn word(&self, id: u32) -> u32 {
        self.pool.mutex(id).word().load(Ordering::Relaxed)
    }
}

fn is_held(word: u32) -> bool {
    word & word::TID != 0 && word & word::OWNER_DIED == 0
}
