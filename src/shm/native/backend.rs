// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The native engine as a backend: which function serves which path of a call.

use std::path::PathBuf;
use std::sync::Arc;

use crate::Reason;
use crate::backend::{Backend, FastAcquire, Mode, Release, Request, Spin};
use crate::sys::syscall::clock::Instant;
use crate::sys::syscall::file::Access;

use super::Native;
use super::locking::SlowPath;

impl Backend for Native {
    type Slow<'b> = SlowPath<'b>;

    fn storage(&self) -> &Arc<PathBuf> {
        &self.storage
    }

    #[inline(always)]
    fn acquire_fast(&self, id: u32, mode: Mode) -> FastAcquire {
        match mode {
            Mode::Exclusive => self.view.acquire_fast(id),
            Mode::Shared => self.view.share_fast(id),
        }
    }

    #[inline(always)]
    fn acquire_mid(&self, id: u32, mode: Mode, spin: Spin) -> FastAcquire {
        match (mode, spin) {
            (Mode::Exclusive, Spin::Never) => FastAcquire::GoSlow,
            (Mode::Exclusive, Spin::Try) => self.view.refuse_mid(id),
            (Mode::Exclusive, Spin::Briefly) => self.view.acquire_mid(id),
            (Mode::Shared, spin) => self.view.share_mid(id, spin),
        }
    }

    #[inline]
    fn acquire_slow<'b>(&'b self, request: Request<'b>) -> SlowPath<'b> {
        SlowPath::new(self, request)
    }

    #[inline(always)]
    fn release_fast(&self, id: u32, mode: Mode) -> Release {
        match mode {
            Mode::Exclusive => self.view.release_fast(id),
            Mode::Shared => self.view.unshare_fast(id),
        }
    }

    #[inline(always)]
    fn release_mid(&self, id: u32, mode: Mode) -> Release {
        match mode {
            Mode::Exclusive => self.view.release_mid(id),
            Mode::Shared => self.view.unshare_mid(id),
        }
    }

    fn release_slow(&self, id: u32, mode: Mode, _missed: Release) -> Result<(), Reason> {
        match mode {
            Mode::Exclusive => self.release_word(id),
            Mode::Shared => self.release_cell(id),
        }
    }

    #[inline]
    fn downgrade_mid(&self, id: u32) -> Release {
        self.view.downgrade_mid(id)
    }

    fn downgrade_slow(&self, id: u32) -> Result<(), Reason> {
        self.downgrade_held(id)
    }

    #[inline]
    fn allocate_fast(&self) -> Option<u32> {
        if self.may_allocate_fast() { self.view.bitmap().allocate_at_hint() } else { None }
    }

    #[inline]
    fn free_fast(&self, id: u32) -> Option<()> {
        (self.may_allocate_fast() && self.view.bitmap().free(id)).then_some(())
    }

    /// If this process has its place, and knows of all the locks that there are.
    #[inline]
    fn available_fast(&self) -> Option<u32> {
        self.pool().attachment.peek()?;
        self.view.count_free()
    }

    /// On a lock's word, or on one of its cells.
    fn lock_at(&self, offset: u64) -> Option<u32> {
        let pool = self.pool();
        pool.geometry.lock_at(offset, pool.num_locks_now()).or_else(|| pool.lock_of_place(offset))
    }
}

impl Native {
    /// Asks nothing that could panic or that makes a system call: a signal handler may end the thread anywhere here.
    #[inline]
    fn may_allocate_fast(&self) -> bool {
        let pool = self.pool();
        pool.access == Access::ReadWrite
            && pool.attachment.peek().is_some()
            && !self.view.is_marked_as_retired()
            && !pool.segment.is_look_due(Instant::now_coarse())
    }
}
