// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `tests/contract` calls of the crate for locks in etcd, without its dependencies. Nothing can be opened: those tests
//! are left out where this takes the crate's place.
#![allow(missing_docs, clippy::missing_safety_doc, reason = "the crate itself has the documentation")]

use std::ffi::{c_char, c_void};

const EOPNOTSUPP: i32 = 95;

#[derive(Debug)]
pub struct Failure {
    pub errno: i32,
}

#[derive(Debug)]
pub struct Options(());

#[derive(Debug)]
pub enum EtcdManager {}

impl Options {
    pub fn of_address(_address: &str) -> Result<Self, Failure> {
        Err(Failure { errno: EOPNOTSUPP })
    }
}

impl EtcdManager {
    pub fn open(_options: Options, _num_locks: u32) -> Result<Self, Failure> {
        Err(Failure { errno: EOPNOTSUPP })
    }

    pub fn into_manager(self) -> lock_manager::InMemoryManager {
        match self {}
    }
}

pub fn remove(_options: &Options) -> Result<(), Failure> {
    Err(Failure { errno: EOPNOTSUPP })
}

#[unsafe(no_mangle)]
pub extern "C" fn lock_manager_open_etcd(
    _address: *const c_char,
    _num_locks: u32,
    _options: *const c_void,
    _out: *mut *mut c_void,
) -> i32 {
    -EOPNOTSUPP
}
