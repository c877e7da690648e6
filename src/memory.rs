// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The in-memory manager: the same locks by the same rules, in the memory of one process. It serves tests of programs that
//! use the library, and programs that need numbered locks in one process only.

use std::path::PathBuf;
use std::sync::Arc;

use crate::manager::pass_on;
use crate::shm::{MAX_LOCKS, Native};
use crate::{Error, Reason, Result};

/// The name of the storage in errors.
const NAME: &str = "in-memory locks";

/// A manager whose locks belong to this process alone. In a forked child its calls return `EOPNOTSUPP`.
///
/// ```
/// use lock_manager::{InMemoryManager, Manager};
///
/// let manager = InMemoryManager::new(10)?;
/// let id = manager.allocate_lock()?;
/// let _clean = manager.lock(id)?;
/// assert_eq!(manager.locks_held()?, [id]);
/// manager.unlock(id)?;
/// # Ok::<(), lock_manager::Error>(())
/// ```
#[derive(Debug)]
pub struct InMemoryManager {
    pub(crate) native: Native,
}

impl InMemoryManager {
    /// Creates a manager of exactly `num_locks` locks, none of them allocated.
    ///
    /// # Errors
    /// `EINVAL` for 0 or more than [`MAX_LOCKS`] locks; errors of the system, such as `ENOMEM`.
    pub fn new(num_locks: u32) -> Result<Self> {
        let storage = Arc::new(PathBuf::from(NAME));
        let refuse = |reason| Err(Error::new(&storage, reason));
        match num_locks {
            0 => refuse(Reason::BadArgument(
                "a manager needs at least one lock, but 0 were asked for; ask for 1 or more",
            )),
            1..=MAX_LOCKS => Ok(Self { native: Native::in_memory(&storage, num_locks)? }),
            asked => refuse(Reason::TooManyLocks { asked, most: MAX_LOCKS }),
        }
    }
}

/// Passes a call on to the engine.
macro_rules! to_engine {
    ($self:ident, $engine:ident => $call:expr) => {{
        let $engine = &$self.native;
        $call
    }};
}

pass_on!(InMemoryManager, to_engine);
