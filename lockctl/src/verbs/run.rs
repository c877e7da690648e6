// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! `lockctl run`: a command under a lock, with flock(1)'s manners. The lock is this process's main thread's: the command
//! inherits nothing that could keep it, and whatever becomes of the command, the lock is given back.

/// Signals, to the command or against the wait.
mod signals;

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use lock_manager::{Acquired, Manager, Reason, Wait};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::cli::Run;
use crate::exit::{Failure, Outcome, sysexits};
use crate::proc::process;
use crate::say;
use crate::storage::Storage;
use signals::Signals;

/// A shell's way to say that a signal ended a command.
const KILLED_BY: i32 = 128;

/// The command's environment says by this which lock it runs under.
const LOCK_ID: &str = "LOCK_ID";

pub fn run(arguments: &Run) -> Outcome {
    let opened = Storage::named(&arguments.storage.storage)?.open()?;
    let manager = opened.manager();
    // Before the lock: from here on no signal ends this process with the lock held.
    let signals = Signals::catch().map_err(|error| Failure::system("catching signals", &error))?;
    let start = Instant::now();
    let acquired = match manager.acquire(arguments.id, wait(arguments), Some(signals.cancel())) {
        Ok(acquired) => acquired,
        Err(error) => {
            signals.die_of_what_came();
            return match error.reason() {
                Reason::Held { .. } | Reason::TimedOut { .. } => {
                    if arguments.verbose {
                        say(&conflict(arguments, manager));
                    }
                    Ok(arguments.conflict_exit_code)
                }
                _ => Err(error.into()),
            };
        }
    };
    if arguments.verbose {
        say(&format!("getting lock {} took {:.6} seconds", arguments.id, start.elapsed().as_secs_f64()));
    }
    if acquired == Acquired::OwnerDied {
        say(&format!(
            "lock {}: its last holder died holding it, so what it protects may be half written; it is held now",
            arguments.id
        ));
    }
    let ended = run_held(arguments, &signals);
    manager.unlock(arguments.id)?;
    signals.die_of_what_came();
    match ended {
        Ok(status) => Ok(exit_code(status)),
        Err(error) => {
            let command = arguments.command[0].to_string_lossy();
            let sentence = format!("failed to execute {}: {error}", crate::output::text::escaped(&command));
            Err(Failure::new(sysexits::UNAVAILABLE, sentence))
        }
    }
}

fn wait(arguments: &Run) -> Wait {
    match arguments.timeout {
        _ if arguments.nonblock => Wait::Try,
        Some(Duration::ZERO) => Wait::Try,
        Some(timeout) => Wait::at_most(timeout),
        None => Wait::Forever,
    }
}

fn conflict(arguments: &Run, manager: &dyn Manager) -> String {
    let holder = match manager.lock_info(arguments.id) {
        Ok(info) if info.held && info.pid != 0 => format!("; it is held by {}", process::described(info.pid)),
        _ => String::new(),
    };
    let id = arguments.id;
    if matches!(wait(arguments), Wait::Try) {
        format!("failed to get lock {id}{holder}")
    } else {
        format!("timeout while waiting to get lock {id}{holder}")
    }
}

/// Runs the command to its end.
fn run_held(arguments: &Run, signals: &Signals) -> io::Result<ExitStatus> {
    let (program, rest) = arguments.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    if arguments.verbose {
        let words: Vec<_> = arguments.command.iter().map(|word| word.to_string_lossy()).collect();
        say(&format!("executing {}", crate::output::text::escaped(&words.join(" "))));
    }
    let mut command = Command::new(program);
    command.args(rest).env(LOCK_ID, arguments.id.to_string());
    let Some(mut child) = signals.start(&mut command)? else { return Ok(ExitStatus::default()) };
    let pid = Pid::from_child(&child);
    // Its number is nobody else's until it is waited for, so nothing is sent to a stranger.
    while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {}
    signals.stop_forwarding();
    child.wait()
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| KILLED_BY + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(u8::MAX)
}
