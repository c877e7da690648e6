// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! /proc/PID/stat and /proc/PID/task/TID/stat: the one parser.

use std::fmt;

use super::proc_file::{self, ProcPath};

/// What a stat file says of a process or thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// The letter: R, S, D, Z and so on.
    pub(super) state: u8,
    /// The PF_ flags of the kernel's sched.h.
    pub(super) flags: u64,
    pub(super) num_threads: u64,
    /// When it started, in clock ticks since boot.
    pub(super) start: u64,
}

impl Stat {
    /// More than the file has up to the last field that is read.
    const BYTES: usize = 1024;
    // The fields, numbered from 0 behind the command; proc(5) numbers them from 1, and the state is its field 3.
    const STATE: usize = 0;
    const FLAGS: usize = 9 - 3;
    const NUM_THREADS: usize = 20 - 3;
    const START: usize = 22 - 3;

    /// Reads the stat file of that path. `None` unless it is of the process or thread `number`, which it names first.
    pub(super) fn read(path: fmt::Arguments<'_>, number: i32) -> Option<Self> {
        let mut stat = [0; Self::BYTES];
        Self::parse(proc_file::read_self_describing(ProcPath::new(path).as_str(), &mut stat)?, number)
    }

    fn parse(stat: &[u8], number: i32) -> Option<Self> {
        // The command stands in parentheses and may contain some. No field behind it does, so the last one ends it.
        let end = stat.iter().rposition(|&byte| byte == b')')?;
        let named = std::str::from_utf8(&stat[..stat.iter().position(|&byte| byte == b'(')?]).ok()?;
        if named.trim_end().parse() != Ok(number) {
            return None;
        }
        let text = std::str::from_utf8(&stat[end + 1..]).ok()?;
        let field = |index| text.split_ascii_whitespace().nth(index);
        let numeric = |index| field(index)?.parse().ok();
        Some(Self {
            state: *field(Self::STATE)?.as_bytes().first()?,
            flags: numeric(Self::FLAGS)?,
            num_threads: numeric(Self::NUM_THREADS)?,
            start: numeric(Self::START)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process;

    #[test]
    fn a_stat_file_is_believed_of_its_own_thread_only() {
        let own = process::pid();
        let stat = Stat::read(format_args!("/proc/self/stat"), own).unwrap();
        assert_eq!(Stat::read(format_args!("/proc/self/stat"), own + 1), None);
        assert_eq!(Stat::read(format_args!("/proc/1/stat"), own), None);
        assert_eq!(Stat::read(format_args!("/proc/self/no such file"), own), None);
        assert!(stat.start <= crate::sys::syscall::clock::ticks_since_boot() && stat.start != 0);
    }

    #[test]
    fn a_command_may_contain_anything() {
        let stat = Stat::parse(b"7 (a ) S 1) R 1 2 3 4 5 4194308 0 0 0 0 0 0 0 0 20 0 3 0 99 ", 7).unwrap();
        assert_eq!(stat, Stat { state: b'R', flags: 4_194_308, num_threads: 3, start: 99 });
    }
}
