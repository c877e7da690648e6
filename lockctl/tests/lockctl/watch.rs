// SPDX-License-Identifier: MIT OR Apache-2.0
//! `lockctl watch`: on a real terminal, which tmux is, and without one.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::puppet::Puppet;
use crate::stage::{LOCKCTL, Place, command, eventually, lockctl, sees_waiters_or_skips, state_of};
use crate::terminal::Terminal;

/// The numbers at the left of the table, in their order.
fn ids(screen: &str) -> Vec<u32> {
    let rows = screen.lines().filter(|line| line.contains(" held ") || line.contains(" unlocked "));
    rows.filter_map(|line| line.split_ascii_whitespace().next()?.parse().ok()).collect()
}

#[test]
fn it_draws_answers_keys_and_gives_the_terminal_back() {
    if !sees_waiters_or_skips() {
        return;
    }
    let place = Place::segment(32, &[0, 1, 2]);
    let holder = Puppet::holding(&place, &[2]);
    let mut waiter = Puppet::of(&place);
    waiter.begins("lock 2");
    let command = format!("{LOCKCTL} watch -d 0.1 {}", place.name);
    let Some(terminal) = Terminal::running(&place, &command) else { return };
    let screen = terminal.until("the waiter", |screen| screen.contains("1 thread waits"));
    assert!(screen.starts_with(&format!("{}: 3 of 32 allocated, 1 held", place.name)), "{screen}");
    // The most wanted comes first.
    let screen = terminal.until("the order", |screen| ids(screen) == [2, 0, 1]);
    assert!(screen.contains("sort: contention") && screen.contains(&format!("{} ", holder.pid())), "{screen}");
    terminal.until("the sparkline", |screen| screen.contains('█'));
    terminal.press("s");
    terminal.press("s");
    let screen = terminal.until("the order by id", |screen| screen.contains("sort: id"));
    assert_eq!(ids(&screen), [0, 1, 2], "{screen}");
    for key in ["/", "p", "l", "a", "y", "e", "d", "Enter"] {
        terminal.press(key);
    }
    terminal.until("the filter", |screen| screen.contains("filter: played") && ids(screen) == [2]);
    terminal.press("Space");
    terminal.until("the pause", |screen| screen.contains("PAUSED"));
    terminal.press("q");
    terminal.until("the end", |screen| screen.contains("ended with 0") && !screen.contains("STATE"));
    let modes = |when| std::fs::read_to_string(format!("{}.{when}", terminal.path())).unwrap_or_default();
    eventually("the shell has looked at its terminal", || !modes("after").is_empty());
    assert_eq!(modes("after"), modes("before"), "the terminal's modes were not given back");
}

/// A terminal with a watch in it, and the number of that.
fn watched_by_number(place: &Place) -> Option<(Terminal, Pid)> {
    let file = place.beside("pid");
    let command = format!("sh -c 'echo $$ > {}; exec {LOCKCTL} watch {}'", file.display(), place.name);
    let terminal = Terminal::running(place, &command)?;
    terminal.until("the table", |screen| screen.contains("STATE"));
    let pid = std::fs::read_to_string(file).unwrap();
    Some((terminal, Pid::from_raw(pid.trim().parse().unwrap()).unwrap()))
}

#[test]
fn an_end_by_signal_gives_the_terminal_back_too() {
    let place = Place::segment(32, &[0]);
    let Some((terminal, pid)) = watched_by_number(&place) else { return };
    kill_process(pid, Signal::TERM).unwrap();
    terminal.until("the end", |screen| screen.contains("ended with 143") && !screen.contains("STATE"));
}

#[test]
fn it_ends_with_its_terminal() {
    let place = Place::segment(32, &[0]);
    let Some((terminal, pid)) = watched_by_number(&place) else { return };
    drop(terminal);
    // Where process 1 does not reap, as in many a container, it stays as a zombie.
    let ended = || matches!(state_of(pid.as_raw_nonzero().get().cast_unsigned()), None | Some('Z'));
    eventually("watch has ended", ended);
}

#[test]
fn without_a_terminal_a_table_is_written_at_each_look() {
    let place = Place::segment(32, &[0, 2]);
    let _holder = Puppet::holding(&place, &[2]);
    let said = lockctl(["watch", "-c", "2", "-d", "0.05", &place.name]).with(0);
    assert_eq!(said.matches("2 of 32 allocated, 1 held").count(), 2, "{said}");
    assert_eq!(said.matches("ID  STATE").count(), 2, "{said}");
    assert!(!said.contains('\x1b'), "{said:?}");
    assert_eq!(lockctl(["watch", "-d", "0", &place.name]).code, Some(64));
}

#[test]
fn rates_come_from_the_acquisition_counts() {
    let place = Place::directory(&[5]);
    let acquire = || assert_eq!(lockctl(["run", &place.name, "5", "--", "true"]).code, Some(0));
    acquire();
    let mut watch = command(["watch", "-d", "0.1", &place.name]);
    let mut watching = Killed(watch.stdout(Stdio::piped()).spawn().unwrap());
    let output = BufReader::new(watching.0.stdout.take().unwrap());
    let mut rates = output.lines().map_while(Result::ok).filter(|line| line.starts_with("5 "));
    let rate = |line: String| line.split_ascii_whitespace().nth(3).unwrap().to_owned();
    assert_eq!(rate(rates.next().unwrap()), "-", "there is no rate after one look");
    // Acquired once after each look: sooner or later a look finds one.
    let found = rates.map(rate).find(|rate| {
        acquire();
        rate != "-" && rate != "0/s"
    });
    assert!(found.unwrap().ends_with("/s"));
}

/// A process that ends with the value.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
