// SPDX-License-Identifier: MIT OR Apache-2.0
//! A command under a lock, while it runs. What a failed test leaves behind is ended.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::stage::{Place, command};

/// How long a command that a failed test left is asked to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// A `lockctl run` whose command has said a first line, and so has the lock.
pub struct Running {
    lockctl: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// Runs a shell script under a lock; also gives the first line that it says.
    pub fn start(place: &Place, id: u32, script: &str) -> (Self, String) {
        Self::begin(command(["run", &place.name, &id.to_string(), "--", "sh", "-c", script]))
    }

    /// The same by a call that is made otherwise.
    pub fn begin(mut command: Command) -> (Self, String) {
        let mut lockctl = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(lockctl.stdout.take().unwrap()).lines();
        let mut running = Self { lockctl, said };
        let first = running.says();
        (running, first)
    }

    pub fn pid(&self) -> u32 {
        self.lockctl.id()
    }

    /// The next line.
    pub fn says(&mut self) -> String {
        self.said.next().unwrap().unwrap()
    }

    pub fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.lockctl), signal).unwrap();
    }

    /// Waits for its end.
    pub fn end(&mut self) -> ExitStatus {
        self.lockctl.wait().unwrap()
    }

    /// Ends lockctl by SIGKILL, and not its command.
    pub fn kill(mut self) {
        self.lockctl.kill().unwrap();
        self.lockctl.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // With its command, unless that does not end by it.
        let start = Instant::now();
        while matches!(self.lockctl.try_wait(), Ok(None)) {
            self.send(if start.elapsed() < PATIENCE { Signal::TERM } else { Signal::KILL });
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A process that somebody else started and left; it ends with the value.
pub struct Left(Pid);

impl Left {
    /// By its number as a shell says it.
    pub fn of(said: &str) -> Self {
        Self(Pid::from_raw(said.trim().parse().unwrap()).unwrap())
    }

    pub fn pid(&self) -> u32 {
        self.0.as_raw_nonzero().get().cast_unsigned()
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}
