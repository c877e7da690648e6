// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Taking a lock in two steps: its word in the directory's table, which excludes all users of this library, and then, for
//! libpod's sake, the record lock on the id's file if there is one. Where libpod has that, its taker tries again every few
//! milliseconds, with the word in hand, since nobody tells of an unlock; so one process does, however many wait. Who shares
//! has a cell in the table instead, and the record lock for reading.

use std::path::PathBuf;
use std::sync::Arc;

use crate::acquisition::{Acquisition, Progress};
use crate::backend::{self, Backend, FastAcquire, Mode, Release, Request, Spin};
use crate::cancel::{self, Cancel};
use crate::manager::Acquired;
use crate::shm::{Native, SlowPath};
use crate::sys::syscall::clock::Instant;
use crate::sys::thread::Thread;
use crate::sys::thread::caller_state::with_errno_kept;
use crate::sys::thread::waits::{self, WaitEffects};
use crate::{Error, Reason};

use super::FileManager;
use super::directory::Outcome;
use super::kept::RecordAttempt;
use super::tables::Table;

/// How long to wait before another try for what libpod has: half of the 5 ms within which an unlock is to be noticed.
const RETRY_NS: u64 = 2_500_000;

/// How often a table that has lost its name is replaced in one call. Each round means that somebody removed it just then:
/// who removes all the time is not to make a slow process fail.
const ROUNDS: u32 = 1000;

/// An acquisition of a lock of a directory.
pub(crate) struct TwoSteps<'m> {
    manager: &'m FileManager,
    request: Request<'m>,
    rounds: u32,
    stage: Stage<'m>,
}

/// Never moved while it waits: what it counts is noted where it stands.
#[allow(
    clippy::large_enum_variant,
    reason = "one in a frame that waits; a signal handler may come where it would be allocated"
)]
enum Stage<'m> {
    Fresh,
    /// For the word.
    Word(&'m Table, SlowPath<'m>),
    /// For what libpod has.
    Record(Polling<'m>),
}

struct Polling<'m> {
    table: &'m Table,
    acquired: Acquired,
    thread: Thread,
    counted: waits::RecordedWait,
    until: Instant,
}

impl Backend for FileManager {
    type Slow<'b> = TwoSteps<'b>;

    fn storage(&self) -> &Arc<PathBuf> {
        &self.storage
    }

    /// Takes the word of a free lock, and what is at hand of its file. A signal handler may come anywhere, and stay: then the
    /// thread has the word, or has not.
    #[inline(always)]
    fn acquire_fast(&self, id: u32, mode: Mode) -> FastAcquire {
        if mode == Mode::Shared || !self.ownership.is_fixed() {
            return FastAcquire::GoSlow;
        }
        let Some(table) = self.tables.present() else { return FastAcquire::GoSlow };
        match table.native.acquire_fast(id, mode) {
            FastAcquire::Acquired(_) if !with_errno_kept(|| self.pool.kept.try_lock_fast(id)) => FastAcquire::BackOut,
            attempt => attempt,
        }
    }

    fn acquire_slow<'b>(&'b self, request: Request<'b>) -> TwoSteps<'b> {
        TwoSteps { manager: self, request, rounds: 0, stage: Stage::Fresh }
    }

    #[inline(always)]
    fn release_fast(&self, id: u32, mode: Mode) -> Release {
        // A wait for libpod that a handler left has the word, and no lock: the slow path gives it back first.
        if mode == Mode::Shared || waits::any_recorded(Thread::calling()) {
            return Release::GoSlow;
        }
        let Some(table) = self.tables.present().filter(|table| table.native.holds_surely(id)) else {
            return Release::GoSlow;
        };
        if !with_errno_kept(|| self.pool.kept.unlock_fast(id)) {
            return Release::GoSlow;
        }
        table.native.release_mid(id, mode)
    }

    fn release_slow(&self, id: u32, mode: Mode, _missed: Release) -> Outcome<()> {
        let released = match mode {
            Mode::Exclusive => self.release_word_and_record(id),
            Mode::Shared => self.release_cell_and_record(id),
        };
        released.map_err(|reason| reason.at_lock(id))
    }

    fn downgrade_slow(&self, id: u32) -> Outcome<()> {
        self.downgrade_word_and_record(id).map_err(|reason| reason.at_lock(id))
    }
}

impl FileManager {
    /// The table in which a lock was taken that is to be given back, as `has` knows it.
    fn table_of(&self, id: u32, has: impl Fn(&Native) -> bool) -> Outcome<&Table> {
        waits::undo_abandoned(Thread::calling());
        self.check_id(id)?;
        self.is_writable()?;
        self.tables.all().find(|table| has(&table.native)).ok_or(Reason::NotHolder { id })
    }

    /// Gives a shared hold back.
    fn release_cell_and_record(&self, id: u32) -> Outcome<()> {
        let table = self.table_of(id, |native| native.reads(id))?;
        let is_last = || table.native.is_last_reader_here(id);
        self.pool.kept.unshare(id, is_last, || backend::release_within(&table.native, id, Mode::Shared))
    }

    /// Makes an exclusive hold a shared one.
    fn downgrade_word_and_record(&self, id: u32) -> Outcome<()> {
        let table = self.table_of(id, |native| native.holds(id))?;
        // While the word is the caller's: once it reads, another thread may give back what the process owns, and the record
        // lock with it, which nobody would give back a second time.
        self.pool.kept.weaken(id);
        let downgraded = backend::downgrade_within(&table.native, id);
        if downgraded.is_err() && table.native.holds(id) {
            self.pool.kept.strengthen(id);
        }
        downgraded
    }

    /// Gives a lock back.
    fn release_word_and_record(&self, id: u32) -> Outcome<()> {
        let table = self.table_of(id, |native| native.holds(id))?;
        // First: whoever takes the word takes that next.
        self.pool.kept.unlock(id);
        backend::release_within(&table.native, id, Mode::Exclusive)
    }
}

impl Acquisition for TwoSteps<'_> {
    fn step(&mut self) -> Progress {
        self.advance().map_err(|reason| reason.at_lock(self.request.id))
    }

    extern "C" fn sleep(&mut self) {
        match &mut self.stage {
            Stage::Word(_, path) => path.sleep(),
            Stage::Record(polling) => polling.until.sleep_until(),
            Stage::Fresh => {}
        }
    }
}

impl<'m> TwoSteps<'m> {
    fn advance(&mut self) -> Progress {
        let (table, acquired) = match &mut self.stage {
            Stage::Fresh => return self.begin(),
            Stage::Word(table, path) => {
                let (table, id) = (*table, self.request.id);
                let step = path.step();
                if let (Mode::Shared, Ok(None) | Err(_)) = (self.request.mode, &step) {
                    self.manager.pool.kept.close_unless_read(id, || table.native.is_used_here(id));
                }
                match step {
                    Ok(None) => return Ok(None),
                    Ok(Some(acquired)) => (table, acquired),
                    Err(Reason::Removed) => return self.begin_anew(table),
                    Err(Reason::OutOfRange { .. }) => {
                        return Err(Reason::OutOfRange { id, num_locks: crate::shm::MAX_LOCKS });
                    }
                    Err(reason) => return Err(reason),
                }
            }
            Stage::Record(polling) => (polling.table, polling.acquired),
        };
        self.take_record(table, acquired)
    }

    fn begin(&mut self) -> Progress {
        // First: whatever this call comes to, it is not to keep what it took in vain.
        if self.request.missed == FastAcquire::BackOut
            && let Some(table) = self.manager.tables.present()
        {
            table.native.back_out(self.request.id);
        }
        waits::undo_abandoned(Thread::calling());
        self.manager.check_id(self.request.id)?;
        self.manager.is_writable()?;
        cancel::check(self.request.cancel, self.request.id)?;
        let table = self.manager.table().map_err(Error::into_reason)?;
        self.take_word(table)
    }

    fn take_word(&mut self, table: &'m Table) -> Progress {
        let Request { id, mode, deadline, .. } = self.request;
        table.native.reach(id)?;
        let spin = if deadline.is_try() { Spin::Never } else { Spin::Briefly };
        let missed = table.native.acquire_mid(id, mode, spin);
        if let FastAcquire::Acquired(acquired) = missed {
            return self.take_record(table, acquired);
        }
        self.stage = Stage::Word(table, table.native.acquire_slow(Request { missed, ..self.request }));
        self.advance()
    }

    /// The same in the table that came in the place of one that lost its name.
    fn begin_anew(&mut self, table: &'m Table) -> Progress {
        self.rounds += 1;
        if self.rounds > ROUNDS {
            return Err(Reason::Unsettled { id: self.request.id, rounds: ROUNDS });
        }
        self.stage = Stage::Fresh;
        let table = self.manager.replaced(table).map_err(Error::into_reason)?;
        self.take_word(table)
    }

    /// The second step, with the word in hand.
    fn take_record(&mut self, table: &'m Table, acquired: Acquired) -> Progress {
        let kept = &self.manager.pool.kept;
        let changed = self.manager.pool.directory.changed_last();
        let beheld = match self.request.mode {
            Mode::Exclusive => kept.try_lock(self.request.id),
            Mode::Shared => kept.try_share(self.request.id),
        };
        match beheld {
            Ok(RecordAttempt::Locked) => Ok(Some(self.hold(table, acquired))),
            // libpod may have removed all files of the directory, the table with them.
            Ok(RecordAttempt::NoFile) if table.native.has_lost_its_name() => {
                self.back_out_of_word(table, acquired);
                self.begin_anew(table)
            }
            Ok(RecordAttempt::NoFile) => {
                kept.note_no_file(self.request.id, changed);
                Ok(Some(self.hold(table, acquired)))
            }
            Ok(RecordAttempt::Held) => {
                self.go_on_polling(table, acquired).inspect_err(|_| self.back_out_of_word(table, acquired))
            }
            Err(reason) => {
                self.back_out_of_word(table, acquired);
                Err(reason)
            }
        }
    }

    /// `Err`: it is not to be waited for any longer.
    fn go_on_polling(&mut self, table: &'m Table, acquired: Acquired) -> Progress {
        let Request { id, deadline, .. } = self.request;
        let now = Instant::now();
        if now >= deadline.at() {
            return Err(deadline.missed(id, 0));
        }
        cancel::check(self.request.cancel, id)?;
        if table.native.is_retired() {
            return Err(Reason::Removed);
        }
        let until = cancel::next_look(self.request.cancel, now.after(RETRY_NS).min(deadline.at()));
        if let Stage::Record(polling) = &mut self.stage {
            polling.until = until;
            return Ok(None);
        }
        let (thread, counted) = (Thread::calling(), waits::RecordedWait::default());
        self.stage = Stage::Record(Polling { table, acquired, thread, counted, until });
        if let Stage::Record(polling) = &mut self.stage {
            let (local_waiters, published_wait, cancel) = (None, None, self.request.cancel.map(Cancel::waits));
            let (waiting, futex) = (table.native.waiting(), table.native.futex(id));
            let held_word = match self.request.mode {
                Mode::Exclusive => Some(table.native.word_to_release(id, acquired)),
                Mode::Shared => table.native.cell_to_release(id),
            };
            polling
                .counted
                .begin(thread, &WaitEffects { waiting, cancel, local_waiters, published_wait, futex, held_word });
        }
        Ok(None)
    }

    /// The word was in hand if libpod was waited for.
    fn hold(&mut self, table: &Table, acquired: Acquired) -> Acquired {
        if matches!(self.stage, Stage::Record(_)) {
            self.end_polling();
            if self.request.mode == Mode::Exclusive {
                table.native.hold(self.request.id);
            }
        }
        acquired
    }

    fn end_polling(&mut self) {
        if let Stage::Record(polling) = &mut self.stage {
            polling.counted.end(polling.thread);
        }
    }

    /// Gives the word, or the cell, back as it was.
    fn back_out_of_word(&mut self, table: &Table, acquired: Acquired) {
        self.end_polling();
        match self.request.mode {
            Mode::Exclusive => table.native.back_out_of(self.request.id, acquired),
            // It is there, or a hostile writer has taken it: there is nobody to tell.
            Mode::Shared => _ = backend::release_within(&table.native, self.request.id, Mode::Shared),
        }
    }
}
