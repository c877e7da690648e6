// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! A lock of a directory is taken in two steps. The first is its word in the directory's table, which excludes all users
//! of this library. The second is the record lock on the id's file, if there is one, which excludes libpod. While libpod
//! holds the record lock, the thread with the word tries again every few milliseconds, because libpod's unlock wakes nobody.
//! So only one thread polls, however many wait. A reader has a cell in the table instead of the word, and takes the record
//! lock for reading.

use std::path::PathBuf;
use std::sync::Arc;

use crate::acquisition::{self, Acquisition, Progress};
use crate::backend::{self, Backend, FastAcquire, Mode, Release, Request, Spin};
use crate::cancel::{self, Cancel};
use crate::manager::Acquired;
use crate::shm::{Native, SlowPath};
use crate::sys::probe;
use crate::sys::syscall::clock::Instant;
use crate::sys::thread::Thread;
use crate::sys::thread::caller_state::with_errno_kept;
use crate::sys::thread::waits::{self, WaitEffects};
use crate::{Error, Reason};

use super::FileManager;
use super::directory::Outcome;
use super::record_locks::RecordAttempt;
use super::tables::Table;

/// The time between two tries for the record lock: half of the 5 ms within which an unlock by libpod is noticed.
const RETRY_NS: u64 = 2_500_000;

/// How often a call replaces a table that has lost its name. Each round means that another process has just removed it.
/// There are many rounds, so that a process that keeps removing tables does not make a slow one fail.
const ROUNDS: u32 = 1000;

/// An acquisition of a directory's lock.
pub(crate) struct TwoSteps<'m> {
    manager: &'m FileManager,
    request: Request<'m>,
    rounds: u32,
    stage: Stage<'m>,
}

/// It is never moved while it waits: a record in the thread points to it.
#[allow(
    clippy::large_enum_variant,
    reason = "one in a frame that waits; a signal handler may come where it would be allocated"
)]
enum Stage<'m> {
    Fresh,
    /// Waits for the word.
    Word(&'m Table, SlowPath<'m>),
    /// Waits for the record lock.
    Record(Polling<'m>),
}

struct Polling<'m> {
    table: &'m Table,
    acquired: Acquired,
    thread: Thread,
    counted: waits::RecordedWait,
    start: Instant,
    until: Instant,
}

impl Backend for FileManager {
    type Slow<'b> = TwoSteps<'b>;

    fn storage(&self) -> &Arc<PathBuf> {
        &self.storage
    }

    /// Takes the word of a free lock, and the record lock if its descriptor is kept. A signal handler may come anywhere,
    /// and perhaps never return: then the thread either has the word or does not.
    #[inline(always)]
    fn acquire_fast(&self, id: u32, mode: Mode) -> FastAcquire {
        if mode == Mode::Shared || !self.ownership.is_fixed() {
            return FastAcquire::GoSlow;
        }
        let Some(table) = self.tables.present() else { return FastAcquire::GoSlow };
        match table.native.acquire_fast(id, mode) {
            FastAcquire::Acquired(_) if !with_errno_kept(|| self.pool.record_locks.try_lock_fast(id)) => {
                FastAcquire::BackOut
            }
            attempt => attempt,
        }
    }

    fn acquire_slow<'b>(&'b self, request: Request<'b>) -> TwoSteps<'b> {
        TwoSteps { manager: self, request, rounds: 0, stage: Stage::Fresh }
    }

    #[inline(always)]
    fn release_fast(&self, id: u32, mode: Mode) -> Release {
        // A signal handler may have jumped out of a wait for libpod, and left the word held. The slow path releases that
        // word first.
        if mode == Mode::Shared || waits::any_recorded(Thread::calling()) {
            return Release::GoSlow;
        }
        let Some(table) = self.tables.present().filter(|table| table.native.holds_surely(id)) else {
            return Release::GoSlow;
        };
        if !with_errno_kept(|| self.pool.record_locks.unlock_fast(id)) {
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
    /// The table in which the caller holds the lock, as `has` says.
    fn table_of(&self, id: u32, has: impl Fn(&Native) -> bool) -> Outcome<&Table> {
        waits::undo_abandoned(Thread::calling());
        self.check_id(id)?;
        self.is_writable()?;
        self.tables.all().find(|table| has(&table.native)).ok_or(Reason::NotHolder { id })
    }

    /// Releases a shared hold.
    fn release_cell_and_record(&self, id: u32) -> Outcome<()> {
        let table = self.table_of(id, |native| native.reads(id))?;
        let is_last = || table.native.is_last_reader_here(id);
        self.pool.record_locks.unshare(id, is_last, || backend::release_within(&table.native, id, Mode::Shared))
    }

    /// Makes an exclusive hold a shared one.
    fn downgrade_word_and_record(&self, id: u32) -> Outcome<()> {
        let table = self.table_of(id, |native| native.holds(id))?;
        // Do this while the caller has the word. Once it is a reader, another thread may release a hold of the process
        // together with its record lock, and a record lock taken after that would never be released.
        self.pool.record_locks.weaken(id);
        let downgraded = backend::downgrade_within(&table.native, id);
        if downgraded.is_err() && table.native.holds(id) {
            self.pool.record_locks.strengthen(id);
        }
        downgraded
    }

    /// Releases an exclusive hold.
    fn release_word_and_record(&self, id: u32) -> Outcome<()> {
        let table = self.table_of(id, |native| native.holds(id))?;
        // Release the record lock first: the thread that takes the word takes it next.
        self.pool.record_locks.unlock(id);
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
                    self.manager.pool.record_locks.close_unless_read(id, || table.native.is_used_here(id));
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
        let progress = self.take_record(table, acquired);
        if !matches!(progress, Ok(None)) {
            self.show_record_wait_end(acquisition::code(&progress));
        }
        progress
    }

    /// Tells probes of the end of a wait for the record lock, if the call is in one.
    fn show_record_wait_end(&self, code: i64) {
        if let Stage::Record(polling) = &self.stage {
            let (inode, waited) = (polling.table.native.inode(), Instant::now().since(polling.start));
            probe::record_wait_end(inode, self.request.id.into(), waited, code);
        }
    }

    fn begin(&mut self) -> Progress {
        // Do this first: even if the call fails, it must not keep the word that the fast path took.
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

    /// Begins again in the table that has replaced `table`.
    fn begin_anew(&mut self, table: &'m Table) -> Progress {
        self.rounds += 1;
        if self.rounds > ROUNDS {
            return Err(Reason::Unsettled { id: self.request.id, rounds: ROUNDS });
        }
        self.show_record_wait_end(-i64::from(Reason::Removed.errno()));
        self.stage = Stage::Fresh;
        let table = self.manager.replaced(table).map_err(Error::into_reason)?;
        self.take_word(table)
    }

    /// The second step. The caller has the word.
    fn take_record(&mut self, table: &'m Table, acquired: Acquired) -> Progress {
        let record_locks = &self.manager.pool.record_locks;
        let changed = self.manager.pool.directory.changed_last();
        let attempt = match self.request.mode {
            Mode::Exclusive => record_locks.try_lock(self.request.id),
            Mode::Shared => record_locks.try_share(self.request.id),
        };
        match attempt {
            Ok(RecordAttempt::Locked) => Ok(Some(self.hold(table, acquired))),
            // libpod may have removed all files of the directory, also the table.
            Ok(RecordAttempt::NoFile) if table.native.has_lost_its_name() => {
                self.back_out_of_word(table, acquired);
                self.begin_anew(table)
            }
            Ok(RecordAttempt::NoFile) => {
                record_locks.note_no_file(self.request.id, changed);
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

    /// Prepares a sleep until the next try. `Err`: the wait is over.
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
            probe::record_wait(table.native.inode(), id.into(), now.since(polling.start));
            return Ok(None);
        }
        let (thread, counted) = (Thread::calling(), waits::RecordedWait::default());
        self.stage = Stage::Record(Polling { table, acquired, thread, counted, start: now, until });
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
        probe::record_wait(table.native.inode(), id.into(), 0);
        Ok(None)
    }

    /// Holds the lock now. If the call waited for libpod, no unlock could release the word meanwhile; from here on one can.
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

    /// Backs out of the word, or releases the cell.
    fn back_out_of_word(&mut self, table: &Table, acquired: Acquired) {
        self.end_polling();
        match self.request.mode {
            Mode::Exclusive => table.native.back_out_of(self.request.id, acquired),
            // This fails only if a hostile writer has emptied the cell: there is nobody to tell.
            Mode::Shared => _ = backend::release_within(&table.native, self.request.id, Mode::Shared),
        }
    }
}
