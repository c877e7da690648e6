// SPDX-License-Identifier: MIT OR Apache-2.0
//! A child that runs one instruction, or up to one system call, at a time, to be killed at any of them.

use std::ptr;

use lock_manager::{Manager, ShmManager};

use super::Segment;
use super::process::{Child, fork};
use super::random::Random;

/// A request of ptrace(2), as the libc has it.
#[cfg(target_env = "gnu")]
type Request = libc::c_uint;
#[cfg(not(target_env = "gnu"))]
type Request = libc::c_int;

/// How many single steps and how many deaths a test may take. A death after the n-th instruction takes n of them, so
/// that for long calls it is not each that is tried, but each so many, from a start that differs from run to run.
const STEPS: u64 = 150_000;
const DEATHS: u64 = 100;

/// Tries each instruction, however long that takes.
const EACH: &str = "LOCK_MANAGER_TEST_EVERY_INSTRUCTION";

/// A traced child, stopped between the steps. Only the thread that started it may step it.
#[derive(Debug)]
pub struct Stepped {
    child: Child,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Done,
    /// What the child was to do is done.
    Over,
}

impl Stepped {
    /// Forks a child that does `prepare`, then stops where `act` begins.
    pub fn start<T>(prepare: impl FnOnce() -> T, act: impl FnOnce(&T)) -> Self {
        let child = fork(|| {
            let prepared = prepare();
            // SAFETY: PTRACE_TRACEME and raise(3) touch no memory.
            unsafe {
                libc::ptrace(libc::PTRACE_TRACEME, 0, ptr::null_mut::<u8>(), ptr::null_mut::<u8>());
                libc::raise(libc::SIGSTOP);
            }
            act(&prepared);
            // SAFETY: as above.
            unsafe { libc::raise(libc::SIGSTOP) };
        });
        let stepped = Self { child };
        assert_eq!(stepped.stopped_by(), libc::SIGSTOP);
        stepped
    }

    /// Lets the child run one instruction.
    pub fn instruction(&self) -> Step {
        self.go_on(libc::PTRACE_SINGLESTEP)
    }

    /// Lets the child run to where it enters or leaves a system call.
    pub fn system_call(&self) -> Step {
        self.go_on(libc::PTRACE_SYSCALL)
    }

    /// Lets the child do all of the rest.
    pub fn finish(&self) {
        assert_eq!(self.go_on(libc::PTRACE_CONT), Step::Over);
    }

    fn go_on(&self, request: Request) -> Step {
        // SAFETY: the child is traced by this thread and stopped; no memory of ours is involved.
        let code = unsafe { libc::ptrace(request, self.child.pid(), ptr::null_mut::<u8>(), ptr::null_mut::<u8>()) };
        assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
        match self.stopped_by() {
            libc::SIGTRAP => Step::Done,
            libc::SIGSTOP => Step::Over,
            signal => panic!("the child got signal {signal}"),
        }
    }

    fn stopped_by(&self) -> i32 {
        let mut status = 0;
        // SAFETY: waitpid(2) fills the status, a local.
        let reaped = unsafe { libc::waitpid(self.child.pid(), &raw mut status, libc::__WALL) };
        assert_eq!(reaped, self.child.pid());
        assert!(libc::WIFSTOPPED(status), "the child ended with status {status:#x}");
        libc::WSTOPSIG(status)
    }

    /// Kills the child where it is.
    pub fn kill(self) {
        self.child.kill();
    }
}

/// Calls `die_after` with numbers of instructions over the whole of the call, whose length `start` finds out.
pub fn at_every_instruction(start: impl Fn() -> Stepped, mut die_after: impl FnMut(Stepped, u64)) {
    let whole = start();
    let length = (1..).find(|_| whole.instruction() == Step::Over).unwrap();
    // One is killed at the end, with everything done.
    die_after(whole, length);
    let tries_each = std::env::var_os(EACH).is_some();
    let stride = if tries_each { 1 } else { (1 + length * length / 2 / STEPS).max(length / DEATHS) };
    if tries_each {
        super::alone::allow(3600);
    }
    let mut random = Random::seeded();
    let first = random.below(stride);
    for count in (first..length).step_by(stride as usize) {
        let stepped = start();
        // Not each time as long: now and then a call looks whether the segment was removed.
        let _over = (0..count).any(|_| stepped.instruction() == Step::Over);
        die_after(stepped, count);
    }
}

/// Opens the segment and uses it once, so that what follows is no first call.
pub fn opened_and_used(segment: &Segment) -> ShmManager {
    let manager = segment.open();
    let _ = manager.lock(1).unwrap();
    manager.unlock(1).unwrap();
    let id = manager.allocate_lock().unwrap();
    manager.free_lock(id).unwrap();
    manager
}
