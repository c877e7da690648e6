// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The command line: every verb and option, from which the help, the man pages and the completions are made.

/// Seconds and permission bits.
mod numbers;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueHint};
use lock_manager::{Layout, MAX_LOCKS};

use crate::layouts;
use crate::output::table::Column;
use numbers::{parse_interval, parse_mode, parse_seconds, parse_timeout};

const EXIT_STATUS: &str = "\
Exit status: 0 for yes and done, 1 for no (a conflict, a deadlock, something that is wrong), 64 and up as sysexits(3) \
has it: 64 usage, 65 no segment of ours or damaged, 66 not there, 69 not possible, 73 cannot be made, 75 in use, 77 \
not permitted. `run` exits with the status of the command.";

const STORAGE_HELP: &str = "A shm name (/libpod_lock), the path of a segment, or a directory of locks";

/// See who holds and who waits for the locks of lock_manager and Podman, and run commands under them
#[derive(Debug, Parser)]
#[command(name = "lockctl", version = crate::versions::short(), long_version = crate::versions::long())]
#[command(after_help = EXIT_STATUS, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    List(List),
    Graph(Graph),
    Watch(Watch),
    Check(Check),
    Run(Run),
    Repair(Repair),
    Create(Create),
    Allocate(Allocate),
    Free(Free),
    FreeAll(FreeAll),
    Grow(Grow),
    Remove(Remove),
    Reconcile(Reconcile),
    Generate(Generate),
}

#[derive(Debug, Clone, Args)]
pub struct StorageArgument {
    #[arg(help = STORAGE_HELP, value_hint = ValueHint::AnyPath)]
    pub storage: PathBuf,
}

/// Say who holds which lock, and how many wait
///
/// One row a lock that is allocated or held. Takes, repairs and disturbs nothing. Waiters are those that the storage
/// tells of, and every thread that sleeps on a lock's futex word or waits for its file, whatever program it belongs to.
///
/// Of a lock that is held shared the row shows the first reader, and how many there are; -o holder-pids and --json have all.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    pub storage: StorageArgument,
    /// Write JSON, with a schema version: 2, in which "holder" may be the first of several "holders"
    #[arg(long, conflicts_with_all = ["columns", "no_heading"])]
    pub json: bool,
    /// Columns to show, with commas between them
    #[arg(short = 'o', long = "output", value_name = "COLUMNS", value_delimiter = ',', ignore_case = true)]
    pub columns: Vec<Column>,
    /// Leave the heading out
    #[arg(short = 'n', long = "noheadings")]
    pub no_heading: bool,
    /// Only locks that this process holds or waits for
    #[arg(short, long, value_name = "PID", allow_negative_numbers = true)]
    pub pid: Option<i32>,
    /// Every lock, also those that are neither allocated nor held
    #[arg(long)]
    pub all: bool,
}

/// Say who waits for whom; a deadlock is marked and exits with 1
///
/// The text shows holders with those that wait for them indented below.
#[derive(Debug, Args)]
pub struct Graph {
    #[command(flatten)]
    pub storage: StorageArgument,
    /// Write it in the language of graphviz
    #[arg(long)]
    pub dot: bool,
}

/// Watch locks live, the most wanted first
///
/// Keys: q quits, s changes the order, / filters by id, command or note, arrows scroll, space pauses. Without a terminal
/// a table is written at each look.
#[derive(Debug, Args)]
pub struct Watch {
    #[command(flatten)]
    pub storage: StorageArgument,
    /// Seconds between two looks
    #[arg(short = 'd', long, value_name = "SECONDS", default_value = "1", value_parser = parse_interval)]
    #[arg(allow_negative_numbers = true)]
    pub delay: Duration,
    /// End after so many looks
    #[arg(short = 'c', long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    #[arg(allow_negative_numbers = true)]
    pub count: Option<u64>,
}

/// Exit with 1 and a line each if something is wrong, for monitoring
///
/// Wrong is: a lock that was waited for longer than --max-wait, a pool that is nearly full, a lock whose last holder died
/// and that nobody has taken since, a deadlock, a removed segment. Where the storage does not say since when a thread waits
/// (libpod's layout), and one does, check looks again and again until --max-wait is over.
///
/// Not wrong, and told on the standard error, are marks of readers that died: they changed nothing, and the next writer
/// clears the marks.
#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    pub storage: StorageArgument,
    /// How long a lock may be waited for
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = parse_seconds)]
    #[arg(allow_negative_numbers = true)]
    pub max_wait: Duration,
    /// How many percent of the locks may be allocated
    #[arg(long, value_name = "PERCENT", default_value_t = 90, value_parser = clap::value_parser!(u8).range(1..=100))]
    #[arg(allow_negative_numbers = true)]
    pub warn: u8,
}

/// Run a command while holding a lock, with flock(1)'s manners
///
/// The lock stays with lockctl; the command inherits nothing of it. Its environment says what it runs under: LOCK_STORAGE
/// and LOCK_ID, and LOCKCTL_RUNS, by which a run under the same lock knows that it would wait for its own ancestor, and
/// fails at once.
///
/// A signal to lockctl reaches the command, once, also where it was sent to the whole process group or control group
/// (timeout, systemd, the terminal). While lockctl waits for the lock, a signal ends the wait. What was ignored or blocked
/// when lockctl was started is so for the command. Whether the group got a signal, a second process knows, which is called
/// signal-witness and ends with lockctl. As process 1 of a container lockctl reaps what is left to it. If it is killed by
/// SIGKILL, the command runs on without the lock, and the next to take it is told that its holder died; nobody is told of one
/// that held it shared.
///
/// Any number of commands may hold a lock with --shared at a time, and none without it beside them. One without it that
/// waits keeps later ones with --shared out, so that it gets its turn. The libpod layout has no shared locks.
///
/// Exits with the command's status, or 128 and the number of the signal that killed it; with CODE if the lock was not had
/// by -n or -w, and 69 if waiting would never end, the command cannot be executed, or the storage has no shared locks. Of
/// flock(1), -u and -F are refused with the reason.
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    pub storage: StorageArgument,
    /// The lock
    #[arg(allow_negative_numbers = true)]
    pub id: u32,
    /// Fail rather than wait
    #[arg(short = 'n', long, visible_alias = "nb")]
    pub nonblock: bool,
    /// Wait for so long at most
    #[arg(short = 'w', long, visible_alias = "wait", value_name = "SECONDS", value_parser = parse_timeout)]
    #[arg(allow_negative_numbers = true)]
    pub timeout: Option<Duration>,
    /// What to exit with if the lock was not had
    #[arg(short = 'E', long, value_name = "CODE", default_value_t = crate::exit::NO, allow_negative_numbers = true)]
    pub conflict_exit_code: u8,
    /// Have the shell ($SHELL, or /bin/sh) run one line
    #[arg(short = 'c', long = "command", value_name = "LINE", conflicts_with = "command", allow_hyphen_values = true)]
    #[arg(value_hint = ValueHint::CommandString)]
    pub line: Option<OsString>,
    /// Hold the lock shared: beside any number of others that do, and no exclusive holder
    #[arg(short = 's', long, conflicts_with = "exclusive")]
    pub shared: bool,
    /// Hold the lock exclusively, which is what happens without --shared
    #[arg(short = 'x', short_alias = 'e', long)]
    pub exclusive: bool,
    /// Keep the lock from the command, which is what happens anyway
    #[arg(short = 'o', long)]
    pub close: bool,
    /// Say how long it took, and who holds the lock
    #[arg(long)]
    pub verbose: bool,
    /// Refused: the lock ends with the command
    #[arg(short = 'u', long, hide = true)]
    pub unlock: bool,
    /// Refused: another program cannot take the lock over
    #[arg(short = 'F', long, hide = true)]
    pub no_fork: bool,
    /// The command and its arguments
    #[arg(last = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
    #[arg(required_unless_present_any = ["line", "unlock"])]
    pub command: Vec<OsString>,
}

/// Mark locks whose holder is provably dead, so that the next to take them is told
///
/// The marks of dead readers, and of a writer that died before it had its turn, are cleared: nobody has to be told of
/// those.
///
/// Exits with 1 if there is a lock whose holder could not be judged, or if the one that was asked for has a living holder.
#[derive(Debug, Args)]
pub struct Repair {
    #[command(flatten)]
    pub storage: StorageArgument,
    /// The lock; every one if none is given
    #[arg(allow_negative_numbers = true)]
    pub id: Option<u32>,
}

/// Make a segment, or a directory of locks
#[derive(Debug, Args)]
pub struct Create {
    /// A shm name (/myapp), the absolute path of a file, or with --directory a directory
    #[arg(value_hint = ValueHint::AnyPath)]
    pub storage: PathBuf,
    /// How many locks, 1 to 16777216, rounded up to a multiple of 32 or 64 as the layout has it
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_LOCKS)), required_unless_present = "directory")]
    #[arg(allow_negative_numbers = true)]
    pub locks: Option<u32>,
    /// How the segment is laid out [default: the library's choice]
    #[arg(long, value_parser = layouts::named, value_name = "LAYOUT")]
    pub layout: Option<Layout>,
    /// How far the segment may grow; of the native layout [default: 1048576, or LOCKS if that is more]
    #[arg(long, value_name = "LOCKS", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_LOCKS)))]
    #[arg(allow_negative_numbers = true)]
    pub max_locks: Option<u32>,
    /// Permission bits of the segment, in octal
    #[arg(long, default_value = "0600", value_parser = parse_mode)]
    pub mode: u32,
    /// A directory, which has no number of locks
    #[arg(long, conflicts_with_all = ["locks", "layout", "max_locks", "mode"])]
    pub directory: bool,
}

/// Allocate locks and print their ids
#[derive(Debug, Args)]
pub struct Allocate {
    #[command(flatten)]
    pub storage: StorageArgument,
    /// The locks of these ids; one that is free if none is given
    #[arg(allow_negative_numbers = true)]
    pub ids: Vec<u32>,
    /// So many that are free
    #[arg(short = 'c', long, value_name = "NUMBER", default_value_t = 1, conflicts_with = "ids")]
    #[arg(allow_negative_numbers = true)]
    pub count: u32,
}

/// Free locks by their ids
#[derive(Debug, Args)]
pub struct Free {
    #[command(flatten)]
    pub storage: StorageArgument,
    /// The locks
    #[arg(required = true, allow_negative_numbers = true)]
    pub ids: Vec<u32>,
    /// Also those that somebody holds or waits for
    #[arg(long)]
    pub force: bool,
}

/// Free every lock
#[derive(Debug, Args)]
pub struct FreeAll {
    #[command(flatten)]
    pub storage: StorageArgument,
    /// Also while others use the storage
    #[arg(long)]
    pub force: bool,
}

/// Make room for more locks while others work
#[derive(Debug, Args)]
pub struct Grow {
    #[command(flatten)]
    pub storage: StorageArgument,
    /// How many locks there are to be, at most 16777216 and what the segment was made to grow to
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_LOCKS)), allow_negative_numbers = true)]
    pub locks: u32,
}

/// Remove a segment or a directory of locks
#[derive(Debug, Args)]
pub struct Remove {
    #[command(flatten)]
    pub storage: StorageArgument,
    /// Also while others use it
    #[arg(long)]
    pub force: bool,
}

/// Free ids that programs allocated and left behind
///
/// An id is freed only if it was allocated before the list of those in use was made, still is, is on no list, and nobody
/// holds it or waits for it. So: `lockctl reconcile STORAGE --record BEFORE`, then make the list, then
/// `lockctl reconcile STORAGE --before BEFORE --in-use LIST`, which shows what it would free, and with --free frees it.
/// An id that is freed and allocated anew while the list is made looks the same before and after: stop what allocates, or
/// ask it for the list only when it is quiet.
#[derive(Debug, Args)]
pub struct Reconcile {
    #[command(flatten)]
    pub storage: StorageArgument,
    /// Ids in use, with white space between them and # before remarks; - is the standard input
    #[arg(long, value_name = "FILE", required_unless_present = "record", value_hint = ValueHint::FilePath)]
    pub in_use: Vec<PathBuf>,
    /// What was recorded before the list was made
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub before: Option<PathBuf>,
    /// Write down what is allocated now, and free nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["in_use", "before", "free"], value_hint = ValueHint::FilePath)]
    pub record: Option<PathBuf>,
    /// Show what would be freed, which is what happens anyway
    #[arg(long, conflicts_with = "free")]
    pub dry_run: bool,
    /// Free it
    #[arg(long, requires = "before")]
    pub free: bool,
}

/// Write the man pages or the completions of the shells, for `make install`
#[derive(Debug, Args)]
#[command(hide = true)]
pub struct Generate {
    pub what: Generated,
    pub directory: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Generated {
    Man,
    Completions,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definitions_agree_with_each_other() {
        Cli::command().debug_assert();
    }

    /// As an option of that name it would be refused with advice that leads nowhere.
    #[test]
    fn a_number_that_is_negative_is_refused_as_a_number() {
        for wrong in [
            &["watch", "-d", "-1", "/l"][..],
            &["watch", "-c", "-1", "/l"],
            &["check", "--max-wait", "-1", "/l"],
            &["check", "--warn", "-1", "/l"],
            &["run", "-w", "-1", "/l", "3", "--", "true"],
            &["run", "-E", "-1", "/l", "3", "--", "true"],
            &["run", "/l", "-1", "--", "true"],
            &["repair", "/l", "-1"],
            &["create", "/l", "-1"],
            &["create", "/l", "1", "--max-locks", "-1"],
            &["allocate", "/l", "-1"],
            &["allocate", "/l", "-c", "-1"],
            &["free", "/l", "-1"],
            &["grow", "/l", "-1"],
        ] {
            let error = Cli::try_parse_from(["lockctl"].iter().chain(wrong)).unwrap_err();
            assert!(error.to_string().contains("invalid value '-1' for"), "{wrong:?}: {error}");
        }
    }
}
