// SPDX-License-Identifier: MIT OR Apache-2.0
//! A process that uses the library and does what it is told over its standard input, a line each: `lock 3`, `unlock 3`,
//! and the same shared: `read 3`, `unread 3`.

use std::env;
use std::io::{self, BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use lock_manager::{FileManager, Manager, ShmManager};
use rustix::process::{Pid, Signal, kill_process};

use crate::stage::{Place, eventually, state_of, watch_over};

/// The segment, or directory, of a puppet; unset in the run that the user started.
const SEGMENT: &str = "LOCKCTL_TEST_PUPPET";
const READY: &str = "puppet is ready";
const DONE: &str = "puppet has done it";

/// A puppet, which ends with the value.
#[derive(Debug)]
pub struct Puppet {
    process: Child,
    strings: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Puppet {
    pub fn of(place: &Place) -> Self {
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["puppet::is_played_by_this_binary", "--exact", "--nocapture", "--test-threads=1"])
            .env(SEGMENT, &place.name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap()).lines();
        let strings = process.stdin.take().unwrap();
        let mut puppet = Self { process, strings, answers };
        puppet.until(READY);
        puppet
    }

    /// One that holds these locks.
    pub fn holding(place: &Place, ids: &[u32]) -> Self {
        let mut puppet = Self::of(place);
        for id in ids {
            puppet.does(&format!("lock {id}"));
        }
        puppet
    }

    /// One that reads these locks.
    pub fn reading(place: &Place, ids: &[u32]) -> Self {
        let mut puppet = Self::of(place);
        for id in ids {
            puppet.does(&format!("read {id}"));
        }
        puppet
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Tells it what to do, and waits until it is done.
    pub fn does(&mut self, what: &str) {
        self.begins(what);
        self.until(DONE);
    }

    /// Tells it what to do, and does not wait.
    pub fn begins(&mut self, what: &str) {
        writeln!(self.strings, "{what}").unwrap();
    }

    /// Waits until what it began is done.
    pub fn finishes(&mut self) {
        self.until(DONE);
    }

    pub fn stop(&self) {
        self.signal(Signal::STOP);
        eventually("the puppet is stopped", || state_of(self.pid()) == Some('T'));
    }

    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it by SIGKILL, with whatever it holds.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    fn until(&mut self, answer: &str) {
        // The test harness begins the first line.
        let is_there = self.answers.by_ref().map_while(Result::ok).any(|line| line.ends_with(answer));
        assert!(is_there, "the puppet ended before it said: {answer}");
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn is_played_by_this_binary() {
    let Ok(segment) = env::var(SEGMENT) else { return };
    watch_over();
    let manager: Box<dyn Manager> = if Path::new(&segment).is_dir() {
        Box::new(FileManager::open(segment).unwrap())
    } else {
        Box::new(ShmManager::open(segment, 0).unwrap())
    };
    println!("{READY}");
    for line in io::stdin().lines() {
        let line = line.unwrap();
        let (what, id) = line.split_once(' ').unwrap();
        let id = id.parse().unwrap();
        match what {
            "lock" => {
                let _ = manager.lock(id).unwrap();
            }
            "unlock" => manager.unlock(id).unwrap(),
            "read" => {
                let _ = manager.lock_shared(id).unwrap();
            }
            "unread" => manager.unlock_shared(id).unwrap(),
            _ => unreachable!("{what} is nothing that a puppet can do"),
        }
        println!("{DONE}");
    }
}
