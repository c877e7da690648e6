// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Signals to `lockctl run`: while it waits they end the wait, while the command runs they go to the command. The lock
//! is given back either way.

use std::fs;
use std::io;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use lock_manager::Cancel;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::origin::WithOrigin;
use signal_hook::low_level::emulate_default_handler;
use signal_hook::low_level::siginfo::{Cause, Origin};

/// Those that would end this process.
const CAUGHT: [i32; 7] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM];

/// What a signal does now.
enum Phase {
    /// It ends the wait, and is what the process dies of.
    Waiting,
    Cancelled(i32),
    Running(Pid),
    Over,
}

pub struct Signals {
    cancel: Arc<Cancel>,
    phase: Arc<Mutex<Phase>>,
}

impl Signals {
    /// From here on. What was ignored stays so, for the command as well (nohup, jobs in the background).
    pub fn catch() -> io::Result<Self> {
        let ignored = ignored_signals();
        let caught: Vec<i32> = CAUGHT.into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0).collect();
        let mut incoming = SignalsInfo::<WithOrigin>::new(caught)?;
        let signals = Self { cancel: Arc::new(Cancel::new()), phase: Arc::new(Mutex::new(Phase::Waiting)) };
        let (cancel, phase) = (Arc::clone(&signals.cancel), Arc::clone(&signals.phase));
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for origin in incoming.forever() {
                receive(&origin, &mut locked(&phase), &cancel);
            }
        })?;
        Ok(signals)
    }

    /// Ends the wait.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Starts the command, and from here on signals are its. `None`: one came before.
    pub fn start(&self, command: &mut Command) -> io::Result<Option<Child>> {
        let mut phase = locked(&self.phase);
        if !matches!(*phase, Phase::Waiting) {
            return Ok(None);
        }
        let child = command.spawn()?;
        *phase = Phase::Running(Pid::from_child(&child));
        Ok(Some(child))
    }

    /// The command has ended, and its number will soon be free to be another's.
    pub fn stop_forwarding(&self) {
        *locked(&self.phase) = Phase::Over;
    }

    /// Ends this process by the signal that came while it waited, if one did.
    pub fn die_of_what_came(&self) {
        let Phase::Cancelled(signal) = *locked(&self.phase) else { return };
        let _ = emulate_default_handler(signal);
    }
}

fn receive(origin: &Origin, phase: &mut Phase, cancel: &Cancel) {
    match *phase {
        Phase::Waiting => {
            *phase = Phase::Cancelled(origin.signal);
            cancel.trigger();
        }
        // The terminal sends to the whole group in the foreground, so the command has its own.
        Phase::Running(_) if origin.cause == Cause::Kernel => {}
        Phase::Running(pid) => {
            if let Some(signal) = Signal::from_named_raw(origin.signal) {
                // The command may have ended just now.
                let _ = kill_process(pid, signal);
            }
        }
        Phase::Cancelled(_) | Phase::Over => {}
    }
}

fn locked(phase: &Mutex<Phase>) -> MutexGuard<'_, Phase> {
    phase.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The signals that this process ignores, a bit each, as proc(5) has them.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
