// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Processes and threads: which there are, what they are called, what state they are in, whose numbers they bear.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::output::text::shown;

/// The inode of the PID namespace that the machine boots into (PROC_PID_INIT_INO in the kernel's proc_ns.h). From it
/// every process is seen.
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// The flag of a thread of the kernel's own in /proc/PID/stat (PF_KTHREAD).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// The caller.
pub fn own() -> i32 {
    std::process::id().cast_signed()
}

/// Every process that /proc shows, but for the caller.
pub fn others() -> Vec<i32> {
    let own = own();
    numbers_in(Path::new("/proc")).into_iter().filter(|&pid| pid != own).collect()
}

/// Every thread of a process.
pub fn threads(pid: i32) -> Vec<i32> {
    numbers_in(Path::new(&format!("/proc/{pid}/task")))
}

fn numbers_in(directory: &Path) -> Vec<i32> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut numbers: Vec<i32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok())).collect();
    numbers.sort_unstable();
    numbers
}

/// How a process was called, on one line: the program's name and its arguments, or by its short name in brackets where it shows none.
pub fn command(pid: i32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<String> = line
        .split(|&byte| byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| shown(OsStr::from_bytes(word)))
        .collect();
    if let Some((program, arguments)) = words.split_first() {
        // Where the program lies is rarely what one wants to know, and takes the room of its arguments.
        let name = program.strip_prefix('/').and_then(|path| path.rsplit('/').next()).unwrap_or(program);
        return Some(std::iter::once(name).chain(arguments.iter().map(String::as_str)).collect::<Vec<_>>().join(" "));
    }
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(format!("[{}]", shown(OsStr::from_bytes(name.trim_ascii_end()))))
}

/// A process with its name, as in a sentence.
pub fn described(pid: i32) -> String {
    match command(pid) {
        Some(command) => format!("{pid} ({command})"),
        None => pid.to_string(),
    }
}

/// What a thread is doing, by the letter of proc(5).
pub fn state(pid: i32, tid: i32) -> Option<char> {
    let stat = stat(pid, tid)?;
    stat.first()?.chars().next()
}

/// Whether a process has no memory of its own to look into: a thread of the kernel's, or one that has ended.
pub fn is_without_memory(pid: i32) -> bool {
    const FLAGS: usize = 6;
    let Some(stat) = stat(pid, pid) else { return true };
    let flags = stat.get(FLAGS).and_then(|flags| flags.parse::<u64>().ok()).unwrap_or(0);
    let has_ended = matches!(stat.first().map(String::as_str), Some("Z" | "X"));
    flags & KERNEL_THREAD != 0 || (has_ended && threads(pid).len() <= 1)
}

/// The fields of /proc/PID/task/TID/stat from the state on.
fn stat(pid: i32, tid: i32) -> Option<Vec<String>> {
    let stat = fs::read(format!("/proc/{pid}/task/{tid}/stat")).ok()?;
    // The command, in parentheses, may contain anything, parentheses too; nothing after the last one does.
    let after = stat.iter().rposition(|&byte| byte == b')')? + 1;
    Some(String::from_utf8_lossy(&stat[after..]).split_ascii_whitespace().map(str::to_owned).collect())
}

/// The process that started another, or that it was left to.
pub fn parent(pid: i32) -> Option<i32> {
    const PARENT: usize = 1;
    stat(pid, pid)?.get(PARENT)?.parse().ok()
}

/// The control groups of a process, as cgroups(7) writes them; `None` if they cannot be seen.
pub fn control_groups(pid: i32) -> Option<Vec<u8>> {
    fs::read(format!("/proc/{pid}/cgroup")).ok()
}

/// The PID namespace of a process, as the inode number of its /proc/PID/ns/pid; 0 if it cannot be seen.
pub fn pid_namespace(pid: i32) -> u64 {
    fs::metadata(format!("/proc/{pid}/ns/pid")).map_or(0, |link| link.ino())
}

/// That of the caller.
pub fn own_pid_namespace() -> u64 {
    fs::metadata("/proc/self/ns/pid").map_or(0, |link| link.ino())
}

/// Whether there may be processes that no number of this PID namespace names.
pub fn are_some_outside() -> bool {
    own_pid_namespace() != INITIAL_PID_NAMESPACE
}

/// Whether /proc leaves other users' processes out (its mount option hidepid).
pub fn are_some_left_out() -> bool {
    !Path::new("/proc/1").exists()
}
