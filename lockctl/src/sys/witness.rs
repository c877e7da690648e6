// SPDX-License-Identifier: MIT OR Apache-2.0
//! A process that only remembers which signals it was sent: a fork that blocks all of them and, when asked, takes those
//! that are pending. What it was not sent, its process group and its control group were not sent either.
//!
//! The kernel makes a signal pending in the very call that sends it, so an answer is right whether or not this process
//! was scheduled since.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::signals::{Set, with_all_blocked};

/// What it is called, so that nobody who looks for lockctl by name takes it for one.
const NAME: &[u8] = b"signal-witness\0";

/// What is left of the command line is overwritten with these.
static BLANKS: [u8; 4096] = [0; 4096];

/// Its end of the socket.
const SOCKET: RawFd = 0;

/// What is written to ask it.
static QUESTION: u8 = b'?';

/// Longer than an answer ever takes, unless somebody has stopped it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Descriptors that are closed one by one where the kernel has no close_range(2) (before Linux 5.9).
const MOST_DESCRIPTORS: RawFd = 65_536;

/// Such a process. It ends with the value, or with its parent.
#[derive(Debug)]
pub struct Witness {
    pid: Pid,
    socket: UnixStream,
}

impl Witness {
    /// In the process group, the session and the control group that the caller is in.
    pub fn start() -> io::Result<Self> {
        let (socket, end) = UnixStream::pair()?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let (end, words) = (end.as_raw_fd(), command_line());
        let forked = with_all_blocked(|| {
            // SAFETY: the child goes to `bear_witness` and makes only calls that signal-safety(7) lists, so it does not
            // matter which locks of the libc other threads held. All signals are blocked, so no handler runs in it.
            match unsafe { libc::fork() } {
                0 => bear_witness(end, words),
                pid => pid,
            }
        });
        match Pid::from_raw(forked) {
            Some(pid) if forked > 0 => Ok(Self { pid, socket }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Has it forget, between fork and exec of the command, what it was sent before there was a process to be sent it.
    /// What comes then ends that process, as the actions are the default ones.
    pub fn forget_before(&self, command: &mut Command) {
        let socket = self.socket.as_raw_fd();
        // SAFETY: the closure allocates nothing and makes only calls that signal-safety(7) lists. The descriptor is open
        // in the child until it calls exec, since the parent keeps it until then.
        unsafe {
            command.pre_exec(move || {
                let mut answer = [0_u8; size_of::<u64>()];
                if libc::send(socket, (&raw const QUESTION).cast(), 1, libc::MSG_NOSIGNAL) == 1 {
                    libc::recv(socket, answer.as_mut_ptr().cast(), answer.len(), libc::MSG_WAITALL);
                }
                Ok(())
            });
        }
    }

    /// The signals that it was sent since it was last asked. An error: it has ended, or somebody has stopped it.
    pub fn ask(&mut self) -> io::Result<Set> {
        let mut answer = [0; size_of::<u64>()];
        self.socket.write_all(&[QUESTION])?;
        self.socket.read_exact(&mut answer)?;
        Ok(Set::from_bits(u64::from_ne_bytes(answer)))
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        // Its number is its own until it is waited for here.
        let _ = kill_process(self.pid, Signal::KILL);
        let _ = waitpid(Some(self.pid), WaitOptions::empty());
    }
}

/// Where a process has its command line, as the fields arg_start and arg_end of proc(5) say.
#[derive(Debug, Clone, Copy)]
struct Words {
    start: i64,
    length: usize,
}

fn command_line() -> Option<Words> {
    /// The number of arg_start, of which the one after the name in parentheses is 3.
    const ARG_START: usize = 48;
    const AFTER_NAME: usize = 3;
    let stat = fs::read("/proc/self/stat").ok()?;
    let after = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let stat = String::from_utf8_lossy(&stat[after..]).into_owned();
    let mut fields = stat.split_ascii_whitespace().skip(ARG_START - AFTER_NAME).map(str::parse::<i64>);
    let (start, end) = (fields.next()?.ok()?, fields.next()?.ok()?);
    (start > 0).then_some(Words { start, length: usize::try_from(end - start).ok()? })
}

/// What the process does until its parent has ended.
fn bear_witness(socket: RawFd, words: Option<Words>) -> ! {
    // SAFETY: this process is a fork that nobody else has memory or descriptors in common with, and `_exit` ends it: no
    // value of the parent's is dropped here. Each call gets memory of its own stack, of the size that it is told.
    unsafe {
        libc::dup2(socket, SOCKET);
        close_all_above(SOCKET);
        // Keeps no file system from being unmounted.
        libc::chdir(c"/".as_ptr());
        rename(words);
        let all = (1..=libc::SIGRTMAX()).collect::<Set>().raw();
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let mut question = 0_u8;
        while libc::read(SOCKET, (&raw mut question).cast(), 1) == 1 {
            let mut pending = Set::default();
            loop {
                let signal = libc::sigtimedwait(&raw const all, std::ptr::null_mut(), &raw const at_once);
                if signal <= 0 {
                    break;
                }
                pending = pending.with(signal);
            }
            let answer = pending.bits().to_ne_bytes();
            libc::write(SOCKET, answer.as_ptr().cast(), answer.len());
        }
        libc::_exit(0)
    }
}

/// # Safety
/// Nothing in this process uses a descriptor above that one any more.
unsafe fn close_all_above(descriptor: RawFd) {
    // SAFETY: as the caller promises; closing a number that is none is an error and nothing else.
    unsafe {
        if libc::syscall(libc::SYS_close_range, descriptor + 1, libc::c_uint::MAX, 0) != 0 {
            for number in descriptor + 1..MOST_DESCRIPTORS {
                libc::close(number);
            }
        }
    }
}

/// Calls this process [`NAME`] in the two places where people and programs look. Without /proc, in one.
fn rename(words: Option<Words>) {
    // SAFETY: PR_SET_NAME reads a string that ends. The command line is written through /proc, so that the kernel
    // checks where it is; the strings that are there are read by nobody in this process.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, NAME.as_ptr());
        let Some(Words { mut start, length }) = words else { return };
        let memory = libc::open(c"/proc/self/mem".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        let mut left = length;
        let mut text = NAME;
        while left > 0 {
            let written = libc::pwrite64(memory, text.as_ptr().cast(), text.len().min(left), start);
            let Ok(written @ 1..) = usize::try_from(written) else { break };
            left -= written;
            start += written as i64;
            text = &BLANKS;
        }
        libc::close(memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_of_each_signal_once() {
        let mut witness = Witness::start().unwrap();
        assert_eq!(witness.ask().unwrap(), Set::default());
        for signal in [Signal::TERM, Signal::USR1, Signal::HUP] {
            kill_process(witness.pid, signal).unwrap();
        }
        assert_eq!(witness.ask().unwrap().iter().collect::<Vec<_>>(), [1, 10, 15]);
        assert_eq!(witness.ask().unwrap(), Set::default());
    }

    #[test]
    fn it_is_not_called_what_its_parent_is_called_and_has_no_file_of_its_parent() {
        let mut witness = Witness::start().unwrap();
        witness.ask().unwrap();
        let of = |what: &str| format!("/proc/{}/{what}", witness.pid.as_raw_nonzero());
        let words = fs::read(of("cmdline")).unwrap();
        assert_eq!(words.split(|&byte| byte == 0).find(|word| !word.is_empty()), NAME.strip_suffix(b"\0"));
        assert!(words.iter().filter(|&&byte| byte != 0).count() < NAME.len(), "{words:?}");
        assert_eq!(fs::read_to_string(of("comm")).unwrap(), "signal-witness\n");
        assert_eq!(fs::read_dir(of("fd")).unwrap().count(), 1);
    }
}
