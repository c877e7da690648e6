// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Which ids this process thinks are free. It is only a guess: other processes allocate and free as well. The exclusive
//! creation of a file decides.

use crate::shm::MAX_LOCKS;

/// After this many wrong guesses, read the directory.
pub(super) const SURPRISES_BEFORE_LOOK: u32 = 16;

/// The ids that are thought to be taken: a bit each, up to the highest of them.
#[derive(Debug, Default)]
pub(super) struct KnownIds {
    taken: Vec<u64>,
    /// Whether the directory was read.
    pub(super) looked: bool,
}

impl KnownIds {
    /// What is known of a directory in which the ids `taken` were found: all other ids are free.
    pub(super) fn all_but(taken: &[u32]) -> Self {
        let mut known = Self { looked: true, ..Self::default() };
        taken.iter().for_each(|&id| known.taken(id));
        known
    }

    /// Takes the lowest id that is thought to be free. `None`: there is none.
    pub(super) fn take_lowest(&mut self) -> Option<u32> {
        let index = self.taken.iter().position(|&bits| bits != u64::MAX).unwrap_or(self.taken.len());
        let bit = self.taken.get(index).map_or(0, |bits| bits.trailing_ones());
        let id = index as u32 * u64::BITS + bit;
        (id < MAX_LOCKS).then(|| self.taken(id)).map(|()| id)
    }

    pub(super) fn taken(&mut self, id: u32) {
        let (index, bit) = place_of(id);
        if index >= self.taken.len() {
            self.taken.resize(index + 1, 0);
        }
        self.taken[index] |= bit;
    }

    pub(super) fn freed(&mut self, id: u32) {
        let (index, bit) = place_of(id);
        if let Some(bits) = self.taken.get_mut(index) {
            *bits &= !bit;
        }
    }
}

/// The index of an id's word, and its bit there.
fn place_of(id: u32) -> (usize, u64) {
    ((id / u64::BITS) as usize, 1 << (id % u64::BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lowest(known: &mut KnownIds, count: usize) -> Vec<u32> {
        (0..count).map_while(|_| known.take_lowest()).collect()
    }

    #[test]
    fn ids_go_from_the_lowest() {
        assert_eq!(lowest(&mut KnownIds::default(), 3), [0, 1, 2]);
        assert_eq!(lowest(&mut KnownIds::all_but(&[4, 0, 2]), 4), [1, 3, 5, 6]);
        assert_eq!(lowest(&mut KnownIds::all_but(&[MAX_LOCKS - 1, 0]), 2), [1, 2]);
    }

    #[test]
    fn a_freed_id_comes_back_in_its_turn() {
        let mut known = KnownIds::default();
        for id in [5, 3, 4, 0] {
            known.taken(id);
        }
        for id in [4, 5, 3, 3, 900] {
            known.freed(id);
        }
        assert_eq!(lowest(&mut known, 3), [1, 2, 3]);
        known.freed(0);
        assert_eq!(lowest(&mut known, 3), [0, 4, 5]);
    }

    #[test]
    fn the_last_id_is_the_last() {
        let mut known = KnownIds::all_but(&(0..MAX_LOCKS - 2).collect::<Vec<_>>());
        assert_eq!(lowest(&mut known, 3), [MAX_LOCKS - 2, MAX_LOCKS - 1]);
        known.freed(MAX_LOCKS - 1);
        assert_eq!(lowest(&mut known, 2), [MAX_LOCKS - 1]);
    }
}
