// SPDX-License-Identifier: MIT OR Apache-2.0
//! Static probes: places on the slow paths that bpftrace, perf, gdb and SystemTap find by name (USDT).
//! docs/diagnosing.md says for each when it is passed and what its arguments mean.
//!
//! A probe is a `nop` and a note (`.note.stapsdt`) in the file beside the code. The note says where the `nop` is and
//! which registers have the arguments. A tracer that attaches puts a breakpoint there. Until then a probe costs a call
//! that does nothing, and the program need not have been started for it.
//!
//! Each probe is a function of its own that is never inlined. So it is one place in the file, however many callers it
//! has; the calling convention says where its arguments are; and a caller has nothing to undo after it. A caller passes
//! what it has already, or what some loads find.
//!
//! The arguments are numbers. Results of calls are signed, all others are unsigned.

/// The `nop` and its note. The note is in the section group of its function, if that has one ("?"): a linker that leaves
/// the function out leaves the note out. It has the address of the base as it was linked, from which a tracer sees how
/// far the file was moved since.
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "powerpc64",
    target_arch = "riscv64",
    target_arch = "s390x"
))]
macro_rules! site {
    // How a note describes an argument: its size in bytes, negative if it is signed, and where it is.
    (@described u64) => {
        "8@{}"
    };
    (@described i64) => {
        "-8@{}"
    };
    ($name:ident, $first:ident: $first_kind:ident $(, $argument:ident: $kind:ident)*) => {
        // A note names registers in the syntax of the architecture's own assembler.
        #[cfg(target_arch = "x86_64")]
        site!(@asm [options(att_syntax)] $name, $first: $first_kind $(, $argument: $kind)*);
        #[cfg(not(target_arch = "x86_64"))]
        site!(@asm [] $name, $first: $first_kind $(, $argument: $kind)*);
    };
    (@asm [$($syntax:tt)*] $name:ident, $first:ident: $first_kind:ident $(, $argument:ident: $kind:ident)*) => {
        // SAFETY: it executes one nop, and changes nothing.
        unsafe {
            ::std::arch::asm!(
                "770: nop",
                ".pushsection .note.stapsdt, \"?\", \"note\"",
                // The type of a stapsdt note, behind the sizes of its name and of what it says.
                concat!(".balign 4\n", ".4byte 772f - 771f, 774f - 773f, 3"),
                "771: .asciz \"stapsdt\"",
                concat!("772: .balign 4\n", "773: .8byte 770b"),
                ".8byte _.stapsdt.base",
                // No semaphore: the arguments are there anyhow.
                ".8byte 0",
                ".asciz \"lock_manager\"",
                concat!(".asciz \"", stringify!($name), "\""),
                concat!(".asciz \"", site!(@described $first_kind), $(" ", site!(@described $kind),)* "\""),
                concat!("774: .balign 4\n", ".popsection"),
                // One base for the whole file, whoever else has probes in it; kept, although no code uses it ("R").
                // It lies beside the code ("x"), because perf believes that the code is as far from its place in
                // the file as the base is.
                ".ifndef _.stapsdt.base",
                ".pushsection .stapsdt.base, \"axGR\", \"progbits\", .stapsdt.base, comdat",
                concat!(".weak _.stapsdt.base\n", ".hidden _.stapsdt.base"),
                "_.stapsdt.base: .space 1",
                concat!(".size _.stapsdt.base, 1\n", ".popsection"),
                ".endif",
                in(reg) $first,
                $(in(reg) $argument,)*
                options(nostack, preserves_flags),
                $($syntax)*
            );
        }
    };
}

/// On other architectures a probe is an empty function.
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "powerpc64",
    target_arch = "riscv64",
    target_arch = "s390x"
)))]
macro_rules! site {
    ($name:ident $(, $argument:ident: $kind:ident)*) => {
        $(let _ = $argument;)*
    };
}

macro_rules! probes {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $kind:ident),*);)*) => {$(
        $(#[$doc])*
        #[cold]
        #[inline(never)]
        pub(crate) extern "C" fn $name($($argument: $kind),*) {
            site!($name, $($argument: $kind),*);
        }
    )*};
}

probes! {
    /// The calling thread is about to sleep for a lock, for the first time in a call.
    wait_begin(inode: u64, lock: u64, mode: u64, word: u64);
    /// A slice of its wait has ended, and the lock is still held.
    slice_end(inode: u64, lock: u64, waited_ns: u64, pid: u64, tid: u64);
    /// Its wait is over. `result` is what the call returns.
    wait_end(inode: u64, lock: u64, waited_ns: u64, result: i64);
    /// A holder was judged, by the [`Witness`] of that number.
    holder_judged(inode: u64, word: u64, pid: u64, witness: u64);
    /// The word of a dead holder was replaced.
    takeover(inode: u64, lock: u64, dead_word: u64, new_word: u64);
    /// A search for a deadlock begins.
    deadlock_walk(inode: u64, lock: u64, word: u64);
    /// The calling thread gives way: its wait would close a cycle of so many locks.
    deadlock_found(inode: u64, lock: u64, word: u64, locks: u64);
    /// This process uses more locks of a segment from here on.
    grown(inode: u64, before: u64, now: u64);
    /// A writer is next, and waits for the readers.
    drain_begin(inode: u64, lock: u64, word: u64);
    /// It is about to sleep until that reader leaves.
    drain_sleep(inode: u64, lock: u64, reader_word: u64, pid: u64, tid: u64);
    /// The drain is over.
    drain_end(inode: u64, lock: u64, outcome: u64);
    /// The calling thread has a directory's lock, and is about to sleep because a program that knows only libpod's way
    /// has the record lock beside it.
    record_wait(inode: u64, lock: u64, waited_ns: u64);
    /// That wait is over. `result` is what the call returns.
    record_wait_end(inode: u64, lock: u64, waited_ns: u64, result: i64);
    /// The calling thread has the native lock of a host, and is about to sleep for the first time in a call until another
    /// library's backend has the lock for it.
    backend_wait(inode: u64, lock: u64);
    /// That wait is over. `result` is what the call returns.
    backend_wait_end(inode: u64, lock: u64, waited_ns: u64, result: i64);
    /// A wait that a signal handler left without returning was undone.
    wait_undone(futex: u64, held_word: u64, owner: u64);
    /// A reader's claim that a signal handler left unfinished was undone.
    claim_undone(cell: u64, owner: u64);
}

/// In the place of a lock: the mutex that guards the bitmaps of the libpod layout.
pub(crate) const NO_LOCK: u64 = u64::MAX;

/// What a judgement rests on. docs/diagnosing.md has the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Witness {
    /// Nothing says that the holder is gone.
    Alive = 0,
    /// The kernel could not be asked.
    Unknown = 1,
    /// The holder's process no longer has its entry: it was used by none, was marked, or has another generation.
    Entry = 2,
    /// The kernel has unlocked the byte of the entry.
    Byte = 3,
    /// The thread, or the process, is gone.
    Gone = 4,
    /// The thread, or the process, is exiting.
    Exiting = 5,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DrainEnd {
    /// The writer left before the readers did.
    GaveUp = 0,
    Locked = 1,
    /// Another thread ended it, because this one did not go on although the readers were gone.
    Revoked = 2,
}
