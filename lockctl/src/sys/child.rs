// SPDX-License-Identifier: MIT OR Apache-2.0
//! Children that have ended, and what a new one inherits.

use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::Pid;

use super::signals::Inherited;

/// The number of a child that has ended and was not waited for yet: it stays its own until then.
pub fn ended() -> Option<Pid> {
    let mut facts = MaybeUninit::<libc::siginfo_t>::zeroed();
    let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: waitid(2) writes the facts of a child, which have a number, or leaves the zeroes, whose number is 0.
    let pid = unsafe {
        match libc::waitid(libc::P_ALL, 0, facts.as_mut_ptr(), how) {
            0 => facts.assume_init().si_pid(),
            _ => 0,
        }
    };
    Pid::from_raw(pid)
}

/// Has the command start with the signals as this process was given them.
pub fn pass_on(inherited: Inherited, command: &mut Command) {
    // SAFETY: the closure allocates nothing and makes only calls that signal-safety(7) lists.
    unsafe {
        command.pre_exec(move || {
            inherited.restore();
            Ok(())
        });
    }
}

/// Whether a process is in the process group of this one. Both may have the number 0, in a PID namespace whose first
/// process was started from a group outside.
pub fn is_in_our_group(pid: Pid) -> bool {
    // SAFETY: getpgid(2) touches no memory.
    unsafe { libc::getpgid(pid.as_raw_nonzero().get()) == libc::getpgid(0) }
}
