// SPDX-License-Identifier: MIT OR Apache-2.0
#![deny(unsafe_code)]
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
/// The only door to libc.
mod sys;
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
            let code = match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => 0,
                _ => sysexits::USAGE,
            };
            if code == 0 || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
                // Where nobody reads it, nobody misses it.
                let _ = error.print();
            } else {
                say(&in_one_sentence(&error.to_string()));
            }
            return ExitCode::from(code);
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

/// What the parser of the command line says in paragraphs, as one line.
fn in_one_sentence(text: &str) -> String {
    let paragraphs = text.trim().split("\n\n").map(|paragraph| {
        let words: Vec<&str> = paragraph.lines().map(str::trim).collect();
        words.join(" ")
    });
    let sentence: Vec<String> = paragraphs.filter(|paragraph| !paragraph.is_empty()).collect();
    sentence
        .join("; ")
        .trim_start_matches("error: ")
        .trim_end_matches('.')
        .replace("; For more information, try", "; try")
}

/// A line on the standard error, with who says it. Names in it are escaped where they are put in; here what the parser of
/// the command line repeats is, and whatever was forgotten.
fn say(sentence: &str) {
    let _ = writeln!(io::stderr(), "lockctl: {}", output::text::escaped(sentence));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_command_line_is_one_sentence_with_a_way_out() {
        for wrong in [&["lockctl", "list"][..], &["lockctl", "nonsense"], &["lockctl", "list", "-p", "x", "/locks"]] {
            let error = cli::Cli::try_parse_from(wrong).unwrap_err();
            let sentence = in_one_sentence(&error.to_string());
            assert!(!sentence.contains('\n') && !sentence.contains("error:"), "{sentence}");
            assert!(sentence.ends_with("try '--help'"), "{sentence}");
        }
    }
}
