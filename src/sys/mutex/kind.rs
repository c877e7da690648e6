// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The word that tells the kind of a mutex: where each libc keeps it, its bits, which of them do not change how a mutex locks,
//! and what the others do.
//!
//! One host's segment may be used by containers with another glibc, and glibc has not always written the same word for
//! the same attributes: since `PTHREAD_MUTEX_NORMAL` came to mean "no lock elision", it wrote `NO_ELISION` where that
//! type was asked for by name; since elision is gone, it does not. A robust mutex was never elided. musl has always written
//! the same word.

/// A libc whose robust mutexes the library knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Libc {
    Glibc,
    Musl,
}

/// What a flag, or its absence, does.
type Fault = &'static str;

/// A flag, or a type, that makes a mutex lock in another way.
struct Flaw {
    mask: u32,
    /// What stands under the mask then.
    value: u32,
    fault: Fault,
}

/// The kind as one libc writes it.
pub(super) struct Form {
    name: &'static str,
    /// Which 32-bit word of a mutex it is.
    word: usize,
    /// All bits that mean something.
    known: u32,
    /// The bits of every robust mutex that processes share.
    robust_shared: u32,
    /// Bits that change nothing in a robust mutex, unless the probe shows otherwise.
    pub(super) neutral: u32,
    /// A type that the libc locks like a normal one if the mutex is robust; 0: none.
    pub(super) like_normal: u32,
    flaws: &'static [Flaw],
}

/// The type, in both libcs: 0 is normal.
const TYPE: u32 = 0x3;
const RECURSIVE: u32 = 0x1;
const ERROR_CHECKING: u32 = 0x2;
/// Of glibc: a robust one is locked like a normal one, without spinning.
const ADAPTIVE: u32 = 0x3;

const IS_RECURSIVE: Flaw =
    Flaw { mask: TYPE, value: RECURSIVE, fault: "recursive (0x1), so it lets its holder take it again" };
const IS_ERROR_CHECKING: Flaw =
    Flaw { mask: TYPE, value: ERROR_CHECKING, fault: "error checking (0x2), so it refuses its holder" };

const GLIBC: Form = {
    const ROBUST: u32 = 0x10;
    const PRIORITY_INHERITANCE: u32 = 0x20;
    const PRIORITY_PROTECTION: u32 = 0x40;
    const SHARED: u32 = 0x80;
    const ELISION: u32 = 0x100;
    const NO_ELISION: u32 = 0x200;
    Form {
        name: "glibc",
        word: if cfg!(target_pointer_width = "64") { 4 } else { 3 },
        known: TYPE | ROBUST | PRIORITY_INHERITANCE | PRIORITY_PROTECTION | SHARED | ELISION | NO_ELISION,
        robust_shared: ROBUST | SHARED,
        neutral: NO_ELISION,
        like_normal: ADAPTIVE,
        flaws: &[
            IS_RECURSIVE,
            IS_ERROR_CHECKING,
            Flaw {
                mask: ROBUST,
                value: 0,
                fault: "not robust (0x10 is missing), so nobody would be told that its holder died",
            },
            Flaw {
                mask: PRIORITY_INHERITANCE,
                value: PRIORITY_INHERITANCE,
                fault: "priority inheriting (0x20), so the kernel hands it over in another way",
            },
            Flaw {
                mask: PRIORITY_PROTECTION,
                value: PRIORITY_PROTECTION,
                fault: "priority protecting (0x40), so it changes the priority of its holder",
            },
            Flaw {
                mask: SHARED,
                value: 0,
                fault: "private to a process (0x80 is missing), so waiters in other processes would never be woken",
            },
            Flaw {
                mask: ELISION,
                value: ELISION,
                fault: "marked for lock elision (0x100), so a libc with elision refuses to try it",
            },
        ],
    }
};

const MUSL: Form = {
    const ROBUST: u32 = 0x4;
    const PRIORITY_INHERITANCE: u32 = 0x8;
    const SHARED: u32 = 0x80;
    Form {
        name: "musl",
        word: 0,
        known: TYPE | ROBUST | PRIORITY_INHERITANCE | SHARED,
        robust_shared: ROBUST | SHARED,
        neutral: 0,
        like_normal: 0,
        flaws: &[
            IS_RECURSIVE,
            IS_ERROR_CHECKING,
            Flaw {
                mask: ROBUST,
                value: 0,
                fault: "not robust (0x4 is missing), so nobody would be told that its holder died",
            },
            Flaw {
                mask: PRIORITY_INHERITANCE,
                value: PRIORITY_INHERITANCE,
                fault: "priority inheriting (0x8), so the kernel hands it over in another way",
            },
            Flaw {
                mask: SHARED,
                value: 0,
                fault: "private to a process (0x80 is missing), so waiters in other processes would never be woken",
            },
        ],
    }
};

impl Libc {
    /// The one that this library was built for.
    pub(crate) const THIS: Self = if cfg!(target_env = "musl") { Self::Musl } else { Self::Glibc };

    pub(crate) const fn name(self) -> &'static str {
        self.form().name
    }

    pub(super) const fn form(self) -> &'static Form {
        match self {
            Self::Glibc => &GLIBC,
            Self::Musl => &MUSL,
        }
    }

    /// The libc that initialised the robust mutex that begins with `words`, if it looks like either's. musl leaves glibc's
    /// place 0, or keeps a pointer there, so glibc's mark is looked for first. musl's place is where glibc has the holder, whose
    /// id may look like a kind.
    pub(crate) fn maker_of(words: &[u32]) -> Option<Self> {
        let is_made = |libc: &Self| {
            let form = libc.form();
            words
                .get(form.word)
                .is_some_and(|kind| kind & !form.known == 0 && kind & form.robust_shared == form.robust_shared)
        };
        [Self::Glibc, Self::Musl].into_iter().find(is_made)
    }

    fn faults(self, found: u32) -> impl Iterator<Item = Fault> {
        let form = self.form();
        let is_a_kind = found != 0 && found & !form.known == 0;
        let is_there = move |flaw: &&Flaw| is_a_kind && found & flaw.mask == flaw.value;
        form.flaws.iter().filter(is_there).map(|flaw| flaw.fault)
    }
}

/// What is wrong with a mutex of the kind `found`, flag by flag. Empty if the bits are not this libc's.
pub(crate) fn faults(found: u32) -> impl Iterator<Item = Fault> {
    Libc::THIS.faults(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_libc_makes_has_no_fault_and_neither_has_what_locks_alike() {
        for kind in [0x90, 0x290, 0x93, 0x293] {
            assert_eq!(Libc::Glibc.faults(kind).count(), 0, "{kind:#x}");
        }
        assert_eq!(Libc::Musl.faults(0x84).count(), 0);
    }

    #[test]
    fn each_flag_that_matters_is_named_alone() {
        let named = [
            (Libc::Glibc, 0x291, "recursive"),
            (Libc::Glibc, 0x92, "error checking"),
            (Libc::Glibc, 0x280, "not robust"),
            (Libc::Glibc, 0xb0, "priority inheriting"),
            (Libc::Glibc, 0xd0, "priority protecting"),
            (Libc::Glibc, 0x10, "private"),
            (Libc::Glibc, 0x190, "elision"),
            (Libc::Musl, 0x85, "recursive"),
            (Libc::Musl, 0x86, "error checking"),
            (Libc::Musl, 0x80, "not robust"),
            (Libc::Musl, 0x8c, "priority inheriting"),
            (Libc::Musl, 0x4, "private"),
        ];
        for (libc, kind, name) in named {
            let found: Vec<Fault> = libc.faults(kind).collect();
            assert!(found.len() == 1 && found[0].contains(name), "{libc:?} {kind:#x}: {found:?}");
        }
    }

    #[test]
    fn a_word_that_is_no_kind_is_not_explained() {
        for word in [0, 0x400, 0x9000_0000, u32::MAX] {
            assert_eq!(Libc::Glibc.faults(word).count(), 0, "{word:#x}");
            assert_eq!(Libc::Musl.faults(word).count(), 0, "{word:#x}");
        }
    }

    #[test]
    fn a_mutex_is_its_maker_s_whoever_holds_it() {
        let mutex = |index: usize, kind: u32, first: u32| {
            let mut words = [first, 0, 0, 0, 0, 0];
            words[index] = kind;
            Libc::maker_of(&words)
        };
        let (glibc, musl) = (GLIBC.word, MUSL.word);
        // A thread's id may look like musl's kind.
        for holder in [0, 0x84, 0x4000_0084, 77] {
            for kind in [0x90, 0x290, 0x92, 0xb0] {
                assert_eq!(mutex(glibc, kind, holder), Some(Libc::Glibc), "{kind:#x} {holder:#x}");
            }
        }
        for kind in [0x84, 0x86, 0x8c] {
            assert_eq!(mutex(musl, kind, 0), Some(Libc::Musl), "{kind:#x}");
        }
        // Where glibc has the kind, musl of 32 bits has a pointer.
        assert_eq!(Libc::maker_of(&[0x84, 0, 0, 0xf7a0_1090, 0xf7a0_1090, 0]), Some(Libc::Musl));
        assert_eq!(mutex(glibc, 0, 77), None);
        assert_eq!(Libc::maker_of(&[]), None);
    }
}
