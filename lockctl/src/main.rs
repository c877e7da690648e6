// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! `lockctl`: see who holds and who waits for the locks of a storage, and run commands under them.

/// The command line.
mod cli;
/// Exit statuses and failures.
mod exit;
/// Layouts by name.
mod layouts;
/// How answers look.
mod output;
/// What /proc says of others.
mod proc;
/// What STORAGE names.
mod storage;
/// One look at a storage.
mod survey;
/// Each verb.
mod verbs;
/// What --version says.
mod versions;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use exit::{Failure, sysexits};

fn main() -> ExitCode {
    let arguments = match cli::Cli::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let is_answer = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // Where nobody reads it, nobody misses it.
            let _ = error.print();
            return ExitCode::from(if is_answer { 0 } else { sysexits::USAGE });
        }
    };
    match verbs::perform(arguments.verb) {
        Ok(code) => ExitCode::from(code),
        Err(Failure { code, sentence }) => {
            if !sentence.is_empty() {
                say(&sentence);
            }
            ExitCode::from(code)
        }
    }
}

/// A line on the standard error, with who says it.
fn say(sentence: &str) {
    let _ = writeln!(io::stderr(), "lockctl: {sentence}");
}
