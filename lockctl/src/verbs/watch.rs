// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! `lockctl watch`: the locks live. On a terminal a screen with keys, elsewhere a table at each look.

/// What is known from look to look: rates, histories, order.
mod board;
/// Without a terminal.
mod plain;
/// On a terminal.
mod screen;

use std::io::{self, IsTerminal};

use crate::cli::Watch;
use crate::exit::{Failure, Outcome};
use crate::storage::{Opened, Storage};
use crate::survey::{Survey, Which};

pub fn watch(arguments: &Watch) -> Outcome {
    let mut source = Source::open(arguments)?;
    if io::stdout().is_terminal() && io::stdin().is_terminal() {
        screen::show(arguments, &mut source)
    } else {
        plain::show(arguments, &mut source)
    }
}

/// What is watched, opened anew where it was removed and made again.
struct Source {
    storage: Storage,
    opened: Opened,
}

impl Source {
    fn open(arguments: &Watch) -> Result<Self, Failure> {
        let storage = Storage::named(&arguments.storage.storage)?;
        let opened = storage.look()?;
        Ok(Self { storage, opened })
    }

    fn look(&mut self) -> Result<Survey, Failure> {
        if self.opened.manager().info()?.retired
            && let Ok(again) = self.storage.look()
        {
            self.opened = again;
        }
        Survey::take(&self.storage, &self.opened, Which::InUse)
    }
}
