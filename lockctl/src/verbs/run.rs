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
use crate::say;
use crate::storage::Storage;
use crate::survey::holding::{self, Holding, Mode};
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
    let why = if arguments.unlock {
        "--unlock: the lock of a command ends with the command; end the command, or use `lockctl repair` where the \
         holder is dead"
    } else if arguments.no_fork {
        "--no-fork: the lock belongs to lockctl, which would lose it by becoming the command; leave the option out, \
         signals and the exit status are passed on anyway"
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
        say(&nested::sentence(&storage, arguments.id, holder, mode(arguments)));
        return Ok(if wait(arguments) == Wait::Forever { sysexits::UNAVAILABLE } else { arguments.conflict_exit_code });
    }
    let start = Instant::now();
    let acquired = match acquire(arguments, manager, signals) {
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
                Reason::Unsupported(why) if arguments.shared => Err(not_shared(&storage, why)),
                _ => Err(error.into()),
            };
        }
    };
    if arguments.verbose {
        say(&format!("getting lock {} took {:.6} seconds", arguments.id, start.elapsed().as_secs_f64()));
    }
    if acquired == Acquired::OwnerDied {
        say(&abandoned(arguments));
    }
    let ended = run_held(arguments, &runs.with(&storage, arguments.id, manager), &storage, signals);
    match mode(arguments) {
        Mode::Exclusive => manager.unlock(arguments.id)?,
        Mode::Shared => manager.unlock_shared(arguments.id)?,
    }
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

fn mode(arguments: &Run) -> Mode {
    if arguments.shared { Mode::Shared } else { Mode::Exclusive }
}

fn acquire(arguments: &Run, manager: &dyn Manager, signals: &Signals) -> lock_manager::Result<Acquired> {
    let (id, wait, cancel) = (arguments.id, wait(arguments), Some(signals.cancel()));
    match mode(arguments) {
        Mode::Exclusive => manager.acquire(id, wait, cancel),
        Mode::Shared => manager.acquire_shared(id, wait, cancel),
    }
}

/// Why a storage has no shared locks. The library's way out is one of its calls: here it is an option, or a verb.
fn not_shared(storage: &Storage, why: &str) -> Failure {
    let why = why.split(';').next().unwrap_or(why);
    let way_out = "leave --shared out to hold the lock exclusively, or use a segment that `lockctl create` makes";
    Failure::new(sysexits::UNAVAILABLE, format!("{}: --shared: {why}; {way_out}", storage.shown()))
}

/// That somebody died holding the lock that is held now.
fn abandoned(arguments: &Run) -> String {
    let now = match mode(arguments) {
        Mode::Exclusive => "it is held now",
        Mode::Shared => "it is held shared now, and each reader is told until a writer has taken the lock",
    };
    let id = arguments.id;
    format!("lock {id}: its last holder died holding it, so what it protects may be half written; {now}")
}

/// That the lock was not had, and who has it.
fn conflict(arguments: &Run, manager: &dyn Manager) -> String {
    let id = arguments.id;
    let tried = if matches!(wait(arguments), Wait::Try) { "failed to get" } else { "timeout while waiting to get" };
    // Where it cannot be said, the rest is said all the same.
    let lock = manager.lock_info(id).unwrap_or_default();
    let holders = Holding::all_of(manager, &lock).unwrap_or_default();
    let held = if holders.is_empty() { String::new() } else { format!("; it is {}", holding::sentence(&holders)) };
    let next = if lock.draining { "; a writer is next" } else { "" };
    format!("{tried} lock {id}{held}{next}")
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
