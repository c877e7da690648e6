// SPDX-License-Identifier: MIT OR Apache-2.0
//! The calls with 64-bit sizes, offsets and inode numbers. Where a word has 64 bits, these are the usual ones; a program of 32
//! bits must ask for them by name, or files that are large, or on a file system with large inode numbers, are errors.

#[cfg(target_pointer_width = "64")]
pub(in crate::sys) use libc::{
    F_OFD_GETLK, F_OFD_SETLK, F_SETLK, fallocate, fcntl, flock, fstat, fstatat, getrlimit, lseek, mmap, off_t, openat,
    rlimit, stat,
};
#[cfg(target_pointer_width = "32")]
pub(in crate::sys) use libc::{
    F_OFD_GETLK, F_OFD_SETLK, fallocate64 as fallocate, flock64 as flock, fstat64 as fstat, fstatat64 as fstatat,
    getrlimit64 as getrlimit, lseek64 as lseek, mmap64 as mmap, off64_t as off_t, openat64 as openat,
    rlimit64 as rlimit, stat64 as stat,
};

/// F_SETLK64 of asm-generic/fcntl.h; not in the libc crate.
#[cfg(target_pointer_width = "32")]
pub(in crate::sys) const F_SETLK: libc::c_int = 13;

#[cfg(target_pointer_width = "32")]
unsafe extern "C" {
    /// glibc 2.28; not in the libc crate. The usual fcntl takes the small struct even for F_OFD_SETLK.
    pub(in crate::sys) fn fcntl64(file: libc::c_int, command: libc::c_int, ...) -> libc::c_int;
}
#[cfg(target_pointer_width = "32")]
pub(in crate::sys) use fcntl64 as fcntl;
