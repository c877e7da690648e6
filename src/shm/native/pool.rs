// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! A segment as this process uses it. However many managers are open on it, there is one mapping (and one more once the
//! segment has grown) and one place in the attach table.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

use crate::sys::Errno;
use crate::sys::process::Process;
use crate::sys::process::arena;
use crate::sys::process::namespaces;
use crate::sys::process::once_box::OnceBox;
use crate::sys::process::per_process::PerProcess;
use crate::sys::process::registry::{Registry, Shared};
use crate::sys::thread::Thread;
use crate::{Reason, Result};

use super::super::name::SegmentName;
use super::Companion;
use super::attachment::Attachment;
use super::local_waiters::LocalWaiters;
use super::space::Space;
use super::word;

pub(super) static POOLS: Registry<Pool> = Registry::new();

/// A mapped segment, and the place of this process in it.
pub(super) struct Pool {
    space: Space,
    process: &'static Process,
    /// The place of this process. A forked child has none until its first call.
    pub(super) attachment: PerProcess<Attachment>,
    pub(super) last_found_alive: LastFoundAlive,
    /// What releases the companions of locks, if they have any.
    pub(super) companion: OnceBox<Arc<dyn Companion>>,
    /// Whether a thread of this process has ever taken a lock here that the thread owns.
    pub(super) has_owning_threads: AtomicBool,
}

/// The holder that a thorough check by this process last found alive, how long that is believed, and how long a quick check
/// is. Two threads that store at the same time may mix holder, times and thread. For the times that is harmless: both holders
/// were alive just now. The thread is only told of in a refusal, which may name the other's.
#[derive(Debug, Default)]
pub(super) struct LastFoundAlive {
    pub(super) holder: AtomicU64,
    pub(super) until: AtomicU64,
    pub(super) quick_until: AtomicU64,
    /// The thread id of the holder, 0: unknown.
    pub(super) thread: AtomicU32,
}

impl Deref for Pool {
    type Target = Space;

    #[inline(always)]
    fn deref(&self) -> &Space {
        &self.space
    }
}

impl Pool {
    fn new(process: &'static Process, space: Space, attachment: PerProcess<Attachment>) -> Self {
        let (last_found_alive, has_owning_threads) = Default::default();
        Self { space, process, attachment, last_found_alive, companion: OnceBox::new(), has_owning_threads }
    }

    /// The pool of a segment that was just mapped, or the pool that this process already has of it. `read`: the segment's
    /// id as it was read from the file, if it was read.
    pub(super) fn of(
        process: &'static Process,
        name: &SegmentName,
        space: Space,
        read: Option<[u8; 16]>,
    ) -> Result<Shared<Self>> {
        let metadata = &space.segment.metadata;
        let key = [metadata.device, metadata.inode, space.access as u64];
        let geometry = space.geometry;
        let alone = process.exclude_other_threads();
        let no_memory = |errno: Errno| name.error(Reason::System { doing: "reserving memory", errno });
        POOLS.get_or_make(
            &alone,
            key,
            |pool| {
                let (found, expected) = (geometry.max_locks().into(), pool.geometry.max_locks().into());
                let same = geometry == pool.geometry;
                let reason =
                    Reason::Damaged { what: "a number in the header, which changed while in use,", found, expected };
                if same { Ok(()) } else { Err(name.error(reason)) }
            },
            || {
                // Check that the mapped file is the file that was read: the descriptor may have been of another file in
                // between.
                if read.is_some_and(|read| !space.is(&read)) {
                    let reason = Reason::System { doing: "mapping the segment", errno: Errno(libc::EBADF) };
                    return Err(name.error(reason));
                }
                let attachment = PerProcess::new().map_err(no_memory)?;
                Ok(Self::new(process, space, attachment))
            },
        )
    }

    /// The pool of a segment that is this process's alone.
    pub(super) fn of_nameless(process: &'static Process, space: Space) -> std::result::Result<Shared<Self>, Reason> {
        let no_memory = |errno: Errno| Reason::System { doing: "reserving memory", errno };
        let metadata = &space.segment.metadata;
        let key = [metadata.device, metadata.inode, space.access as u64];
        let alone = process.exclude_other_threads();
        POOLS.get_or_make(
            &alone,
            key,
            // No other segment has this inode while it is mapped.
            |_| Err(Reason::System { doing: "reserving memory", errno: Errno(libc::EEXIST) }),
            || {
                let attachment = PerProcess::new().map_err(no_memory)?;
                Ok(Self::new(process, space, attachment))
            },
        )
    }

    /// Counts the calling thread as one that waits for the lock.
    pub(super) fn join_local_waiters(&self, id: u32) -> LocalWaiters<'static> {
        // The arena exists since the pool was made.
        let counters = arena::wait_counters().unwrap_or_default();
        // Spread the inodes: like ids, they are often consecutive.
        LocalWaiters::join(counters, id.wrapping_add((self.segment.metadata.inode as u32).wrapping_mul(0x9E37_79B1)))
    }

    /// The place of this process; it is taken now if there is none.
    pub(super) fn attached(&self) -> std::result::Result<&Attachment, Reason> {
        if let Some(attachment) = self.attachment.peek() {
            return Ok(attachment);
        }
        let _alone = self.process.exclude_other_threads();
        self.attachment.get(|| Attachment::make(&self.space))
    }

    /// Whether a word of this process names the calling thread.
    pub(super) fn is_calling_thread(&self, named: u64) -> bool {
        let thread = Thread::calling();
        // In a forked child, the first thread still has its parent's name until it gets a new one.
        thread.is_identified_in(self.process) && thread.serial_bits() == word::of_thread(0, word::serial(named))
    }

    /// The PID namespace of this process.
    pub(super) fn pid_namespace(&self) -> u64 {
        let published = self.attachment.peek().and_then(Attachment::namespaces);
        published.map_or_else(|| namespaces::pid_namespace("self"), |here| here.pid_namespace)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Detach before the byte is unlocked: a process that finds the byte free then sees an entry that was left, not a
        // dead process. The registry drops a pool only when nothing is held and no thread is inside.
        if let Some(attachment) = self.attachment.peek() {
            attachment.detach(&self.space);
        }
    }
}
