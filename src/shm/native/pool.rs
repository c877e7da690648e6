// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! One segment as this process uses it: one mapping, and one more once it has grown, and one place in its attach table,
//! however many managers are open on it.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use crate::sys::Errno;
use crate::sys::liveness::procfs;
use crate::sys::process::Process;
use crate::sys::process::arena;
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

/// A segment, mapped, with what this process is in it.
pub(super) struct Pool {
    space: Space,
    process: &'static Process,
    /// This process's place in the segment. A child has none until its first call.
    pub(super) attachment: PerProcess<Attachment>,
    pub(super) last_found_alive: LastFoundAlive,
    /// What locks are held by beside their words, if by anything.
    pub(super) companion: OnceBox<Arc<dyn Companion>>,
    /// Whether a thread has ever taken locks here that it was to own itself.
    pub(super) has_owning_threads: AtomicBool,
}

/// The holder that a thorough look of this process found alive last, and until when that is good. Two who store at the
/// same time may leave the one's holder with the other's time, which is as good for as long.
#[derive(Debug, Default)]
pub(super) struct LastFoundAlive {
    pub(super) holder: AtomicU64,
    pub(super) until: AtomicU64,
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

    /// The pool of a segment that was mapped just now, or the one that this process has of it already. `read`: the id that
    /// was read from the file, if it was.
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
                // What is mapped is what was read, whatever a descriptor's number was of in between.
                if read.is_some_and(|read| !space.is(&read)) {
                    let reason = Reason::System { doing: "mapping the segment", errno: Errno(libc::EBADF) };
                    return Err(name.error(reason));
                }
                let attachment = PerProcess::new().map_err(no_memory)?;
                Ok(Self::new(process, space, attachment))
            },
        )
    }

    /// The pool of a segment of this process's own.
    pub(super) fn of_nameless(process: &'static Process, space: Space) -> std::result::Result<Shared<Self>, Reason> {
        let no_memory = |errno: Errno| Reason::System { doing: "reserving memory", errno };
        let metadata = &space.segment.metadata;
        let key = [metadata.device, metadata.inode, space.access as u64];
        let alone = process.exclude_other_threads();
        POOLS.get_or_make(
            &alone,
            key,
            // An inode of memory is nobody else's as long as it is mapped.
            |_| Err(Reason::System { doing: "reserving memory", errno: Errno(libc::EEXIST) }),
            || {
                let attachment = PerProcess::new().map_err(no_memory)?;
                Ok(Self::new(process, space, attachment))
            },
        )
    }

    /// Counts the calling thread among those of this process that wait for that lock.
    pub(super) fn join_local_waiters(&self, id: u32) -> LocalWaiters<'static> {
        // The process has its arena since the pool was made.
        let counters = arena::wait_counters().unwrap_or_default();
        // Inodes are often neighbours, as ids are.
        LocalWaiters::join(counters, id.wrapping_add((self.segment.metadata.inode as u32).wrapping_mul(0x9E37_79B1)))
    }

    /// The place of this process, taken now if it has none.
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
        // What a forked child's first thread remembers before it is named anew is its parent's.
        thread.is_identified_in(self.process) && thread.serial_bits() == word::of_thread(0, word::serial(named))
    }

    /// The PID namespace that this process looks from.
    pub(super) fn pid_namespace(&self) -> u64 {
        let published = self.attachment.peek().and_then(Attachment::namespaces);
        published.map_or_else(|| procfs::pid_namespace("self"), |here| here.pid_namespace)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // In that order: whoever finds the entry's byte free finds it given up, not dead. The registry drops a pool only
        // when nothing is held and no thread is inside.
        if let Some(attachment) = self.attachment.peek() {
            attachment.detach(&self.space);
        }
    }
}
