// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether the system does what it says of MADV_WIPEONFORK.
//!
//! A kernel that does not know an advice refuses it. qemu-user, and perhaps other sandboxes, accept every advice and do
//! nothing, so that a child would read its parent's memory and take its parent's locks for its own. One call tells such a
//! system apart: it accepts an advice that does not exist. Only there a child is made to see what it finds.

use std::sync::atomic::Ordering;

use crate::sys::Errno;
use crate::sys::syscall::mapping::WipedOnFork;

/// Checks memory that nobody uses yet. `EOPNOTSUPP`: a child would not find it zeroed, or nobody can tell.
pub(super) fn check(memory: &WipedOnFork) -> Result<(), Errno> {
    if !memory.accepts_any_advice() || child_finds_zeros(memory)? { Ok(()) } else { Err(Errno(libc::EOPNOTSUPP)) }
}

fn child_finds_zeros(memory: &WipedOnFork) -> Result<bool, Errno> {
    let word = &memory.words()[0];
    word.store(1, Ordering::Relaxed);
    // SAFETY: fork(2); the child reads one word and ends without running anything of its parent's.
    let child = match unsafe { libc::fork() } {
        -1 => return Err(Errno::last()),
        // SAFETY: _exit(2) does not return.
        0 => unsafe { libc::_exit(word.load(Ordering::Relaxed) as libc::c_int) },
        child => child,
    };
    let mut status = 0;
    // SAFETY: waitpid(2) fills the status, which lives past the call.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } == -1 {
        match Errno::last() {
            Errno(libc::EINTR) => {}
            // The program ignores its children, or another thread has waited for this one.
            _ => return Ok(false),
        }
    }
    word.store(0, Ordering::Relaxed);
    Ok(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_refuses_what_it_does_not_know_is_believed() {
        let memory = WipedOnFork::new(1).unwrap();
        assert!(!memory.accepts_any_advice());
        assert_eq!(check(&memory), Ok(()));
    }

    #[test]
    fn a_child_tells_whether_its_parents_memory_was_wiped() {
        let memory = WipedOnFork::new(1).unwrap();
        assert_eq!(child_finds_zeros(&memory), Ok(true));
        memory.keep_on_fork().unwrap();
        assert_eq!(child_finds_zeros(&memory), Ok(false));
        assert_eq!(memory.words()[0].load(Ordering::Relaxed), 0);
    }
}
