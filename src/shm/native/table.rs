// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The cells of a segment as this process has them mapped: those in the slots, and the table of cells.

use std::sync::atomic::{AtomicU64, Ordering};

use super::cells::{self, Cells, Table};
use super::format::{self, header, slot};
use super::geometry::Readers;
use super::releasing::wake_cell;
use super::space::{Space, place_of};
use crate::Reason;
use crate::sys::syscall::file::Access;

impl Space {
    /// The table of cells. `None`: the segment has no shared locks.
    pub(super) fn table(&self) -> Option<Table<'_>> {
        let (word, _) = place_of(format::FIRST_TABLE_PAGE);
        match self.geometry.readers() {
            Readers::Unknown => None,
            Readers::InCells => {
                let words = self.segment.map.u64s_at(self.geometry.table(), 2 * format::PLACES);
                let places = words.as_chunks::<2>().0.try_into().ok()?;
                let ready = self.segment.map.u64_at(header::READY + word * size_of::<u64>());
                Some(Table { places, usable: &self.usable[word], ready })
            }
        }
    }

    /// The lock whose cell is at that byte of the file, in the table.
    pub(super) fn lock_of_place(&self, offset: u64) -> Option<u32> {
        let index = self.geometry.place_at(offset)?;
        let Table { places, ready, .. } = self.table()?;
        let page = format::table_page_of(index);
        if ready.load(Ordering::SeqCst) & 1 << page == 0 || self.make_table_page_usable(page).is_err() {
            return None;
        }
        let id = places.get(index)?[1].load(Ordering::Acquire) as u32;
        (id < self.num_locks_now()).then_some(id)
    }

    /// The cells of a lock that this process knows. `None`: the segment has no shared locks.
    pub(super) fn cells(&self, id: u32) -> Option<Cells<'_>> {
        let own = self.mapped_slots().u64s_at(self.geometry.slot(id) + slot::CELLS, format::CELLS);
        Some(Cells {
            word: self.word(id),
            own: own.first_chunk()?,
            level: self.slot(id, slot::LEVEL),
            table: self.table()?,
            id,
        })
    }

    /// Whether this process can touch a page of the table that was used before.
    pub(super) fn can_touch_table_page(&self, page: u32) -> bool {
        self.page_is_usable(format::FIRST_TABLE_PAGE + page) == Some(true)
    }

    /// Why a reader has found no room in the table: it is full, or a page of it cannot be reserved.
    #[cold]
    pub(super) fn why_no_room(&self, id: u32) -> Reason {
        let reserved = (0..format::TABLE_PAGES).try_for_each(|page| self.make_table_page_usable(page));
        reserved.err().unwrap_or(Reason::TooManyReaders { id })
    }

    /// Makes a page of the table usable for this process.
    pub(super) fn make_table_page_usable(&self, page: u32) -> std::result::Result<(), Reason> {
        let page = format::FIRST_TABLE_PAGE + page;
        match self.access {
            _ if self.has_reserved(page) => Ok(()),
            Access::ReadWrite => self.reserve_page(page),
            // A read-only opener cannot reserve the page, and has to believe that another process did.
            Access::ReadOnly => {
                self.note_usable(page);
                Ok(())
            }
        }
    }
}

impl cells::Surroundings for Space {
    fn make_usable(&self, page: u32) -> bool {
        self.make_table_page_usable(page).is_ok()
    }

    fn is_past(&self, cell: u64) -> bool {
        Space::is_past(self, cell)
    }

    fn wake(&self, cell: &AtomicU64) {
        wake_cell(cell);
    }
}
