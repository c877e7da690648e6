// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Threads that wait in futex(2) on a word of a segment, whatever program they belong to: /proc/PID/task/TID/syscall
//! says on which address a thread sleeps, and /proc/PID/maps what is mapped there.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::identity::FileId;
use super::{Looked, process};

/// The number of futex(2).
const FUTEX: u64 = libc::SYS_futex as u64;

/// The operations that wait, of futex(2): FUTEX_WAIT, _LOCK_PI, _WAIT_BITSET, _WAIT_REQUEUE_PI, _LOCK_PI2.
const WAITING: [u64; 5] = [0, 6, 9, 11, 13];
/// Bits beside the operation: FUTEX_PRIVATE_FLAG and FUTEX_CLOCK_REALTIME.
const FLAGS: u64 = 128 | 256;

/// A thread on its way in or out of its sleep reads as "running"; a waiter that looks around between two sleeps is back
/// a little later.
const LOOKS: usize = 5;
const BETWEEN_LOOKS: Duration = Duration::from_micros(200);

/// Where a process has part of a file mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    start: u64,
    end: u64,
    /// Of the file, where the mapping starts.
    offset: u64,
}

/// A thread that sleeps on a word of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sleeper {
    pub pid: i32,
    pub tid: i32,
    /// Of the word in the file.
    pub offset: u64,
}

/// A file of /proc. What is no text in it, as the name of some file may be, is replaced.
fn read(path: impl AsRef<Path>) -> Looked<String> {
    Looked::from_read(fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// Where the process has that file mapped.
pub fn mappings(pid: i32, file: FileId) -> Looked<Vec<Mapping>> {
    match read(format!("/proc/{pid}/maps")) {
        // Nothing at all: the main thread has ended. Its other threads go on with the memory that they shared.
        Looked::Seen(maps) if maps.is_empty() => {
            let other = process::threads(pid).into_iter().find(|&tid| tid != pid);
            let Some(tid) = other else { return Looked::Gone };
            match read(format!("/proc/{pid}/task/{tid}/maps")) {
                Looked::Seen(maps) => Looked::Seen(parse_maps(&maps, file)),
                Looked::Gone => Looked::Gone,
                Looked::Hidden => Looked::Hidden,
            }
        }
        Looked::Seen(maps) => Looked::Seen(parse_maps(&maps, file)),
        Looked::Gone => Looked::Gone,
        Looked::Hidden => Looked::Hidden,
    }
}

fn parse_maps(maps: &str, file: FileId) -> Vec<Mapping> {
    maps.lines().filter_map(|line| parse_mapping(line, file)).collect()
}

/// Of a line: START-END permissions OFFSET MAJOR:MINOR INODE path.
fn parse_mapping(line: &str, file: FileId) -> Option<Mapping> {
    let mut fields = line.split(' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let offset = fields.nth(1)?;
    (FileId::parse(fields.next()?, fields.next()?)? == file).then_some(())?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some(Mapping { start: number(start)?, end: number(end)?, offset: number(offset)? })
}

/// The threads of a process that sleep on words of what it has mapped. Hidden: at least one thread could not be looked
/// at.
pub fn sleepers(pid: i32, mappings: &[Mapping]) -> Looked<Vec<Sleeper>> {
    let mut found = Vec::new();
    for tid in process::threads(pid) {
        match sleeps_at(pid, tid) {
            Looked::Seen(Some(address)) => {
                let offset = mappings.iter().find_map(|mapping| {
                    (mapping.start..mapping.end).contains(&address).then(|| address - mapping.start + mapping.offset)
                });
                found.extend(offset.map(|offset| Sleeper { pid, tid, offset }));
            }
            Looked::Seen(None) | Looked::Gone => {}
            Looked::Hidden => return Looked::Hidden,
        }
    }
    Looked::Seen(found)
}

/// The address that a thread sleeps on in futex(2), if it does.
fn sleeps_at(pid: i32, tid: i32) -> Looked<Option<u64>> {
    let path = format!("/proc/{pid}/task/{tid}/syscall");
    for _ in 0..LOOKS {
        match read(&path) {
            Looked::Seen(call) if call.starts_with("running") => std::thread::sleep(BETWEEN_LOOKS),
            Looked::Seen(call) => return Looked::Seen(parse_syscall(&call)),
            Looked::Gone => return Looked::Gone,
            Looked::Hidden => return Looked::Hidden,
        }
    }
    Looked::Seen(None)
}

/// Of a line: number of the call, its arguments in hexadecimal, stack and instruction pointer.
fn parse_syscall(call: &str) -> Option<u64> {
    let mut fields = call.split_ascii_whitespace();
    (fields.next()?.parse::<u64>().ok()? == FUTEX).then_some(())?;
    let mut argument = || u64::from_str_radix(fields.next()?.strip_prefix("0x")?, 16).ok();
    let address = argument()?;
    WAITING.contains(&(argument()? & !FLAGS & 0xffff_ffff)).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_in_futex_are_told_from_wakes_and_other_calls() {
        // Podman's, as it was seen.
        let podman = format!("{FUTEX} 0x7f2ef0474040 0x0 0x80004e6a 0x0 0x0 0x0 0x7f2e 0x7f2f\n");
        assert_eq!(parse_syscall(&podman), Some(0x7f2e_f047_4040));
        // FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, private and not.
        assert_eq!(parse_syscall(&format!("{FUTEX} 0x10 0x189 0x2 0x0 0x0 0xffffffff 0x1 0x2")), Some(0x10));
        assert_eq!(parse_syscall(&format!("{FUTEX} 0x10 0x109 0x2 0x0 0x0 0xffffffff 0x1 0x2")), Some(0x10));
        for other in [
            format!("{FUTEX} 0x10 0x1 0x2 0x0 0x0 0x0 0x1 0x2"),
            "0 0x10 0x0 0x2 0x0 0x0 0x0 0x1 0x2".to_owned(),
            "running".to_owned(),
            "-1 0x7ffd 0x7f2e".to_owned(),
            String::new(),
        ] {
            assert_eq!(parse_syscall(&other), None, "{other}");
        }
    }

    #[test]
    fn what_is_no_text_is_read_all_the_same() {
        let path = std::env::temp_dir().join(format!("lockctl-no-text-{}", std::process::id()));
        fs::write(&path, b"/a\xff\n/b\n").unwrap();
        assert!(matches!(read(&path), Looked::Seen(text) if text == "/a\u{fffd}\n/b\n"));
        fs::remove_file(&path).unwrap();
        assert!(matches!(read(&path), Looked::Gone));
    }

    #[test]
    fn a_mapping_is_of_one_file_and_knows_its_offset() {
        let line = "7f2ef0474000-7f2ef0489000 rw-s 00001000 00:1b 23                 /dev/shm/libpod_lock";
        let file = FileId { major: 0, minor: 0x1b, inode: 23 };
        let mapping = Mapping { start: 0x7f2e_f047_4000, end: 0x7f2e_f048_9000, offset: 0x1000 };
        assert_eq!(parse_maps(line, file), [mapping]);
        assert_eq!(parse_maps(line, FileId { inode: 24, ..file }), []);
        assert_eq!(parse_maps(line, FileId { minor: 0x1c, ..file }), []);
    }
}
