// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The in-memory manager: the same locks with the same rules, in memory of this process's own. For tests of programs that
//! use the library, and for programs that need numbered locks and no other process.

use std::path::PathBuf;
use std::sync::Arc;

use crate::manager::pass_on;
use crate::shm::{MAX_LOCKS, Native};
use crate::{Error, Reason, Result};

/// What errors call the storage.
const NAME: &str = "in-memory locks";

/// A manager whose locks are of this process only. In a forked child its calls are `EOPNOTSUPP`.
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
    /// Makes `num_locks` locks, all free.
    ///
    /// # Errors
    /// `EINVAL` for 0 or more than [`MAX_LOCKS`]; `ENOMEM` and the like where there is no memory for them.
    pub fn new(num_locks: u32) -> Result<Self> {
        let storage = Arc::new(PathBuf::from(NAME));
        let refuse = |reason| Err(Error::new(&storage, reason));
        match num_locks {
            0 => refuse(Reason::BadArgument("a manager needs at least one lock, 0 were asked for")),
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
