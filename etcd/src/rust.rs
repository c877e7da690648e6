// SPDX-License-Identifier: MIT OR Apache-2.0
//! The door for Rust: a manager of the core, as any other.

#![allow(unsafe_code, reason = "the core's table")]

use std::collections::BTreeMap;
use std::path::Path;

use lock_manager::{Manager, PluggedManager};

use crate::engine::Engine;
use crate::failure::{Failure, Outcome};
use crate::keys::Party;
use crate::looking::Known;
use crate::options::Options;
use crate::storage;
use crate::tabled::{self, TABLE};

/// Locks in an etcd cluster.
///
/// It is a [`Manager`] by [`manager`](Self::manager). Here is what only such locks have.
#[derive(Debug)]
pub struct EtcdManager(PluggedManager);

impl EtcdManager {
    /// Opens the locks. If `num_locks` is not 0 and there are none, they are made.
    ///
    /// # Errors
    /// `ENOENT` if there are none and `num_locks` is 0; `ERANGE` if there are others than that many; `EPROTO` if the server is
    /// no etcd 3.4 or later; errors of the connection.
    pub fn open(options: Options, num_locks: u32) -> Outcome<Self> {
        let name = options.name();
        let engine = Box::new(Engine::open(options, num_locks)?);
        let segment = engine.segment();
        let state = Box::into_raw(engine);
        // SAFETY: the table and the state are this library's.
        let opened =
            unsafe { PluggedManager::open((&raw const TABLE).cast(), state.cast(), &name, Some(Path::new(&segment))) };
        match opened {
            Ok(manager) => Ok(Self(manager)),
            Err(error) => {
                // SAFETY: after an error the state is still the caller's.
                drop(unsafe { Box::from_raw(state) });
                Err(Failure::new(error.errno(), error.to_string()))
            }
        }
    }

    /// The locks as the core's.
    #[must_use]
    pub fn manager(&self) -> &dyn Manager {
        &self.0
    }

    /// The locks as the core's, for good.
    #[must_use]
    pub fn into_manager(self) -> PluggedManager {
        self.0
    }

    fn engine(&self) -> Outcome<&Engine> {
        let close = TABLE.close.map_or(std::ptr::null(), |close| close as *const std::ffi::c_void);
        let state = self.0.state_if_of(close).ok_or_else(|| Failure::bad("not a manager of this library"))?;
        // SAFETY: the state is an engine until the manager is dropped.
        Ok(unsafe { tabled::engine(state) })
    }

    /// Who holds a lock and who waits for it, on whatever host.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn look(&self, id: u32) -> Outcome<Known> {
        self.engine()?.look(id)
    }

    /// What is known of all locks that are allocated, held, left by the dead, or waited for, on whatever host, by id. One
    /// question, whose answer is of one instant.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn look_at_all(&self) -> Outcome<BTreeMap<u32, Known>> {
        self.engine()?.look_at_all()
    }

    /// Whether a party is of this host.
    #[must_use]
    pub fn is_here(&self, party: &Party) -> bool {
        self.engine().is_ok_and(|engine| engine.is_here(party))
    }

    /// A comparison for a transaction of etcd, as JSON, that is true only while the caller's hold lasts.
    ///
    /// # Errors
    /// `EPERM` if the caller does not hold the lock; `EKEYEXPIRED` if it is lost.
    pub fn guard(&self, id: u32) -> Outcome<String> {
        self.0.check_holds(id).map_err(|error| Failure::new(error.errno(), error.to_string()))?;
        self.engine()?.guard(id)
    }
}

/// Removes what this host, by the name that the options give it, keeps in memory for the locks of an address. The locks stay.
/// Processes of the host that have them open get `ESTALE`.
///
/// # Errors
/// As [`remove`].
pub fn forget_host(options: &Options) -> Outcome<()> {
    storage::forget_host(options)
}

/// Removes locks. Their users get `ESTALE`.
///
/// # Errors
/// `ENOENT` if there are none; errors of the connection.
pub fn remove(options: &Options) -> Outcome<()> {
    storage::remove(options)
}
