// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Processes that wait in fcntl(2) for a record lock, as libpod's file locks have them: the lines of /proc/locks with
//! an arrow.

use std::fs;

use super::identity::FileId;

/// A process that waits for a record lock on a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocked {
    pub pid: i32,
    pub file: FileId,
}

/// Every process that waits for a record lock. The kernel leaves out those of PID namespaces that cannot be seen.
pub fn blocked() -> Vec<Blocked> {
    fs::read_to_string("/proc/locks").map_or_else(|_| Vec::new(), |locks| parse(&locks))
}

fn parse(locks: &str) -> Vec<Blocked> {
    locks.lines().filter_map(parse_line).collect()
}

/// Of a line: `NUMBER: -> POSIX ADVISORY WRITE PID MAJOR:MINOR:INODE START END`.
fn parse_line(line: &str) -> Option<Blocked> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    (fields.next()? == "->").then_some(())?;
    let pid: i32 = fields.nth(3)?.parse().ok()?;
    let (device, inode) = fields.next()?.rsplit_once(':')?;
    // A wait of an open file description names no process.
    (pid > 0).then_some(Blocked { pid, file: FileId::parse(device, inode)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_wait_are_told_from_those_who_hold() {
        let locks = "1: POSIX  ADVISORY  WRITE 708 fe:01:23 0 EOF\n\
                     1: -> POSIX  ADVISORY  WRITE 812 fe:01:23 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 9 00:1b:7 0 EOF\n\
                     3: -> OFDLCK ADVISORY  WRITE -1 00:1b:7 0 EOF\n";
        let file = FileId { major: 0xfe, minor: 1, inode: 23 };
        assert_eq!(parse(locks), [Blocked { pid: 812, file }]);
    }
}
