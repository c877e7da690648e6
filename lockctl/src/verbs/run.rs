// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! `lockctl run`: a command under a lock, with flock(1)'s manners. The lock is this process's main thread's: the command
//! inherits nothing that could keep it, and whatever becomes of the command, the lock is given back.

/// The runs that a command is under already.
mod nested;
/// Signals, to the command or against the wait.
mod signals;

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use lock_manager::{Acquired, Manager, Reason, Wait};

use crate::cli::Run;
use crate::exit::{Failure, Outcome, sysexits};
use crate::output::text::shown;
use crate::proc::process;
use crate::say;
use crate::storage::Storage;
use crate::sys::signals::KILLED_BY;
use nested::Runs;
use signals::Signals;

/// The command's environment says by these which lock it runs under.
const LOCK_ID: &str = "LOCK_ID";
const LOCK_STORAGE: &str = "LOCK_STORAGE";

/// Where the user has set no other.
const SHELL: &str = "/bin/sh";

pub fn run(arguments: &Run) -> Outcome {
    refuse_what_cannot_be(arguments)?;
    // First of all: from here on no signal ends this process with the lock held.
    let signals = Signals::catch().map_err(|error| Failure::system("catching signals", &error))?;
    let outcome = run_caught(arguments, &signals);
    signals.die_of_what_came();
    signals.end();
    outcome
}

/// What flock(1) has and a storage of locks has not.
fn refuse_what_cannot_be(arguments: &Run) -> Result<(), Failure> {
    let why = if arguments.shared {
        "--shared: these locks are exclusive, there are no shared ones; leave it out, and the command is alone"
    } else if arguments.unlock {
        "--unlock: the lock of a command ends with the command; end the command, or use `lockctl repair` where the \
         holder is dead"
    } else if arguments.no_fork {
        "--no-fork: the lock belongs to the process that took it, and one that becomes another program gives it up; \
         leave it out, signals and the exit status are passed on"
    } else {
        return Ok(());
    };
    Err(Failure::new(sysexits::USAGE, why))
}

fn run_caught(arguments: &Run, signals: &Signals) -> Outcome {
    let storage = Storage::named(&arguments.storage.storage)?;
    let opened = storage.open()?;
    let manager = opened.manager();
    let runs = Runs::above();
    if let Some(holder) = runs.holder_of(&storage, arguments.id, manager)? {
        say(&nested::sentence(&storage, arguments.id, holder));
        return Ok(if wait(arguments) == Wait::Forever { sysexits::UNAVAILABLE } else { arguments.conflict_exit_code });
    }
    let start = Instant::now();
    let acquired = match manager.acquire(arguments.id, wait(arguments), Some(signals.cancel())) {
        Ok(acquired) => acquired,
        Err(error) => {
            return match error.reason() {
                Reason::Held { .. } | Reason::TimedOut { .. } => {
                    if arguments.verbose {
                        say(&conflict(arguments, manager));
                    }
                    Ok(arguments.conflict_exit_code)
                }
                // What came is said by how this process ends.
                Reason::Cancelled { .. } => Ok(0),
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
    let ended = run_held(arguments, &runs.with(&storage, arguments.id, manager), &storage, signals);
    manager.unlock(arguments.id)?;
    ended.map(exit_code)
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

/// The program and its arguments.
fn words(arguments: &Run) -> Vec<OsString> {
    match &arguments.line {
        Some(line) => {
            let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
            vec![shell.unwrap_or_else(|| SHELL.into()), "-c".into(), line.clone()]
        }
        None => arguments.command.clone(),
    }
}

/// Runs the command to its end.
fn run_held(arguments: &Run, runs: &Runs, storage: &Storage, signals: &Signals) -> Result<ExitStatus, Failure> {
    let words = words(arguments);
    let [program, rest @ ..] = &words[..] else { return Err(Failure::new(sysexits::USAGE, "give a command")) };
    if arguments.verbose {
        let words: Vec<String> = words.iter().map(shown).collect();
        say(&format!("executing {}", words.join(" ")));
    }
    let mut command = Command::new(program);
    command.args(rest);
    command.env(LOCK_ID, arguments.id.to_string()).env(LOCK_STORAGE, &storage.name).env(nested::RUNS, runs.to_string());
    match signals.run(&mut command) {
        // No status: a signal came before, and this process dies of it.
        Ok(ended) => Ok(ended.unwrap_or_default()),
        Err(error) => {
            let sentence = format!("failed to execute {}: {error}", shown(program));
            Err(Failure::new(sysexits::UNAVAILABLE, sentence))
        }
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| KILLED_BY + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(u8::MAX)
}
