// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
#![allow(unused_variables, clippy::missing_errors_doc, reason = "nothing here looks at what it is given")]
//! What the crate is on a system that is not Linux: it compiles, so that a portable program needs no conditions of its own,
//! and each constructor answers `EOPNOTSUPP`. No manager exists there.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::manager::{Layout, pass_on};
use crate::{Error, Reason, Result};

#[path = "shm/options.rs"]
mod options;

pub use options::{MAX_LOCKS, SegmentOptions};

fn unsupported<T>() -> Result<T> {
    Err(Error::without_storage(Reason::Unsupported(
        "this system is not Linux, whose futexes, record locks and /proc the locks are made of; run the program on Linux, which \
         may be in a virtual machine",
    )))
}

/// No value.
#[derive(Debug, Clone, Copy)]
enum Nothing {}

macro_rules! never {
    ($self:expr, $manager:ident => $call:expr) => {
        match $self.0 {}
    };
}

/// No kind of storage.
#[must_use]
pub fn formats() -> Vec<(&'static str, String)> {
    Vec::new()
}

/// A cancel object, as on Linux. No wait uses it.
#[derive(Debug, Default)]
pub struct Cancel(AtomicBool);

impl Cancel {
    /// Creates a cancel object that is not triggered.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Would end the waits.
    pub fn trigger(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it was triggered.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A manager that does not exist here.
macro_rules! manager {
    ($name:ident: $($call:ident($($argument:ident: $kind:ty),*) -> $result:ty;)*) => {
        /// On Linux a manager; here none exists, and each constructor answers `EOPNOTSUPP`.
        #[derive(Debug)]
        pub struct $name(Nothing);

        pass_on!($name, never);

        impl $name {
            $(
                /// `EOPNOTSUPP`.
                pub fn $call($($argument: $kind),*) -> Result<$result> {
                    unsupported()
                }
            )*

            /// There is none to close.
            pub fn close(self) -> std::result::Result<(), Box<(Self, Error)>> {
                match self.0 {}
            }
        }
    };
}

manager! { ShmManager:
    create(path: impl AsRef<Path>, num_locks: u32, options: &SegmentOptions) -> Self;
    open(path: impl AsRef<Path>, num_locks: u32) -> Self;
    open_or_create(path: impl AsRef<Path>, num_locks: u32, options: &SegmentOptions) -> Self;
    open_read_only(path: impl AsRef<Path>) -> Self;
    remove(path: impl AsRef<Path>) -> ();
}

impl ShmManager {
    /// There is none that has a layout.
    #[must_use]
    pub fn layout(&self) -> Layout {
        match self.0 {}
    }

    /// There is none that has a lock.
    #[must_use]
    pub fn lock_at(&self, offset: u64) -> Option<u32> {
        match self.0 {}
    }
}

manager! { FileManager:
    create(path: impl AsRef<Path>) -> Self;
    open(path: impl AsRef<Path>) -> Self;
    open_read_only(path: impl AsRef<Path>) -> Self;
    open_or_create(path: impl AsRef<Path>) -> Self;
    remove(path: impl AsRef<Path>) -> ();
}

manager! { InMemoryManager:
    new(num_locks: u32) -> Self;
}
