// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! `lockctl generate`, for `make`: man pages and completions, from the definitions of the command line.

use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::{Cli, Generate, Generated};
use crate::exit::{Failure, Outcome};
use crate::output::text::shown;

pub fn generate(arguments: &Generate) -> Outcome {
    let failed = |error| Failure::system(shown(&arguments.directory), &error);
    std::fs::create_dir_all(&arguments.directory).map_err(failed)?;
    match arguments.what {
        Generated::Man => {
            let mut command = Cli::command();
            command.build();
            man_pages(&command, &arguments.directory).map_err(failed)?;
        }
        Generated::Completions => {
            for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
                clap_complete::generate_to(shell, &mut Cli::command(), "lockctl", &arguments.directory)
                    .map_err(failed)?;
            }
        }
    }
    Ok(0)
}

/// A page for the command, and one for each of its verbs that is for users.
fn man_pages(command: &Command, directory: &Path) -> io::Result<()> {
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        man_pages(verb, directory)?;
    }
    let page = Man::new(command.clone())
        .title(command.get_display_name().unwrap_or(command.get_name()).to_uppercase())
        .source(concat!("lockctl ", env!("CARGO_PKG_VERSION")))
        .manual("lock_manager");
    page.generate_to(directory)?;
    Ok(())
}
