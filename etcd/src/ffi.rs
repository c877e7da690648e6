// SPDX-License-Identifier: MIT OR Apache-2.0
//! The C interface of this library, in the order of the header. Locking, and all else, goes through `lock_manager.h`.
//!
//! The contract that the `unsafe` functions ask of C: a pointer is NULL or points to what the header says, alive during the
//! call; a manager is open; a struct has as many bytes as its `size` says.

#![allow(unsafe_code, reason = "pointers from C; each function states what it asks of them")]
#![allow(non_camel_case_types, reason = "C's names, which cbindgen takes over")]

use std::ffi::{CStr, c_char};
use std::path::Path;
use std::time::Duration;

use crate::core::{self, lock_manager_t};
use crate::engine::Engine;
use crate::failure::{Failure, Outcome};
use crate::keys::Party;
use crate::options::Options;
use crate::storage;
use crate::tabled::{self, TABLE};

/// The most bytes of a host's name, with the NUL.
pub const LOCK_MANAGER_ETCD_HOST_SIZE: usize = 128;
/// The most bytes of a command's name, with the NUL.
pub const LOCK_MANAGER_ETCD_COMMAND_SIZE: usize = 32;

/// How a cluster is used. Zero in a field means the default.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lock_manager_etcd_options_t {
    /// sizeof(lock_manager_etcd_options_t)
    pub size: usize,
    /// How long a host that is not heard of keeps its locks, in seconds: 2 to 3600; 0 means 10.
    pub ttl_seconds: u32,
    /// How long a call without a deadline of its own waits for the cluster to answer, in seconds; 0 means 10.
    pub patience_seconds: u32,
    /// A file of settings, `name = value` in each line: ttl, patience, host, ca, certificate, key, user, password_file. NULL
    /// means none. The other fields go before it.
    pub config_file: *const c_char,
    /// What names the host. Processes with the same name share the first locks. NULL means the boot id.
    pub host: *const c_char,
}

/// Who holds a lock, or waits for it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct lock_manager_etcd_party_t {
    /// sizeof(lock_manager_etcd_party_t)
    pub size: usize,
    /// 1 if it holds the lock, 0 if it waits.
    pub holds: u32,
    /// 1 if it is on this host, else 0.
    pub here: u32,
    /// Its process, in its own PID namespace.
    pub pid: i32,
    /// Its thread, in its own PID namespace.
    pub tid: i32,
    /// The fencing token of a holder; 0 for a waiter.
    pub token: u64,
    /// For how long it has held the lock or waited, in nanoseconds, as far as the clocks of the hosts agree.
    pub since_ns: u64,
    /// The host's name.
    pub host: [c_char; LOCK_MANAGER_ETCD_HOST_SIZE],
    /// The process's command.
    pub command: [c_char; LOCK_MANAGER_ETCD_COMMAND_SIZE],
}

/// Runs a function of C's. A failure is the thread's last in the core.
fn answer(body: impl FnOnce() -> Outcome<i32>) -> i32 {
    tabled::guarded(body).unwrap_or_else(|failure| core::failed(&failure))
}

/// A text that C handed in; `None`: NULL.
///
/// # Safety
/// The module's contract.
unsafe fn text<'t>(text: *const c_char, what: &str) -> Outcome<Option<&'t str>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: the module's contract.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map(Some).map_err(|_| Failure::bad(format!("the {what} is not UTF-8")))
}

/// The address and the options that C handed in.
///
/// # Safety
/// The module's contract.
unsafe fn given(address: *const c_char, options: *const lock_manager_etcd_options_t) -> Outcome<Options> {
    // SAFETY: the module's contract.
    let address = unsafe { text(address, "address") }?.ok_or_else(|| Failure::bad("the address is NULL; give one"))?;
    let mut given = Options::of_address(address)?;
    if options.is_null() {
        return Ok(given);
    }
    // SAFETY: the module's contract; the size is the first field.
    let options = unsafe {
        if (*options).size != size_of::<lock_manager_etcd_options_t>() {
            return Err(Failure::bad("the size in the options is not that of this version; set it to their sizeof"));
        }
        options.read()
    };
    // SAFETY: the module's contract.
    if let Some(file) = unsafe { text(options.config_file, "name of the configuration file") }? {
        given = given.configured_by(Path::new(file))?;
    }
    // SAFETY: the module's contract.
    if let Some(host) = unsafe { text(options.host, "name of the host") }? {
        given = given.host(host)?;
    }
    if options.ttl_seconds != 0 {
        given = given.ttl(Duration::from_secs(options.ttl_seconds.into()))?;
    }
    if options.patience_seconds != 0 {
        given = given.patience(Duration::from_secs(options.patience_seconds.into()));
    }
    Ok(given)
}

/// The engine of a manager.
///
/// # Safety
/// The module's contract.
unsafe fn engine_of<'e>(manager: *mut lock_manager_t, holds: Option<u32>) -> Outcome<&'e Engine> {
    // SAFETY: the module's contract.
    unsafe { core::state_of(manager, &TABLE, holds).map(|state| tabled::engine(state)) }
}

/// A place for a result.
///
/// # Safety
/// The module's contract.
unsafe fn output<'a, T>(out: *mut T) -> Outcome<&'a mut T> {
    // SAFETY: the module's contract.
    unsafe { out.as_mut() }.ok_or_else(|| Failure::bad("a pointer for the result is NULL; give an address"))
}

/// Opens locks in an etcd cluster, and makes them if they are missing. All functions of lock_manager.h work on the manager.
///
/// A lease is no mutex: a holder that is paused for longer than the TTL may run on while another has the lock. Hand
/// lock_manager_fencing_token() to what the lock protects, and have it refuse a lower token than it has seen.
///
/// address: "etcd://host:port,host:port/prefix": any of the endpoints will do.
/// num_locks: 1 to 16777216, fixed when the locks are made; 0 opens what is there and makes none.
/// options: NULL for the defaults.
///
/// -ENOENT: num_locks is 0 and there are no locks. -ERANGE: there is another number of locks. -EPROTO: no etcd 3.4 or later
/// answers there. -ETIMEDOUT, -EHOSTUNREACH, -ECONNREFUSED: no endpoint answers. -EACCES: user, password or role.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_open_etcd(
    address: *const c_char,
    num_locks: u32,
    options: *const lock_manager_etcd_options_t,
    out: *mut *mut lock_manager_t,
) -> i32 {
    answer(|| {
        // SAFETY: the module's contract.
        let (options, out) = unsafe { (given(address, options)?, output(out)?) };
        let name = options.name();
        let engine = Box::new(Engine::open(options, num_locks).map_err(|failure| failure.of_storage(&name))?);
        let segment = engine.segment();
        let state = Box::into_raw(engine);
        match core::open_backend(&TABLE, state.cast(), &name, &segment) {
            Ok(manager) => *out = manager,
            Err(failure) => {
                // SAFETY: after an error the state is still the caller's.
                drop(unsafe { Box::from_raw(state) });
                return Err(failure);
            }
        }
        Ok(0)
    })
}

/// Removes locks from an etcd cluster. Managers that have them open get -ESTALE.
///
/// -ENOENT: there are none. Otherwise as lock_manager_open_etcd().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_remove_etcd(
    address: *const c_char,
    options: *const lock_manager_etcd_options_t,
) -> i32 {
    answer(|| {
        // SAFETY: the module's contract.
        let options = unsafe { given(address, options) }?;
        storage::remove(&options).map_err(|failure| failure.of_storage(&options.name())).map(|()| 0)
    })
}

/// Lists who holds a lock and who waits for it, on all hosts. The holder comes first, and the waiters follow in the order in
/// which they get the lock. Of each host there is one: what waits for the host's own first lock is not listed.
///
/// count: receives how many there are, which may exceed capacity.
/// parties: receives the first of them, capacity at most; NULL if capacity is 0. Set the size of the first before the call.
///
/// -EINVAL: there is no such lock, or the size of the first struct is another version's. -ETIMEDOUT: etcd does not answer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_etcd_parties(
    manager: *mut lock_manager_t,
    id: u32,
    parties: *mut lock_manager_etcd_party_t,
    capacity: usize,
    count: *mut usize,
) -> i32 {
    answer(|| {
        // SAFETY: the module's contract.
        let (engine, count) = unsafe { (engine_of(manager, None)?, output(count)?) };
        if id >= engine.num_locks() {
            return Err(Failure::bad(format!("there is no lock {id}; there are {}", engine.num_locks())));
        }
        // SAFETY: the module's contract; the size is the first field.
        if capacity > 0 && unsafe { output(parties)?.size } != size_of::<lock_manager_etcd_party_t>() {
            return Err(Failure::bad("the size in the first struct is not that of this version; set it to its sizeof"));
        }
        let known = engine.look(id)?;
        let holder = known.holder.iter().map(|(party, token)| handed_out(engine, party, Some(*token)));
        let found: Vec<_> = holder.chain(known.waiters.iter().map(|party| handed_out(engine, party, None))).collect();
        for (index, party) in found.iter().take(capacity).enumerate() {
            // SAFETY: the module's contract: room for as many as the capacity says.
            unsafe { parties.add(index).write(*party) };
        }
        *count = found.len();
        Ok(0)
    })
}

fn handed_out(engine: &Engine, party: &Party, token: Option<u64>) -> lock_manager_etcd_party_t {
    let mut found = lock_manager_etcd_party_t {
        size: size_of::<lock_manager_etcd_party_t>(),
        holds: token.is_some().into(),
        here: engine.is_here(party).into(),
        pid: party.pid,
        tid: party.tid,
        token: token.unwrap_or(0),
        since_ns: party.since_ns(),
        host: [0; LOCK_MANAGER_ETCD_HOST_SIZE],
        command: [0; LOCK_MANAGER_ETCD_COMMAND_SIZE],
    };
    copy(&mut found.host, &party.host);
    copy(&mut found.command, &party.command);
    found
}

/// As much of a text as there is room for before the NUL.
fn copy(place: &mut [c_char], text: &str) {
    let room = place.len().saturating_sub(1);
    for (place, byte) in place.iter_mut().take(room).zip(text.bytes()) {
        *place = byte as c_char;
    }
}

/// Writes a comparison for a transaction of etcd, as JSON: it is true only while the caller's hold on the lock lasts. Put it
/// into "compare" of a request to /v3/kv/txn, and etcd itself refuses what a holder writes that was paused for too long.
///
/// length: receives the number of bytes, without the NUL.
/// json: receives the text with its NUL, if capacity is enough for it; NULL if capacity is 0.
///
/// -EPERM: the caller does not hold the lock. LOCK_MANAGER_LOST: the lock may be another's by now. -ENOBUFS: capacity is too
/// small, and length says for what.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_manager_etcd_guard(
    manager: *mut lock_manager_t,
    id: u32,
    json: *mut c_char,
    capacity: usize,
    length: *mut usize,
) -> i32 {
    answer(|| {
        // SAFETY: the module's contract.
        let (engine, length) = unsafe { (engine_of(manager, Some(id))?, output(length)?) };
        let text = engine.guard(id)?;
        *length = text.len();
        if capacity <= text.len() {
            return Err(Failure::new(
                libc::ENOBUFS,
                format!("the guard has {} bytes and a NUL; make room", text.len()),
            ));
        }
        // SAFETY: the module's contract: as much room as the capacity says.
        unsafe {
            json.copy_from_nonoverlapping(text.as_ptr().cast(), text.len());
            json.add(text.len()).write(0);
        }
        Ok(0)
    })
}
