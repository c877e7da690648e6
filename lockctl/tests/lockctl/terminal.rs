// SPDX-License-Identifier: MIT OR Apache-2.0
//! A real terminal, which tmux is.

use std::process::Command;

use crate::stage::{Place, eventually, has, skip};

/// A terminal of 100 columns and 12 lines, in a server of its own, that runs one command.
pub struct Terminal {
    server: String,
}

impl Terminal {
    /// `None`: there is no tmux.
    pub fn running(place: &Place, command: &str) -> Option<Self> {
        if !has("tmux") {
            skip("there is no tmux to be a terminal");
            return None;
        }
        let server = place.beside("tmux").to_str().unwrap().to_owned();
        let terminal = Self { server };
        // What the shell says after the command is seen as well, also where the command was interrupted.
        let script = format!(
            "trap : INT; stty -a > {0}.before; {command}; echo \"ended with $?\"; stty -a > {0}.after; cat",
            terminal.server
        );
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "12", &script]);
        Some(terminal)
    }

    pub fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux")
            .env_remove("TMUX")
            .env("LC_ALL", "C.UTF-8")
            .args(["-u", "-S", &self.server])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "tmux {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Its socket; what the terminal was like is beside it.
    pub fn path(&self) -> &str {
        &self.server
    }

    pub fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    pub fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Until the screen is as it should be; gives it.
    #[track_caller]
    pub fn until(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let mut screen = String::new();
        eventually(&format!("{what} is on the screen"), || {
            screen = self.screen();
            holds(&screen)
        });
        screen
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux").args(["-S", &self.server, "kill-server"]).output();
    }
}
