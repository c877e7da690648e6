// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Writes the man pages of the C interface, section 3, from include/lock_manager.h, so from the doc comments of src/ffi.rs; and
//! those of libraries on top of it, whose header refers to that one.
//!
//! usage: lock-manager-man HEADER [HEADER-ON-TOP...] DIRECTORY
//!
//! The form that a function's doc comment has, so that each part of it finds its section:
//! - The first sentence says what the function does. Up to its first full stop, colon or semicolon it stands under NAME.
//! - A line `name: …` that begins with a parameter's name describes that parameter.
//! - A paragraph that begins with `0 or LOCK_MANAGER_…:`, or with `LOCK_MANAGER_…:`, says what a success means: RETURN VALUE.
//! - A paragraph that begins with `-ECODE: …`, or with `Otherwise as FUNCTION` or `Fails as FUNCTION`, is ERRORS. Each of
//!   its sentences that begins with `-ECODE:` or `-ECODE, -ECODE:` is an entry; another sentence belongs to the entry before.
//! - Every other paragraph is DESCRIPTION.
//!
//! Every function that returns int32_t names its errors. What all may return stands once, in the header's own comment,
//! under ERRORS, in the same form. A comment without this form ends the run with a sentence that says where.

mod comment;
mod families;
mod header;
mod overview;
mod page;
mod pages;
mod roff;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use header::Header;

/// The exit status of a program that was called wrongly.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let [header, on_top @ .., directory] = arguments.as_slice() else {
        return fail("usage: lock-manager-man HEADER [HEADER-ON-TOP...] DIRECTORY", USAGE);
    };
    let on_top: Vec<&Path> = on_top.iter().map(Path::new).collect();
    match write_pages(Path::new(header), &on_top, &PathBuf::from(directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => fail(&sentence, 1),
    }
}

fn fail(sentence: &str, status: u8) -> ExitCode {
    // Nobody is left to be told that standard error cannot be written to.
    let _ = writeln!(io::stderr(), "{sentence}");
    ExitCode::from(status)
}

fn write_pages(header: &Path, on_top: &[&Path], directory: &Path) -> Result<(), String> {
    let of = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    let read = |path: &Path, beneath: Option<&Header>| {
        let text = fs::read_to_string(path).map_err(|error| of(path, error))?;
        let parsed = Header::parse(&text, beneath);
        let pages = parsed.and_then(|header| pages::all(&header).map(|pages| (header, pages)));
        pages.map_err(|sentence| format!("{}: {sentence}", path.display()))
    };
    let (core, mut pages) = read(header, None)?;
    for path in on_top {
        pages.extend(read(path, Some(&core))?.1);
    }
    fs::create_dir_all(directory).map_err(|error| of(directory, error))?;
    for (name, page) in pages {
        let path = directory.join(name);
        fs::write(&path, page).map_err(|error| of(&path, error))?;
    }
    Ok(())
}
