// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The exit statuses of lockctl: 0 and 1 are answers, 64 and up are failures by sysexits(3). Each failure is one sentence
//! that says what to do.

use std::fmt;

use lock_manager::Reason;

/// The answer is no: a conflict, a cycle, something that is wrong with the locks.
pub const NO: u8 = 1;

/// The status that a shell reports for a program that SIGPIPE killed.
const NOBODY_READS: u8 = 128 + 13;

/// The numbers of sysexits(3).
pub mod sysexits {
    pub const USAGE: u8 = 64;
    pub const DATAERR: u8 = 65;
    pub const NOINPUT: u8 = 66;
    pub const UNAVAILABLE: u8 = 69;
    pub const SOFTWARE: u8 = 70;
    pub const OSERR: u8 = 71;
    pub const CANTCREAT: u8 = 73;
    pub const IOERR: u8 = 74;
    pub const TEMPFAIL: u8 = 75;
    pub const NOPERM: u8 = 77;
}

/// Why a verb could not do its work.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    pub sentence: String,
}

/// The result of a verb: the exit status, or why there is no answer.
pub type Outcome = Result<u8, Failure>;

impl Failure {
    pub fn new(code: u8, sentence: impl Into<String>) -> Self {
        Self { code, sentence: sentence.into() }
    }

    /// `doing` failed by a call of the system.
    pub fn system(doing: impl fmt::Display, error: &std::io::Error) -> Self {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => sysexits::NOINPUT,
            std::io::ErrorKind::PermissionDenied => sysexits::NOPERM,
            _ => sysexits::OSERR,
        };
        Self::new(code, format!("{doing}: {error}"))
    }

    /// Others still use what the verb would take away from them.
    pub fn needs_force(sentence: impl Into<String>) -> Self {
        Self::new(sysexits::TEMPFAIL, sentence)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            // The reader has enough and needs no message, as when SIGPIPE ends a program.
            return Self::new(NOBODY_READS, "");
        }
        Self::new(sysexits::IOERR, format!("writing the answer: {error}"))
    }
}

impl From<lock_manager::Error> for Failure {
    fn from(error: lock_manager::Error) -> Self {
        let sentence = sentence(&error);
        Self::new(code(error.errno()), sentence)
    }
}

impl From<lock_manager_etcd::Failure> for Failure {
    fn from(failure: lock_manager_etcd::Failure) -> Self {
        Self::new(code(failure.errno), failure.text)
    }
}

fn code(errno: i32) -> u8 {
    match errno {
        libc::EINVAL | libc::ERANGE => sysexits::USAGE,
        libc::ENOENT | libc::ESTALE => sysexits::NOINPUT,
        libc::EPROTO => sysexits::DATAERR,
        libc::EACCES | libc::EPERM => sysexits::NOPERM,
        libc::EEXIST | libc::ENOSPC => sysexits::CANTCREAT,
        libc::EBUSY | libc::ETIMEDOUT | libc::EAGAIN | libc::ENOLCK => sysexits::TEMPFAIL,
        libc::EOPNOTSUPP | libc::ENOTRECOVERABLE => sysexits::UNAVAILABLE,
        libc::EIO => sysexits::SOFTWARE,
        _ => sysexits::OSERR,
    }
}

/// The library's sentence. Where its advice is a call of the library, the advice here is a verb.
fn sentence(error: &lock_manager::Error) -> String {
    let storage = crate::output::text::shown(error.storage());
    let advice = match error.reason() {
        Reason::NotFound => {
            "does not exist; look in /dev/shm for existing segments, or create it with `lockctl create`".to_owned()
        }
        Reason::NotAllocated { id } => {
            format!("lock {id} is not allocated, so it cannot be freed; `lockctl list` shows which locks are allocated")
        }
        Reason::Allocated { id } => {
            format!("lock {id} is already allocated; give another id, or none to have a free one chosen")
        }
        Reason::LockLost { id } => {
            format!("the state of lock {id} is lost; `lockctl repair` makes it usable again")
        }
        Reason::Removed => {
            "was removed while lockctl worked on it; run lockctl again to work on the storage that has the name now"
                .to_owned()
        }
        Reason::NotTrusted { owner, caller } => format!(
            "belongs to user {owner}, but user {caller} may only trust storage of its own or of root; run as user {owner}"
        ),
        Reason::System { doing, errno } if errno.0 == libc::EACCES => {
            format!("{doing}: permission denied; run as its owner or as root")
        }
        _ => return error.to_string(),
    };
    format!("{storage}: {advice}")
}
