// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Which ids this process believes to be free. Only a belief: other processes allocate and free as well, and the
//! exclusive creation of a file decides.

use std::collections::BTreeMap;

use crate::shm::MAX_LOCKS;

/// One more than the highest id.
const END: u64 = MAX_LOCKS as u64;

/// How many ids that turn out to be taken are tried before the directory is read.
pub(super) const SURPRISES_BEFORE_LOOK: u32 = 16;

/// The ids believed free, as ranges: from the key up to, but not including, the value.
#[derive(Debug)]
pub(super) struct Believed {
    free: BTreeMap<u64, u64>,
    /// Whether they come from having looked.
    pub(super) looked: bool,
}

impl Believed {
    /// Of a directory that nobody has looked at: all of them.
    pub(super) fn all() -> Self {
        Self { free: BTreeMap::from([(0, END)]), looked: false }
    }

    /// All but those, which were found in the directory.
    pub(super) fn all_but(mut taken: Vec<u32>) -> Self {
        taken.sort_unstable();
        let mut free = BTreeMap::new();
        let mut next = 0;
        for id in taken.into_iter().map(u64::from) {
            if next < id {
                free.insert(next, id);
            }
            next = id + 1;
        }
        if next < END {
            free.insert(next, END);
        }
        Self { free, looked: true }
    }

    /// The lowest of them, which is believed free no more. `None`: none is left.
    pub(super) fn take_lowest(&mut self) -> Option<u32> {
        let (start, end) = self.free.pop_first()?;
        if start + 1 < end {
            self.free.insert(start + 1, end);
        }
        u32::try_from(start).ok()
    }

    pub(super) fn taken(&mut self, id: u32) {
        let id = u64::from(id);
        let Some((&start, &end)) = self.free.range(..=id).next_back() else { return };
        if id >= end {
            return;
        }
        self.free.remove(&start);
        if start < id {
            self.free.insert(start, id);
        }
        if id + 1 < end {
            self.free.insert(id + 1, end);
        }
    }

    pub(super) fn freed(&mut self, id: u32) {
        self.taken(id);
        let id = u64::from(id);
        let (mut start, mut end) = (id, id + 1);
        if let Some((&before, &before_end)) = self.free.range(..id).next_back()
            && before_end == id
        {
            self.free.remove(&before);
            start = before;
        }
        if let Some(after_end) = self.free.remove(&end) {
            end = after_end;
        }
        self.free.insert(start, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lowest(believed: &mut Believed, count: usize) -> Vec<u32> {
        (0..count).map_while(|_| believed.take_lowest()).collect()
    }

    #[test]
    fn ids_go_from_the_lowest() {
        assert_eq!(lowest(&mut Believed::all(), 3), [0, 1, 2]);
        assert_eq!(lowest(&mut Believed::all_but(vec![4, 0, 2]), 4), [1, 3, 5, 6]);
        assert_eq!(lowest(&mut Believed::all_but(vec![MAX_LOCKS - 1, 0]), 2), [1, 2]);
    }

    #[test]
    fn a_freed_id_comes_back_and_ranges_join_again() {
        let mut believed = Believed::all();
        for id in [5, 3, 4, 0] {
            believed.taken(id);
        }
        for id in [4, 5, 3, 3] {
            believed.freed(id);
        }
        assert_eq!(believed.free, BTreeMap::from([(1, END)]));
        believed.freed(0);
        assert_eq!(believed.free, BTreeMap::from([(0, END)]));
    }

    #[test]
    fn the_last_id_is_the_last() {
        let mut believed = Believed { free: BTreeMap::from([(END - 2, END)]), looked: true };
        assert_eq!(lowest(&mut believed, 3), [MAX_LOCKS - 2, MAX_LOCKS - 1]);
        believed.freed(MAX_LOCKS - 1);
        assert_eq!(lowest(&mut believed, 2), [MAX_LOCKS - 1]);
    }
}
