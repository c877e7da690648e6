// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The table of a directory: a native segment with the words of its locks. When libpod frees all locks, it also removes
//! the table. The next call then makes a new one. A lock that was taken in the old table is released there.

use std::sync::Arc;

use crate::shm::{self, Companion, Native};
use crate::sys::process::once_box::OnceBox;
use crate::{Reason, Result};

use super::directory::Directory;
use super::pool::Pool;

/// The tables that a manager has used. They all stay until the manager is dropped.
pub(super) struct Tables {
    first: OnceBox<Table>,
}

/// A table, and the one that has replaced it.
pub(super) struct Table {
    pub(super) native: Native,
    next: OnceBox<Table>,
}

impl Table {
    fn new(pool: &Pool, native: Native) -> Self {
        native.set_companion(Arc::clone(&pool.record_locks) as Arc<dyn Companion>);
        Self { native, next: OnceBox::new() }
    }
}

impl Tables {
    pub(super) fn new() -> Self {
        Self { first: OnceBox::new() }
    }

    /// Makes the first table of a directory. `EEXIST`: it has one.
    pub(super) fn create(&self, pool: &Pool) -> Result<()> {
        self.first.get_or_make(|| Ok(Table::new(pool, shm::create_table(&pool.directory.name)?))).map(|_| ())
    }

    /// The present table. It is opened if need be, and made if there is none. A read-only manager makes none: `None`.
    pub(super) fn open(&self, pool: &Pool) -> Result<Option<&Table>> {
        match self.present() {
            Some(table) => Ok(Some(table)),
            None => open_in(&self.first, pool),
        }
    }

    /// The table that has replaced `table`, which has lost its name.
    pub(super) fn replace<'t>(&self, table: &'t Table, pool: &Pool) -> Result<Option<&'t Table>> {
        open_in(&table.next, pool)
    }

    /// The present table, if one was opened.
    pub(super) fn present(&self) -> Option<&Table> {
        self.all().last()
    }

    /// All tables, from the first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Table> {
        std::iter::successors(self.first.get(), |table| table.next.get())
    }
}

fn open_in<'p>(place: &'p OnceBox<Table>, pool: &Pool) -> Result<Option<&'p Table>> {
    if let Some(table) = place.get() {
        return Ok(Some(table));
    }
    let Directory { name, access, .. } = &*pool.directory;
    // The table is opened by its name, which may lead to another directory by now.
    let check = || if pool.directory.has_lost_its_name() { Err(name.error(Reason::Removed)) } else { Ok(()) };
    check()?;
    let Some(native) = shm::open_table(name, *access)? else { return Ok(None) };
    check()?;
    place.get_or_make(|| Ok(Table::new(pool, native))).map(Some)
}
