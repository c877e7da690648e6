// SPDX-License-Identifier: MIT OR Apache-2.0
//! What libpod does to hold a lock: it opens the file of the id, makes it where there is none, and locks all of it by
//! fcntl(2) with F_SETLKW. Such a lock belongs to the process and goes with any descriptor of the file that it closes.

use std::fs::{self, File};
use std::io::Error;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use super::place::Place;
use super::support::process::state_of;
use super::support::{Child, board, eventually, fork};

/// The number of the call that the libc makes of fcntl(3).
#[cfg(target_pointer_width = "64")]
const FCNTL: libc::c_long = libc::SYS_fcntl;
#[cfg(target_pointer_width = "32")]
const FCNTL: libc::c_long = libc::SYS_fcntl64;

/// A lock that the process holds as long as this lives.
pub struct PosixLock {
    _file: File,
}

impl PosixLock {
    /// Waits for the lock.
    pub fn take(path: &Path) -> Self {
        let file = open(path);
        assert!(set(&file, libc::F_SETLKW), "{}", Error::last_os_error());
        Self { _file: file }
    }

    /// Takes the lock if nobody else has it.
    pub fn try_take(path: &Path) -> Option<Self> {
        let file = open(path);
        set(&file, libc::F_SETLK).then_some(Self { _file: file })
    }
}

fn open(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn set(file: &File, command: i32) -> bool {
    // SAFETY: zeros are a valid flock: from the start of the file to wherever its end will be.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: fcntl(2) reads the flock, a local.
    unsafe { libc::fcntl(file.as_raw_fd(), command, &raw const lock) == 0 }
}

/// A child that holds, or waits for, the lock of an id by its file, and gives it back when it is told to.
pub struct PosixHolder {
    pub child: Child,
    words: &'static [AtomicU32],
}

const HOLDS: usize = 0;
const LET_GO: usize = 1;

impl PosixHolder {
    /// Waits until it has the lock.
    pub fn start(place: &Place, id: u32) -> Self {
        let holder = Self::start_waiting(place, id);
        holder.until_it_holds();
        holder
    }

    /// Leaves it waiting.
    pub fn start_waiting(place: &Place, id: u32) -> Self {
        let words = board(2);
        let child = fork(|| {
            let lock = PosixLock::take(&place.file(id));
            words[HOLDS].store(1, Ordering::Release);
            eventually("it is told to let go", || words[LET_GO].load(Ordering::Acquire) == 1);
            drop(lock);
        });
        Self { child, words }
    }

    pub fn holds(&self) -> bool {
        self.words[HOLDS].load(Ordering::Acquire) == 1
    }

    pub fn until_it_holds(&self) {
        eventually("the child holds the lock of the file", || self.holds());
    }

    /// Waits until it sleeps in fcntl(2).
    pub fn until_it_waits(&self) {
        let pid = self.child.pid();
        let fcntl = FCNTL.to_string();
        eventually("the child waits in fcntl(2)", || {
            let call = fs::read_to_string(format!("/proc/{pid}/syscall"));
            state_of(pid) == Some('S') && call.map_or(true, |call| call.split(' ').next() == Some(&fcntl))
        });
    }

    pub fn let_go(&self) {
        self.words[LET_GO].store(1, Ordering::Release);
    }
}
