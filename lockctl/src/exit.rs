// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! What lockctl exits with: 0 and 1 are answers, 64 and up are failures by sysexits(3). Each failure is one sentence
//! that says what to do.

use std::fmt;

use lock_manager::Reason;

/// The answer is no: a conflict, a cycle, something that is wrong with the locks.
pub const NO: u8 = 1;

/// What a shell says of a program that SIGPIPE ended.
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

/// The numbers of errno(3) that lockctl tells apart, as Linux has them on every architecture that it runs on.
mod errno {
    pub const EPERM: i32 = 1;
    pub const ENOENT: i32 = 2;
    pub const EIO: i32 = 5;
    pub const EAGAIN: i32 = 11;
    pub const EACCES: i32 = 13;
    pub const EBUSY: i32 = 16;
    pub const EEXIST: i32 = 17;
    pub const EINVAL: i32 = 22;
    pub const ENOSPC: i32 = 28;
    pub const ERANGE: i32 = 34;
    pub const ENOLCK: i32 = 37;
    pub const EPROTO: i32 = 71;
    pub const EOPNOTSUPP: i32 = 95;
    pub const ETIMEDOUT: i32 = 110;
    pub const ESTALE: i32 = 116;
    pub const ENOTRECOVERABLE: i32 = 131;
}

/// Why a verb could not do its work.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    pub sentence: String,
}

/// What a verb comes to: the exit status, or why there is no answer.
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

    /// Others use what would be taken away from them.
    pub fn needs_force(sentence: impl Into<String>) -> Self {
        Self::new(sysexits::TEMPFAIL, sentence)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            // As where SIGPIPE ends a program: whoever reads has enough, and needs no word of it.
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

fn code(errno: i32) -> u8 {
    match errno {
        errno::EINVAL | errno::ERANGE => sysexits::USAGE,
        errno::ENOENT | errno::ESTALE => sysexits::NOINPUT,
        errno::EPROTO => sysexits::DATAERR,
        errno::EACCES | errno::EPERM => sysexits::NOPERM,
        errno::EEXIST | errno::ENOSPC => sysexits::CANTCREAT,
        errno::EBUSY | errno::ETIMEDOUT | errno::EAGAIN | errno::ENOLCK => sysexits::TEMPFAIL,
        errno::EOPNOTSUPP | errno::ENOTRECOVERABLE => sysexits::UNAVAILABLE,
        errno::EIO => sysexits::SOFTWARE,
        _ => sysexits::OSERR,
    }
}

/// The library's sentence, but for those whose way out is a call of the library: here it is a verb.
fn sentence(error: &lock_manager::Error) -> String {
    let storage = crate::output::text::shown(error.storage());
    let advice = match error.reason() {
        Reason::NotFound => {
            "does not exist; look in /dev/shm for the segments there are, or make it with `lockctl create`".to_owned()
        }
        Reason::NotAllocated { id } => {
            format!("lock {id} is not allocated, so there is nothing to free; `lockctl list` shows which are")
        }
        Reason::Allocated { id } => {
            format!("lock {id} is allocated already; give another id, or none to be given a free one")
        }
        Reason::LockLost { id } => {
            format!("the state of lock {id} is lost; `lockctl repair` makes it usable again")
        }
        Reason::Removed => "was removed while lockctl worked on it; call again for what has its name now".to_owned(),
        Reason::NotTrusted { owner, caller } => format!(
            "belongs to user {owner}, and user {caller} trusts only what is its own or root's; run as user {owner}"
        ),
        Reason::System { doing, errno } if errno.0 == errno::EACCES => {
            format!("{doing}: permission denied; run as its owner or as root")
        }
        _ => return error.to_string(),
    };
    format!("{storage}: {advice}")
}
