// SPDX-License-Identifier: MIT OR Apache-2.0
//! Forked children. They die with their parent, or after a minute whatever they do, and are reaped.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::wait::eventually;

/// After this many seconds a child is hung, and ends by SIGALRM.
const LIMIT_SECONDS: u32 = 60 * super::timing::FACTOR;

/// What a child's body that panicked exits with, as Rust programs do.
const PANICKED: i32 = 101;

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

/// A child process; killed and reaped when dropped.
#[derive(Debug)]
pub struct Child {
    pid: i32,
    exit: Option<Exit>,
}

/// How many bytes a page of this machine has.
pub fn page_size() -> u64 {
    // SAFETY: sysconf(3) touches no memory.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u64 }
}

/// Forks a child that runs `body` and exits with 0, or 101 if it panics. Only from a process whose other threads are
/// idle, as those of [`alone!`](super::alone::alone) are.
pub fn fork(body: impl FnOnce()) -> Child {
    // SAFETY: glibc keeps the heap usable in the child, and no other thread of the process can have left a lock of
    // Rust's standard library taken.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => run(body),
        pid => Child { pid, exit: None },
    }
}

/// Runs a child's body and ends the process without running anything that belongs to the parent.
pub fn run(body: impl FnOnce()) -> ! {
    // SAFETY: alarm(2) and prctl(2) with these arguments touch no memory.
    unsafe {
        libc::alarm(LIMIT_SECONDS);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
    }
    let code = if catch_unwind(AssertUnwindSafe(body)).is_ok() { 0 } else { PANICKED };
    // SAFETY: _exit(2) does not return.
    unsafe { libc::_exit(code) }
}

/// The number of a resource, as the libc has it.
#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

/// Limits what this process may have of a resource. What the limit was.
pub fn limit(resource: Resource, soft: u64) -> u64 {
    // SAFETY: getrlimit(2) and setrlimit(2) fill and read the struct, a local.
    unsafe {
        let mut limit = std::mem::zeroed::<libc::rlimit64>();
        assert_eq!(libc::getrlimit64(resource, &raw mut limit), 0);
        let before = std::mem::replace(&mut limit.rlim_cur, soft);
        assert_eq!(libc::setrlimit64(resource, &raw const limit), 0);
        before
    }
}

/// Gives up what root may, for ever.
pub fn become_user(user: u32) {
    // SAFETY: setuid(2) touches no memory; a forked child has one thread.
    assert_eq!(unsafe { libc::setuid(user) }, 0);
}

impl Child {
    /// A child that was made by other means than [`fork`].
    pub fn adopt(pid: i32) -> Self {
        assert!(pid > 0, "{}", std::io::Error::last_os_error());
        Self { pid, exit: None }
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    pub fn signal(&self, signal: i32) {
        assert!(self.exit.is_none(), "the child was reaped: its number may be a stranger's by now");
        // SAFETY: kill(2) touches no memory; the child has not been reaped, so the number is still its own.
        assert_eq!(unsafe { libc::kill(self.pid, signal) }, 0);
    }

    /// Kills the child and waits for its end.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if self.exit.is_none() {
            self.signal(libc::SIGKILL);
            self.reap();
        }
    }

    /// Waits for the child's end.
    pub fn wait(mut self) -> Exit {
        self.reap()
    }

    /// Waits for the child's end, which must be a success.
    #[track_caller]
    pub fn succeeds(self) {
        assert_eq!(self.wait(), Exit::Code(0), "the child failed; 101: a panic, SIGALRM: it hung");
    }

    fn reap(&mut self) -> Exit {
        let mut status = 0;
        // SAFETY: waitpid(2) fills the status, a local. A child ends at the latest by its alarm.
        let mut wait = || unsafe { libc::waitpid(self.pid, &raw mut status, 0) };
        let mut reaped = wait();
        while reaped == -1 && std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted {
            reaped = wait();
        }
        assert_eq!(reaped, self.pid, "{}", std::io::Error::last_os_error());
        let exit = if libc::WIFEXITED(status) {
            Exit::Code(libc::WEXITSTATUS(status))
        } else {
            Exit::Signal(libc::WTERMSIG(status))
        };
        *self.exit.insert(exit)
    }

    /// Whether the child has ended. It is still to be reaped.
    pub fn has_ended(&self) -> bool {
        // SAFETY: all-zero bytes are a valid siginfo_t for waitid(2) to fill; a child that lives leaves it so.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: as above.
        let code = unsafe { libc::waitid(libc::P_PID, self.pid as libc::id_t, &raw mut info, options) };
        assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
        // SAFETY: filled, or all zero, by waitid(2).
        unsafe { info.si_pid() != 0 }
    }

    /// Waits until the child sleeps in futex(2), as a waiter for a lock does.
    pub fn until_it_waits(&self) {
        until_thread_waits(self.pid);
    }

    /// Waits until the child is stopped.
    pub fn until_it_is_stopped(&self) {
        eventually("the child is stopped", || state_of(self.pid) == Some('T'));
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.exit.is_none() {
            // SAFETY: as in signal() and reap(); a failure is of no interest while a test unwinds.
            unsafe {
                libc::kill(self.pid, libc::SIGKILL);
                libc::waitpid(self.pid, std::ptr::null_mut(), 0);
            }
        }
    }
}

/// Waits until a thread sleeps in futex(2).
pub fn until_thread_waits(tid: i32) {
    until_asleep_in(tid, libc::SYS_futex, "the thread waits in futex(2)");
}

/// Waits until a thread sleeps for a while of its own.
pub fn until_thread_sleeps(tid: i32) {
    until_asleep_in(tid, libc::SYS_clock_nanosleep, "the thread sleeps in clock_nanosleep(2)");
}

fn until_asleep_in(tid: i32, number: libc::c_long, what: &str) {
    eventually(what, || is_asleep_in(tid, number));
}

/// Whether a thread sleeps in that system call.
pub fn is_asleep_in(tid: i32, number: libc::c_long) -> bool {
    let asleep = state_of(tid) == Some('S');
    // "running", or the number of the call and its arguments. Unreadable without the right to trace: then the
    // state has to do.
    let call = fs::read_to_string(format!("/proc/{tid}/syscall"));
    asleep && call.map_or(true, |call| call.split(' ').next() == Some(&number.to_string()))
}

/// The state letter of a process or thread; none if it is not there.
pub fn state_of(tid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{tid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The calling thread's id.
pub fn own_tid() -> i32 {
    // SAFETY: gettid(2) takes nothing and cannot fail.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

/// Sleeps until a signal ends the process.
pub fn sleep_until_killed() -> ! {
    loop {
        // SAFETY: pause(2) touches no memory.
        unsafe { libc::pause() };
    }
}

/// The id of a thread that is gone.
pub fn gone_tid() -> i32 {
    let child = fork(|| {});
    let pid = child.pid();
    child.succeeds();
    pid
}
