// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Why a call failed: an errno, and a sentence that says what to do.

/// A failure. The sentence does not name the storage: the core does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The errno, positive.
    pub errno: i32,
    /// What went wrong, and what to do.
    pub text: String,
}

impl Failure {
    pub(crate) fn new(errno: i32, text: impl Into<String>) -> Self {
        Self { errno, text: text.into() }
    }

    pub(crate) fn of_system(doing: &str, error: &std::io::Error) -> Self {
        Self::new(error.raw_os_error().unwrap_or(libc::EIO), format!("{doing} failed: {error}"))
    }

    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Self::new(libc::EINVAL, text)
    }

    /// With the storage's name before the sentence, where the core does not put it there.
    pub(crate) fn of_storage(self, name: &str) -> Self {
        Self::new(self.errno, format!("{name}: {}", self.text))
    }

    pub(crate) fn lost(id: u32, why: &str) -> Self {
        Self::new(
            libc::EKEYEXPIRED,
            format!(
                "lock {id} was lost: {why}; another host may hold it. Stop what it protects, check it, and lock again"
            ),
        )
    }

    pub(crate) fn removed() -> Self {
        Self::new(libc::ESTALE, "these locks were removed while the manager had them open; close it and open it anew")
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

pub(crate) type Outcome<T> = Result<T, Failure>;
