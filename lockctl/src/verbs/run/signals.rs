// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Signals to `lockctl run`, and the ends of its children. While it waits, a signal ends the wait; while the command
//! runs, the command gets it, once. The lock is given back either way.
//!
//! All of them are blocked, and one thread takes them. What is sent to the whole group, or control group, reaches the
//! command without help; whether it was, the [`Witness`](crate::sys::witness::Witness) knows.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use lock_manager::Cancel;
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::proc::process;
use crate::sys::child;
use crate::sys::signals::{self, Inherited, SIGCHLD, SIGWINCH, Set};
use crate::sys::witness::Witness;

/// How long a signal that only this process got is kept back, since the others may be about to get it: timeout(1) and
/// systemd send to the process that they started, and then to its group or control group.
const GRACE: Duration = Duration::from_millis(50);

/// Between two questions to the witness in that time.
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(5);

/// What a signal does now.
enum Phase {
    /// It ends the wait, and is what the process dies of.
    Waiting,
    Cancelled(i32),
    Running(Pid),
    Ended(ExitStatus),
}

/// A signal that came and that the command may still be without.
struct Kept {
    signal: i32,
    since: Instant,
}

struct State {
    phase: Phase,
    kept: Vec<Kept>,
    witness: Option<Witness>,
    /// When the witness last was found to have got a signal.
    witnessed: BTreeMap<i32, Instant>,
}

pub struct Signals {
    inherited: Inherited,
    cancel: Cancel,
    state: Mutex<State>,
    has_ended: Condvar,
}

impl Signals {
    /// From here on. What was ignored stays so, for the command as well (nohup, jobs in the background).
    pub fn catch() -> io::Result<Arc<Self>> {
        let inherited = Inherited::now();
        // Where no process can be made there is none, and a signal to the group reaches the command twice.
        let witness = Witness::start().ok();
        let taken = signals::ending().with(SIGWINCH).without(inherited.ignored).with(SIGCHLD);
        signals::attend_to_children();
        signals::block(taken);
        let state = State { phase: Phase::Waiting, kept: Vec::new(), witness, witnessed: BTreeMap::new() };
        let signals =
            Arc::new(Self { inherited, cancel: Cancel::new(), state: Mutex::new(state), has_ended: Condvar::new() });
        let of_thread = Arc::clone(&signals);
        thread::Builder::new().name("signals".to_owned()).spawn(move || of_thread.attend(taken))?;
        Ok(signals)
    }

    /// Ends the wait.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Runs the command to its end. `None`: a signal came before.
    pub fn run(&self, command: &mut Command) -> io::Result<Option<ExitStatus>> {
        let mut state = self.state();
        if !matches!(state.phase, Phase::Waiting) {
            return Ok(None);
        }
        if let Some(witness) = &state.witness {
            witness.forget_before(command);
        }
        child::pass_on(self.inherited, command);
        // With the state locked: nobody else asks the witness, and what std itself waits for is not reaped.
        let child = command.spawn()?;
        state.phase = Phase::Running(Pid::from_child(&child));
        if !state.kept.is_empty() {
            // The thread sleeps until something comes.
            signals::send(Pid::from_raw(process::own()), SIGCHLD);
        }
        loop {
            if let Phase::Ended(status) = state.phase {
                return Ok(Some(status));
            }
            state = self.has_ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends this process by the signal that came while it waited, if one did.
    pub fn die_of_what_came(&self) {
        let mut state = self.state();
        let Phase::Cancelled(signal) = state.phase else { return };
        state.witness = None;
        signals::die_of(signal);
    }

    /// Leaves no process behind.
    pub fn end(&self) {
        self.state().witness = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what comes, for as long as the process lives.
    fn attend(&self, taken: Set) {
        let mut patience = None;
        loop {
            let came = signals::take(taken, patience);
            let mut state = self.state();
            match came {
                Some(SIGCHLD) => state.reap(),
                Some(signal) => self.receive(&mut state, signal),
                None => {}
            }
            match state.phase {
                Phase::Running(pid) => state.pass_on(pid),
                Phase::Ended(_) => self.has_ended.notify_all(),
                Phase::Waiting | Phase::Cancelled(_) => {}
            }
            let is_due = matches!(state.phase, Phase::Running(_)) && !state.kept.is_empty();
            patience = is_due.then_some(BETWEEN_QUESTIONS);
        }
    }

    fn receive(&self, state: &mut State, signal: i32) {
        match state.phase {
            // It would not have ended a process that blocks it: it waits for the command, which blocks it as well.
            Phase::Waiting if self.inherited.blocked.has(signal) => state.keep(signal),
            Phase::Waiting if signals::ending().has(signal) => {
                state.phase = Phase::Cancelled(signal);
                self.cancel.trigger();
            }
            Phase::Running(_) => state.keep(signal),
            Phase::Waiting | Phase::Cancelled(_) | Phase::Ended(_) => {}
        }
    }
}

impl State {
    fn keep(&mut self, signal: i32) {
        self.kept.push(Kept { signal, since: Instant::now() });
    }

    /// Drops what the command got without help, and sends it what it did not get. In their order.
    fn pass_on(&mut self, command: Pid) {
        if self.kept.is_empty() {
            return;
        }
        self.ask();
        if is_beside_us(command) {
            let witnessed = &self.witnessed;
            self.kept.retain(|kept| witnessed.get(&kept.signal).is_none_or(|&at| at + GRACE < kept.since));
        }
        let grace = if self.witness.is_some() { GRACE } else { Duration::ZERO };
        let due = self.kept.iter().take_while(|kept| kept.since.elapsed() >= grace).count();
        for kept in self.kept.drain(..due) {
            signals::send(Some(command), kept.signal);
        }
    }

    fn ask(&mut self) {
        let Some(witness) = &mut self.witness else { return };
        match witness.ask() {
            Ok(got) => self.witnessed.extend(got.iter().map(|signal| (signal, Instant::now()))),
            Err(_) => self.witness = None,
        }
    }

    /// Waits for each child that has ended: the command, and what process 1 and whoever called exec with children has.
    fn reap(&mut self) {
        while let Some(pid) = child::ended() {
            if self.witness.as_ref().is_some_and(|witness| witness.pid() == pid) {
                self.witness = None;
                continue;
            }
            let Ok(Some((_, status))) = waitpid(Some(pid), WaitOptions::NOHANG) else { return };
            if matches!(self.phase, Phase::Running(command) if command == pid) {
                self.phase = Phase::Ended(ExitStatus::from_raw(status.as_raw()));
            }
        }
    }
}

/// Whether what is sent to our process group or control group is sent to the command's.
fn is_beside_us(command: Pid) -> bool {
    let number = command.as_raw_nonzero().get();
    child::is_in_our_group(command) && process::control_groups(number) == process::control_groups(process::own())
}

#[cfg(test)]
mod tests {
    use std::process::Child;

    use rustix::process::{Signal, kill_process};

    use super::*;

    /// With a witness, and a command that dies of what it is sent.
    fn running() -> (State, Child) {
        let command = Command::new("sleep").arg("1000").spawn().unwrap();
        let (phase, witness) = (Phase::Running(Pid::from_child(&command)), Some(Witness::start().unwrap()));
        (State { phase, kept: Vec::new(), witness, witnessed: BTreeMap::new() }, command)
    }

    #[test]
    fn a_signal_is_kept_back_for_a_while_and_then_sent() {
        let (mut state, mut child) = running();
        let command = Pid::from_child(&child);
        loop {
            state.kept.clear();
            state.keep(Signal::TERM.as_raw());
            let since = state.kept[0].since;
            state.pass_on(command);
            // Unless this very thread was kept back for longer.
            if since.elapsed() < GRACE {
                break;
            }
        }
        assert_eq!(state.kept.len(), 1);
        state.kept[0].since -= GRACE;
        state.pass_on(command);
        assert_eq!(state.kept.len(), 0);
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::TERM.as_raw()));
    }

    #[test]
    fn what_the_witness_got_as_well_is_not_sent() {
        let (mut state, mut child) = running();
        let command = Pid::from_child(&child);
        let send = |state: &State, signal| kill_process(state.witness.as_ref().unwrap().pid(), signal).unwrap();
        // Before it, and after it.
        send(&state, Signal::TERM);
        state.ask();
        state.keep(Signal::TERM.as_raw());
        state.keep(Signal::HUP.as_raw());
        send(&state, Signal::HUP);
        state.pass_on(command);
        assert_eq!(state.kept.len(), 0);
        // Had it been sent one of them, it would have died of that.
        kill_process(command, Signal::KILL).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
    }
}
