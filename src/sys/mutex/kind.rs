// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The word that tells the kind of a mutex: glibc's bits, which of them do not change how a mutex locks, and what the others
//! do.
//!
//! One host's segment may be used by containers with another glibc, and glibc has not always written the same word for
//! the same attributes: since `PTHREAD_MUTEX_NORMAL` came to mean "no lock elision", it wrote [`NO_ELISION`] where that
//! type was asked for by name; since elision is gone, it does not. A robust mutex was never elided.

/// The type: 0 is normal.
const TYPE: u32 = 0x3;
const RECURSIVE: u32 = 0x1;
const ERROR_CHECKING: u32 = 0x2;
const ADAPTIVE: u32 = 0x3;
const ROBUST: u32 = 0x10;
const PRIORITY_INHERITANCE: u32 = 0x20;
const PRIORITY_PROTECTION: u32 = 0x40;
const SHARED: u32 = 0x80;
const ELISION: u32 = 0x100;
const NO_ELISION: u32 = 0x200;

const ALL: u32 = TYPE | ROBUST | PRIORITY_INHERITANCE | PRIORITY_PROTECTION | SHARED | ELISION | NO_ELISION;

/// Bits that change nothing in a robust mutex, unless the probe shows otherwise.
pub(super) const NEUTRAL: u32 = NO_ELISION;

/// The type that glibc locks like a normal one if the mutex is robust, without spinning.
pub(super) const LIKE_NORMAL: u32 = ADAPTIVE;

/// What a flag, or its absence, does.
type Fault = &'static str;

/// What is wrong with a mutex of the kind `found`, flag by flag. Empty if the bits are not glibc's.
pub(crate) fn faults(found: u32) -> impl Iterator<Item = Fault> {
    let known = found != 0 && found & !ALL == 0;
    let has = |flag| found & flag != 0;
    let all = [
        (found & TYPE == RECURSIVE, "recursive (0x1), so it lets its holder take it again"),
        (found & TYPE == ERROR_CHECKING, "error checking (0x2), so it refuses its holder"),
        (!has(ROBUST), "not robust (0x10 is missing), so nobody would be told that its holder died"),
        (has(PRIORITY_INHERITANCE), "priority inheriting (0x20), so the kernel hands it over in another way"),
        (has(PRIORITY_PROTECTION), "priority protecting (0x40), so it changes the priority of its holder"),
        (!has(SHARED), "private to a process (0x80 is missing), so waiters in other processes would never be woken"),
        (has(ELISION), "marked for lock elision (0x100), so a libc with elision refuses to try it"),
    ];
    all.into_iter().filter_map(move |(is_so, fault)| (known && is_so).then_some(fault))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_libc_makes_has_no_fault_and_neither_has_what_locks_alike() {
        for kind in [0x90, 0x290, 0x93, 0x293] {
            assert_eq!(faults(kind).count(), 0, "{kind:#x}");
        }
    }

    #[test]
    fn each_flag_that_matters_is_named_alone() {
        let named = [
            (0x291, "recursive"),
            (0x92, "error checking"),
            (0x280, "not robust"),
            (0xb0, "priority inheriting"),
            (0xd0, "priority protecting"),
            (0x10, "private"),
            (0x190, "elision"),
        ];
        for (kind, name) in named {
            let found: Vec<Fault> = faults(kind).collect();
            assert!(found.len() == 1 && found[0].contains(name), "{kind:#x}: {found:?}");
        }
    }

    #[test]
    fn a_word_that_is_no_kind_of_glibc_s_is_not_explained() {
        for word in [0, 0x400, 0x9000_0000, u32::MAX] {
            assert_eq!(faults(word).count(), 0, "{word:#x}");
        }
    }
}
