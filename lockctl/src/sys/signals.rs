// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signals without handlers: a process blocks them, and one thread takes them as they come. Nothing interrupts the
//! other threads, and a new child has no handler of ours that could swallow what was meant for it.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

pub use libc::{SIGCHLD, SIGWINCH};
use libc::{SIGHUP, SIGINT, SIGTERM};
use rustix::process::Pid;

/// A shell's way to say that a signal ended a program: this and the signal's number.
pub const KILLED_BY: i32 = 128;

/// The highest number of a signal.
const LAST: i32 = 64;

/// A set of signals, a bit each, as proc(5) writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Set(u64);

impl Set {
    pub fn has(self, signal: i32) -> bool {
        (1..=LAST).contains(&signal) && self.0 & bit(signal) != 0
    }

    pub fn with(self, signal: i32) -> Self {
        Self(self.0 | bit(signal))
    }

    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub fn bits(self) -> u64 {
        self.0
    }

    pub fn iter(self) -> impl Iterator<Item = i32> {
        (1..=LAST).filter(move |&signal| self.has(signal))
    }

    pub(super) fn raw(self) -> libc::sigset_t {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset(3) initialises the set, and sigaddset(3) gets an initialised one. It refuses the two
        // signals that are the libc's own, which nobody takes or blocks.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in self.iter() {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            set.assume_init()
        }
    }

    fn from_raw(raw: &libc::sigset_t) -> Self {
        // SAFETY: sigismember(3) reads an initialised set; a number that is none is an error, not a member.
        (1..=LAST).filter(|&signal| unsafe { libc::sigismember(raw, signal) } == 1).collect()
    }
}

impl FromIterator<i32> for Set {
    fn from_iter<I: IntoIterator<Item = i32>>(signals: I) -> Self {
        signals.into_iter().fold(Self::default(), Self::with)
    }
}

fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// The signals whose default action ends a process and that say something to it: not those of a fault of its own.
pub fn ending() -> Set {
    use libc::{SIGALRM, SIGIO, SIGPROF, SIGPWR, SIGQUIT, SIGSTKFLT, SIGUSR1, SIGUSR2, SIGVTALRM};
    let named =
        [SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM, SIGSTKFLT, SIGVTALRM, SIGPROF, SIGIO, SIGPWR];
    named.into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX()).collect()
}

/// What this process was started with: nobody else's business to change for its child.
#[derive(Debug, Clone, Copy)]
pub struct Inherited {
    pub blocked: Set,
    pub ignored: Set,
}

impl Inherited {
    /// Before this process changes any of it.
    pub fn now() -> Self {
        let ignored: Set = (1..=LAST).filter(|&signal| is_ignored(signal)).collect();
        // Rust ignores SIGPIPE before main.
        let pipe = Set::default().with(libc::SIGPIPE);
        let ignored = if PIPE_WAS_IGNORED.load(Ordering::Relaxed) { ignored.and(pipe) } else { ignored.without(pipe) };
        Self { blocked: change_mask(libc::SIG_BLOCK, Set::default()), ignored }
    }

    /// Makes it so again, in a child between fork and exec: only calls that are safe there. The rest of what was ignored
    /// nobody has changed.
    pub fn restore(&self) {
        for signal in [libc::SIGPIPE, libc::SIGCHLD] {
            set_action(signal, if self.ignored.has(signal) { libc::SIG_IGN } else { libc::SIG_DFL });
        }
        change_mask(libc::SIG_SETMASK, self.blocked);
    }
}

static PIPE_WAS_IGNORED: AtomicBool = AtomicBool::new(false);

extern "C" fn before_main() {
    PIPE_WAS_IGNORED.store(is_ignored(libc::SIGPIPE), Ordering::Relaxed);
}

// SAFETY: the loader calls each pointer of this section once, before main, with the libc ready; the function takes none
// of the arguments that it is given, and only asks for one action.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks only, into memory that is large enough; zeroes are an action, should the number be none.
    unsafe {
        libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

fn set_action(signal: i32, handler: libc::sighandler_t) {
    // SAFETY: an action of zeroes has no flags and an empty mask, and the handler is one of the two that run no code.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = handler;
        libc::sigaction(signal, &raw const action, ptr::null_mut());
    }
}

/// Of this thread, and of those that it starts from then on. Gives the mask from before.
fn change_mask(how: i32, set: Set) -> Set {
    let (set, mut before) = (set.raw(), MaybeUninit::uninit());
    // SAFETY: pthread_sigmask(3) reads one set and writes the other; it fails only where `how` is none of the three.
    unsafe {
        libc::pthread_sigmask(how, &raw const set, before.as_mut_ptr());
        Set::from_raw(&before.assume_init())
    }
}

/// Does it with every signal blocked.
pub(super) fn with_all_blocked<T>(work: impl FnOnce() -> T) -> T {
    let before = change_mask(libc::SIG_SETMASK, (1..=LAST).collect());
    let done = work();
    change_mask(libc::SIG_SETMASK, before);
    done
}

/// Blocks these in the calling thread and those that it starts, so that they can be taken.
pub fn block(set: Set) {
    change_mask(libc::SIG_BLOCK, set);
}

/// Children that end are told of and kept until they are waited for, even if the parent of this process ignored that.
pub fn attend_to_children() {
    set_action(libc::SIGCHLD, libc::SIG_DFL);
}

/// Takes one of these signals, which are blocked in every thread; waits so long at most. `None`: none came.
pub fn take(set: Set, patience: Option<Duration>) -> Option<i32> {
    let raw = set.raw();
    // SAFETY: both calls read a set and, where one is given, a time, and may be told to write nothing.
    let signal = unsafe {
        match patience {
            None => libc::sigwaitinfo(&raw const raw, ptr::null_mut()),
            Some(patience) => {
                let time = libc::timespec {
                    tv_sec: patience.as_secs().try_into().unwrap_or(libc::c_long::MAX),
                    tv_nsec: patience.subsec_nanos() as libc::c_long,
                };
                libc::sigtimedwait(&raw const raw, ptr::null_mut(), &raw const time)
            }
        }
    };
    (signal > 0).then_some(signal)
}

/// Sends a signal, of any number, to this process or to a child that was not waited for yet, so that its number is
/// nobody else's.
pub fn send(to: Option<Pid>, signal: i32) {
    let Some(to) = to else { return };
    // SAFETY: kill(2) touches no memory. The child may have ended, which is no matter.
    unsafe { libc::kill(to.as_raw_nonzero().get(), signal) };
}

/// From here on a signal that would end this process first does that, and also ends process 1 of a container. In a thread
/// of its own, so that it does not matter what the others wait for. What was ignored stays so.
pub fn end_after(last: impl Fn() + Send + 'static) -> io::Result<()> {
    let awaited: Set = [SIGHUP, SIGINT, SIGTERM].into_iter().collect();
    let awaited = awaited.without(Inherited::now().ignored);
    block(awaited);
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        loop {
            if let Some(signal) = take(awaited, None) {
                last();
                die_of(signal);
            }
        }
    })?;
    Ok(())
}

/// Ends this process by a signal, as if it had never been caught. Process 1 of a PID namespace cannot die of a signal
/// from within: it exits as a shell would say it.
pub fn die_of(signal: i32) -> ! {
    set_action(signal, libc::SIG_DFL);
    change_mask(libc::SIG_UNBLOCK, Set::default().with(signal));
    // SAFETY: raise(3) touches no memory.
    unsafe { libc::raise(signal) };
    std::process::exit(KILLED_BY + signal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_into_it() {
        let set: Set = [libc::SIGHUP, libc::SIGTERM, 64].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [1, 15, 64]);
        assert_eq!(Set::from_raw(&set.raw()), set);
        assert_eq!(set.without(Set::default().with(15)).iter().collect::<Vec<_>>(), [1, 64]);
        assert!(!set.has(0) && !set.has(65) && !set.has(-1));
    }

    #[test]
    fn a_signal_that_is_blocked_is_taken_and_not_died_of() {
        let set = Set::default().with(libc::SIGUSR2);
        block(set);
        assert_eq!(take(set, Some(Duration::ZERO)), None);
        // SAFETY: raise(3) touches no memory.
        unsafe { libc::raise(libc::SIGUSR2) };
        assert_eq!(take(set, None), Some(libc::SIGUSR2));
    }
}
